"""tools/race_table.py on rows that were made up: whom it sets beside whom, in which units, and what it leaves out."""

import contextlib
import importlib.util
import io
import json
import os
import tempfile
import unittest
from pathlib import Path

ROOT = Path(os.environ.get("HEADWISE_SOURCE_DIR", Path(__file__).resolve().parents[2]))
SIZES = dict(batch=1, heads=8, kv_heads=8, seq_q=512, seq_kv=512, head_dim=64, causal=False, threads=1)


def row(contender, ms, **changes):
    kind = "kernel" if contender.startswith("cpu/") else "peer"
    return {
        "type": "row", "run": "1", "case": "a case", "contender": contender, "kind": kind, "status": "ok", "reason": "",
        "direction": "forward", "dtype": "f32", **SIZES, "ms_median": ms, "samples_ms": [ms] * 20,
        "tflops": 0.3 / ms if ms else None, "gb_per_s": 20 / ms if ms else None, "overhead_ms": None, **changes,
    }


class RaceTableTest(unittest.TestCase):
    def setUp(self):
        spec = importlib.util.spec_from_file_location("race_table", ROOT / "tools/race_table.py")
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)

    def lines(self, *rows):
        """What is printed below the table's head."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rows.jsonl"
            file.write_text("".join(json.dumps(one) + "\n" for one in ({"type": "run"}, *rows)), encoding="utf-8")
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                self.assertEqual(0, self.module.main([str(file)]))
        return [line for line in printed.getvalue().splitlines()[2:] if line]

    def test_the_fastest_of_each_kind_stand_beside_each_other(self):
        got = self.lines(row("cpu/a/f32", 3), row("cpu/b/f32", 2), row("x.slow", 9), row("x.fast", 3))
        self.assertEqual(
            ["| f32 full B1 H8 D64 S 512 | 1 | `cpu/b/f32` 150 GFLOP/s | x.fast 100 GFLOP/s | 1.50 [1.50, 1.50] |"], got
        )

    def test_decoding_is_told_in_bytes_and_grouped_heads_are_named(self):
        sizes = dict(seq_q=1, seq_kv=8192, heads=32, kv_heads=8, causal=True, threads=2)
        got = self.lines(row("cpu/a/f32", 2, **sizes), row("x.fast", 4, **sizes))
        self.assertEqual(
            ["| f32 decode B1 H32/8 D64 kv 8192 | 2 | `cpu/a/f32` 10.0 GB/s | x.fast 5.0 GB/s | 2.00 [2.00, 2.00] |"], got
        )

    def test_short_calls_are_told_in_time_and_what_is_the_call_is_said(self):
        got = self.lines(row("cpu/a/f32", 0.008), row("x.fast", 0.016, overhead_ms=0.012))
        self.assertIn("`cpu/a/f32` 8 us | x.fast 16 us (12 us of it the call) | 2.00", got[0])

    def test_the_interval_is_that_of_rounds_as_pairs(self):
        """A disturbance that hit both in the same rounds cancels."""
        kernel = [1.0, 2.0, 1.0, 2.0] * 10
        got = self.lines(
            row("cpu/a/f32", 1.5, samples_ms=kernel), row("x.fast", 3, samples_ms=[2 * one for one in kernel] + [9] * 8)
        )
        self.assertIn("2.00 [2.00, 2.00]", got[0])
        got = self.lines(
            row("cpu/a/f32", 1.5, samples_ms=kernel), row("x.fast", 3, samples_ms=[4 - one for one in kernel])
        )
        self.assertIn("1.67 [1.00, 3.00]", got[0])

    def test_runs_are_kept_apart_and_other_directions_out(self):
        got = self.lines(
            row("cpu/a/f32", 2), row("x.fast", 4), row("cpu/a/f32", 1, run="2"), row("x.fast", 9, run="2"),
            row("x.fast", 1, direction="backward", case="another"),
        )
        self.assertEqual(["2.00", "9.00"], [line.split("| ")[-1].split(" ")[0] for line in got])

    def test_what_failed_is_named_and_what_refuses_is_not(self):
        failed = dict(ms_median=None, samples_ms=[])
        got = self.lines(
            {**row("cpu/a/f32", None), **failed, "status": "inaccurate", "reason": "out: too far"},
            row("x.fast", 3),
            {**row("x.slow", None), **failed, "status": "unsupported", "reason": "no mask"},
            {**row("x.gone", None), **failed, "status": "timeout", "reason": "killed"},
        )
        self.assertEqual(
            ["- a case: no kernel ran", "- a case: cpu/a/f32 inaccurate: out: too far", "- a case: x.gone timeout: killed"],
            got,
        )


if __name__ == "__main__":
    unittest.main()
