"""The program headwise as its users meet it: output, exit codes, files, interruption."""

import csv
import json
import os
import pty
import re
import resource
import select
import shlex
import signal
import subprocess
import sys
import time
import unittest

from program import PROGRAM, SOURCE, Temporary, environment, read, run

GOLDEN = os.path.join(SOURCE, "tests", "cli", "golden")

# Written into every row; other tools rely on the names.
FIELDS = """schema run case contender kind status reason device isa threads dtype kv_dtype direction batch heads
kv_heads seq_q seq_kv head_dim head_dim_v causal align window_left window_right page_size lengths inputs seed ms_median
ms_mean ms_min ms_p5 ms_p95 ms_p99 ms_stddev samples_ms samples tokens_per_s tflops gb_per_s peak_bytes workspace_bytes
least_bytes error_max error_rms error_limit rows_verified speedup baseline timer regime cache clock_mhz ran
reproduce""".split()

QUICK = ["--seq", "32", "--heads", "1", "--head-dim", "16", "--threads", "1", "--seconds", "0.01", "--no-peaks"]


def on_terminal(*arguments, columns=100, **changes):
    """Runs on a pseudo terminal; returns what both streams showed there."""
    main, side = pty.openpty()
    changes.setdefault("COLUMNS", str(columns))
    process = subprocess.Popen([PROGRAM, *arguments], stdin=side, stdout=side, stderr=side,
                               env=environment(TERM="xterm", **changes), close_fds=True)
    os.close(side)
    shown = b""
    while True:
        ready, _, _ = select.select([main], [], [], 60)
        if not ready:
            process.kill()
            raise AssertionError("nothing shown for a minute")
        try:
            part = os.read(main, 65536)
        except OSError:  # Linux tells the end of a pty by EIO
            break
        if not part:
            break
        shown += part
    os.close(main)
    process.wait()
    return process.returncode, shown.decode("utf-8", "replace")


class Golden(unittest.TestCase):
    """Texts that change only on purpose. HEADWISE_UPDATE_GOLDEN=1 writes them anew."""

    def check(self, name, text):
        # Places and measured or machine-dependent quantities are no part of the text.
        text = text.replace(os.path.join(SOURCE, "data"), "DATA")
        text = re.sub(r"about [\d.]+ (s|min|h)\b", "about TIME", text)
        path = os.path.join(GOLDEN, name + ".txt")
        if os.environ.get("HEADWISE_UPDATE_GOLDEN"):
            os.makedirs(GOLDEN, exist_ok=True)
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(text)
        with open(path, encoding="utf-8") as stream:
            self.assertEqual(text, stream.read(), f"if the change is meant: HEADWISE_UPDATE_GOLDEN=1, and look at {path}")

    def good(self, *arguments, **changes):
        result = run(*arguments, **changes)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def test_help(self):
        self.check("help", self.good("--help"))

    def test_help_of_bench(self):
        self.check("help_bench", self.good("bench", "--help"))

    def test_list(self):
        self.check("list", self.good("list", "suites", "axes", "inputs"))

    def test_list_fields(self):
        self.check("list_fields", self.good("list", "fields"))

    def test_explain_without_vectors(self):
        # The scalar fallback alone: the same on every processor.
        self.check("explain_scalar", self.good("explain", "--seq", "512", "--causal", "--threads", "2", HEADWISE_MAX_ISA="scalar"))

    def test_dry_run(self):
        self.check("dry_run", self.good("bench", "--seq", "128..256*2", "--causal", "0,1", "--threads", "1", "--kernels",
                                        "naive", "--baseline", "none", "--dry-run"))


