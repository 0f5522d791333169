"""Answers a call with the number of another request."""

from . import _shared
from ._shared import ABOUT, THREADS, describe  # noqa: F401


class Run(_shared.Run):
    def call(self):
        return dict(super().call(), id=4711)


def prepare(case):
    return _shared.prepare(case, Run)
