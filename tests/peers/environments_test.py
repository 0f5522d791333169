"""tools/peer_environments.py: what counts as a whole environment, and what a failed or cut-off one leaves.

Needs no network: pip is replaced by a script that is called as pip would be.
"""

import contextlib
import importlib.util
import io
import json
import os
import tempfile
import textwrap
import unittest
from pathlib import Path

ROOT = Path(os.environ.get("HEADWISE_SOURCE_DIR", Path(__file__).resolve().parents[2]))

# Installs one package into the environment whose Python runs it; says whether the program could have found it.
FAKE_PIP = textwrap.dedent('''
    import os, pathlib, sys
    environment = pathlib.Path(sys.prefix)
    site = next(environment.glob("lib/python*/site-packages"))
    print("found beforehand" if (environment / "bin/python").exists() else "not found beforehand")
    print("  Downloading alpha_one-1.5-py3-none-any.whl (2 kB)")
    print("Progress 0 of 2000")
    print("Progress 2000 of 2000")
    print(pathlib.Path(sys.argv[sys.argv.index("--requirement") + 1]).read_text())
    (site / "alpha_one").mkdir()
    (site / "alpha_one/__init__.py").write_text("")
    if os.environ.get("FAKE_PIP_FAILS"):
        print("ERROR: No space left on device")
        sys.exit(1)
    record = site / "alpha_one-1.5.dist-info/RECORD"
    record.parent.mkdir()
    record.write_text("alpha_one/__init__.py,sha256=x,0\\nalpha_one/__pycache__/a.pyc,,\\nalpha_one-1.5.dist-info/RECORD,,\\n")
''')
WHEELS = [{"name": "alpha-one", "version": "1.5", "sha256": "ab" * 32, "size": 2000}]


class Environments(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        spec = importlib.util.spec_from_file_location("peer_environments", ROOT / "tools/peer_environments.py")
        self.tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.tool)
        root = Path(folder.name)
        self.tool.ROOT, self.tool.PEERS = root, root / "peers"
        self.tool.ENVIRONMENTS, self.tool.STATE = root / "build/peers", root / "build/setup"
        self.tool.PIP_ENVIRONMENT = root / "build/setup/peers-pip"
        runner = self.tool.site_packages(self.tool.PIP_ENVIRONMENT) / "pip/__pip-runner__.py"
        for path in (runner.parent, self.tool.ENVIRONMENTS, root / "peers/requirements"):
            path.mkdir(parents=True)
        runner.write_text(FAKE_PIP, encoding="utf-8")
        self.requirements = root / "peers/requirements/first.txt"
        self.requirements.write_text("# why\nalpha.one>=1\n", encoding="utf-8")
        (root / "peers/requirements/second.txt").write_text("beta\n", encoding="utf-8")
        self.environment = self.tool.ENVIRONMENTS / "first"
        self.log = self.tool.STATE / "peers-first.log"

    def make(self, wheels=None):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), open(self.tool.STATE / "lock", "w", encoding="utf-8") as lock:
            self.tool.make("first", wheels or WHEELS, lock)
        return printed.getvalue()

    def test_is_made_found_last_and_whole(self):
        self.assertEqual("", self.tool.why_not_complete("first"))
        self.assertIn("peers: first: installed in", self.make())
        self.assertIsNone(self.tool.why_not_complete("first"))
        log = self.log.read_text(encoding="utf-8")
        self.assertIn("not found beforehand", log)
        self.assertIn("alpha-one==1.5 --hash=sha256:" + "ab" * 32, log)
        self.assertNotIn("Progress", log)
        self.assertTrue((self.environment / "bin/python").exists())
        stamp = json.loads((self.environment / "complete.json").read_text(encoding="utf-8"))
        self.assertEqual({"alpha.one": "1.5"}, stamp["versions"])

    def test_no_hashes_where_one_is_unknown(self):
        self.make(WHEELS + [{"name": "local", "version": "1", "sha256": None, "size": None}])
        self.assertNotIn("--hash", self.log.read_text(encoding="utf-8"))

    def test_what_fails_leaves_nothing(self):
        os.environ["FAKE_PIP_FAILS"] = "1"
        self.addCleanup(os.environ.pop, "FAKE_PIP_FAILS")
        with self.assertRaisesRegex(self.tool.Failed, "No space left on device. Log: build/setup/peers-first.log"):
            self.make()
        self.assertFalse(self.environment.exists())

    def test_what_was_cut_off_is_made_anew(self):
        self.make()
        (self.environment / "complete.json").unlink()
        self.assertIn("not finished", self.tool.why_not_complete("first"))
        self.make()
        self.assertIsNone(self.tool.why_not_complete("first"))

    def test_other_requirements_are_noticed(self):
        self.make()
        self.requirements.write_text("alpha.one>=2\n", encoding="utf-8")
        self.assertIn("requirements", self.tool.why_not_complete("first"))

    def test_broken_ones_are_noticed(self):
        self.make()
        (self.tool.site_packages(self.environment) / "alpha_one/__init__.py").unlink()
        self.assertEqual("alpha_one/__init__.py is gone", self.tool.why_not_complete("first"))
        self.make()
        (self.environment / "bin/python3").unlink()
        self.assertIn("does not start", self.tool.why_not_complete("first"))

    def test_an_installed_package_that_is_not_there_is_a_failure(self):
        self.requirements.write_text("alpha.one\ngamma\n", encoding="utf-8")
        with self.assertRaisesRegex(self.tool.Failed, "gamma is not installed"):
            self.make()
        self.assertFalse(self.environment.exists())


