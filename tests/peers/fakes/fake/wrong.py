"""One value of the output is off."""

from . import _shared
from ._shared import ABOUT, THREADS, describe  # noqa: F401


class Run(_shared.Run):
    def output(self):
        super().output()
        self.case.view("out").cast("f")[-1] += 0.25


def prepare(case):
    return _shared.prepare(case, Run)
