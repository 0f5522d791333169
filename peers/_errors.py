"""How a peer says that a case cannot be done."""

import re

# Libraries name an exhausted memory in types and words of their own.
OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|out of memory|RESOURCE_EXHAUSTED|std::bad_alloc|"
    r"failed to allocate memory",
    re.IGNORECASE,
)
LONGEST_REASON = 600


class Unsupported(Exception):
    """The peer does not do this case; the message says what it expected and what came."""


class OutOfMemory(Exception):
    """The case does not fit."""


class Fallback(Exception):
    """Something else than the named peer would run."""


def first_lines(text):
    """A message on one line, short enough for a table."""
    line = " ".join(str(text).split())
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 3] + "..."


def outcome(error):
    """An exception as the status and reason of a reply."""
    text = first_lines(error)
    if isinstance(error, Unsupported):
        return "unsupported", text
    if isinstance(error, Fallback):
        return "error", text
    named = type(error).__name__ + (": " + text if text else "")
    if isinstance(error, (MemoryError, OutOfMemory)) or type(error).__name__ == "OutOfMemoryError":
        return "out_of_memory", text or "the library could not allocate its memory; take a smaller case"
    if OUT_OF_MEMORY.search(text):
        return "out_of_memory", named
    if isinstance(error, ModuleNotFoundError):
        return "absent", text
    return "error", named
