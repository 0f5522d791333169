"""Peers through the program headwise: what each way to fail costs, how long it may take, and what is left.

The peers are the fakes of tests/peers/fakes, which compute in plain Python: cases are small. Most fakes fail
where seq_kv is over 1 and go well where it is 1.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import unittest
import uuid

from program import PROGRAM, SOURCE, Temporary, environment, read, run

FAKES = os.path.join(SOURCE, "tests", "peers", "fakes")
SMALL = ["--heads", "2", "--head-dim", "8", "--dtype", "f32", "--threads", "1", "--samples", "3", "--no-peaks"]
NAIVE = ["--kernels", "naive", "--baseline", "none"]
PYTHON = ["--peer-python", sys.executable]

# What the program and whatever it starts inherit, and nobody else has.
MARK = f"HEADWISE_PEERS_TEST={uuid.uuid4()}"

# Fails in the case of 8 keys with this status and reason, and goes well in the case of one.
FAILS_WITH_MANY_KEYS = {
    "fake.crash": ("error", r"^fake\.crash was killed by signal 11 \(Segmentation fault\) in the middle"),
    "fake.crash_time": ("error", r"^fake\.crash_time was killed by signal 11 \(Segmentation fault\)"),
    "fake.exits": ("error", r"ended with exit code 3 .*; it wrote last: .*fake: the library gives up$"),
    "fake.garbage": ("error", r"wrote '.*Segmentation \{not: json'.*expected a JSON object"),
    "fake.killed": ("error", r"was killed by signal 9 \(Killed; the system does so where memory runs out\)"),
    "fake.memory": ("out_of_memory", r"^fake: could not allocate 1 TiB$"),
    "fake.missing_field": ("error", r"^fake\.missing_field was asked to time \d+ calls and answered"),
    "fake.raises": ("error", r"^ValueError: fake: a shape that nobody expected$"),
}
FAILS_ALWAYS = {
    "fake.absent": ("absent", r"^No module named 'no_such_library_of_attention'$"),
    "fake.changes": ("inaccurate", r"^outputs of a timed call are wrong, those of the first were right: "),
    "fake.falls_back": ("error", r"^expected fake::fast to run; the profiler saw fake::slow$"),
    "fake.nan": ("inaccurate", r"(?i)nan"),
    "fake.unsupported": ("unsupported", r"^head_dim: expected 3, came 8; take another peer$"),
    "fake.wrong": ("inaccurate", r"error"),
    "fake.wrong_id": ("error", r"^fake\.wrong_id answered request 4711 when \d+ was open"),
}
GOES_WELL = ("fake.chatter", "fake.good", "fake.takes_memory")


# A peer that fails where another of the same program, fake.busy, does not stand still while it is timed.
WITNESS = r"""
import os
from . import _shared
from ._shared import ABOUT, THREADS, describe

def states_of_busy():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as line, open(f"/proc/{pid}/stat") as stat:
                state, parent = stat.read().rpartition(")")[2].split()[:2]
                if line.read().endswith(b"worker.py\0fake.busy\0") and int(parent) == os.getppid():
                    yield state
        except OSError:
            pass

class Run(_shared.Run):
    def time(self, calls, lead_in_ms):
        before = list(states_of_busy())
        reply = super().time(calls, lead_in_ms)
        states = before + list(states_of_busy())
        if states != ["T", "T"]:
            raise RuntimeError(f"expected fake.busy to be stopped, it was {states}")
        return reply

def prepare(case):
    return _shared.prepare(case, Run)
"""


def processes():
    """The living processes that this test's programs are or have started: {pid: command line}."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            with open(f"/proc/{pid}/environ", "rb") as stream:
                if MARK.encode() not in stream.read().split(b"\0"):
                    continue
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                found[int(pid)] = stream.read().decode().replace("\0", " ").strip()
    return found


