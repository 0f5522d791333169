"""Leaves a thread spinning after each reply, as idle pools do: the program must silence it."""

import threading

from . import _shared
from ._shared import ABOUT, THREADS, describe  # noqa: F401


def spin():
    while True:
        pass


class Run(_shared.Run):
    def call(self):
        if self.case.seq_kv > 1:
            threading.Thread(target=spin, daemon=True).start()
        return super().call()


def prepare(case):
    return _shared.prepare(case, Run)
