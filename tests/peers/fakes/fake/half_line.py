"""Writes half a reply and nothing more."""

import time

from .. import _channel
from . import _shared
from ._shared import ABOUT, THREADS, describe  # noqa: F401


class Run(_shared.Run):
    def call(self):
        if self.case.seq_kv > 1:
            _channel.current.write_bytes(b'{"id":2,"status":"o')
            while True:
                time.sleep(60)
        return super().call()


def prepare(case):
    return _shared.prepare(case, Run)