def state(pid):
    """(the state's letter, CPU time in clock ticks) of a process; None where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
            fields = stream.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (fields[0], int(fields[11]) + int(fields[12]))


def marked(peers=FAKES, **changes):
    name, _, value = MARK.partition("=")
    return dict({"HEADWISE_PEERS": peers, name: value}, **changes)


class Peers(Temporary):
    """Runs that leave no process behind, however they end."""

    def setUp(self):
        super().setUp()
        self.addCleanup(self.nobody_is_left)

    def nobody_is_left(self, seconds=5):
        end = time.monotonic() + seconds
        while processes() and time.monotonic() < end:
            time.sleep(0.02)
        left = processes()
        for pid in left:  # the next test must not see them
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.assertEqual(left, {}, "processes that outlived the program")

    def bench(self, *words, code=0, python=PYTHON, **changes):
        """A run to its end: what it printed, and its rows by contender and number of keys."""
        out = self.path("run.jsonl")
        result = run("bench", *words, *SMALL, *python, "--out", out, **marked(**changes))
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        self.nobody_is_left(seconds=0)  # when the program has ended, its workers have
        rows = [row for row in read(out)[1] if row["type"] == "row"]
        by_name = {(row["contender"], row["seq_kv"]): row for row in rows}
        self.assertEqual(len(by_name), len(rows))
        return result, by_name

    def started(self, *words, **changes):
        """A run in the background, in a session of its own as a terminal's, and killed at the latest with the test."""
        arguments = [PROGRAM, "bench", *words, *SMALL, *PYTHON, "--out", self.path("run.jsonl")]
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                   env=environment(**marked(**changes)), start_new_session=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def wait_for(self, condition, process, seconds=60):
        end = time.monotonic() + seconds
        while not (found := condition()):
            self.assertIsNone(process.poll(), "the program ended before it came to that")
            self.assertLess(time.monotonic(), end, "that never came")
            time.sleep(0.005)
        return found

    def worker_of(self, peer):
        """The process that serves a peer, once Python runs in it; None before."""
        return next((pid for pid, line in processes().items() if line.endswith(f"worker.py {peer}")), None)

    def partial_rows(self):
        names = [name for name in os.listdir(self.folder) if name.endswith(".partial")]
        if not names:
            return []
        with open(self.path(names[0]), "rb") as stream:
            return [line for line in stream.read().splitlines(keepends=True) if b'"type":"row"' in line]

    def check(self, row, expected):
        """A row that failed as expected, and has no time."""
        status, reason = expected
        self.assertEqual(row["status"], status, row["reason"])
        self.assertRegex(row["reason"], reason)
        self.assertIsNone(row["ms_median"])

    def check_good(self, row):
        self.assertEqual(row["status"], "ok", row["reason"])
        self.assertGreater(row["ms_median"], 0)
        self.assertEqual(row["samples"], 3)
        self.assertLessEqual(row["error_max"], row["error_limit"])

    def folder_of_peers(self, **files):
        """A folder with the set `fake` of good and _shared, and these files beside them."""
        folder = self.path("peers_of_test")
        os.makedirs(os.path.join(folder, "fake"))
        for name in ("_shared.py", "good.py"):
            shutil.copy(os.path.join(FAKES, "fake", name), os.path.join(folder, "fake", name))
        for name, text in files.items():
            with open(os.path.join(folder, "fake", name + ".py"), "w", encoding="utf-8") as stream:
                stream.write(text)
        return folder

    def data_folder(self):
        """A data folder of the test's own, with a copy of the peers' files beside it."""
        data, source = self.path("data"), os.path.join(SOURCE, "data")
        os.mkdir(data)
        for name in os.listdir(source):
            if name != "environments":
                os.symlink(os.path.join(source, name), os.path.join(data, name))
        shutil.copytree(os.path.join(SOURCE, "peers"), self.path("peers"), ignore=shutil.ignore_patterns("__pycache__"))
        return data


