"""The program headwise as the tests of its command line start it."""

import json
import os
import subprocess
import tempfile
import unittest

PROGRAM = os.environ.get("HEADWISE_PROGRAM", "build/release/bin/headwise")
SOURCE = os.environ.get("HEADWISE_SOURCE_DIR", os.path.join(os.path.dirname(__file__), "..", ".."))


def environment(**changes):
    values = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "HEADWISE_KERNEL")}
    values.update({"LC_ALL": "C", "HEADWISE_DATA": os.path.join(SOURCE, "data")})
    values.update(changes)
    return values


def run(*arguments, **changes):
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=120, env=environment(**changes))


def read(path):
    with open(path, encoding="utf-8") as stream:
        lines = [json.loads(line) for line in stream]
    return lines[0], lines[1:]


class Temporary(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)
