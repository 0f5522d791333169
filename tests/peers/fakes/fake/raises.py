"""A call raises what nobody expected."""

from . import _shared
from ._shared import ABOUT, THREADS, describe  # noqa: F401


class Run(_shared.Run):
    def call(self):
        if self.case.seq_kv > 1:
            raise ValueError("fake: a shape\nthat nobody expected")
        return super().call()


def prepare(case):
    return _shared.prepare(case, Run)
