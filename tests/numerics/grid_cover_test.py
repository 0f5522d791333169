"""grid.txt is what its script writes, and covers every pair of values of two parameters."""

import os
import sys
import unittest
from pathlib import Path

SOURCE = Path(os.environ.get("HEADWISE_SOURCE_DIR", Path(__file__).resolve().parents[2]))
NUMERICS = SOURCE / "tests" / "numerics"
sys.path.insert(0, str(NUMERICS))

import write_grid  # noqa: E402


def words_of(text):
    return dict(word.split("=") for word in text.split())


def row_of(line):
    """The value of each parameter in a line: of those whose words it has, the one with most of them."""
    words = words_of(line)
    page = int(words.get("page_size", 1))
    row = {}
    for name, values in write_grid.PARAMETERS.items():
        own = {key for value in values for key in words_of(value)}
        has = {key: value for key, value in words.items() if key in own}
        if name == "sizes":  # pages round seq_kv up
            fits = [v for v in values if words_of(v)["seq_q"] == has["seq_q"] and 0 <= rounded(has, v) < page]
        else:
            fits = [value for value in values if words_of(value) == has]
        assert len(fits) == 1, f"{name} of '{line}': {fits}"
        row[name] = fits[0]
    return row


def rounded(words, value):
    return int(words["seq_kv"]) - int(words_of(value)["seq_kv"])


class Grid(unittest.TestCase):
    def setUp(self):
        self.text = (NUMERICS / "grid.txt").read_text(encoding="utf-8")

    def test_is_what_the_script_writes(self):
        self.assertEqual(self.text, write_grid.text(), "run tests/numerics/write_grid.py > tests/numerics/grid.txt")

    def test_covers_every_pair(self):
        covered = set()
        for line in self.text.splitlines():
            covered.update(write_grid.pairs_of(row_of(line)))
        missing = [pair for pair in write_grid.all_pairs() if pair not in covered]
        self.assertEqual(missing, [])
        # Of 17 parameters only the widest heads with the two largest sizes are left out.
        counts = [len(values) for values in write_grid.PARAMETERS.values()]
        pairs = sum(a * b for i, a in enumerate(counts) for b in counts[i + 1 :])
        self.assertEqual(len(list(write_grid.all_pairs())), pairs - 2)

    def test_a_line_that_matters_nowhere_else_covers_less(self):
        row = row_of(self.text.splitlines()[0])
        one_key = dict(row, sizes="seq_q=1 seq_kv=1", bias="bias=1")
        pairs = list(write_grid.pairs_of(one_key))
        self.assertIn(("bias", "bias=1", "sizes", "seq_q=1 seq_kv=1"), pairs)
        self.assertFalse([p for p in pairs if "bias" in (p[0], p[2]) and "sizes" not in (p[0], p[2])])


if __name__ == "__main__":
    unittest.main()
