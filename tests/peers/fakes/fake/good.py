"""A peer that does everything right."""

from ._shared import ABOUT, THREADS, describe, prepare  # noqa: F401
