"""A call ends in SIGKILL, as the kernel sends where memory runs out."""

import os
import signal

from . import _shared
from ._shared import ABOUT, THREADS, describe  # noqa: F401


class Run(_shared.Run):
    def call(self):
        if self.case.seq_kv > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().call()


def prepare(case):
    return _shared.prepare(case, Run)
