"""What the rows say, in the page: the sentences of a made-up run, and that each leads to its rows."""

import json
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
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class InsightsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="headwise_insights_")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def page(self, kind):
        run, page = self.folder / f"{kind}.jsonl", self.folder / f"{kind}.html"
        run.write_text(make_rows.lines(kind), encoding="utf-8")
        done = subprocess.run([PROGRAM, "report", str(run), "--out", str(page)], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return page

    def insights(self, kind):
        text = self.page(kind).read_text(encoding="utf-8")
        return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])["insights"]

    def test_a_sweep_has_recommendations_and_crossovers_that_stand_on_ranked_rows(self):
        rows = make_rows.KINDS["sweep"][1]()
        insights = self.insights("sweep")
        uses = {item["use"] for item in insights["recommendations"]}
        self.assertEqual(uses, {"full prefill", "causal prefill", "grouped-query prefill", "decoding",
                                "a real model's tensors", "least memory"})
        self.assertGreater(len(insights["crossovers"]), 4)
        for item in insights["recommendations"] + insights["crossovers"]:
            self.assertTrue(item["sentence"].endswith("."), item)
            self.assertTrue(item["rows"])
            self.assertEqual({rows[place]["status"] for place in item["rows"]}, {"ok"})
        for item in insights["crossovers"]:
            contenders = {rows[place]["contender"] for place in item["rows"]}
            self.assertEqual(len(contenders), 2, item)
            self.assertIn("cpu/avx512/unfused/f32", contenders)

    def test_rows_that_are_not_ranked_say_nothing(self):
        for kind in ("empty", "failed"):
            self.assertEqual(self.insights(kind), {"recommendations": [], "crossovers": [], "peers": {"verdict": "", "duels": [], "standings": [], "remarks": []}})

    def test_the_best_kernel_meets_the_best_peer_of_each_case_where_they_were_timed_alike(self):
        rows = make_rows.KINDS["peers"][1]()
        ranked = [row for row in rows if row["status"] == "ok" and not row["reason"].startswith("not ranked")]
        peers = self.insights("peers")["peers"]
        cases = {row["case"] for row in rows}
        self.assertEqual(len(peers["duels"]), len(cases))
        for duel in peers["duels"]:
            kernel, peer = rows[duel["kernel"]], rows[duel["peer"]]
            self.assertEqual((kernel["kind"], peer["kind"], kernel["case"], kernel["timer"]), ("kernel", "peer", peer["case"], peer["timer"]))
            for one in (kernel, peer):
                rivals = [row["ms_median"] for row in ranked if (row["case"], row["timer"], row["kind"]) == (one["case"], one["timer"], one["kind"])]
                self.assertEqual(one["ms_median"], min(rivals))
            self.assertAlmostEqual(duel["ratio"], peer["ms_median"] / kernel["ms_median"], places=6)
        behind = sum(duel["high"] < 1 for duel in peers["duels"])
        self.assertIn(f"of {len(cases)} cases", peers["verdict"])
        self.assertIn(f"behind in {behind}: ", peers["verdict"])
        self.assertEqual(len(peers["standings"]), 6)  # two dtypes and masks, the gradient, the GPU
        self.assertTrue(any("torch.math in 2 cases (timed by events, the kernels by graph)" in remark for remark in peers["remarks"]))

    @unittest.skipUnless(CHROMIUM, "no Chromium on this machine")
    def test_the_page_shows_them_and_hides_the_section_without_them(self):
        for kind in ("sweep", "hostile", "empty", "peers"):
            page = self.page(kind)
            insights = self.insights(kind)
            command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                       f"--user-data-dir={self.folder / 'profile'}", "--virtual-time-budget=30000", "--dump-dom", page.as_uri()]
            shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
            self.assertIn('data-errors=""', shown)
            section = re.search(r'<section id="insights"([^>]*)>(.*?)</section>', shown, re.S)
            count = len(insights["recommendations"]) + len(insights["crossovers"]) + len(insights["peers"]["standings"])
            self.assertEqual(section[2].count("<li>"), count)
            self.assertEqual(section[2].count("row-link"), count + len(insights["peers"]["duels"]))
            self.assertEqual("hidden" in section[1], count == 0)


if __name__ == "__main__":
    unittest.main()
