"""A call takes 64 MiB, touches them and gives them back."""

from . import _shared
from ._shared import ABOUT, THREADS, describe  # noqa: F401

TAKEN = 64 << 20


def prepare(case):
    run = _shared.prepare(case)
    right = run.step

    def step():
        bytearray(b"\1") * TAKEN
        return right()

    run.step = step
    return run
