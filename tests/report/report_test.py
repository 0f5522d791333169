"""The report of the program: what stands in the file, and what a browser makes of it.

Runs `headwise report` on made-up runs (make_rows.py). The browser checks need Chromium and are skipped, and counted
as skipped, without it; those that need charts are skipped where the chart renderer was not installed.
"""

import html.parser
import json
import math
import os
import re
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
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LIMIT = 3_000_000


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
    """Charts for which at least one of the rows has what the chart needs."""
    ok = [row for row in rows if row["status"] == "ok"]
    return sum(any(all((row[name] or 0) > 0 for name in spec["usermeta"]["headwise"].get("needs", [])) for row in ok)
               for spec in specifications())


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

    def report(self, kind, share=None):
        run = self.folder / f"{kind}.jsonl"
        run.write_text(make_rows.lines(kind), encoding="utf-8")
        page = self.folder / f"{kind}.html"
        environment = dict(os.environ, **({"HEADWISE_DATA": str(share)} if share else {}))
        done = subprocess.run([PROGRAM, "report", str(run), "--out", str(page)], capture_output=True, text=True,
                              env=environment, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return page

    def share(self, renderer=True, **charts):
        """A data folder of its own, with further or no charts and with or without the renderer."""
        share = self.folder / "share"
        shutil.copytree(SOURCE / "data/charts", share / "charts")
        for name, text in charts.items():
            (share / "charts" / f"{name}.json").write_text(text, encoding="utf-8")
        if renderer:
            (share / "renderer").mkdir()
            (share / "renderer" / RENDERER.name).symlink_to(RENDERER.resolve())
        return share


class TextTest(ReportCase):
    def test_every_kind_of_run_makes_a_page_that_is_complete_in_itself(self):
        for kind in make_rows.KINDS:
            with self.subTest(kind):
                page = self.report(kind).read_text(encoding="utf-8")
                self.assertLess(len(page.encode()), LIMIT)
                elements = Elements(page)
                for tag, attributes in elements.tags:
                    self.assertNotIn("src", attributes, f"<{tag}>")
                    self.assertTrue(attributes.get("href", "#").startswith("#"), f"<{tag}> {attributes}")
                    self.assertFalse([name for name in attributes if name.startswith("on")], f"<{tag}> {attributes}")
                self.assertEqual([tag for tag in ("link", "img", "iframe", "object", "base") if elements.find(tag)], [])
                policy = [a["content"] for a in elements.find("meta") if a.get("http-equiv") == "Content-Security-Policy"]
                self.assertEqual(len(policy), 1)
                self.assertIn("default-src 'none'", policy[0])
                self.assertEqual(len(elements.scripts), 3 if RENDERER.exists() else 2)

    def test_the_rows_are_in_the_page_as_they_are_in_the_file(self):
        for kind in make_rows.KINDS:
            with self.subTest(kind):
                data, rows = unpack(self.report(kind).read_text(encoding="utf-8"))
                run, *written = [json.loads(line) for line in make_rows.lines(kind).splitlines()]
                self.assertEqual(dict(data["run"]["environment"]), run["environment"])
                self.assertEqual(data["run"]["command"], run["command"])
                self.assertEqual(len(rows), len(written))
                for row, expected in zip(rows, written, strict=True):
                    for name in expected.keys() & row.keys():
                        if isinstance(expected[name], float) and not isinstance(row[name], bool):
                            self.assertTrue(math.isclose(row[name], expected[name], rel_tol=1e-8), name)
                        else:
                            self.assertEqual(row[name], expected[name], name)
                    self.assertNotIn("samples_ms", row)
                    self.assertLessEqual({"contender", "status", "reason", "error_max", "reproduce", "ranked"}, row.keys())

    def test_hostile_text_is_the_title_and_nothing_more(self):
        elements = Elements(self.report("hostile").read_text(encoding="utf-8"))
        self.assertIn(make_rows.HOSTILE, elements.title)

    def test_without_the_renderer_the_page_still_comes(self):
        page = self.report("sweep", self.share(renderer=False)).read_text(encoding="utf-8")
        self.assertEqual(len(Elements(page).scripts), 2)
        self.assertEqual(len(unpack(page)[1]), len(make_rows.sweep()))

    def test_every_chart_says_what_it_is(self):
        orders = []
        for spec in specifications():
            about = spec["usermeta"]["headwise"]
            self.assertGreater(len(about["title"]), 3)
            self.assertGreater(len(about["description"]), 40)
            self.assertEqual(spec["data"], {"name": "rows"})
            orders.append(about["order"])
        self.assertEqual(len(orders), len(set(orders)))
        self.assertGreaterEqual(len(orders), 5)


@unittest.skipUnless(CHROMIUM, "no Chromium on this machine")
class BrowserTest(ReportCase):
    def open(self, page, *arguments):
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio",
                   f"--user-data-dir={self.folder / 'profile'}", "--window-size=1280,900",
                   "--virtual-time-budget=30000", *arguments, "--dump-dom", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        elements = Elements(done.stdout)
        (body,) = elements.find("body")
        self.assertEqual(body.get("data-ready"), "1", "the page's script did not come to its end")
        return elements, body, done.stdout

    def test_every_kind_of_run_opens_without_an_error(self):
        for kind, (_, make) in make_rows.KINDS.items():
            with self.subTest(kind):
                rows = make()
                elements, body, _ = self.open(self.report(kind))
                self.assertEqual(body["data-errors"], "")
                self.assertNotIn("owned", elements.title[:5])
                self.assertEqual(elements.classes("contender"), len(rows))
                expected = drawable(rows) if RENDERER.exists() else 0
                if kind == "hostile":  # its only ranked contender is its own baseline, which has no speedup
                    self.assertGreaterEqual(expected, int(body["data-charts"]))
                else:
                    self.assertEqual(int(body["data-charts"]), expected)
                self.assertEqual(elements.classes("marks"), int(body["data-charts"]))

    def test_without_the_renderer_the_page_says_how_to_get_charts(self):
        _, body, text = self.open(self.report("sweep", self.share(renderer=False)))
        self.assertEqual((body["data-charts"], body["data-errors"]), ("0", ""))
        self.assertIn("make setup", re.search(r'id="charts-note"[^>]*>([^<]*)', text)[1])

    @unittest.skipUnless(RENDERER.exists(), "no chart renderer in this build")
    def test_a_chart_is_added_by_dropping_in_a_file(self):
        spec = {"usermeta": {"headwise": {"title": "Rows <b>by</b> contender"}}, "data": {"name": "rows"},
                "mark": "bar", "encoding": {"x": {"aggregate": "count"}, "y": {"field": "series"}}}
        elements, body, _ = self.open(self.report("sweep", self.share(mine=json.dumps(spec))))
        self.assertEqual((int(body["data-charts"]), body["data-errors"]), (len(specifications()) + 1, ""))
        self.assertIn("Rows <b>by</b> contender", [a.get("aria-label") for a in elements.find("figure")])

    @unittest.skipUnless(RENDERER.exists(), "no chart renderer in this build")
    def test_a_broken_chart_is_named_and_the_others_are_drawn(self):
        _, body, text = self.open(self.report("sweep", self.share(broken='{"mark": "line",', odd='{"mark": "no such mark"}')))
        self.assertEqual(int(body["data-charts"]), len(specifications()))
        self.assertIn("broken.json", body["data-errors"])
        self.assertIn("broken.json is not valid JSON", text)
        self.assertIn("odd.json", body["data-errors"])

    @unittest.skipUnless(RENDERER.exists(), "no chart renderer in this build")
    def test_controls_legend_table_and_details_do_what_they_say(self):
        page = self.report("sweep")
        before, _, after = page.read_text(encoding="utf-8").rpartition("</body>")
        text = f"{before}<script>{STEPS}</script></body>{after}"
        acting = self.folder / "acting.html"
        acting.write_text(text, encoding="utf-8")
        _, body, _ = self.open(acting)
        self.assertEqual(body["data-errors"], "")
        seen = json.loads(body["data-seen"])
        rows = make_rows.sweep()
        self.assertEqual(seen["points"], 17)  # 3 contenders at 6 lengths, of which one timed out at 4096
        self.assertEqual(seen["points_decode"], 9)  # another family: 3 contenders at 3 lengths, and no line between
        self.assertEqual(seen["points_hidden"], 6)
        self.assertEqual(seen["pressed"], "false")
        self.assertEqual(seen["sort"], ["ascending", "descending", "none"])
        times = [row["ms_median"] for row in rows if row["ms_median"] is not None]
        self.assertIn(min(times), [row["ms_median"] for row in rows if row["contender"] == seen["first_up"]])
        self.assertIn(max(times), [row["ms_median"] for row in rows if row["contender"] == seen["first_down"]])
        self.assertEqual(seen["timeouts"], sum(row["status"] == "timeout" for row in rows))
        self.assertEqual(seen["fastest"], len({row["case"] for row in rows if row["status"] == "ok"}))
        self.assertEqual(seen["searched"], sum("captured:2" in row["inputs"] and "flash" in row["contender"] for row in rows))
        self.assertEqual(seen["expanded"], "true")
        self.assertIn(seen["command"], [row["reproduce"] for row in rows])
        self.assertEqual(seen["closed"], 0)


# Acts as a visitor would and leaves what it saw on <body>.
STEPS = """
(async () => {
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  while (!document.body.dataset.ready) await wait(20);
  const seen = {};
  const points = () => document.querySelectorAll("figure[aria-label=Latency] .mark-symbol.role-mark path").length;
  const all = (selector) => [...document.querySelectorAll(selector)];
  seen.points = points();
  all("input[name=phase]").find((input) => input.parentNode.textContent === "decode").click();
  await wait(1500);
  seen.points_decode = points();
  all("#legend button")[0].click();
  await wait(1500);
  seen.points_hidden = points();
  seen.pressed = all("#legend button")[0].getAttribute("aria-pressed");
  const head = all("#table th").find((th) => th.textContent.startsWith("Median"));
  const first = () => document.querySelector("#table tbody td.contender").textContent.replace("\\u25b8", "");
  seen.sort = [];
  head.querySelector("button").click();
  seen.sort.push(head.getAttribute("aria-sort"));
  seen.first_up = first();
  head.querySelector("button").click();
  seen.sort.push(head.getAttribute("aria-sort"));
  seen.first_down = first();
  head.querySelector("button").click();
  seen.sort.push(head.getAttribute("aria-sort"));
  const form = document.getElementById("filters");
  const count = () => all("#table tbody td.contender").length;
  const set = (name, value, event) => {
    form.elements[name].value = value;
    form.elements[name].dispatchEvent(new Event(event));
    return count();
  };
  seen.timeouts = set("status", "timeout", "change");
  set("status", "", "change");
  form.elements.fastest.click();
  seen.fastest = count();
  form.elements.fastest.click();
  seen.searched = set("search", "flash captured:2", "input");
  set("search", "", "input");
  const opener = document.querySelector("td.contender button");
  opener.click();
  seen.expanded = opener.getAttribute("aria-expanded");
  seen.command = document.querySelector("tr.detail code").textContent;
  opener.click();
  seen.closed = all("tr.detail").length;
  document.body.dataset.seen = JSON.stringify(seen);
})();
"""


if __name__ == "__main__":
    if not os.access(PROGRAM, os.X_OK):
        sys.exit(f"{PROGRAM}: not built; build it, or name it in HEADWISE_PROGRAM")
    unittest.main()
