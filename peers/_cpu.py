"""Calls on the host: how they are timed and how their memory is read."""

import contextlib
import ctypes
import gc
import time

# Shorter than a call, longer than it takes an interpreter to specialise a loop.
WARM_ROUNDS = 200
RESET_PEAK = "5"


def timed(step, calls):
    """(nanoseconds, outputs of the last call) of calls that follow each other at once."""
    clock = time.perf_counter_ns
    rounds = range(calls)
    outputs = None
    start = clock()
    for _ in rounds:
        outputs = step()
    return clock() - start, outputs


def idle():
    """A call that does nothing."""


def status_bytes(*names):
    """Figures of /proc/self/status in bytes."""
    found = {}
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            name, _, rest = line.partition(":")
            if name in names:
                found[name] = int(rest.split()[0]) * 1024
    return [found[name] for name in names]


def give_back_free_memory():
    """Freed pages that the allocator keeps would hide what a call takes."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class ResidentPeak:
    """How far this process grew beyond what it held at the start, by the kernel's count."""

    def __init__(self):
        give_back_free_memory()
        with open("/proc/self/clear_refs", "w", encoding="ascii") as clear:
            clear.write(RESET_PEAK)
        (self.before,) = status_bytes("VmRSS")

    def read(self):
        (peak,) = status_bytes("VmHWM")
        return max(0, peak - self.before)


class HostRun:
    """A prepared case of which one call is `step()`, complete when it returns.

    step      returns the outputs, as the library allocates them
    write     copies outputs of a step into the case's shared tensors
    ran       what really runs, as a profiler or the library itself told
    context   a context manager entered once round every loop of steps, never inside one
    allocates whether each step allocates its outputs itself; they are then no part of the peak

    Memory that a library keeps from its first call on is seen in `call` only where prepare has not run the
    case at its full size.
    """

    timer = "steady_clock"
    regime = "sustained"
    peak_method = "resident"

    def __init__(self, case, step, write, ran, context=contextlib.nullcontext, allocates=True):
        self.case = case
        self.step = step
        self.write = write
        self.ran = ran
        self.context = context
        self.allocates = allocates
        self.outputs = None

    @property
    def cache_method(self):
        """In a cold case the program flushes the caches before it asks for a time."""
        return "flushed" if self.case.cold else "reused"

    def call(self):
        """One call, its outputs written, its memory read."""
        self.outputs = None
        with self.context():
            peak = ResidentPeak()
            nanoseconds, self.outputs = timed(self.step, 1)
            grown = peak.read()
        self.output()
        own = self.case.output_bytes if self.allocates else 0
        return {"ms": nanoseconds / 1e6, "peak_bytes": max(0, grown - own), "peak_method": self.peak_method}

    def time(self, calls, lead_in_ms):
        """The time of `calls` calls; calls of the lead-in come right before and are not in it."""
        self.outputs = None
        with self.context():
            if self.case.cold:
                timed(idle, WARM_ROUNDS)
            elif lead_in_ms > 0:
                end = time.perf_counter_ns() + lead_in_ms * 1e6
                self.step()
                while time.perf_counter_ns() < end:
                    self.step()
            nanoseconds, self.outputs = timed(self.step, calls)
        return {"ms": nanoseconds / 1e6, "calls": calls}

    def output(self):
        """Writes the outputs of the last call to the shared tensors."""
        if self.outputs is None:
            raise RuntimeError("output: expected a call or a time before it, none came")
        self.write(self.outputs)

    def release(self):
        self.step = self.write = self.outputs = None
        gc.collect()
