"""Preparing never ends."""

import time

from ._shared import ABOUT, THREADS, describe  # noqa: F401


def prepare(case):
    while True:
        time.sleep(60)
