"""The report in a browser: a visitor's ways through the page, in a headless Chromium.

Skipped, and counted as skipped, without Chromium or the chart renderer. HEADWISE_REQUIRE_BROWSER=1 makes that a
failure, for machines that are meant to have both.
"""

import json
import os
import shutil
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import make_rows
from browser import Browser
from report_case import PROGRAM, RENDERER, ReportCase, drawable

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# Shorthands that every step may use.
HELPERS = """
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const figure = (title) => document.querySelector(`figure[aria-label="${title}"]`);
const points = (title) => all(".mark-symbol.role-mark path", figure(title));
const shown_rows = () => all("#table tbody tr[data-row]").map((line) => Number(line.dataset.row));
const head = (title) => all("#table th").find((th) => th.textContent.startsWith(title));
const box = (key) => document.querySelector(`#view details[data-filter="${key}"]`);
const option = (key, text) => all("label", box(key)).find((label) => label.querySelector("span").textContent === text).querySelector("input");
const legend = (series) => all("#legend button").find((button) => button.textContent.startsWith(series));
"""

FILTERED = {  # filter and value: which rows of the run "wide" pass
    ("device", "imaginary:0"): lambda row: row["device"] == "imaginary:0",
    ("dtype", "bf16"): lambda row: row["dtype"] == "bf16",
    ("mask", "causal"): lambda row: row["causal"],
    ("contender", "cpu/avx512/unfused"): lambda row: row["contender"].startswith("cpu/avx512/unfused/"),
}


