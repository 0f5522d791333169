"""The report as a file: what stands in the page, and charts as files of their own."""

import json
import math
import os
import struct
import sys
import unittest
import xml.etree.ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import make_rows
from report_case import CONVERTER, LIMIT, PROGRAM, RENDERER, SOURCE, Elements, ReportCase, specifications, unpack


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
                written = [line for line in written if line["type"] == "row"]
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
                self.check_quantiles(data["quantiles"], written)
                for row in rows:
                    self.assertLessEqual({"contender", "status", "reason", "error_max", "reproduce", "ranked"}, row.keys())

    def check_quantiles(self, quantiles, written):
        """Samples that were measured, in order, with both ends and no more than 100; all where they are few."""
        self.assertEqual(len(quantiles), len(written))
        for points, row in zip(quantiles, written, strict=True):
            samples = sorted(float(f"{sample:.5g}") for sample in row["samples_ms"])
            self.assertEqual(len(points), min(len(samples), 100))
            self.assertEqual(points, sorted(points))
            self.assertLessEqual(set(points), set(samples))
            if samples:
                self.assertEqual((points[0], points[-1]), (samples[0], samples[-1]))

    def test_peaks_are_in_the_page_as_they_are_in_the_file(self):
        data, _ = unpack(self.report("wide").read_text(encoding="utf-8"))
        self.assertEqual(data["peaks"], [{name: peak[name] for name in data["peaks"][0]} for peak in make_rows.peaks()])
        self.assertEqual(unpack(self.report("sweep").read_text(encoding="utf-8"))[0]["peaks"], [])

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
            self.assertIn("value", about)
            orders.append(about["order"])
        self.assertEqual(len(orders), len(set(orders)))
        self.assertGreaterEqual(len(orders), 5)


SVG = "{http://www.w3.org/2000/svg}"