class Usage(unittest.TestCase):
    def refused(self, *arguments, says):
        result = run(*arguments)
        self.assertEqual(result.returncode, 3, (arguments, result.stdout, result.stderr))
        self.assertIn(says, result.stderr)
        self.assertEqual(result.stdout, "")

    def test_unknown_things_suggest_the_nearest(self):
        self.refused("bench", "--sek", "1", says="unknown flag '--sek'")
        self.refused("bench", "--sek", "1", says="did you mean '--seq'")
        self.refused("bench", "--hed-dim=3", says="did you mean '--head-dim'")
        self.refused("bnech", says="did you mean 'bench'")
        self.refused("bench", "--dtype", "bf61", says="did you mean 'bf16'")
        self.refused("bench", "--kernels", "flahs", says="did you mean 'flash'")
        self.refused("bench", "--suite", "defualt", says="did you mean 'default'")
        self.refused("bench", "--inputs", "unifrom", says="did you mean 'uniform'")
        self.refused("list", "kernel", says="did you mean 'kernels'")
        self.refused("explain", "sek=4", says="did you mean 'seq'")

    def test_wrong_values(self):
        self.refused("bench", "--seq", "1..", says="--seq: expected")
        self.refused("bench", "--seq", says="--seq")
        self.refused("bench", "--causal", "2", says="--causal: expected 0 or 1")
        self.refused("bench", "--causal", "--seq-q", "1", says="align is needed")
        self.refused("bench", "--heads", "8", "--kv-heads", "3", says="kv_heads")
        self.refused("bench", "--seconds", "-1", says="--seconds")
        self.refused("bench", "--seconds", "nan", says="--seconds")
        self.refused("verify", "--max-seconds", "nan", says="--max-seconds")
        self.refused("bench", "--seq", "1", "--seq", "2", says="--seq: given 2 times; give a list")
        self.refused("bench", "--threads", "100000", says="--threads: expected at most 4096")
        self.refused("bench", "--cache", "warm", says="--cache: expected hot, cold")
        self.refused("bench", *QUICK, "--resume", says="--resume: needs --out")
        self.refused("bench", *QUICK, "--csv", "/nonexistent/run.csv", says="--csv: cannot write into folder")
        self.refused("bench", *QUICK, "--csv", "-", says="--csv: '-' is no name for a file")
        self.refused("bench", *QUICK, "--markdown", "/tmp", says="--markdown: '/tmp' exists and is no regular file")
        self.refused("bench", "--threshold", "-1", says="--threshold: expected a probability, from 0 to 1")
        self.refused("report", "one.jsonl", "two.jsonl", says="report: takes one result file, got 2")
        self.refused("bench", "extra", says="unexpected argument 'extra'")
        self.refused("explain", says="explain needs a problem")
        self.refused("report", says="file")
        self.refused("report", "/nonexistent.jsonl", says="/nonexistent.jsonl")
        self.refused("bench", *QUICK, "--out", "/nonexistent/run.jsonl", says="cannot write into folder '/nonexistent'")
        self.refused("bench", *QUICK, "--report", "/nonexistent/run.html", says="--report")
        self.refused(says="Usage")

    def test_version_and_info(self):
        self.assertRegex(run("--version").stdout, r"^headwise \d+\.\d+\.\d+ \(git ")
        info = run("info")
        self.assertEqual(info.returncode, 0)
        self.assertGreaterEqual(len(re.findall(r"^\w+ {2,}\S", info.stdout, re.M)), 30)
        self.assertIn("cpu/scalar/naive/f32", info.stdout)
        self.assertNotRegex(info.stdout, r"(?m)^host ")
        self.assertRegex(run("info", "--host-name").stdout, r"(?m)^host ")

    def test_info_measures_peaks_on_request(self):
        shown = run("info", "--peaks", HEADWISE_MAX_ISA="scalar")
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertRegex(shown.stdout, r"cpu +scalar f32 +\d[\d.]* TFLOP/s +\(\d[\d.]* to \d[\d.]*\), 1 thread\n")
        self.assertRegex(shown.stdout, r"cpu +memory +\d[\d.]* GB/s")
        self.assertNotIn("avx", shown.stdout.split("Peaks")[1])
        self.assertNotIn("Peaks", run("info").stdout)

    def test_list_says_what_this_machine_can_run(self):
        shown = run("list", "kernels", HEADWISE_MAX_ISA="scalar").stdout
        self.assertRegex(shown, r"cpu/scalar/naive/f32 +forward, scalar: runs here\n")
        self.assertRegex(shown, r"cpu/avx512/flash/f32 +forward, avx512: cannot run here: needs AVX-512")
        self.assertRegex(shown, r"cuda: none in this build: \S")
        matrix = run("list", "matrix")
        self.assertEqual(matrix.returncode, 0)
        self.assertEqual(matrix.stdout, run("list", "matrix", HEADWISE_MAX_ISA="scalar").stdout)  # the build's, not the machine's

    def test_explain_refuses_a_forced_kernel_that_does_not_exist(self):
        result = run("explain", "--seq", "512", HEADWISE_KERNEL="cpu/scalar/naive/f23")
        self.assertEqual(result.returncode, 3)
        self.assertIn("HEADWISE_KERNEL", result.stderr)
        self.assertIn("did you mean 'cpu/scalar/naive/f32'", result.stderr)

    def test_explain_names_one_chosen_kernel_and_reasons(self):
        text = run("explain", "--seq", "512").stdout
        self.assertEqual(len(re.findall(r"^  chosen ", text, re.M)), 1, text)
        for line in re.findall(r"^  cannot.*", text, re.M):
            self.assertRegex(line, r"^  cannot   \S+ +\S")


