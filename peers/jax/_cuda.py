"""Calls on a GPU through jax: dispatched one after the other, waited for once after the last of them."""

import collections
import ctypes
import itertools
import statistics
import time

import jax
import jax.numpy as jnp

from .. import _cpu

LATENCY_SAMPLES = 15
# Bytes between two uses of the same data in a cold case, in sizes of the L2 cache.
MOST_KEPT_BYTES = 2 << 30
CACHES_BETWEEN = 2
# Cases so small that more copies would be needed stay hot in part, and say so.
MOST_COPIES = 1024
# CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE of the CUDA driver.
L2_CACHE_SIZE = 38


def l2_cache_bytes(index):
    """The size of a GPU's L2, which jax does not tell, from the driver."""
    driver = ctypes.CDLL("libcuda.so.1")
    device, size = ctypes.c_int(), ctypes.c_int()
    status = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), index)
    status = status or driver.cuDeviceGetAttribute(ctypes.byref(size), L2_CACHE_SIZE, device)
    if status != 0:
        raise RuntimeError(f"cuDeviceGetAttribute: expected 0 for the L2 size of GPU {index}, came {status}")
    return size.value


class DeviceRun(_cpu.HostRun):
    """A prepared case whose calls return before they are done.

    step   (function, arguments) of one call
    make   makes another such step, over tensors of its own
    """

    # Of a clock on the host round calls that are queued back to back and waited for once.
    timer = "queue"
    peak_method = "allocator"

    def __init__(self, case, step, make, write, ran, context):
        super().__init__(case, None, write, ran, context)
        self.steps = [step]
        if case.cold:
            with context():
                self.steps += [make() for _ in range(self.copies() - 1)]
        self.turns = itertools.cycle(self.steps)
        # While an earlier output lives, the next one lies elsewhere.
        self.recent = collections.deque(maxlen=len(self.steps))
        self.device = next(iter(jax.tree_util.tree_leaves(step[1])[-1].devices()))

    @property
    def cache_method(self):
        return "rotated" if self.case.cold else "reused"

    def copies(self):
        """How many copies of inputs and outputs put twice the L2 between two uses of the same bytes."""
        own = max(1, self.case.input_bytes + self.case.output_bytes)
        distance = CACHES_BETWEEN * l2_cache_bytes(int(self.case.device.partition(":")[2] or 0))
        wanted = 1 + -(-distance // own)
        if wanted > MOST_COPIES:
            self.ran += (
                f"; rotated over {MOST_COPIES} of the {wanted} copies that {CACHES_BETWEEN}x the L2 takes"
            )
        return min(wanted, MOST_COPIES)

    def dispatch(self):
        function, arguments = next(self.turns)
        self.recent.append(function(*arguments))
        return self.recent[-1]

    def statistics(self):
        told = self.device.memory_stats()
        if not told or "peak_bytes_in_use" not in told:
            raise RuntimeError(
                f"memory_stats: expected peak_bytes_in_use of {self.device}, jax's allocator has none"
            )
        return told["bytes_in_use"], told["peak_bytes_in_use"]

    def keeps_memory(self):
        """Whether the allocator, which gives nothing back, has grown so far that other peers would lack it."""
        _, peak = self.statistics()
        return peak > MOST_KEPT_BYTES

    def fill_to_peak(self):
        """An array that brings the bytes in use up to their peak so far.

        The allocator's peak cannot be set back; from its level on, every further byte shows.
        """
        used, peak = self.statistics()
        return jax.block_until_ready(jnp.zeros((max(0, peak - used),), jnp.uint8))

    def grown(self):
        """Most bytes in use during a call, beyond those before it."""
        self.outputs = None
        self.recent.clear()
        filling = self.fill_to_peak()
        used, _ = self.statistics()
        self.outputs = jax.block_until_ready(self.dispatch())
        _, peak = self.statistics()
        del filling
        return max(0, peak - used)

    def latency(self):
        """Milliseconds of one call that is waited for."""
        start = time.perf_counter_ns()
        jax.block_until_ready(self.dispatch())
        return (time.perf_counter_ns() - start) / 1e6

    def call(self):
        with self.context():
            grown = self.grown()
            samples = [self.latency() for _ in range(LATENCY_SAMPLES)]
        self.output()
        latency = statistics.median(samples)
        peak = max(0, grown - self.case.output_bytes)
        return {"ms": latency, "peak_bytes": peak, "peak_method": self.peak_method, "latency_ms": latency}

    def time(self, calls, lead_in_ms):
        self.outputs = None
        with self.context():
            if lead_in_ms > 0:
                end = time.perf_counter_ns() + lead_in_ms * 1e6
                outputs = self.dispatch()
                while time.perf_counter_ns() < end:
                    outputs = self.dispatch()
                jax.block_until_ready(outputs)
                del outputs
            nanoseconds, self.outputs = self.batch(calls)
        return {"ms": nanoseconds / 1e6, "calls": calls}

    def batch(self, calls):
        """(nanoseconds, outputs of the last) of calls dispatched at once; the device runs them in order."""
        dispatch = self.dispatch
        rounds = range(calls)
        outputs = None
        start = time.perf_counter_ns()
        for _ in rounds:
            outputs = dispatch()
        jax.block_until_ready(outputs)
        return time.perf_counter_ns() - start, outputs

    def release(self):
        self.steps = self.turns = None
        self.recent.clear()
        super().release()
