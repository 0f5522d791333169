"""Another kernel than the named one would run."""

from .._errors import Fallback
from ._shared import ABOUT, THREADS, describe  # noqa: F401


def prepare(case):
    raise Fallback("expected fake::fast to run; the profiler saw fake::slow")
