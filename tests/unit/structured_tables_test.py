"""The committed tables of structured inputs are what their script writes."""

import os
import subprocess
import sys

source = os.environ.get("HEADWISE_SOURCE_DIR") or os.path.join(os.path.dirname(__file__), "..", "..")
written = subprocess.run(
    [sys.executable, os.path.join(source, "tools", "structured_tables.py")], capture_output=True, text=True, check=True
).stdout
with open(os.path.join(source, "src", "lab", "structured_tables.inc"), encoding="utf-8") as file:
    committed = file.read()
if written != committed:
    sys.exit("src/lab/structured_tables.inc differs from what tools/structured_tables.py writes")
