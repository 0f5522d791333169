"""An installation is found by find_package and pkg-config, works after it was moved, and names no
path of the machine that built it."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

BUILD = Path(os.environ["HEADWISE_BUILD_DIR"])
SOURCE = Path(os.environ["HEADWISE_SOURCE_DIR"])
CONSUMER = Path(__file__).resolve().parent / "consumer"


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def cache(name):
    text = (BUILD / "CMakeCache.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{name}:[A-Z]+=(.*)$", text, re.M)
    return found.group(1) if found else ""


def below(folder, suffixes=None):
    """Names of the files below a folder, those of other suffixes left out."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(str(file.relative_to(folder)) for file in files if not suffixes or file.suffix in suffixes)


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        installed = Path(cls.folder.name) / "installed"
        run("cmake", "--install", BUILD, "--prefix", installed)
        # Everything below runs where it was not installed to.
        cls.prefix = Path(cls.folder.name) / "moved here"
        installed.rename(cls.prefix)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def lib(self, name):
        found = list(self.prefix.glob(f"lib*/**/{name}"))
        self.assertEqual(1, len(found), f"{name} below {self.prefix}: {found}")
        return found[0]

    def test_consumer_finds_builds_and_runs(self):
        build = Path(self.folder.name) / "consumer"
        run("cmake", "-S", CONSUMER, "-B", build, "-G", cache("CMAKE_GENERATOR"),
            f"-DCMAKE_PREFIX_PATH={self.prefix}", f"-DCMAKE_CXX_COMPILER={cache('CMAKE_CXX_COMPILER')}",
            f"-DCMAKE_CXX_FLAGS={cache('CMAKE_CXX_FLAGS')}")
        run("cmake", "--build", build)
        printed = run(build / "consumer")
        self.assertRegex(printed, r"^headwise \d+\.\d+\.\d+: 4\.0000 7\.0000$")

    def test_pkg_config_file_serves_the_compiler(self):
        # Read as pkg-config would, which need not be installed; words are split before variables
        # are filled in, since the prefix has a blank.
        file = self.lib("headwise.pc")
        variables = {"pcfiledir": str(file.parent)}
        fields = {}

        def filled(word):
            while "${" in word:
                word = re.sub(r"\$\{(\w+)\}", lambda match: variables[match.group(1)], word)
            return word

        for line in file.read_text(encoding="utf-8").splitlines():
            variable, field = re.match(r"(\w+)=(.*)", line), re.match(r"([\w.]+): *(.*)", line)
            if variable:
                variables[variable.group(1)] = variable.group(2)
            elif field:
                fields[field.group(1)] = [filled(word) for word in field.group(2).split()]
        self.assertRegex(fields["Version"][0], r"^\d+\.\d+\.\d+$")
        program = Path(self.folder.name) / "by_pkg_config"
        run(cache("CMAKE_CXX_COMPILER"), *cache("CMAKE_CXX_FLAGS").split(), *fields["Cflags"], CONSUMER / "consumer.cpp",
            "-o", program, *fields["Libs"], *fields["Libs.private"])
        self.assertIn("4.0000 7.0000", run(program, env={**os.environ, "LD_LIBRARY_PATH": filled("${libdir}")}))

    def test_files_name_no_path_of_the_build(self):
        for file in [*self.prefix.glob("lib*/**/*.cmake"), *self.prefix.glob("lib*/**/*.pc")]:
            text = file.read_text(encoding="utf-8")
            for path in (BUILD, SOURCE, Path(self.folder.name)):
                self.assertNotIn(str(path), text, file)

    def test_headers_are_the_public_ones(self):
        here = {path.name for path in (SOURCE / "include/headwise").glob("*.h")}
        there = {path.name for path in (self.prefix / "include/headwise").iterdir()}
        self.assertEqual(here, there)

    def test_other_versions_are_refused(self):
        project = Path(self.folder.name) / "wants 9"
        shutil.copytree(CONSUMER, project)
        lists = project / "CMakeLists.txt"
        lists.write_text(lists.read_text(encoding="utf-8").replace("headwise 0.1", "headwise 9.0"), encoding="utf-8")
        done = subprocess.run(
            ["cmake", "-S", project, "-B", project / "build", f"-DCMAKE_PREFIX_PATH={self.prefix}",
             f"-DCMAKE_CXX_COMPILER={cache('CMAKE_CXX_COMPILER')}"],
            capture_output=True, text=True)
        self.assertNotEqual(0, done.returncode)
        self.assertIn("headwise", done.stderr)

    def test_program_and_data_stand_together(self):
        program = self.prefix / "bin/headwise"
        self.assertTrue(program.is_file())
        for entry in ("suites", "charts"):
            if (SOURCE / "data" / entry).is_dir():
                self.assertTrue((self.prefix / "share/headwise" / entry).is_dir(), entry)
        self.assertEqual(below(SOURCE / "peers", {".py", ".txt"}), below(self.prefix / "share/headwise/peers"))
        self.assertFalse((self.prefix / "share/headwise/environments").exists(), "gigabytes, and paths of this machine")
        self.assertIn("headwise", run(program, "--help", env={"PATH": "/usr/bin:/bin"}))


if __name__ == "__main__":
    unittest.main()
