"""Peers beside kernels, through the program: the processors that both may use, and what is asked of both."""

import json
import os
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

PROGRAM = os.environ["HEADWISE_PROGRAM"]
FAKES = Path(os.environ["HEADWISE_SOURCE_DIR"]) / "tests/peers/fakes"


def verified(arguments, peers=FAKES, **environment):
    """(exit code, rows by contender) of a small case."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "rows.jsonl")
        command = [PROGRAM, "verify", "--seq", "16", "--heads", "2", "--head-dim", "8", "--quiet"]
        command += ["--peer-python", sys.executable, "--out", out, *arguments]
        environment = {**os.environ, "HEADWISE_PEERS": str(peers), **environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        if not os.path.exists(out):
            raise AssertionError(done.stderr)
        with open(out, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
    return done.returncode, {row["contender"]: row for row in rows if "contender" in row}


class BesideKernelsTest(unittest.TestCase):
    def test_log_sum_exp_is_verified_of_kernels_alone(self):
        code, rows = verified(["--lse", "--kernels", "naive", "--peers", "fake.good,fake.wrong"])
        self.assertEqual(rows["fake.good"]["status"], "ok", rows["fake.good"]["reason"])
        self.assertEqual(rows["fake.wrong"]["status"], "inaccurate")
        self.assertTrue(rows["fake.wrong"]["reason"].startswith("out"), rows["fake.wrong"]["reason"])
        self.assertEqual(code, 1)
        self.assertIsNotNone(rows["cpu/scalar/naive/f32"]["lse_error"])

    @unittest.skipIf(len(os.sched_getaffinity(0)) < 2, "a second processor is needed to lack it")
    def test_a_bound_program_leaves_peers_all_processors(self):
        """With OMP_PROC_BIND the runtime binds the program's first thread, which starts the workers."""
        with tempfile.TemporaryDirectory() as folder:
            fakes = Path(folder) / "fake"
            fakes.mkdir()
            (fakes / "_shared.py").symlink_to(FAKES / "fake/_shared.py")
            (fakes / "placed.py").write_text(textwrap.dedent("""
                import os
                from . import _shared
                from ._shared import ABOUT, THREADS, prepare  # noqa: F401
                def describe(threads):
                    return dict(_shared.describe(threads), version=str(sorted(os.sched_getaffinity(0))))
            """), encoding="utf-8")
            arguments = ["--kernels", "none", "--peers", "fake.placed", "--threads", "2"]
            _, rows = verified(arguments, folder, OMP_PROC_BIND="true")
        self.assertEqual(rows["fake.placed"]["status"], "ok", rows["fake.placed"]["reason"])
        self.assertEqual(rows["fake.placed"]["version"], str(sorted(os.sched_getaffinity(0))))


if __name__ == "__main__":
    unittest.main()