class Failures(Peers):
    """Each failure costs its own cell: the others in its run, and its own next case, are as if nothing was."""

    def test_each_costs_its_own_cell(self):
        failing = {**FAILS_WITH_MANY_KEYS, **FAILS_ALWAYS}
        names = [*failing, *GOES_WELL]
        result, rows = self.bench("--seq", "8,1,5", *NAIVE, "--peers", ",".join(names), code=1)
        self.assertEqual(len(rows), 3 * (len(names) + 1))
        for keys in (8, 1, 5):
            with self.subTest(contender="the kernel", keys=keys):
                self.check_good(rows["cpu/scalar/naive/f32", keys])
            for name in names:
                row = rows[name, keys]
                with self.subTest(contender=name, keys=keys):
                    self.assertEqual(row["kind"], "peer")
                    if name in FAILS_ALWAYS or keys > 1 and name in failing:
                        self.check(row, failing[name])
                    else:
                        self.check_good(row)
                        self.assertEqual((row["ran"], row["version"]), ("plain Python", "fake 1"))
        # It takes 64 MiB; the system counts pages for each thread and adds them up now and then.
        self.assertGreater(rows["fake.takes_memory", 8]["peak_resident_bytes"], 60 << 20)
        self.assertLess(rows["fake.good", 8]["peak_resident_bytes"], 30 << 20)
        self.assertNotRegex(result.stdout + result.stderr, "chatter chatter|Traceback")  # what peers print

    def test_what_stalls_ends_at_its_limit(self):
        start = time.monotonic()
        limit = 3
        peers = "fake.good,fake.half_line,fake.stall,fake.stall_prepare"
        _, rows = self.bench("--seq", "8,1", *NAIVE, "--peers", peers, "--max-seconds", str(limit))
        took = time.monotonic() - start
        late = ("timeout", r"did not answer in the time allowed and was killed")
        for row in ("fake.half_line", 8), ("fake.stall", 8), ("fake.stall_prepare", 8), ("fake.stall_prepare", 1):
            with self.subTest(row=row):
                self.check(rows.pop(row), late)
        self.assertEqual(len(rows), 6)
        for name, row in rows.items():
            with self.subTest(row=name):
                self.check_good(row)
        expected = 3 * limit + 10  # three that prepare or call for ever, and one timed request
        self.assertTrue(expected - 0.5 < took < expected + 12, took)

    def test_a_slow_one_is_not_a_stalled_one(self):
        _, rows = self.bench("--seq", "8", *NAIVE, "--peers", "fake.slow_prepare")
        self.check_good(rows["fake.slow_prepare", 8])
        self.assertGreater(rows["fake.slow_prepare", 8]["prepare_ms"], 1900)

    def test_a_process_that_a_peer_starts_ends_with_it(self):
        child = "import subprocess, sys\nfrom ._shared import ABOUT, THREADS, describe, prepare\n" \
                "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        _, rows = self.bench("--seq", "8", *NAIVE, "--peers", "fake.parent", peers=self.folder_of_peers(parent=child))
        self.check_good(rows["fake.parent", 8])

    def test_a_number_of_threads_taken_once_starts_a_new_process(self):
        out = self.path("run.jsonl")
        words = [word if word != "1" else "1,2" for word in SMALL]
        result = run("bench", "--seq", "8", *NAIVE, "--peers", "fake.fixed", *words, *PYTHON, "--out", out, **marked())
        self.assertEqual(result.returncode, 0, result.stderr)
        ran = {row["threads"]: row["ran"] for row in read(out)[1] if row["kind"] == "peer"}
        self.assertEqual(ran, {n: f"plain Python, started with {n} threads" for n in (1, 2)})