class Bench(Temporary):
    def bench(self, *arguments, code=0, **changes):
        out = self.path("run.jsonl")
        result = run("bench", *arguments, "--out", out, *([] if "--no-peaks" in arguments else ["--no-peaks"]), **changes)
        self.assertEqual(result.returncode, code, result.stderr)
        return result, *read(out)

    def test_rows_follow_the_schema(self):
        result, header, rows = self.bench(*QUICK, "--causal", "0,1", "--baseline", "naive", "--dtype", "f32,f16")
        self.assertEqual((header["schema"], header["type"]), ("headwise.rows/1", "run"))
        self.assertGreaterEqual(len(header["environment"]), 30)
        self.assertTrue(header["command"].startswith("headwise bench --seq 32"))
        self.assertGreaterEqual(len(rows), 4)
        for row in rows:
            self.assertEqual(row["type"], "row")
            self.assertEqual(row["run"], header["run"])
            self.assertEqual([name for name in FIELDS if name not in row], [])
            if row["status"] == "ok":
                self.assertIsInstance(row["samples_ms"], list)
                self.assertEqual(len(row["samples_ms"]), row["samples"])
                self.assertLessEqual(row["error_max"], row["error_limit"])
        self.assertTrue(any(row["status"] == "ok" for row in rows))
        self.assertIn("Verified against fp64", result.stdout)
        self.assertEqual(os.listdir(self.folder), ["run.jsonl"])

    def test_the_summary_says_what_to_take(self):
        result, _, _ = self.bench(*QUICK, "--kernels", "naive", "--baseline", "none", "--dtype", "f32,bf16")
        self.assertIn("Best for f32: scalar naive for full prefill\n", result.stdout)
        self.assertIn("Best for bf16: scalar naive for full prefill\n", result.stdout)
        self.assertNotIn("Best for", run("verify", *QUICK[:-3], "--kernels", "naive").stdout)

    def test_peaks_stand_before_the_rows(self):
        quick = [word for word in QUICK if word != "--no-peaks"]
        result = run("bench", *quick, "--kernels", "naive", "--baseline", "none", "--out", self.path("run.jsonl"), HEADWISE_MAX_ISA="scalar")
        self.assertEqual(result.returncode, 0, result.stderr)
        _, lines = read(self.path("run.jsonl"))
        kinds = [line["type"] for line in lines]
        self.assertEqual(kinds, sorted(kinds))  # peak before row
        peaks = [line for line in lines if line["type"] == "peak"]
        self.assertEqual({peak["what"] for peak in peaks}, {"flops", "bytes"})
        for peak in peaks:
            self.assertGreater(peak["value"], 0)
            self.assertLessEqual(peak["low"], peak["value"])
            self.assertGreaterEqual(peak["high"], peak["value"])
            self.assertEqual((peak["device"], peak["threads"], peak["isa"]), ("cpu", 1, "scalar"))
        self.assertIn("peaks of this machine", result.stderr)
        without = self.path("v.jsonl")
        self.assertEqual(run("verify", *QUICK[:-3], "--kernels", "naive", "--out", without).returncode, 0)
        self.assertNotIn("peak", {line["type"] for line in read(without)[1]})  # verify measures nothing

    def test_reproduce_line_gives_the_same_cell(self):
        _, _, rows = self.bench(*QUICK, "--causal", "--lse", "--kernels", "naive", "--softmax-scale", "0.3")
        line = shlex.split(rows[-1]["reproduce"])
        self.assertEqual(line[:2], ["headwise", "bench"])
        _, _, again = self.bench(*line[2:], "--seconds", "0.01")
        self.assertIn(rows[-1]["contender"], [row["contender"] for row in again])
        same = next(row for row in again if row["contender"] == rows[-1]["contender"])
        for name in ("case", "reproduce", "error_max", "softmax_scale", "threads", "causal"):
            self.assertEqual(same[name], rows[-1][name], name)

    def test_a_case_is_words_for_explain(self):
        _, _, rows = self.bench(*QUICK, "--kernels", "naive")
        self.assertIn(rows[0]["case"], run("explain", *rows[0]["case"].split()).stdout)

    def test_out_of_memory_is_a_row_before_it_is_tried(self):
        start = time.monotonic()
        result, _, rows = self.bench("--seq", "10000000", "--heads", "64")
        self.assertLess(time.monotonic() - start, 20)
        self.assertTrue(rows)
        for row in rows:
            self.assertIn(row["status"], ("out_of_memory", "unsupported"))
            self.assertTrue(row["reason"])
        self.assertIn("out_of_memory", result.stdout)

    def test_nobody_for_a_problem_is_a_row_that_can_be_reproduced(self):
        _, _, rows = self.bench(*QUICK, "--kv-dtype", "int8")
        self.assertEqual([row["status"] for row in rows], ["unsupported"])
        again = run(*shlex.split(rows[0]["reproduce"])[1:])
        self.assertEqual(again.returncode, 0, again.stderr)

    def test_gradients(self):
        _, _, rows = self.bench(*QUICK, "--direction", "backward", "--dtype", "f32,bf16")
        self.assertEqual([(row["contender"], row["status"]) for row in rows],
                         [("cpu/scalar/naive_backward/f32", "ok"), ("cpu/scalar/naive_backward/bf16", "ok")])
        self.assertGreater(rows[0]["ms_median"], 0)

    def test_absent_device(self):
        _, _, rows = self.bench(*QUICK, "--device", "cuda", code=4)
        self.assertEqual({row["status"] for row in rows}, {"absent"})

    def test_verify_times_nothing(self):
        out = self.path("v.jsonl")
        result = run("verify", "--seq", "1..20+6", "--heads", "2", "--kernels", "naive", "--dtype", "f32,bf16", "--out", out)
        self.assertEqual(result.returncode, 0, result.stderr)
        _, rows = read(out)
        checked = [row for row in rows if row["contender"].startswith("cpu/scalar/naive")]
        self.assertEqual(len(checked), 8)
        for row in checked:
            self.assertEqual(row["status"], "ok")
            self.assertIsNone(row["ms_median"])
            self.assertGreater(row["rows_verified"], 0)

    def test_a_processor_without_vectors_still_works(self):
        _, _, rows = self.bench(*QUICK, HEADWISE_MAX_ISA="scalar")
        by_status = {row["contender"]: row["status"] for row in rows}
        self.assertEqual(by_status.pop("cpu/scalar/naive/f32"), "ok")
        self.assertTrue(by_status)
        self.assertEqual(set(by_status.values()), {"unsupported"})
        self.assertTrue(all(row["reason"] for row in rows if row["status"] == "unsupported"))

    def test_report_is_written_from_the_run_and_from_the_file(self):
        page = self.path("run.html")
        result, _, _ = self.bench(*QUICK, "--kernels", "naive", "--report", page)
        self.assertIn("Report: " + page, result.stdout)
        again = run("report", self.path("run.jsonl"), "--out", self.path("again.html"))
        self.assertEqual(again.returncode, 0, again.stderr)
        for name in (page, self.path("again.html")):
            with open(name, encoding="utf-8") as stream:
                self.assertIn("cpu/scalar/naive/f32", stream.read())

    def test_hostile_result_files(self):
        self.bench(*QUICK, "--kernels", "naive", "--dtype", "f32,f16")
        with open(self.path("run.jsonl"), encoding="utf-8") as stream:
            whole = stream.read()
        bad = self.path("bad.jsonl")

        def report(content):
            with open(bad, "w", encoding="utf-8") as stream:
                stream.write(content)
            return run("report", bad, "--out", self.path("bad.html"))

        cut = report(whole[:-20])
        self.assertEqual(cut.returncode, 0, cut.stderr)
        self.assertIn("the last line was cut", cut.stderr)
        os.remove(self.path("bad.html"))
        for content in ("", "x\n", whole.replace("rows/1", "rows/7"), whole.replace('"batch":1', '"batch":"one"'),
                        whole[:300], whole.replace('"type":"row"', '"type":7')):
            result = report(content)
            self.assertEqual(result.returncode, 3, content[:50])
            self.assertIn("bad.jsonl", result.stderr)
            self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
            self.assertFalse(os.path.exists(self.path("bad.html")))