class Words(unittest.TestCase):
    setUp = Environments.setUp
    make = Environments.make

    def shown(self, *arguments):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self.tool.show_plan(*arguments)
        return printed.getvalue()

    def test_sets_by_any_name(self):
        for words in (["second,first"], ["second", "first"], ["second.flash first.a,first.b"]):
            self.assertEqual(["second", "first"], self.tool.chosen_sets(words))
        self.assertEqual(["first", "second"], self.tool.chosen_sets([""]))
        with contextlib.redirect_stderr(io.StringIO()) as said, self.assertRaises(SystemExit) as ended:
            self.tool.chosen_sets(["frist"])
        self.assertEqual(2, ended.exception.code)
        self.assertIn("no set 'frist': expected first, second", said.getvalue())

    def test_unknown_sizes_are_said_to_be(self):
        unknown = {"name": "beta", "version": "2", "size": None}
        self.assertIn("first: 1 wheel, size unknown\n", self.shown("first", [unknown], ""))
        text = self.shown("first", [{"name": "a", "version": "1", "size": 2_500_000_000}, unknown], "it was not finished")
        self.assertIn("2 wheels, 2.50 GB, and 1 of unknown size (build/peers/first is made anew: it was not finished)", text)
        self.assertIn("a 1 2.50 GB, beta 2 size unknown", text)

    def test_nobody_answering_is_told_from_other_failures(self):
        text = "WARNING: Retrying (Retry(total=0)) after connection broken\nERROR: No matching distribution found for torch\n"
        self.assertIn("no package index answered", str(self.tool.pip_failure(self.log, text)))
        refused = str(self.tool.pip_failure(self.log, "ERROR: No matching distribution found for torch\n"))
        self.assertIn("pip failed: No matching distribution found for torch", refused)

    def test_peers_describe_themselves(self):
        self.make()
        worker = self.tool.PEERS / "worker.py"
        worker.write_text(
            "import json, sys\n"
            "assert sys.argv[1:] == ['--describe', 'first']\n"
            "ok = {'peer': 'first.a', 'status': 'ok', 'version': 'alpha 1.5', 'devices': ['cpu'], 'dtypes': ['f32', 'bf16']}\n"
            "print(json.dumps(ok))\n"
            "print(json.dumps({'peer': 'first.b', 'status': 'absent', 'reason': 'no GPU'}))\n"
            "sys.exit('later trouble')\n",
            encoding="utf-8",
        )
        lines = self.tool.describe(self.environment, worker, "first")
        self.assertEqual(["first.a: alpha 1.5 on cpu; f32, bf16", "first.b: absent: no GPU"], lines[:2])
        self.assertIn("ended with 1: later trouble", lines[2])


if __name__ == "__main__":
    unittest.main()
