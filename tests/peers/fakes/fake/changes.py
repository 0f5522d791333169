"""Right for five calls, wrong from the sixth on: what is timed is not what was checked."""

from . import _shared
from ._shared import ABOUT, THREADS, describe  # noqa: F401

RIGHT_CALLS = 5


def prepare(case):
    run = _shared.prepare(case)
    right, count = run.step, 0

    def step():
        nonlocal count
        count += 1
        values = right()
        return values if count <= RIGHT_CALLS else [value + 0.25 for value in values]

    run.step = step
    return run
