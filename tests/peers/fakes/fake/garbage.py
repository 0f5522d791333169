"""Writes what is no JSON to the reply channel."""

from .. import _channel
from . import _shared
from ._shared import ABOUT, THREADS, describe  # noqa: F401


class Run(_shared.Run):
    def call(self):
        if self.case.seq_kv > 1:
            _channel.current.write_bytes(b"\x00\xff Segmentation {not: json\n")
        return super().call()


def prepare(case):
    return _shared.prepare(case, Run)