class Environments(Peers):
    """What is wrong before a peer says its first word."""

    def check_python(self, status, reason, code=0, **changes):
        _, rows = self.bench("--seq", "8", *NAIVE, "--peers", "fake.good", code=code, **changes)
        self.check(rows["fake.good", 8], (status, reason))
        self.check_good(rows["cpu/scalar/naive/f32", 8])

    def test_no_such_python(self):
        nowhere = self.path("python")
        self.check_python("absent", f"--peer-python: '{nowhere}' is no program", python=["--peer-python", nowhere])
        self.check_python("absent", "--peer-python: 'pythno3' is no program", python=["--peer-python", "pythno3"])

    def test_a_program_that_is_no_python(self):
        text = self.path("text")
        with open(text, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o755)) as stream:
            stream.write("no program\n")
        for python, reason in (("true", r"ended with exit code 0 while it started"),
                               ("cat", r"ended with exit code 1 while it started; it wrote last: .*invalid option"),
                               (text, r"ended with exit code 127 while it started; it wrote last: .*cannot be executed")):
            with self.subTest(python=python):
                self.check_python("error", reason, code=1, python=["--peer-python", python])

    def test_an_environment_that_is_missing_and_one_that_is_there(self):
        data = self.data_folder()
        self.check_python("absent", r"fake has no requirements that make peers could install; --peer-python PATH",
                          python=[], HEADWISE_DATA=data)
        os.makedirs(os.path.join(data, "environments", "fake", "bin"))
        os.symlink(sys.executable, os.path.join(data, "environments", "fake", "bin", "python"))
        _, rows = self.bench("--seq", "8", *NAIVE, "--peers", "fake.good", python=[], HEADWISE_DATA=data)
        self.check_good(rows["fake.good", 8])

    def test_a_worker_of_another_protocol(self):
        data = self.data_folder()
        worker = self.path("peers/worker.py")
        with open(worker, encoding="utf-8") as stream:
            text = stream.read()
        self.assertIn('"headwise.peers/1"', text)
        with open(worker, "w", encoding="utf-8") as stream:
            stream.write(text.replace('"headwise.peers/1"', '"headwise.peers/2"'))
        self.check_python("error", r"speaks the protocol 'headwise\.peers/2', expected headwise\.peers/1", code=1,
                          HEADWISE_DATA=data)

    def test_a_library_that_breaks_at_import(self):
        folder = self.folder_of_peers(broken="raise RuntimeError('libattention.so:\\nundefined symbol')\n")
        _, rows = self.bench("--seq", "8,1", *NAIVE, "--peers", "fake", peers=folder)
        for keys in (8, 1):
            self.check(rows["fake.broken", keys], ("absent", "^RuntimeError: libattention.so: undefined symbol$"))
            self.check_good(rows["fake.good", keys])


class Quiet(Peers):
    """A peer that is not asked stands still, whatever its threads would do."""

    def test_idle_threads_stand_still_while_a_kernel_runs(self):
        # busy takes no f16: from the rows of f32 to the end of the run, the kernel alone is measured.
        words = ["--seq", "48", "--dtype", "f32,f16", "--seconds", "1", "--peers", "fake.busy", *NAIVE]
        arguments = [PROGRAM, "bench", *words, "--heads", "2", "--head-dim", "8", "--threads", "1", "--no-peaks", *PYTHON]
        process = subprocess.Popen([*arguments, "--out", self.path("run.jsonl")], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, env=environment(**marked()))
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        worker = self.wait_for(lambda: self.worker_of("fake.busy"), process)
        self.wait_for(self.partial_rows, process)
        seen = []
        while (now := state(worker)) is not None:
            seen.append(now)
            time.sleep(0.002)
        self.assertEqual(process.wait(), 0)
        # It is stopped shortly after its rows are written and wakes to its end; in between it stands still.
        stopped = [place for place, (letter, _) in enumerate(seen) if letter == "T"]
        self.assertGreater(len(stopped), 5)  # hundreds on a quiet machine
        seen = seen[stopped[0]:stopped[-1] + 1]
        self.assertEqual({letter for letter, _ in seen}, {"T"})
        self.assertEqual(len({ticks for _, ticks in seen}), 1, "it used the processor while the kernel was measured")
        rows = read(self.path("run.jsonl"))[1]
        found = {(row["kind"], row["dtype"]): row["status"] for row in rows}
        self.assertEqual(found, {("kernel", "f32"): "ok", ("kernel", "f16"): "ok", ("peer", "f32"): "ok",
                                 ("peer", "f16"): "unsupported"})
        self.assertGreater(seen[0][1], 0)

    def test_idle_threads_stand_still_while_another_peer_runs(self):
        folder = self.folder_of_peers(witness=WITNESS)
        shutil.copy(os.path.join(FAKES, "fake", "busy.py"), os.path.join(folder, "fake", "busy.py"))
        _, rows = self.bench("--seq", "8", *NAIVE, "--peers", "fake", peers=folder)
        for name in ("fake.busy", "fake.witness", "fake.good", "cpu/scalar/naive/f32"):
            self.check_good(rows[name, 8])


