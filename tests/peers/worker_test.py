"""peers/worker.py against the protocol, with fake peers: no library is needed."""

import ast
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

from program_side import FAKES, WORKER, Shared, Worker, largest_error, reference

EXACT = 1e-6
LOWERING = ("ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")
CASES = [
    dict(),
    dict(batch=2, heads=4, kv_heads=2, head_dim_v=3),
    dict(causal=True),
    dict(causal=True, seq_q=3, seq_kv=7, align="bottom_right"),
    dict(causal=True, seq_q=3, seq_kv=7, align="top_left"),
    dict(causal=True, seq_q=7, seq_kv=3, align="bottom_right"),
    dict(causal=True, seq_q=1, seq_kv=6, align="bottom_right"),
    dict(seq_q=9, seq_kv=9, window_left=2, window_right=1),
    dict(seq_q=9, seq_kv=9, window_left=2, causal=True),
    dict(seq_q=0),
    dict(seq_kv=0),
]


class WorkerTest(unittest.TestCase):
    def start(self, name, **options):
        worker = Worker(f"fake.{name}", sys.executable, HEADWISE_PEERS=FAKES, **options)
        self.addCleanup(worker.kill)
        return worker

    def shared(self, **fields):
        shared = Shared(**fields)
        self.addCleanup(shared.close)
        return shared

    def prepared(self, name, **fields):
        worker, shared = self.start(name), self.shared(**fields)
        self.assertEqual("ok", worker.ask("prepare", case=shared.case)["status"])
        return worker, shared

    def test_says_hello_with_every_field(self):
        hello = self.start("good").hello
        named = tuple(hello[name] for name in ("id", "protocol", "peer", "status"))
        self.assertEqual((0, "headwise.peers/1", "fake.good", "ok"), named)
        self.assertEqual(
            (["cpu"], ["f32"], ["forward"]), tuple(hello[n] for n in ("devices", "dtypes", "directions"))
        )
        self.assertEqual(("fake 1", "dynamic"), (hello["version"], hello["threads"]))
        self.assertTrue(hello["about"])

    def test_computes_every_case_in_call_and_in_time(self):
        worker = self.start("good")
        for number, fields in enumerate(CASES):
            with self.subTest(**fields):
                shared = self.shared(**fields)
                reply = worker.ask("prepare", case=shared.case)
                self.assertEqual(
                    {"id": 5 * number + 1, "status": "ok"}, {n: reply[n] for n in ("id", "status")}, reply
                )
                told = tuple(reply[name] for name in ("ran", "timer", "regime", "cache_method"))
                self.assertEqual(("plain Python", "steady_clock", "sustained", "reused"), told)
                self.assertGreater(reply["overhead_ms"], 0)
                self.assertGreaterEqual(reply["prepare_ms"], 0)
                right = reference(shared)
                call = worker.ask("call")
                self.assertEqual(("ok", "resident"), (call["status"], call["peak_method"]))
                self.assertGreaterEqual(call["peak_bytes"], 0)
                self.assertLess(largest_error(shared, right), EXACT)
                shared.clear()
                timed = worker.ask("time", calls=3, lead_in_ms=0.1)
                self.assertEqual(("ok", 3), (timed["status"], timed["calls"]))
                self.assertGreater(timed["ms"], 0)
                self.assertEqual("ok", worker.ask("output")["status"])
                self.assertLess(largest_error(shared, right), EXACT)
                self.assertEqual("ok", worker.ask("release")["status"])
        self.assertEqual(0, worker.close())

    def test_time_holds_the_calls_and_not_the_lead_in(self):
        worker, _ = self.prepared("good", seq_q=24, seq_kv=24)
        call = min(worker.ask("time", calls=1, lead_in_ms=0)["ms"] for _ in range(5))
        start = time.monotonic()
        timed = worker.ask("time", calls=4, lead_in_ms=150)
        self.assertGreater(time.monotonic() - start, 0.15)
        self.assertGreater(timed["ms"], 1.5 * call)
        self.assertLess(timed["ms"], 140)

    def test_cold_says_that_the_program_flushes(self):
        worker, shared = self.start("good"), self.shared(cold=True)
        self.assertEqual("flushed", worker.ask("prepare", case=shared.case)["cache_method"])
        self.assertEqual(1, worker.ask("time", calls=1, lead_in_ms=0)["calls"])

    def test_peak_is_what_a_call_takes_and_its_output_is_not(self):
        peak = {}
        for name in ("good", "takes_memory"):
            worker, _ = self.prepared(name)
            peak[name] = worker.ask("call")["peak_bytes"]
        self.assertLess(peak["good"], 4 << 20)
        self.assertGreater(peak["takes_memory"], 60 << 20)
        self.assertLess(peak["takes_memory"], 72 << 20)

    def test_inputs_are_never_written(self):
        worker, shared = self.prepared("good")
        before = [shared.get(name) for name in shared.inputs]
        worker.ask("call")
        worker.ask("time", calls=2, lead_in_ms=0)
        self.assertEqual(before, [shared.get(name) for name in shared.inputs])

    def test_what_the_peer_does_not_take_is_unsupported_with_the_reason(self):
        worker = self.start("good")
        for fields, words in (
            (dict(dtype="bf16"), "dtype: fake.good takes f32; came bf16"),
            (dict(direction="backward"), "direction: fake.good takes forward; came backward"),
            (dict(device="cuda:0"), "device: fake.good takes cpu; came cuda"),
            (dict(kv_dtype="f16"), "kv_dtype: fake.good takes that of q (f32); came f16"),
            (dict(causal=True, seq_kv=6), "align: expected top_left or bottom_right"),
        ):
            reply = worker.ask("prepare", case=self.shared(**fields).case)
            self.assertEqual("unsupported", reply["status"])
            self.assertIn(words, reply["reason"])
        self.assertEqual("ok", worker.ask("prepare", case=self.shared().case)["status"])

    def test_a_case_that_fails_leaves_the_worker_alive(self):
        for name, status, reason in (
            ("memory", "out_of_memory", "could not allocate 1 TiB"),
            ("raises", "error", "ValueError: fake: a shape that nobody expected"),
        ):
            worker, _ = self.prepared(name)
            reply = worker.ask("call")
            self.assertEqual(status, reply["status"])
            self.assertIn(reason, reply["reason"])
            self.assertEqual("ok", worker.ask("release")["status"])
            self.assertEqual("ok", worker.ask("prepare", case=self.shared().case)["status"])
        for name, status in (("unsupported", "unsupported"), ("falls_back", "error")):
            worker = self.start(name)
            reply = worker.ask("prepare", case=self.shared().case)
            self.assertEqual(status, reply["status"])
            self.assertIn("expected", reply["reason"])
            self.assertEqual("error", worker.ask("call")["status"])

    def test_a_missing_library_or_peer_is_absent(self):
        self.assertEqual("absent", self.start("absent").hello["status"])
        self.assertEqual(
            "No module named 'no_such_library_of_attention'", self.start("absent").hello["reason"]
        )
        self.assertIn("fake.nobody", self.start("nobody").hello["reason"])

    def test_what_libraries_print_stays_off_the_channel(self):
        worker, shared = self.prepared("chatter")
        self.assertEqual("ok", worker.ask("call")["status"])
        self.assertLess(largest_error(shared, reference(shared)), EXACT)
        self.assertEqual(0, worker.close())

    def test_a_worker_that_dies_or_hangs_is_seen(self):
        for name, code in (("crash", -signal.SIGSEGV), ("killed", -signal.SIGKILL), ("exits", 3)):
            worker, _ = self.prepared(name)
            self.assertIsNone(worker.ask("call"))
            self.assertEqual(code, worker.process.wait(timeout=20))
        worker, _ = self.prepared("crash_time")
        for _ in range(2):
            self.assertEqual("ok", worker.ask("time", calls=1, lead_in_ms=0)["status"])
        self.assertIsNone(worker.ask("time", calls=1, lead_in_ms=0))
        for name, operation in (("half_line", "call"), ("stall", "time")):
            worker, _ = self.prepared(name)
            with self.assertRaises(TimeoutError):
                worker.ask(operation, seconds=0.5, calls=1, lead_in_ms=0)

    def test_what_breaks_the_protocol_does_so(self):
        worker, _ = self.prepared("garbage")
        with self.assertRaises(ValueError):
            worker.ask("call")
        worker, _ = self.prepared("wrong_id")
        self.assertNotEqual(2, worker.ask("call")["id"])
        worker, _ = self.prepared("missing_field")
        self.assertNotIn("ms", worker.ask("time", calls=1, lead_in_ms=0))

    def test_wrong_outputs_reach_the_program_as_they_are(self):
        for name in ("wrong", "nan"):
            worker, shared = self.prepared(name)
            worker.ask("call")
            error = largest_error(shared, reference(shared))
            self.assertEqual(name == "nan", math.isinf(error))
            self.assertGreater(error, 0.01)
        worker, shared = self.prepared("changes")
        worker.ask("call")
        self.assertLess(largest_error(shared, reference(shared)), EXACT)
        worker.ask("time", calls=8, lead_in_ms=0)
        worker.ask("output")
        self.assertGreater(largest_error(shared, reference(shared)), 0.01)

    def test_a_stopped_worker_is_silent_and_a_busy_one_is_not(self):
        worker, _ = self.prepared("busy")
        worker.ask("call")

        def used():
            with open(f"/proc/{worker.process.pid}/stat", encoding="ascii") as stat:
                fields = stat.read().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])

        time.sleep(0.1)
        stopped = used()
        time.sleep(0.3)
        self.assertEqual(stopped, used())
        worker.signal(signal.SIGCONT)
        time.sleep(0.5)
        self.assertGreater(used(), stopped)

    def test_threads_are_those_of_the_start(self):
        worker = self.start("fixed", threads=3)
        self.assertEqual("fixed", worker.hello["threads"])
        self.assertIn("started with 3 threads", worker.ask("prepare", case=self.shared().case)["ran"])

    def test_the_folder_of_peers_hides_no_library(self):
        """A set's folder has the name of its library; `import torch` must not find the folder."""
        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(os.path.join(folder, "torch"))
            with open(os.path.join(folder, "torch", "probe.py"), "w", encoding="utf-8") as file:
                file.write("import torch\nABOUT, THREADS = str(torch.__path__), 'dynamic'\n")
                file.write("def describe(threads):\n    return {'version': 'none'}\n")
            worker = Worker("torch.probe", sys.executable, HEADWISE_PEERS=folder)
            self.addCleanup(worker.kill)
            self.assertNotIn(os.path.dirname(WORKER), json.dumps(worker.hello))
            self.assertNotIn(folder, json.dumps(worker.hello))

    def lowered(self, set_name, **environment):
        """(the variables that the library of a peer of that set saw, what its row says ran)."""
        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(os.path.join(folder, set_name))
            os.symlink(os.path.join(FAKES, "fake", "_shared.py"), os.path.join(folder, set_name, "_shared.py"))
            with open(os.path.join(folder, set_name, "probe.py"), "w", encoding="utf-8") as file:
                file.write("import os\nSEEN = sorted(w for w in os.environ.items() if w[0] in " + repr(LOWERING) + ")\n")
                file.write("from . import _shared\nfrom ._shared import ABOUT, THREADS, prepare\n")
                file.write("def describe(threads):\n    return dict(_shared.describe(threads), version=str(SEEN))\n")
            clean = {name: word for name, word in os.environ.items() if name not in (*LOWERING, "HEADWISE_MAX_ISA")}
            with mock.patch.dict(os.environ, clean, clear=True):
                worker = Worker(f"{set_name}.probe", sys.executable, HEADWISE_PEERS=folder, **environment)
            self.addCleanup(worker.kill)
            reply = worker.ask("prepare", case=self.shared().case)
            self.assertEqual("ok", reply["status"], reply)
            return dict(ast.literal_eval(worker.hello["version"])), reply["ran"]

    def test_the_limit_of_the_kernels_lowers_the_libraries_before_they_are_loaded(self):
        lowest = dict(ATEN_CPU_CAPABILITY="default", MKL_ENABLE_INSTRUCTIONS="SSE4_2", ONEDNN_MAX_CPU_ISA="SSE41")
        for limit, words in (
            ("avx512", dict(zip(LOWERING, ("avx512", "AVX512_E3", "AVX512_CORE_FP16")))),
            ("avx2", dict(zip(LOWERING, ("avx2", "AVX2", "AVX2")))),
            ("scalar", lowest),
            ("avx-2", lowest),  # as the kernels take an unknown word
        ):
            seen, ran = self.lowered("torch", HEADWISE_MAX_ISA=limit)
            self.assertEqual(words, seen)
            told = " ".join(f"{name}={word}" for name, word in words.items())
            self.assertEqual(f"plain Python; lowered by {told}", ran)
        seen, ran = self.lowered("openvino", HEADWISE_MAX_ISA="avx2")
        self.assertEqual({"ONEDNN_MAX_CPU_ISA": "AVX2"}, seen)
        self.assertEqual("plain Python; lowered by ONEDNN_MAX_CPU_ISA=AVX2", ran)

    def test_without_a_limit_nothing_is_lowered(self):
        for environment in ({}, {"HEADWISE_MAX_ISA": "amx"}):
            self.assertEqual(({}, "plain Python"), self.lowered("torch", **environment))

    def test_what_the_caller_lowered_stays_and_is_told(self):
        for environment in ({}, {"HEADWISE_MAX_ISA": "avx512"}):
            seen, ran = self.lowered("openvino", ONEDNN_MAX_CPU_ISA="AVX2", **environment)
            self.assertEqual({"ONEDNN_MAX_CPU_ISA": "AVX2"}, seen)
            self.assertEqual("plain Python; lowered by ONEDNN_MAX_CPU_ISA=AVX2", ran)

    def test_a_library_without_a_switch_says_that_it_is_not_lowered(self):
        self.assertEqual(
            ({}, "plain Python; not lowered to avx2, onnxruntime has no switch"),
            self.lowered("onnxruntime", HEADWISE_MAX_ISA="avx2"),
        )

    def test_describe_tells_of_every_peer_of_the_set(self):
        command = [sys.executable, "-B", WORKER, "--describe", "fake"]
        result = subprocess.run(
            command, env={**os.environ, "HEADWISE_PEERS": FAKES}, capture_output=True, timeout=60
        )
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        files = sorted(os.listdir(os.path.join(FAKES, "fake")))
        files = [name[:-3] for name in files if name.endswith(".py") and name[0] != "_"]
        self.assertEqual([f"fake.{name}" for name in files], [line["peer"] for line in lines])
        self.assertEqual(["fake.absent"], [line["peer"] for line in lines if line["status"] == "absent"])
        self.assertEqual(0, result.returncode)

    def test_a_command_line_that_names_no_peer_is_refused(self):
        for arguments in ([], ["--what"], ["--describe"], ["a.b", "c.d"]):
            result = subprocess.run(
                [sys.executable, "-B", WORKER, *arguments], capture_output=True, timeout=60
            )
            self.assertEqual(3, result.returncode)
            self.assertIn(b"expected <set>.<name>", result.stderr)


if __name__ == "__main__":
    unittest.main()
