"""A call runs out of memory."""

from . import _shared
from ._shared import ABOUT, THREADS, describe  # noqa: F401


class Run(_shared.Run):
    def call(self):
        if self.case.seq_kv > 1:
            raise MemoryError("fake: could not allocate 1 TiB")
        return super().call()


def prepare(case):
    return _shared.prepare(case, Run)