class Ends(Peers):
    """The program ends before its time: its workers end with it, and the rows stay."""

    def test_killed_in_the_middle(self):
        process = self.started("--seq", "8", *NAIVE, "--peers", "fake.good,fake.stall_prepare", "--max-seconds", "60")
        stalled = self.wait_for(lambda: self.worker_of("fake.stall_prepare"), process)
        good = self.worker_of("fake.good")
        self.assertEqual(state(good)[0], "T")  # a stopped one must not stay for ever
        self.wait_for(lambda: state(stalled)[0] == "S", process)
        process.kill()
        process.wait()
        self.nobody_is_left()

    def test_ctrl_c_keeps_the_rows(self):
        process = self.started("--seq", "1..400", *NAIVE, "--peers", "fake.good")
        self.wait_for(lambda: len(self.partial_rows()) >= 4, process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it, to whoever is in the group
        _, stderr = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, stderr)
        self.nobody_is_left(seconds=0)
        rows = read(self.path("run.jsonl"))[1]
        self.assertTrue(4 <= len(rows) < 800)
        for row in rows:
            self.assertEqual(row["status"], "ok", row["reason"])
        self.assertEqual([row["kind"] for row in rows], ["kernel", "peer"] * (len(rows) // 2))

    def test_ctrl_c_twice_waits_for_nobody(self):
        process = self.started("--seq", "1,8", *NAIVE, "--peers", "fake.good,fake.silent_start")
        self.wait_for(lambda: self.worker_of("fake.silent_start"), process)
        process.send_signal(signal.SIGINT)
        self.wait_for(lambda: "interrupted" in process.stderr.readline(), process)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        self.assertLess(time.monotonic() - start, 5)
        self.nobody_is_left()


class Sweeps(Peers):
    def test_resume_runs_nothing_twice(self):
        words = ["--seq", "4..8", *NAIVE, "--peers", "fake.good,fake.crash,fake.slow_prepare"]
        process = self.started(*words)
        self.wait_for(lambda: len(self.partial_rows()) >= 8, process)
        process.kill()
        process.wait()
        self.nobody_is_left()
        kept = self.partial_rows()
        self.assertEqual(len(kept) % 4, 0)
        self.assertLess(len(kept), 20)
        result, rows = self.bench(*words, "--resume", code=1)
        with open(self.path("run.jsonl"), "rb") as stream:
            lines = stream.read().splitlines(keepends=True)[1:]
        self.assertEqual(lines[:len(kept)], kept)
        self.assertEqual(len(rows), 20)
        measured = re.findall(r"(?m)^(\d)/5  ", result.stderr)
        self.assertEqual(measured, [str(n) for n in range(len(kept) // 4 + 1, 6)])
        for keys in range(4, 9):
            self.check_good(rows["fake.good", keys])
            self.check(rows["fake.crash", keys], FAILS_WITH_MANY_KEYS["fake.crash"])

    def test_a_row_is_reproduced_alone(self):
        words = ["--seq", "8", "--causal", "--softmax-scale", "0.3", *NAIVE, "--peers", "fake.good,fake.exits"]
        _, rows = self.bench(*words, code=1)
        for name, code in (("fake.good", 0), ("fake.exits", 1)):
            line = shlex.split(rows[name, 8]["reproduce"])
            self.assertEqual(line[:2], ["headwise", "bench"])
            out = self.path(name + ".jsonl")
            result = run(*line[1:], "--samples", "3", "--no-peaks", *PYTHON, "--out", out, **marked())
            self.assertEqual(result.returncode, code, result.stderr)
            again = read(out)[1]
            self.assertEqual([row["contender"] for row in again], [name])
            for field in ("case", "reproduce", "status", "kind", "error_max", "softmax_scale", "threads", "causal", "ran"):
                self.assertEqual(again[0][field], rows[name, 8][field], field)

    def test_exit_codes(self):
        for names, code in (("fake.good,fake.raises", 1), ("fake.good,fake.wrong", 1),
                            ("fake.good,fake.absent,fake.unsupported,fake.memory", 0)):
            with self.subTest(peers=names):
                self.bench("--seq", "4", *NAIVE, "--peers", names, code=code)
        alone = ["--seq", "4", "--kernels", "none", "--baseline", "none"]
        _, rows = self.bench(*alone, "--peers", "fake.absent", code=4)
        self.assertEqual([row["status"] for row in rows.values()], ["absent"])
        self.bench(*alone, "--peers", "fake.good", python=["--peer-python", self.path("python")], code=4)
        self.bench(*alone, "--peers", "fake.unsupported", code=0)

    def test_verify_checks_peers_and_times_none(self):
        out = self.path("run.jsonl")
        result = run("verify", "--seq", "1..6", "--heads", "2", "--head-dim", "8", "--causal", "0,1", "--kernels", "none",
                     "--peers", "fake.good,fake.wrong", *PYTHON, "--out", out, **marked())
        self.assertEqual(result.returncode, 1, result.stderr)
        _, rows = read(out)
        self.assertEqual(len(rows), 24)
        for row in rows:
            self.assertEqual(row["status"], "ok" if row["contender"] == "fake.good" else "inaccurate", row["reason"])
            self.assertIsNone(row["ms_median"])

    def test_what_is_unknown_is_refused(self):
        small = ["--seq", "4", *SMALL, *PYTHON]
        for words, says in ((["--peers", "fake.god"], "did you mean 'fake.good'"), (["--peers", "faek"], "did you mean 'fake'"),
                            (["--peers", "fake.z*"], "no peer 'fake.z*'"), (["--kernels", "none"], "--peers must name somebody")):
            with self.subTest(words=words):
                result = run("bench", *small, *words, "--out", self.path("run.jsonl"), **marked())
                self.assertEqual(result.returncode, 3, result.stderr)
                self.assertIn(says, result.stderr)
                self.assertEqual(result.stdout, "")
                self.assertEqual(os.listdir(self.folder), [])


class Listing(Peers):
    def listed(self, *words, peers=FAKES):
        result = run("list", *words, *PYTHON, **marked(peers=peers))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stderr, "")
        return result.stdout

    def test_what_there_is_and_why_not(self):
        shown = self.listed("--peers")
        self.assertEqual(shown, self.listed("peers"))
        self.assertRegex(shown, r"(?m)^  fake\.good +fake 1; cpu; f32; forward$")
        self.assertRegex(shown, r"(?m)^ +a fake for tests: attention from its formula")
        self.assertRegex(shown, r"(?m)^  fake\.absent +absent: No module named 'no_such_library_of_attention'$")
        names = {"fake." + name[:-3] for name in os.listdir(os.path.join(FAKES, "fake")) if re.match(r"[a-z].*\.py$", name)}
        self.assertEqual(set(re.findall(r"(?m)^  (fake\.\w+)", shown)), names)
        self.assertNotIn("Kernels", shown)

    def test_what_breaks_at_import(self):
        folder = self.folder_of_peers(broken="raise RuntimeError('undefined symbol')\n", cut="def prepare(case:\n")
        with open(os.path.join(folder, "absent.txt"), "w", encoding="utf-8") as stream:
            stream.write("# a comment\nother.thing | cuda | nobody ran it | a run\n")
        shown = self.listed("peers", peers=folder)
        self.assertRegex(shown, r"(?m)^  fake\.broken +absent: RuntimeError: undefined symbol$")
        self.assertRegex(shown, r"(?m)^  fake\.cut +absent: SyntaxError: ")
        self.assertRegex(shown, r"(?m)^  other\.thing +absent: nobody ran it; a run$")
        self.assertRegex(shown, r"(?m)^  fake\.good +fake 1; cpu")

    def test_what_ends_the_process_at_import(self):
        folder = self.folder_of_peers(dies="import os, sys\nsys.stderr.write('no licence')\nsys.stderr.flush()\nos._exit(7)\n",
                                      alright="from ._shared import ABOUT, THREADS, describe, prepare\n")
        shown = self.listed("peers", peers=folder)
        self.assertIn(f"their files in {folder}:", shown)
        self.assertRegex(shown, r"(?m)^  fake\.dies +absent: .*ended with exit code 7.*no licence")
        for name in ("alright", "good"):  # before it and after it
            self.assertRegex(shown, rf"(?m)^  fake\.{name} +fake 1; cpu")


if __name__ == "__main__":
    if not os.access(PROGRAM, os.X_OK):
        print(f"no program {PROGRAM}")
        sys.exit(77)
    unittest.main()
