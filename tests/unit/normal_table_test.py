"""The committed table of the normal distribution is what its script writes."""

import os
import subprocess
import sys

source = os.environ.get("HEADWISE_SOURCE_DIR") or os.path.join(os.path.dirname(__file__), "..", "..")
written = subprocess.run(
    [sys.executable, os.path.join(source, "tools", "normal_table.py")], capture_output=True, text=True, check=True
).stdout
with open(os.path.join(source, "src", "lab", "normal_table.inc"), encoding="utf-8") as file:
    committed = file.read()
if written != committed:
    sys.exit("src/lab/normal_table.inc differs from what tools/normal_table.py writes")