class BrowserTest(ReportCase):
    @classmethod
    def setUpClass(cls):
        cls.browser = Browser(CHROMIUM)
        cls.addClassCleanup(cls.browser.close)

    def open(self, file, **options):
        page = self.browser.open(file, **options)
        self.addCleanup(page.close)
        page.file = file
        return page

    def visit(self, kind, share=None, **options):
        """A page of a made-up run; at the test's end it must have met no trouble and asked for nothing."""
        page = self.open(self.report(kind, share), **options)
        self.addCleanup(self.check_quiet, page)
        return page

    def check_quiet(self, page):
        self.assertEqual(page.console, [])
        self.assertEqual(page.run("return document.body.dataset.errors"), "")
        self.assertEqual({address.partition("#")[0] for address in page.requests}, {page.file.as_uri()})

    def see(self, page, body):
        return page.run(HELPERS + body)

    def act(self, page, body):
        return page.act(HELPERS + body)

    def click_point(self, page, title, which=0):
        """Clicks on a mark with the mouse; returns where its data stand in the file."""
        x, y, position = self.see(page, f"""
            const path = points({json.dumps(title)})[{which}];
            path.scrollIntoView({{block: "center"}});
            const {{left, top, width, height}} = path.getBoundingClientRect();
            return [left + width / 2, top + height / 2, path.__data__.datum.position];""")
        page.click(x, y)
        return position

    def test_every_kind_of_run_is_drawn_without_an_error_or_a_request(self):
        for kind, (_, make) in make_rows.KINDS.items():
            with self.subTest(kind):
                rows = make()
                page = self.visit(kind)
                self.assertEqual(self.see(page, "return shown_rows().length"), len(rows))
                drawn = self.see(page, "return all('figure:not([hidden]) .drawing').map((drawing) => all('svg .role-mark path, svg .role-mark line', drawing).length)")
                self.assertTrue(all(marks > 0 for marks in drawn), drawn)
                self.assertEqual(len(drawn), drawable(rows))
                self.assertEqual(page.run("return document.body.dataset.charts"), str(len(drawn)))

    def test_hostile_text_is_shown_and_does_nothing(self):
        page = self.visit("hostile")
        self.assertIn('</script><script>document.title="owned"</script>', page.run("return document.title"))
        self.assertIn("<img src=x onerror", self.see(page, "return document.querySelector('#table td.contender').textContent"))
        self.assertEqual(self.see(page, "return all('img, iframe, main script').length"), 0)
        self.act(page, "document.querySelector('td.contender button').click();")
        self.assertEqual(self.see(page, "return document.querySelector('tr.detail code').textContent"), make_rows.HOSTILE)
        self.assertEqual(self.see(page, "return all('img, iframe, main script').length"), 0)

    def test_each_column_sorts_up_and_down_and_back(self):
        page = self.visit("sweep")
        rows = make_rows.sweep()
        natural = self.see(page, "return shown_rows()")
        self.assertEqual(sorted(natural), list(range(len(rows))))
        share = lambda row: row["error_max"] / row["error_limit"] if row["error_max"] is not None else None
        keys = {"Contender": "contender", "Sequence": "seq_kv", "Median": "ms_median", "Error": share, "Speedup": "speedup",
                "Tokens/s": "tokens_per_s", "TFLOP/s": "tflops", "Peak memory": "peak_bytes", "Workspace": "workspace_bytes", "Inputs": "inputs"}
        titles = self.see(page, "return all('#table th button').map((button) => button.firstChild.textContent)")
        self.assertLessEqual(keys.keys(), set(titles))
        for title in titles:
            with self.subTest(title):
                seen = []
                for _ in range(3):
                    seen.append(self.act(page, f"head({json.dumps(title)}).querySelector('button').click();"
                                               f"return [head({json.dumps(title)}).getAttribute('aria-sort'), shown_rows()]"))
                self.assertEqual([state for state, _ in seen], ["ascending", "descending", "none"])
                self.assertEqual(seen[2][1], natural)
                for _, order in seen:
                    self.assertEqual(sorted(order), list(range(len(rows))))
                if title not in keys:
                    continue
                key = keys[title] if callable(keys[title]) else lambda row, name=keys[title]: row[name]
                for (_, order), descending in zip(seen, (False, True), strict=False):
                    values = [key(rows[i]) for i in order]
                    there = [value for value in values if value is not None]
                    self.assertEqual(values[:len(there)], there, "what was not measured comes last")
                    self.assertEqual(there, sorted(there, reverse=descending))

    def test_each_filter_holds_for_charts_and_table_and_the_address_keeps_it(self):
        page = self.visit("wide")
        rows = make_rows.wide()
        everything = self.see(page, "return [shown_rows().length, points('Latency').length, all('figure:not([hidden])').length]")
        self.assertEqual(everything[0], len(rows))
        for (key, value), passes in FILTERED.items():
            with self.subTest(key):
                expected = [i for i, row in enumerate(rows) if passes(row)]
                self.act(page, f"box('{key}').querySelector('summary').click(); option('{key}', {json.dumps(value)}).click();")
                shown, note, fragment = self.see(page, "return [shown_rows(), document.getElementById('view-note').textContent, location.hash]")
                self.assertEqual(sorted(shown), expected)
                self.assertIn(f"{len(expected)} of {len(rows)}", note)
                self.assertEqual(fragment, f"#{key}={value}")
                drawn = self.see(page, "return all('.role-mark path').map((path) => path.__data__?.datum?.position).filter(Number.isInteger)")
                self.assertTrue(drawn)
                self.assertLessEqual(set(drawn), set(expected))
                again = self.open(page.file, fragment=fragment)
                self.assertEqual(sorted(self.see(again, "return shown_rows()")), expected)
                self.assertTrue(self.see(again, f"return option('{key}', {json.dumps(value)}).checked"))
                self.act(page, "document.getElementById('reset').click();")
                self.assertEqual(self.see(page, "return [shown_rows().length, points('Latency').length, all('figure:not([hidden])').length]"), everything)
                self.assertEqual(self.see(page, "return [location.hash, document.getElementById('reset').disabled]"), ["", True])

    def test_filters_work_from_the_keyboard(self):
        page = self.visit("wide")
        self.see(page, "box('mask').querySelector('summary').focus();")
        page.press("Enter", text="\r")
        self.assertTrue(self.see(page, "return box('mask').open"))
        page.press("Tab")
        page.press(" ", code="Space", text=" ")
        self.assertEqual(self.see(page, "return location.hash"), "#mask=causal")
        page.press("Escape")
        self.assertFalse(self.see(page, "return box('mask').open"))
        self.assertEqual(self.see(page, "return document.activeElement === box('mask').querySelector('summary')"), True)

    def test_family_controls_legend_and_table_filters_are_in_the_address(self):
        page = self.visit("sweep")
        self.assertEqual(self.see(page, "return points('Latency').length"), 17)  # 3 at 6 lengths; one timed out
        self.act(page, "all('input[name=phase]').find((input) => input.parentNode.textContent === 'decode').click();")
        self.assertEqual(self.see(page, "return points('Latency').length"), 9)  # another family: 3 at 3 lengths
        self.act(page, "legend('cpu/scalar/naive').click();")
        self.assertEqual(self.see(page, "return [points('Latency').length, legend('cpu/scalar/naive').getAttribute('aria-pressed')]"), [6, "false"])
        self.act(page, """
            const {search, status, fastest} = document.getElementById("filters").elements;
            search.value = "causal 1024";
            search.dispatchEvent(new Event("input"));
            fastest.click();
            head("Median").querySelector("button").click();""")
        seen = "return [shown_rows(), points('Latency').length, head('Median').getAttribute('aria-sort')]"
        before = self.see(page, seen)
        again = self.open(page.file, fragment=self.see(page, "return location.hash"))
        self.assertEqual(self.see(again, seen), before)
        self.act(page, "legend('cpu/scalar/naive').click();")
        self.assertEqual(self.see(page, "return points('Latency').length"), 9)
        self.act(page, "document.getElementById('reset').click();")
        self.assertEqual(self.see(page, seen), [self.see(page, "return shown_rows()"), 17, "none"])

    def test_table_filters_choose_the_rows_they_name(self):
        page = self.visit("sweep")
        rows = make_rows.sweep()
        fill = "const set = (name, value, event) => { const field = document.getElementById('filters').elements[name]; field.value = value; field.dispatchEvent(new Event(event)); return shown_rows(); };"
        self.assertEqual({rows[i]["status"] for i in self.see(page, fill + "return set('status', 'timeout', 'change')")}, {"timeout"})
        self.see(page, fill + "set('status', '', 'change');")
        found = self.see(page, fill + "return set('search', 'flash captured:2', 'input')")
        self.assertEqual(len(found), sum(row["inputs"] == "captured:2" and "flash" in row["contender"] for row in rows))
        self.see(page, fill + "set('search', '', 'input');")
        fastest = self.see(page, "document.getElementById('filters').elements.fastest.click(); return shown_rows();")
        self.assertEqual(len(fastest), len({row["case"] for row in rows if row["status"] == "ok"}))

    def test_a_view_that_names_what_is_not_there_is_the_whole_page(self):
        page = self.visit("sweep", fragment="#mask=no+such&contender=%E0%A4%A&at.phase=nothing&row=99999&status=odd&sort=Nothing&&==&%%%")
        self.assertEqual(self.see(page, "return shown_rows().length"), len(make_rows.sweep()))
        self.assertEqual(self.see(page, "return points('Latency').length"), 17)

    def test_a_point_leads_to_its_row_and_back(self):
        page = self.visit("wide")
        titles = self.see(page, "return all('figure:not([hidden])').filter((one) => points(one.getAttribute('aria-label')).length > 0).map((one) => one.getAttribute('aria-label'))")
        self.assertGreaterEqual(len(titles), 9)
        for title in titles:
            with self.subTest(title):
                position = self.click_point(page, title, 1)
                marked, detail, focused, fragment = self.see(page, """
                    const line = document.querySelector("#table tr.marked");
                    const {top, bottom} = line.getBoundingClientRect();
                    return [[Number(line.dataset.row), top >= 0 && bottom <= innerHeight],
                      line.nextElementSibling.className, line.contains(document.activeElement), location.hash];""")
                self.assertEqual(marked, [position, True])
                self.assertEqual((detail, focused), ("detail", True))
                self.assertEqual(fragment, f"#row={position}")
                # Back: the view before, and nothing marked.
                self.act(page, "const back = new Promise((done) => window.addEventListener('popstate', done, {once: true})); history.back(); await back;")
                self.assertEqual(self.see(page, "return [location.hash, all('#table tr.marked').length]"), ["", 0])

    def test_peers_are_hollow_and_dashed_and_leave_the_kernels_their_colours(self):
        looks = """
            return Object.fromEntries(points('Latency').map((path) => [path.__data__.datum.series,
              [path.getAttribute('fill'), path.getAttribute('stroke')]]));"""
        alone, beside = self.see(self.visit("sweep"), looks), self.visit("peers", fragment="#device=cpu&at.direction=forward&at.dtype_label=f32&at.mask=full")
        seen = self.see(beside, looks)
        for series in ("cpu/avx512/flash", "cpu/avx512/unfused"):
            self.assertEqual(seen[series], alone[series])
            self.assertEqual(*seen[series])
        for name in make_rows.PEERS:
            fill, stroke = seen[name]
            self.assertEqual((fill, stroke in {color for pair in alone.values() for color in pair}), ("var(--page)", False), name)
        libraries = {name.split(".")[0]: {seen[one][1] for one in make_rows.PEERS if one.split(".")[0] == name.split(".")[0]} for name in make_rows.PEERS}
        self.assertEqual([len(colors) for colors in libraries.values()], [1] * len(make_rows.VERSIONS))
        self.assertEqual(len({color for colors in libraries.values() for color in colors}), len(make_rows.VERSIONS))
        dashes = self.see(beside, "return all('.mark-line.role-mark path', figure('Latency')).map((path) => path.getAttribute('stroke-dasharray') ?? '')")
        self.assertEqual([sum(dash == "" for dash in dashes), sum(dash != "" for dash in dashes)], [2, len(make_rows.PEERS)])

    def test_the_kind_filter_and_the_groups_of_the_legend(self):
        page = self.visit("peers", fragment="#device=cpu&at.direction=forward&at.dtype_label=f32&at.mask=full")
        rows = make_rows.peers_run()
        groups = self.see(page, "return all('#legend .legend-group').map((group) => [group.getAttribute('aria-label'), all('button:not(.group)', group).length])")
        self.assertEqual(groups, [["kernels", 3], ["jax", 3], ["onnxruntime", 3], ["openvino", 1], ["torch", 5]])
        everything = self.see(page, "return points('Latency').length")
        self.act(page, "legend('torch').click();")  # the group's name
        hidden = self.see(page, "return [points('Latency').length, location.hash.split('hide=').length - 1]")
        torch = [row for row in rows if row["contender"].startswith("torch.") and row["status"] == "ok" and not row["reason"] and row["dtype"] == "f32"
                 and not row["causal"] and row["device"] == "cpu" and row["direction"] == "forward"]
        self.assertEqual(hidden, [everything - len(torch), 5])
        self.act(page, "legend('torch').click();")
        self.assertEqual(self.see(page, "return points('Latency').length"), everything)
        for value, kind in (("kernels", "kernel"), ("peers", "peer")):
            self.act(page, f"option('kind', '{value}').click();")
            self.assertIn(f"kind={value}", self.see(page, "return location.hash"))
            self.assertEqual({rows[i]["kind"] for i in self.see(page, "return shown_rows()")}, {kind})
            again = self.open(page.file, fragment=self.see(page, "return location.hash"))
            self.assertEqual(self.see(again, "return shown_rows()"), self.see(page, "return shown_rows()"))
            # A pair needs both.
            self.assertTrue(self.see(page, "return figure('Best kernel over best peer, every case').hidden"))
            self.assertIn("no kernel and peer of a case", self.see(page, "return document.getElementById('missing').textContent"))
            self.act(page, f"option('kind', '{value}').click();")
        self.assertEqual(self.see(page, "return points('Latency').length"), everything)

    def test_the_best_kernel_over_the_best_peer_leads_to_both_rows(self):
        page = self.visit("peers")
        rows = make_rows.peers_run()
        title = "Best kernel over best peer, every case"
        self.assertEqual(self.see(page, f"return points('{title}').length"), len({row["case"] for row in rows}))
        self.click_point(page, title, 3)
        marked = [rows[i] for i in self.see(page, "return all('#table tr.marked').map((line) => Number(line.dataset.row))")]
        self.assertEqual({row["kind"] for row in marked}, {"kernel", "peer"})
        self.assertEqual(len({row["case"] for row in marked}), 1)
        page.run("history.back()")
        standings = self.see(page, "return all('.duels tbody tr').map((line) => all('td', line)[4].textContent)")
        self.assertEqual(standings, sorted(standings, reverse=True))  # the worst first: behind, then ahead
        self.assertEqual(len(standings), len({row["case"] for row in rows}))

    def test_rows_without_a_rank_are_shown_as_such_and_never_drawn(self):
        page = self.visit("peers")
        rows = make_rows.peers_run()
        unranked = [i for i, row in enumerate(rows) if row["reason"].startswith("not ranked")]
        self.assertGreater(len(unranked), 4)
        drawn = self.see(page, "return all('.role-mark path').flatMap((path) => [path.__data__?.datum ?? []].flat().flatMap((one) => [one.position, ...(Array.isArray(one.members) ? one.members.map((member) => member.position) : [])])).filter(Number.isInteger)")
        self.assertFalse(set(drawn) & set(unranked))
        for place in unranked[:2]:
            pill, reason, speeds, names = self.see(page, f"""
                const line = document.querySelector("tr[data-row='{place}']");
                line.querySelector("td.contender button").click();
                const cell = (title) => line.children[all("#table th").findIndex((one) => one.textContent.startsWith(title))].textContent;
                const entries = all("dl div", line.nextElementSibling).map((one) => [one.querySelector("dt").textContent, one.querySelector("dd").textContent]);
                return [line.querySelector(".pill").textContent, line.querySelector(".reason").textContent,
                  [cell("Speedup"), cell("Tokens/s"), cell("TFLOP/s")], Object.fromEntries(entries)];""")
            self.assertEqual(pill, "not ranked")
            self.assertRegex(reason, r"^calling it takes .* % of its time$")
            self.assertEqual(speeds, ["\u2013"] * 3)
            self.assertEqual((names["version"], names["ran"]), (rows[place]["version"], rows[place]["ran"]))
            self.assertIn("ms", names["overhead_ms"])
            self.assertIn("latency_ms", names)

    def test_what_was_timed_in_another_way_is_not_the_fastest(self):
        page = self.visit("peers")
        rows = make_rows.peers_run()
        fastest = [rows[i] for i in self.see(page, "document.getElementById('filters').elements.fastest.click(); return shown_rows();")]
        self.assertEqual(len(fastest), len({row["case"] for row in rows}))
        self.assertNotIn("events", {row["timer"] for row in fastest})

    def test_a_mean_leads_to_all_of_its_rows(self):
        page = self.visit("wide")
        self.click_point(page, "Speedup over the baseline, every case")
        members = self.see(page, "return points('Speedup over the baseline, every case')[0].__data__.datum.members.map((one) => one.position).sort((a, b) => a - b)")
        self.assertEqual(len(members), 2)
        self.assertEqual(self.see(page, "return all('#table tr.marked').map((line) => Number(line.dataset.row)).sort((a, b) => a - b)"), members)

    def test_the_list_of_points_leads_to_a_row_from_the_keyboard(self):
        page = self.visit("sweep")
        self.see(page, "figure('Latency').querySelector('.points summary').focus();")
        page.press("Enter", text="\r")
        self.assertEqual(self.see(page, """
            const list = figure("Latency").querySelector(".points ol");
            if (list.children.length === 0) await new Promise((done) => new MutationObserver(done).observe(list, {childList: true}));
            return list.children.length;"""), 17)
        page.press("Tab")
        text = self.see(page, "return document.activeElement.textContent")
        self.assertRegex(text, r"cpu/avx512/flash, sequence 128: .*\u2009ms")
        page.press("Enter", text="\r")
        row = make_rows.sweep()[self.see(page, "return Number(document.querySelector('tr.marked').dataset.row)")]
        self.assertEqual((row["contender"], row["seq_kv"]), ("cpu/avx512/flash/f32", 128))

    def test_a_row_of_the_address_is_opened_even_where_the_table_was_filtered(self):
        page = self.visit("sweep", fragment="#row=40")
        self.assertEqual(self.see(page, """
            const line = document.querySelector("tr.marked");
            const {top, bottom} = line.getBoundingClientRect();
            return [line.dataset.row, line.nextElementSibling.className, top >= 0 && bottom <= innerHeight];"""), ["40", "detail", True])
        self.act(page, "const field = document.getElementById('filters').elements.search; field.value = 'no such row'; field.dispatchEvent(new Event('input'));")
        self.assertEqual(self.see(page, "return shown_rows()"), [])
        position = self.click_point(page, "Latency", 3)
        self.assertEqual(self.see(page, "return Number(document.querySelector('tr.marked').dataset.row)"), position)

    def test_details_show_every_field_the_samples_and_a_command_to_copy(self):
        page = self.visit("wide")
        row = make_rows.wide()[0]
        self.act(page, "document.querySelector('tr[data-row=\"0\"] td.contender button').click();")
        names, command, samples, numbers = self.see(page, """
            const detail = document.querySelector("tr.detail");
            return [all("dt", detail).map((name) => name.textContent), detail.querySelector("code").textContent,
              detail.querySelector(".samples p").textContent, detail.querySelector(".numbers").textContent.split(", ").length];""")
        self.assertLessEqual({"contender", "ms_median", "error_max", "least_bytes", "seed", "ran"}, set(names))
        self.assertEqual(command, row["reproduce"])
        self.assertIn("100 of 501 samples", samples)
        self.assertEqual(numbers, 100)
        copied = self.see(page, """
            const button = document.querySelector("tr.detail .command button");
            const changed = new Promise((done) => new MutationObserver(() => done(button.textContent)).observe(button, {childList: true, characterData: true, subtree: true}));
            button.click();
            return await changed;""")
        self.assertEqual(copied, "Copied")

    def test_a_sentence_leads_to_the_rows_it_stands_on(self):
        page = self.visit("wide")
        count = self.see(page, "return all('#insights li .row-link').length")
        self.assertGreater(count, 1)
        self.act(page, "option('mask', 'full').click();")  # hides rows that some sentences stand on
        for i in range(count):
            text = self.act(page, f"const link = all('#insights li .row-link')[{i}]; link.click(); return link.textContent;")
            self.assertEqual(self.see(page, "return all('#table tr.marked').length"), int(text.split()[0]))
        empty = self.visit("one")
        self.assertEqual(self.see(empty, "return [document.getElementById('insights').hidden, document.querySelector(\".contents a[href='#insights']\").hidden]"),
                         [not self.see(empty, "return all('#insights li').length")] * 2)

    def test_roofs_are_the_measured_peaks_and_missing_ones_are_told(self):
        page = self.visit("wide")
        texts = self.see(page, "return all('.mark-text.role-mark text', figure('Roofline')).map((text) => text.textContent)")
        self.assertEqual(sorted(texts), ["L1 800 GB/s", "L2 380 GB/s", "avx512 f32 0.220 TFLOP/s", "memory 28.0 GB/s"])
        self.assertNotIn("No roofs", self.see(page, "return figure('Roofline').textContent"))
        # The other device has no peaks of its own, and is not given another's.
        self.act(page, "option('device', 'imaginary:0').click();")
        self.assertIn("No roofs are drawn", self.see(page, "return figure('Roofline').textContent"))
        self.assertEqual(self.see(page, "return [all('.mark-text.role-mark text', figure('Roofline')).length, points('Roofline').length]"), [0, 2])

    def test_a_chart_without_rows_is_a_line_that_says_why(self):
        page = self.visit("sweep")
        self.assertIn("Throughput over batch: not drawn for this choice, since no length was measured with more than one batch.",
                      self.see(page, "return document.getElementById('missing').textContent"))
        self.assertTrue(self.see(page, "return figure('Throughput over batch').hidden"))

    def test_dark_and_light_follow_the_system(self):
        page = self.visit("sweep")
        colors = """
            const color = (node, name) => getComputedStyle(node)[name];
            return [color(document.body, "backgroundColor"), color(document.body, "color"),
              color(figure("Latency").querySelector(".role-axis-label text"), "fill"), color(points("Latency")[0], "fill")];"""
        light, light_picture = self.see(page, colors), page.picture()
        page.scheme(dark=True)
        dark = self.see(page, colors)
        brightness = lambda color: sum(int(part) for part in color[4:-1].split(","))
        for one, other in zip(light, dark, strict=True):
            self.assertNotEqual(one, other)
        self.assertLess(brightness(dark[0]), 150)
        self.assertGreater(brightness(light[0]), 700)
        self.assertGreater(brightness(dark[1]), 600)
        self.assertNotEqual(light_picture, page.picture())
        page.scheme(dark=False)
        self.assertEqual(self.see(page, colors), light)

    def test_a_phone_shows_the_page_without_scrolling_sideways(self):
        for kind in ("sweep", "wide", "hostile"):
            with self.subTest(kind):
                page = self.visit(kind, width=375, height=700)
                self.act(page, "document.querySelector('td.contender button').click(); all('details').forEach((one) => { one.open = true; });")
                width, table, frame = self.see(page, "const frame = document.querySelector('.table-frame'); return [document.scrollingElement.scrollWidth, frame.scrollWidth, frame.clientWidth]")
                self.assertLessEqual(width, 375)
                self.assertGreater(table, frame)  # it scrolls inside its own box
                wide = self.see(page, "return all('.drawing svg').filter((svg) => svg.getBoundingClientRect().right > 375).length")
                self.assertEqual(wide, 0)

    def test_print_leaves_out_what_paper_cannot_do(self):
        page = self.visit("sweep")
        page.call("Emulation.setEmulatedMedia", media="print")
        hidden = self.see(page, "return all('#reset, #filters, .points, .contents').filter((one) => one.getClientRects().length > 0).length")
        self.assertEqual(hidden, 0)
        self.assertGreater(len(page.call("Page.printToPDF")["data"]), 20_000)

    def test_without_the_renderer_the_page_says_how_to_get_charts(self):
        page = self.visit("sweep", self.share(renderer=False))
        self.assertIn("make setup", self.see(page, "return document.getElementById('charts-note').textContent"))
        self.assertEqual(self.see(page, "return all('.drawing').length"), 0)
        self.act(page, "option('mask', 'causal').click();")
        self.assertLess(self.see(page, "return shown_rows().length"), len(make_rows.sweep()))

    def test_a_chart_is_added_by_dropping_in_a_file(self):
        spec = {"usermeta": {"headwise": {"title": "Rows <b>by</b> contender"}}, "data": {"name": "rows"},
                "mark": "bar", "encoding": {"x": {"aggregate": "count"}, "y": {"field": "series"}}}
        page = self.visit("sweep", self.share(mine=json.dumps(spec)))
        self.assertEqual(page.run("return document.body.dataset.charts"), str(drawable(make_rows.sweep()) + 1))
        self.assertEqual(self.see(page, "return figure('Rows <b>by</b> contender').querySelector('h3').textContent"), "Rows <b>by</b> contender")

    def test_a_broken_chart_is_named_and_the_others_are_drawn(self):
        page = self.open(self.report("sweep", self.share(broken='{"mark": "line",', odd='{"mark": "no such mark"}')))
        self.assertEqual(page.run("return document.body.dataset.charts"), str(drawable(make_rows.sweep())))
        errors = page.run("return document.body.dataset.errors")
        self.assertIn("broken.json", errors)
        self.assertIn("odd.json", errors)
        self.assertIn("broken.json is not valid JSON", page.run("return document.getElementById('figures').textContent"))


if __name__ == "__main__":
    if not os.access(PROGRAM, os.X_OK):
        sys.exit(f"{PROGRAM}: not built; build it, or name it in HEADWISE_PROGRAM")
    missing = [] if CHROMIUM else ["no Chromium on this machine (tools/setup.sh check installs it)"]
    missing += [] if RENDERER.exists() else ["no chart renderer in this build (tools/setup.sh charts installs it)"]
    if missing:
        count = sum(name.startswith("test_") for name in dir(BrowserTest))
        print(f"{count} tests skipped: {'; '.join(missing)}")
        sys.exit(1 if os.environ.get("HEADWISE_REQUIRE_BROWSER") else 77)
    unittest.main()
