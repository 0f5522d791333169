"""A call ends in a segmentation fault."""

import os
import signal

from . import _shared
from ._shared import ABOUT, THREADS, describe  # noqa: F401


class Run(_shared.Run):
    def call(self):
        if self.case.seq_kv > 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().call()


def prepare(case):
    return _shared.prepare(case, Run)
