"""Prints far more than a pipe holds, to stdout and stderr and to their descriptors, and is good otherwise."""

import os
import sys

from . import _shared
from ._shared import ABOUT, THREADS, describe  # noqa: F401

LINE = "chatter " * 16 + "\n"


def talk():
    print(LINE * 600)
    sys.stdout.flush()
    sys.stderr.write(LINE * 600)
    for descriptor in (1, 2):
        os.write(descriptor, LINE.encode() * 10)


class Run(_shared.Run):
    def call(self):
        talk()
        return super().call()

    def time(self, calls, lead_in_ms):
        talk()
        return super().time(calls, lead_in_ms)


talk()


def prepare(case):
    talk()
    return _shared.prepare(case, Run)