class FilesTest(ReportCase):
    def test_without_the_converter_nothing_is_written_and_the_message_says_what_to_install(self):
        folder = self.folder / "charts"
        done = self.run_report("one", "--svg", folder, "--png", folder, share=self.share(renderer=False))
        self.assertEqual((done.returncode, done.stdout), (4, ""))
        self.assertIn("tools/setup.sh charts", done.stderr)
        self.assertFalse(folder.exists())

    def test_a_view_without_chart_files_is_a_mistake(self):
        done = self.run_report("one", "--view", "mask=causal")
        self.assertEqual(done.returncode, 3)
        self.assertIn("--svg", done.stderr)

    @unittest.skipUnless(CONVERTER.exists(), "no chart converter in this build")
    def test_every_chart_of_a_view_is_drawn_as_svg_and_png(self):
        folder = self.folder / "charts"
        done = self.run_report("wide", "--svg", folder, "--png", folder, "--view", "at.batch=1&at.dtype_label=f32&at.mask=causal")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        stems = {name.replace("_", "-") for name in self.stems()} - {"peers"}  # the run has none
        self.assertEqual({path.name for path in folder.iterdir()}, {f"{stem}.{kind}" for stem in stems for kind in ("svg", "png")})
        self.assertEqual(sorted(done.stdout.split()), sorted(str(path) for path in folder.iterdir()))
        for stem in stems:
            text = (folder / f"{stem}.svg").read_text(encoding="utf-8")
            root = xml.etree.ElementTree.fromstring(text)
            self.assertEqual(root.tag, f"{SVG}svg")
            words = {(element.text or "").strip() for element in root.iter(f"{SVG}text")}
            self.assertIn("cpu/avx512/flash", words, stem)
            self.assertEqual("cpu/avx512/unfused" in words, stem != "speedup-overview", stem)  # it is the baseline
            self.assertGreater(len(list(root.iter(f"{SVG}path"))), 5, stem)
            self.assertNotIn("var(--", text, "a colour of the page that was not resolved")
            self.assertNotIn("NaN", text)
            head = (folder / f"{stem}.png").read_bytes()[:24]
            self.assertEqual(head[:8], b"\x89PNG\r\n\x1a\n")
            width, height = struct.unpack(">II", head[16:])
            # Twice the drawing's size, which the SVG tells.
            self.assertAlmostEqual(width, 2 * float(root.get("width")), delta=2)
            self.assertAlmostEqual(height, 2 * float(root.get("height")), delta=2)
            self.assertGreater(min(width, height), 300)
        roofs = (folder / "roofline.svg").read_text(encoding="utf-8")
        self.assertIn("memory 28.0 GB/s", roofs)  # both threads' peak, as the rows have it
        self.assertNotIn("scalar f32", roofs)     # no row's instruction set

    @unittest.skipUnless(CONVERTER.exists(), "no chart converter in this build")
    def test_files_show_peers_hollow_and_dashed_and_each_contender_once_in_the_legend(self):
        folder = self.folder / "charts"
        done = self.run_report("peers", "--svg", folder, "--view", "device=cpu&at.direction=forward&at.dtype_label=f32&at.mask=full")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("peers.svg", {path.name for path in folder.iterdir()})
        root = xml.etree.ElementTree.parse(folder / "latency.svg").getroot()
        words = [(element.text or "").strip() for element in root.iter(f"{SVG}text")]
        for name in ["cpu/avx512/flash", "cpu/avx512/unfused", *make_rows.PEERS]:
            self.assertEqual(words.count(name), 1, name)
        paths = list(root.iter(f"{SVG}path"))
        dashed = {path.get("stroke") for path in paths if path.get("stroke-dasharray") and path.get("fill") in (None, "none")}
        hollow = {path.get("stroke") for path in paths if path.get("fill") == "#ffffff" and path.get("stroke")}
        filled = {path.get("stroke") for path in paths if path.get("stroke") and path.get("fill") == path.get("stroke")}
        self.assertLessEqual(dashed, hollow)
        self.assertEqual(len(hollow), len(make_rows.VERSIONS))  # a colour a library
        self.assertEqual(filled, {"#0072b2", "#6b7480"})        # the first kernel's and the baseline's, as without peers
        self.assertFalse(hollow & filled)

    @unittest.skipUnless(CONVERTER.exists(), "no chart converter in this build")
    def test_each_family_has_its_files_and_a_roofline_without_peaks_says_so(self):
        folder = self.folder / "charts"
        done = self.run_report("sweep", "--svg", folder)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        names = {path.name for path in folder.iterdir()}
        self.assertIn("speedup-overview.svg", names)
        self.assertIn("latency-full-8-heads-d64-normal.svg", names)
        self.assertEqual(len([name for name in names if name.startswith("latency")]), 8)
        self.assertFalse([name for name in names if name.startswith("batch")])  # one batch everywhere
        root = xml.etree.ElementTree.parse(folder / "roofline-full-8-heads-d64-normal.svg").getroot()
        self.assertIn("No roofs are drawn", "".join(root.itertext()))
        self.assertNotIn("GB/s", "".join(root.itertext()))

    @unittest.skipUnless(CONVERTER.exists(), "no chart converter in this build")
    def test_hostile_text_stays_text_and_names_no_file(self):
        folder = self.folder / "charts"
        done = self.run_report("hostile", "--svg", folder)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for path in folder.iterdir():
            self.assertRegex(path.name, r"^[a-z0-9.-]+\.svg$")
            root = xml.etree.ElementTree.parse(path).getroot()
            self.assertEqual([element.tag for element in root.iter() if element.tag in (f"{SVG}script", f"{SVG}image", "script", "img")], [])

    @unittest.skipUnless(CONVERTER.exists(), "no chart converter in this build")
    def test_what_cannot_be_drawn_is_named_and_the_rest_is_drawn(self):
        folder = self.folder / "charts"
        done = self.run_report("one", "--svg", folder, share=self.share(broken='{"mark": "line",', odd='{"mark": "no such mark"}'))
        self.assertEqual(done.returncode, 1)
        self.assertIn("broken.json", done.stderr)
        self.assertIn("odd:", done.stderr)
        self.assertTrue((folder / "latency.svg").exists())
        self.assertTrue(all(path.stat().st_size > 0 for path in folder.iterdir()))
        nothing = self.run_report("empty", "--svg", self.folder / "none")
        self.assertEqual(nothing.returncode, 1)
        self.assertIn("no row of this run can be drawn", nothing.stderr)
        self.assertFalse((self.folder / "none").exists())

    @unittest.skipUnless(CONVERTER.exists(), "no chart converter in this build")
    def test_a_folder_that_cannot_be_made_is_named(self):
        file = self.folder / "file"
        file.write_text("in the way")
        done = self.run_report("one", "--png", file)
        self.assertEqual(done.returncode, 1)
        self.assertIn(str(file), done.stderr)

    def stems(self):
        return [path.stem for path in (SOURCE / "data/charts").glob("*.json")]


if __name__ == "__main__":
    if not os.access(PROGRAM, os.X_OK):
        sys.exit(f"{PROGRAM}: not built; build it, or name it in HEADWISE_PROGRAM")
    unittest.main()
