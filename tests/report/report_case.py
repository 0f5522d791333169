"""What the report's tests share: pages made by `headwise report` from made-up runs (make_rows.py), and what is in them."""

import html.parser
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import make_rows

PROGRAM = os.environ.get("HEADWISE_PROGRAM", "headwise")
SOURCE = Path(os.environ.get("HEADWISE_SOURCE_DIR", Path(__file__).resolve().parents[2]))
SHARE = Path(PROGRAM).resolve().parent.parent / "share" / "headwise"
RENDERER = SHARE / "renderer" / "vega-bundle.js"
LIMIT = 2_000_000  # bytes of a page
CONVERTER = SHARE / "renderer" / "python"


class Elements(html.parser.HTMLParser):
    """All start tags with their attributes, and the text of each script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.title, self.open = [], [], "", None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.open = None

    def handle_data(self, data):
        if self.open == "script":
            self.scripts[-1] += data
        if self.open == "title":
            self.title += data

    def find(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def classes(self, name):
        return sum(name in attributes.get("class", "").split() for _, attributes in self.tags)


def specifications():
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((SOURCE / "data/charts").glob("*.json"))]


def drawable(rows):
    """Charts that have something to draw of these rows, in the family of most lengths: the page's first choice."""
    ok = [row for row in rows if row["status"] == "ok" and row["error_max"] is not None
          and (row["overhead_ms"] or 0) <= 0.05 * row["ms_median"]]
    return sum(has_rows(spec["usermeta"]["headwise"], ok) for spec in specifications())


def has_rows(about, rows):
    there = {"memory_share": lambda row: row["peak_bytes"] and row["least_bytes"], "intensity": lambda row: row["tflops"] and row["gb_per_s"]}
    peers = {(row["case"], row["timer"]) for row in rows if row["kind"] == "peer"}
    there["over_peer"] = lambda row: row["kind"] == "kernel" and (row["case"], row["timer"]) in peers
    wanted = [there.get(name, lambda row, name=name: (row[name] or 0) > 0) for name in about.get("needs", [])]
    rows = [row for row in rows if all(has(row) for has in wanted)]
    if about.get("baseline") is False:
        rows = [row for row in rows if row["contender"] != row["baseline"]]
    if "varies" in about:
        return len({row[about["varies"]] for row in rows}) > 1
    return bool(rows)


def unpack(page):
    """The embedded rows as dicts."""
    data = json.loads(Elements(page).scripts[0])
    rows = [{} for _ in range(data["count"])]
    for column in data["columns"]:
        values = column["values"]
        if isinstance(values, dict):
            values = [values["words"][i] for i in values["index"]]
        for row, value in zip(rows, values, strict=True):
            row[column["name"]] = value
    return data, rows


class ReportCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="headwise_report_")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def run_report(self, kind, *arguments, share=None):
        run = self.folder / f"{kind}.jsonl"
        run.write_text(make_rows.lines(kind), encoding="utf-8")
        environment = dict(os.environ, **({"HEADWISE_DATA": str(share)} if share else {}))
        return subprocess.run([PROGRAM, "report", str(run), *map(str, arguments)], capture_output=True, text=True,
                              env=environment, check=False)

    def report(self, kind, share=None):
        page = self.folder / f"{kind}.html"
        done = self.run_report(kind, "--html", page, share=share)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return page

    def share(self, renderer=True, **charts):
        """A data folder of its own, with further or no charts and with or without the renderer."""
        share = self.folder / "share"
        shutil.copytree(SOURCE / "data/charts", share / "charts")
        for name, text in charts.items():
            (share / "charts" / f"{name}.json").write_text(text, encoding="utf-8")
        if renderer:
            (share / "renderer").symlink_to((SHARE / "renderer").resolve())
        return share
