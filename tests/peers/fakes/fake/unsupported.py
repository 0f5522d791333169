"""No case is supported."""

from .._errors import Unsupported
from ._shared import ABOUT, THREADS, describe  # noqa: F401


def prepare(case):
    raise Unsupported(f"head_dim: expected 3, came {case.head_dim}; take another peer")
