"""Every C++ example of docs/attention.md stands in attention_examples_test.cpp, where it is compiled and run."""

import os
import re
import unittest
from pathlib import Path

SOURCE = Path(os.environ.get("HEADWISE_SOURCE_DIR", Path(__file__).resolve().parents[2]))
EXAMPLES = SOURCE / "tests" / "unit" / "attention_examples_test.cpp"
PAGE = SOURCE / "docs" / "attention.md"


def lines(text):
    """Without indentation, which depends on where an example stands, and without empty lines."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


class AttentionPage(unittest.TestCase):
    def test_examples_are_those_that_run(self):
        blocks = re.findall(r"^```cpp\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
        self.assertGreater(len(blocks), 9)
        run = lines(EXAMPLES.read_text(encoding="utf-8"))
        for block in blocks:
            self.assertIn("\n" + lines(block) + "\n", run, f"{EXAMPLES.name} lacks this example of {PAGE.name}:\n{block}")


if __name__ == "__main__":
    unittest.main()
