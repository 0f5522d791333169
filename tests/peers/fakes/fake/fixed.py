"""Takes the number of threads once, when it starts, and says which in what it ran."""

from . import _shared
from ._shared import ABOUT  # noqa: F401

THREADS = "fixed"
started_with = None


def describe(threads):
    global started_with
    started_with = threads
    return _shared.describe(threads)


def prepare(case):
    run = _shared.prepare(case)
    run.ran = f"plain Python, started with {started_with} threads"
    return run
