"""Never says hello; --describe of the whole set still ends."""

import sys
import time

from ._shared import ABOUT, THREADS, describe, prepare  # noqa: F401

while sys.argv[1].endswith("silent_start"):
    time.sleep(60)