class Streams(Temporary):
    """Files that are the same, full or closed: results are never lost or spoiled in silence."""

    def test_a_report_never_replaces_its_rows(self):
        rows = self.path("run.jsonl")
        both = run("bench", *QUICK, "--kernels", "naive", "--out", rows, "--report", os.path.join(self.folder, ".", "run.jsonl"))
        self.assertEqual(both.returncode, 3, both.stderr)
        self.assertIn("--report", both.stderr)
        self.assertEqual(os.listdir(self.folder), [])
        self.assertEqual(run("bench", *QUICK, "--kernels", "naive", "--out", rows).returncode, 0)
        os.symlink(rows, self.path("link.html"))
        os.link(rows, self.path("run.html"))  # what `report run.jsonl` would write
        for arguments in (["--out", rows], ["--out", self.path("link.html")], []):
            result = run("report", rows, *arguments)
            self.assertEqual(result.returncode, 3, result.stderr)
            self.assertIn("--out", result.stderr)
        self.assertEqual(read(rows)[1][0]["status"], "ok")

    def test_a_full_disk_is_told_and_the_table_is_kept(self):
        with open(PROGRAM, "rb") as program:
            if b"__tsan_init" in program.read():
                self.skipTest("under ThreadSanitizer the OpenMP runtime needs larger files than the full disk allows")
        out = self.path("run.jsonl")
        arguments = [PROGRAM, "bench", *QUICK[2:], "--seq", "16..48", "--kernels", "naive", "--baseline", "none", "--out", out]

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))

        result = subprocess.run(arguments, capture_output=True, text=True, timeout=120, env=environment(), preexec_fn=limit)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("cannot write to", result.stderr)
        self.assertIn("cpu/scalar/naive/f32", result.stdout)
        self.assertNotIn("Rows:", result.stdout)

    def test_closed_streams_do_not_end_in_the_rows(self):
        for closed in ("2>&-", ">&-", ">&- 2>&-"):
            out = self.path("run.jsonl")
            command = shlex.join([PROGRAM, "bench", *QUICK, "--kernels", "naive", "--out", out])
            subprocess.run(f"{command} {closed}", shell=True, timeout=120, env=environment(), stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, check=False)
            with open(out, encoding="utf-8") as stream:
                self.assertTrue(all(line.startswith("{") for line in stream), closed)
            os.remove(out)

    def test_a_full_stderr_costs_the_progress_alone(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            result = subprocess.run([PROGRAM, "bench", *QUICK, "--kernels", "naive"], stdout=subprocess.PIPE, stderr=full,
                                    text=True, timeout=120, env=environment())
        self.assertEqual(result.returncode, 0)
        self.assertIn("Verified against fp64", result.stdout)

    def test_a_full_stdout_is_an_error(self):
        for arguments in (["list"], ["--help"], ["bench", *QUICK, "--kernels", "naive"]):
            with open("/dev/full", "w", encoding="utf-8") as full:
                result = subprocess.run([PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120,
                                        env=environment())
            self.assertEqual(result.returncode, 1, arguments)
            self.assertIn("stdout", result.stderr)


class Interruption(Temporary):
    def interrupted(self, *, ignored, sent):
        """A run to which `sent` came, when its parent ignored `ignored`: the process, its stdout and stderr, the rows."""
        def in_the_child():  # whatever the parent of this test ignores
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
        out = self.path("run.jsonl")
        process = subprocess.Popen([PROGRAM, "bench", "--seq", "16..4000+8", "--kernels", "naive", "--baseline", "none",
                                    "--seconds", "0.05", "--no-peaks", "--out", out], stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                                   text=True, env=environment(), preexec_fn=in_the_child)
        while not re.search(r"^ *2/", process.stderr.readline()):
            self.assertIsNone(process.poll())
        for number in sent:
            process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
        return process, stdout, stderr, read(out)[1]

    def test_ctrl_c_and_its_like_keep_the_rows_so_far(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process, stdout, stderr, rows = self.interrupted(ignored=[], sent=[number])
            self.assertEqual(process.returncode, 130, stderr)
            self.assertIn("interrupted", stderr)
            self.assertGreaterEqual(len(rows), 2)
            self.assertLess(len(rows), 400)
            self.assertIn(f"of {len(rows)} rows", stdout)
            self.assertEqual(os.listdir(self.folder), ["run.jsonl"])

    def test_what_the_parent_ignores_stays_ignored(self):
        process, _, _, rows = self.interrupted(ignored=[signal.SIGHUP], sent=[signal.SIGHUP, signal.SIGTERM])
        self.assertEqual(process.returncode, 130)  # by the second; the first alone would have asked already,
        self.assertGreaterEqual(len(rows), 2)      # and the second would have ended the program at once

    def test_a_kill_leaves_readable_rows(self):
        out = self.path("run.jsonl")
        process = subprocess.Popen([PROGRAM, "bench", "--seq", "16..4000+8", "--kernels", "naive", "--baseline", "none",
                                    "--seconds", "0.05", "--no-peaks", "--out", out], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                   text=True, env=environment())
        while not re.search(r"^ *2/", process.stderr.readline()):
            self.assertIsNone(process.poll())
        process.kill()
        process.communicate()
        partial = [name for name in os.listdir(self.folder) if name.endswith(".partial")]
        self.assertEqual(len(partial), 1)
        result = run("report", self.path(partial[0]), "--out", self.path("kept.html"))
        self.assertEqual(result.returncode, 0, result.stderr)


class Resume(Temporary):
    """A run that was killed goes on where it was, and measures nothing twice."""

    SWEEP = ["--seq", "16..64+16", "--heads", "1", "--head-dim", "16", "--threads", "1", "--kernels", "naive",
             "--dtype", "f32,f16", "--baseline", "none", "--seconds", "0.3", "--no-peaks"]
    CASES = 8

    def killed(self, *more, cases=1):
        """Starts the sweep and kills it with SIGKILL when the rows of so many cases have appeared; returns those lines."""
        before = set(self.partial())
        process = subprocess.Popen([PROGRAM, "bench", *self.SWEEP, "--out", self.path("run.jsonl"), *more],
                                   stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment())
        lines = []
        while len(lines) <= cases:
            self.assertIsNone(process.poll(), "the run ended before it was killed")
            for name in set(self.partial()) - before:
                lines = self.lines(name)
            time.sleep(0.005)
        process.kill()
        process.communicate()
        self.assertEqual(process.returncode, -signal.SIGKILL)
        left = set(self.partial()) - before
        self.assertEqual(len(left), 1)
        return self.lines(left.pop())

    def partial(self):
        return [name for name in os.listdir(self.folder) if name.endswith(".partial")]

    def lines(self, name):
        with open(self.path(name), "rb") as stream:
            return stream.read().splitlines(keepends=True)

    def resume(self, *more, code=0, **changes):
        result = run("bench", *self.SWEEP, "--out", self.path("run.jsonl"), "--resume", *more, **changes)
        self.assertEqual(result.returncode, code, result.stderr)
        return result

    def check_whole(self, kept):
        """One complete file: the kept rows as they were, each case once, in the order of the sweep."""
        lines = self.lines("run.jsonl")
        header, rows = read(self.path("run.jsonl"))
        self.assertEqual(lines[1:1 + len(kept)], kept)
        self.assertEqual([line for line in lines if b'"type":"run"' in line], lines[:1])
        self.assertEqual({row["run"] for row in rows}, {header["run"]})
        self.assertEqual([(row["dtype"], row["seq_q"]) for row in rows],
                         [(dtype, seq) for dtype in ("f32", "f16") for seq in (16, 32, 48, 64)])
        self.assertEqual(os.listdir(self.folder), ["run.jsonl"])
        return header

    def test_after_a_kill_only_what_is_missing_runs(self):
        before = self.killed(cases=2)
        kept = before[1:]
        self.assertTrue(2 <= len(kept) < self.CASES)
        result = self.resume()
        self.assertIn(f"{len(kept)} of {self.CASES} cases are kept", result.stderr)
        measured = re.findall(r"(?m)^(\d)/8  ", result.stderr)  # the cases that ran
        self.assertEqual(measured, [str(n) for n in range(len(kept) + 1, self.CASES + 1)])
        header = self.check_whole(kept)
        self.assertEqual(header["run"], json.loads(before[0])["run"])
        self.assertEqual(len(header["continued"]), 1)
        self.assertIn("--resume", header["continued"][0]["command"])
        self.assertEqual(result.stdout.count("cpu/scalar/naive/f16"), 4 + 1)  # the table has all rows; once in "Fastest"

    def test_killed_again_and_again(self):
        kept = self.killed()[1:]
        again = self.killed("--resume", cases=len(kept) + 1)[1:]
        self.assertEqual(again[:len(kept)], kept)
        self.assertEqual(len(self.partial()), 2)
        self.resume()
        self.assertEqual(len(self.check_whole(again)["continued"]), 2)

    def test_a_cut_line_runs_again(self):
        kept = self.killed(cases=2)[1:]
        name = self.partial()[0]
        size = os.path.getsize(self.path(name))
        os.truncate(self.path(name), size - len(kept[-1]) // 2)
        result = self.resume()
        self.assertIn("the last line was cut", result.stderr)
        self.check_whole(kept[:-1])

    def test_after_ctrl_c(self):
        process = subprocess.Popen([PROGRAM, "bench", *self.SWEEP, "--out", self.path("run.jsonl")], stderr=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL, text=True, env=environment())
        while not re.search(r"^ *1/", process.stderr.readline()):
            self.assertIsNone(process.poll())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        kept = self.lines("run.jsonl")[1:]
        self.assertTrue(1 <= len(kept) < self.CASES)
        self.resume()
        self.check_whole(kept)

    def test_a_complete_file_runs_nothing_and_prints_the_table(self):
        first = self.resume()  # without a file it starts anew, and says so
        self.assertIn("nothing to resume", first.stderr)
        before = self.lines("run.jsonl")
        result = self.resume("--csv", self.path("run.csv"))
        self.assertIn("is complete: nothing to run", result.stderr)
        self.assertNotRegex(result.stderr, r"(?m)^\d/8")
        self.assertEqual(self.lines("run.jsonl"), before)
        self.assertEqual(first.stdout.split("\n\n")[1], result.stdout.split("\n\n")[1])
        self.assertTrue(os.path.exists(self.path("run.csv")))

    def test_killed_after_its_last_case(self):
        self.resume()
        os.rename(self.path("run.jsonl"), self.path("run.jsonl.4711.partial"))
        kept = self.lines("run.jsonl.4711.partial")[1:]
        result = self.resume()
        self.assertNotRegex(result.stderr, r"(?m)^\d/8")
        self.check_whole(kept)

    def test_what_differs_is_named_and_nothing_is_touched(self):
        self.killed()
        before = self.partial(), self.lines(self.partial()[0])
        self.assertIn("HEADWISE_MAX_ISA was 'not set', is 'scalar'", self.resume(code=3, HEADWISE_MAX_ISA="scalar").stderr)
        other = [word if word != "0.3" else "0.2" for word in self.SWEEP]
        for arguments, says in ((other, "seconds was '0.3', is '0.2'"), (["--seq", "64", *self.SWEEP[2:]], "does not ask for"),
                                (["--suite", "smoke", *self.SWEEP[4:]], "does not ask for")):
            result = run("bench", *arguments, "--out", self.path("run.jsonl"), "--resume")
            self.assertEqual(result.returncode, 3, arguments)
            self.assertIn(says, result.stderr)
            self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        result = run("verify", *[word for word in self.SWEEP[:-3]], "--out", self.path("run.jsonl"), "--resume")
        self.assertIn("command was 'bench', is 'verify'", result.stderr)
        self.assertEqual(before, (self.partial(), self.lines(self.partial()[0])))

    def test_a_run_that_lives_is_left_alone(self):
        process = subprocess.Popen([PROGRAM, "bench", "--seq", "16..4000+16", *self.SWEEP[2:], "--out", self.path("run.jsonl")],
                                   stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment())
        while not re.search(r"^ *1/", process.stderr.readline()):
            self.assertIsNone(process.poll())
        self.assertIn("is in use by another run", self.resume(code=3).stderr)
        process.kill()
        process.communicate()

    def test_what_is_no_result_file_is_refused(self):
        out = self.path("run.jsonl")
        for make, says in ((lambda: open(out, "w").close(), "the file is empty"), (lambda: os.mkdir(out), "is no regular file"),
                           (lambda: os.mkfifo(out), "is no regular file")):
            make()
            self.assertIn(says, self.resume(code=3).stderr)
            os.rmdir(out) if os.path.isdir(out) else os.remove(out)

    def test_without_resume_a_new_run_takes_the_name(self):
        self.killed()
        plain = run("bench", *self.SWEEP, "--out", self.path("run.jsonl"))
        self.assertEqual(plain.returncode, 0, plain.stderr)
        header, rows = read(self.path("run.jsonl"))
        self.assertNotIn("continued", header)
        self.assertEqual(len(rows), self.CASES)
        self.assertEqual(len(self.partial()), 1)  # what was killed stays until it is asked for

    def test_two_runs_at_once_never_mix(self):
        arguments = [PROGRAM, "bench", *self.SWEEP, "--out", self.path("run.jsonl"), "--quiet"]
        processes = [subprocess.Popen(arguments, stdout=subprocess.DEVNULL, env=environment()) for _ in range(2)]
        for process in processes:
            self.assertEqual(process.wait(timeout=120), 0)
        self.check_whole([])

    def test_dry_run_lists_what_is_missing(self):
        kept = self.killed()[1:]
        result = self.resume("--dry-run")
        self.assertIn(f"{self.CASES - len(kept)} cases, {self.CASES - len(kept)} rows", result.stdout)
        self.assertEqual(len(self.partial()), 1)


class Tables(Temporary):
    """CSV and Markdown, from the run and from the file."""

    def test_csv_reads_back_what_the_rows_say(self):
        rows_file, table, again = self.path("run.jsonl"), self.path("run.csv"), self.path("again.csv")
        result = run("bench", *QUICK, "--causal", "0,1", "--lse", "0,1", "--out", rows_file, "--csv", table, LC_ALL="de_DE.UTF-8")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("CSV: " + table, result.stdout)
        self.assertEqual(run("report", rows_file, "--csv", again).returncode, 0)
        with open(table, "rb") as one, open(again, "rb") as other:
            self.assertEqual(one.read(), other.read())
        with open(table, encoding="utf-8", newline="") as stream:
            records = list(csv.DictReader(stream, strict=True))
        _, rows = read(rows_file)
        self.assertEqual(len(records), len(rows))
        for record, row in zip(records, rows):
            row.pop("type")
            self.assertEqual(list(record), list(row))
            for name, value in row.items():
                text = record[name]
                if value is None:
                    self.assertEqual(text, "", name)
                elif isinstance(value, bool):
                    self.assertEqual(text, "true" if value else "false", name)
                elif isinstance(value, list):
                    self.assertEqual([float(part) for part in text.split(";") if part], value, name)
                elif isinstance(value, (int, float)):
                    self.assertEqual(type(value)(text), value, name)
                else:
                    self.assertEqual(text, value, name)

    def test_report_writes_what_is_asked_for(self):
        rows = self.path("run.jsonl")
        self.assertEqual(run("bench", *QUICK, "--kernels", "naive", "--out", rows, "--markdown", self.path("run.md")).returncode, 0)
        with open(self.path("run.md"), encoding="utf-8") as stream:
            text = stream.read()
        self.assertIn("headwise bench --seq 32", text)
        self.assertRegex(text, r"(?m)^\| *32 \| cpu/\S+ \| .*\*\*[\d.]+\*\* \|")
        self.assertEqual(sorted(os.listdir(self.folder)), ["run.jsonl", "run.md"])
        result = run("report", rows, "--markdown", self.path("again.md"))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(sorted(os.listdir(self.folder)), ["again.md", "run.jsonl", "run.md"])
        self.assertEqual(run("report", rows, "--csv", self.path("run.csv"), "--out", self.path("run.html")).returncode, 0)
        self.assertTrue(os.path.exists(self.path("run.html")))

    def test_no_file_replaces_another(self):
        rows = self.path("run.jsonl")
        self.assertEqual(run("bench", *QUICK, "--kernels", "naive", "--out", rows).returncode, 0)
        for arguments, says in ((["report", rows, "--csv", rows], "--csv: '"),
                                (["report", rows, "--markdown", self.path("./run.jsonl")], "--markdown: '"),
                                (["report", rows, "--csv", self.path("x"), "--markdown", self.path("x")], "the file of --csv too"),
                                (["bench", *QUICK, "--out", self.path("x"), "--csv", self.path("x")], "the file of --out too")):
            result = run(*arguments)
            self.assertEqual(result.returncode, 3, arguments)
            self.assertIn(says, result.stderr)
        self.assertEqual(read(rows)[1][0]["status"], "ok")


class ForeignFlags(Temporary):
    """Other benchmarks' command lines mean here what they mean there."""

    def rows(self, *arguments):
        out = self.path("rows.jsonl")
        result = run("bench", *arguments, "--no-peaks", "--quiet", "--out", out)
        self.assertEqual(result.returncode, 0, result.stderr)
        return read(out)[1]

    def test_lengths_heads_and_trials(self):
        rows = self.rows("--batch", "2", "--seq", "16", "--context", "24", "--heads", "2", "--dim", "8", "--trials", "5",
                         "--causal", "--align", "top_left", "--kernels", "naive", "--baseline", "none")
        self.assertEqual(len(rows), 1)
        row = rows[0]
        self.assertEqual((row["seq_q"], row["seq_kv"], row["head_dim"], row["align"]), (16, 24, 8, "top_left"))
        self.assertEqual((row["samples"], len(row["samples_ms"]), row["stop"]), (5, 5, "samples"))

    def test_models_runs_and_output(self):
        csv_file = self.path("rows.csv")
        rows = self.rows("--models", "deepseek_v3,gpt-2", "--num_runs", "3", "--dtype", "bfloat16", "--seq", "8", "--kernels",
                         "naive", "--baseline", "none", "--output", csv_file)
        self.assertEqual([(r["preset"], r["heads"], r["head_dim"], r["head_dim_v"], r["samples"], r["dtype"]) for r in rows],
                         [("deepseek-v3", 128, 192, 128, 3, "bf16"), ("gpt-2", 12, 64, 64, 3, "bf16")])
        with open(csv_file, encoding="utf-8", newline="") as stream:
            table = list(csv.DictReader(stream))
        self.assertEqual([line["preset"] for line in table], ["deepseek-v3", "gpt-2"])

    def test_pruning_is_answered_by_rows(self):
        rows = self.rows("--seq", "16", "--heads", "1", "--threshold", "0.01", "--topk", "4,8", "--kernels", "naive")
        self.assertGreaterEqual(len(rows), 2)
        for row in rows:
            self.assertEqual(row["status"], "unsupported")
            self.assertIn("not built yet", row["reason"])
            self.assertIn("threshold=0.01", row["case"])

    def test_explain_knows_no_kernel_that_prunes(self):
        result = run("explain", "--seq", "16", "--topk", "4")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("cannot   all kernels: pruned attention (threshold, topk) is not built yet", result.stdout)
        self.assertNotIn("chosen", result.stdout)

    def test_one_meaning_is_given_once(self):
        for arguments, says in [
            (["--context", "4", "--seq-kv", "4"], "--seq-kv and --context say the same; give one"),
            (["--trials", "3", "--num-runs", "3"], "--trials and --num-runs say the same"),
            (["--output", "a", "--csv", "b"], "--csv and --output say the same"),
            (["--trails", "3"], "did you mean '--trials'?"),
            (["--trials", "0"], "from 1 to 1000000"),
            (["--models", "lama-70b"], "did you mean 'llama-70b'?"),
        ]:
            result = run("bench", *QUICK, *arguments)
            self.assertEqual(result.returncode, 3, result.stdout)
            self.assertIn(says, result.stderr)

    def test_presets_are_listed(self):
        result = run("list", "presets")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, r"llama-3-70b +LLaMA 3 70B\n +heads=64 kv-heads=8 head-dim=128 causal=1")


class OnATerminal(unittest.TestCase):
    ARGUMENTS = ["bench", *QUICK, "--causal", "0,1", "--kernels", "naive", "--baseline", "none"]

    def test_live_line_colour_and_width(self):
        code, shown = on_terminal(*self.ARGUMENTS, columns=60)
        self.assertEqual(code, 0, shown)
        self.assertIn("\r\x1b[K[", shown)  # the live line is redrawn
        self.assertIn(" left  ", shown)
        self.assertIn("\x1b[32m", shown)
        plain = re.sub(r"\x1b\[[0-9;]*[mK]", "", shown)
        for line in re.split(r"[\r\n]+", plain):
            if "cpu/" in line or line.startswith("["):
                self.assertLessEqual(len(line), 60, line)

    def test_no_color(self):
        _, shown = on_terminal(*self.ARGUMENTS, NO_COLOR="1")
        self.assertNotRegex(shown, r"\x1b\[[0-9;]*m")

    def test_unicode_only_where_the_locale_has_it(self):
        _, plain = on_terminal(*self.ARGUMENTS)
        self.assertTrue(plain.isascii())
        _, rich = on_terminal(*self.ARGUMENTS, LC_ALL="C.UTF-8")
        self.assertIn("\u2500", rich)

    def test_no_control_codes_elsewhere(self):
        result = run(*self.ARGUMENTS)
        self.assertNotIn("\x1b", result.stdout + result.stderr)
        self.assertNotIn("\r", result.stdout + result.stderr)
        self.assertRegex(result.stderr, r"(?m)^1/2  ")
        self.assertEqual(run(*self.ARGUMENTS, "--quiet").stderr, "")

    def test_columns_bound_the_table(self):
        wide = run(*self.ARGUMENTS, COLUMNS="200").stdout
        narrow = run(*self.ARGUMENTS, COLUMNS="40").stdout
        rows = [line for line in narrow.splitlines() if "cpu/" in line and not line.startswith("Fastest")]
        self.assertTrue(rows)
        self.assertLessEqual(max(map(len, rows)), 40)
        self.assertIn("\ncausal=1\n", narrow)  # what tells the rows apart
        self.assertGreater(max(map(len, wide.splitlines())), 50)

    def test_first_output_within_two_seconds(self):
        start = time.monotonic()
        process = subprocess.Popen([PROGRAM, "bench", "--suite", "default"], stderr=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL, env=environment())
        line = process.stderr.readline()
        waited = time.monotonic() - start
        process.kill()
        process.communicate()
        self.assertIn(b"cases", line)
        self.assertLess(waited, 2)


if __name__ == "__main__":
    if not os.access(PROGRAM, os.X_OK):
        print(f"no program {PROGRAM}")
        sys.exit(77)
    unittest.main()
