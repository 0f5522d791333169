"""A timed call never ends."""

import time

from . import _shared
from ._shared import ABOUT, THREADS, describe  # noqa: F401


class Run(_shared.Run):
    def time(self, calls, lead_in_ms):
        while self.case.seq_kv > 1:
            time.sleep(60)
        return super().time(calls, lead_in_ms)


def prepare(case):
    return _shared.prepare(case, Run)
