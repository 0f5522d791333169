"""Preparing takes two seconds and then works."""

import time

from . import _shared
from ._shared import ABOUT, THREADS, describe  # noqa: F401

SECONDS = 2


def prepare(case):
    time.sleep(SECONDS)
    return _shared.prepare(case)
