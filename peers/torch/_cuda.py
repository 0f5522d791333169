"""Calls on a CUDA device: graphs of calls between events, the allocator's peak, a plain call's latency."""

import gc
import math
import statistics
import time

import torch

WARM_CALLS = 3
GRAPH_MS = 1.0
MOST_GRAPH_CALLS = 2048
# Cases so small that thousands of copies would be needed stay hot in part, and say so.
MOST_COPIES = 4096
LATENCY_CALLS = 21
LATENCY_SECONDS = 0.25
L2_DISTANCE = 2


class DeviceRun:
    """A prepared case on a CUDA device.

    make(copy) returns a step over inputs of its own: copy 0 those of the case, others equal ones elsewhere.
    All is made and run on one side stream, as capture asks: a backward pass runs on its forward's stream.
    """

    regime = "sustained"
    peak_method = "allocator"

    def __init__(self, case, make, write, ran, context):
        self.case = case
        self.write = write
        self.ran = ran
        self.context = context
        self.stream = torch.cuda.Stream()
        self.graph = None
        self.last = 0
        self.clock = True
        self.cache_method = "rotated" if case.cold else "reused"
        copies = self._copies()
        self.stream.wait_stream(torch.cuda.current_stream())
        with self.context(), torch.cuda.stream(self.stream):
            self.steps = [make(copy) for copy in range(copies)]
            self.outputs = [None] * copies
            for _ in range(WARM_CALLS):
                self._round(copies)
            self.stream.synchronize()
            self.calls = self._calls_of_a_millisecond(copies)
        self._capture()

    def _copies(self):
        """How many copies of inputs and outputs put twice the L2 between two uses of the same bytes."""
        if not self.case.cold:
            return 1
        own = max(1, self.case.input_bytes + self.case.output_bytes)
        distance = L2_DISTANCE * torch.cuda.get_device_properties(self.case.device).L2_cache_size
        wanted = 1 + math.ceil(distance / own)
        if wanted > MOST_COPIES:
            self.ran += f"; rotated over {MOST_COPIES} of {wanted} copies that {L2_DISTANCE}x the L2 takes"
        return min(wanted, MOST_COPIES)

    def _round(self, calls):
        """Calls that rotate over the copies, each copy's outputs kept until its next call."""
        steps, outputs, copies = self.steps, self.outputs, len(self.steps)
        for call in range(calls):
            copy = call % copies
            outputs[copy] = None
            outputs[copy] = steps[copy]()
        self.last = (calls - 1) % copies

    def _calls_of_a_millisecond(self, copies):
        """A multiple of the copies that takes about GRAPH_MS, by plain calls."""
        each = self._between_events(lambda: self._round(copies)) / copies
        rounds = math.ceil(GRAPH_MS / max(each, 1e-4) / copies)
        return max(copies, min(rounds * copies, MOST_GRAPH_CALLS // copies * copies))

    def _between_events(self, work):
        """Milliseconds between two events round the work, on the stream that is current."""
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    def _capture(self):
        """Captures the calls. Launching made plain calls look longer: a short graph grows once."""
        self.timer = "graph"
        try:
            self._capture_calls()
            if self.graph_ms < GRAPH_MS:
                more = math.ceil(GRAPH_MS / max(self.graph_ms, 1e-4))
                copies = len(self.steps)
                calls = min(self.calls * more, max(self.calls, MOST_GRAPH_CALLS // copies * copies))
                if calls > self.calls:
                    self.calls = calls
                    self._capture_calls()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.timer = "events"
            self.graph = None
            torch.cuda.synchronize()
            reason = " ".join(str(error).split())[:200]
            self.ran += f"; events round plain calls, since capturing a graph failed: {reason}"
            with self.context(), torch.cuda.stream(self.stream):
                self._round(len(self.steps))
                self.graph_ms = max(1e-3, self._between_events(lambda: self._round(self.calls)))

    def _capture_calls(self):
        self.graph = None
        self.outputs = [None] * len(self.steps)
        gc.collect()
        graph = torch.cuda.CUDAGraph()
        with self.context(), torch.cuda.graph(graph, stream=self.stream):
            self._round(self.calls)
        self.graph = graph
        with torch.cuda.stream(self.stream):
            graph.replay()
            self.graph_ms = max(1e-3, self._between_events(graph.replay))

    def call(self):
        """One plain call, its outputs written; the allocator's peak, and the time a host waits for a call."""
        with self.context(), torch.cuda.stream(self.stream):
            step = self.steps[0]
            gc.collect()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            start = time.perf_counter_ns()
            outputs = step()
            self.stream.synchronize()
            first = (time.perf_counter_ns() - start) / 1e6
            peak = torch.cuda.max_memory_allocated() - before - self.case.output_bytes
            self.write(outputs)
            del outputs
            latency = self._latency(step)
        reply = {"ms": first, "peak_bytes": max(0, peak), "peak_method": self.peak_method}
        return dict(reply, latency_ms=latency)

    def _latency(self, step):
        samples = []
        end = time.perf_counter_ns() + LATENCY_SECONDS * 1e9
        while len(samples) < LATENCY_CALLS and (len(samples) < 3 or time.perf_counter_ns() < end):
            start = time.perf_counter_ns()
            step()
            self.stream.synchronize()
            samples.append((time.perf_counter_ns() - start) / 1e6)
        return statistics.median(samples)

    def time(self, calls, lead_in_ms):
        """Calls in whole graphs between two events; the lead-in is queued right before, so nothing idles."""
        rounds = max(1, math.ceil(calls / self.calls))
        lead_in = math.ceil(lead_in_ms / self.graph_ms) if lead_in_ms > 0 else 0
        if self.graph is not None:
            work = self.graph.replay
        else:

            def work():
                self._round(self.calls)

        def repeat():
            for _ in range(rounds):
                work()

        with self.context(), torch.cuda.stream(self.stream):
            for _ in range(lead_in):
                work()
            elapsed = self._between_events(repeat)
        self.graph_ms = max(1e-3, elapsed / rounds)
        reply = {"ms": elapsed, "calls": rounds * self.calls}
        clock = self._clock_mhz()
        return reply if clock is None else dict(reply, clock_mhz=clock)

    def _clock_mhz(self):
        """The clock right after the timed part, where NVIDIA's management library can be asked."""
        if not self.clock:
            return None
        try:
            return torch.cuda.clock_rate(self.case.device)
        except Exception:  # no such module, no right to ask, no such figure: the clock is optional
            self.clock = False
            return None

    def output(self):
        """Writes the outputs of the last timed call to the shared tensors."""
        self.stream.synchronize()
        self.write(self.outputs[self.last])

    def release(self):
        torch.cuda.synchronize()
        if self.graph is not None:
            self.graph.reset()
        self.graph = self.steps = self.outputs = self.write = None
        gc.collect()
