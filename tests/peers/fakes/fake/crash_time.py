"""The third timed request ends in a segmentation fault."""

import os
import signal

from . import _shared
from ._shared import ABOUT, THREADS, describe  # noqa: F401


class Run(_shared.Run):
    times = 0

    def time(self, calls, lead_in_ms):
        self.times += 1
        if self.times == 3 and self.case.seq_kv > 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().time(calls, lead_in_ms)


def prepare(case):
    return _shared.prepare(case, Run)
