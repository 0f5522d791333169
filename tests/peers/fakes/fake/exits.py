"""A call ends the process with an exit code of its own, and says why on stderr."""

import os
import sys

from . import _shared
from ._shared import ABOUT, THREADS, describe  # noqa: F401


class Run(_shared.Run):
    def call(self):
        if self.case.seq_kv > 1:
            sys.stderr.write("fake: the library gives up\n")
            sys.stderr.flush()
            os._exit(3)
        return super().call()


def prepare(case):
    return _shared.prepare(case, Run)
