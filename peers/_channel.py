"""The private channel between a worker and the program: JSON objects, one a line.

What a library prints goes to file descriptor 1. The channel therefore moves away from it first, so that
nothing but replies ever reaches the program.
"""

import json
import os


class Channel:
    """Requests in, replies out."""

    def __init__(self):
        self.requests = os.fdopen(os.dup(0), "rb")
        self.replies = os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)

    def read(self):
        """The next request, or None at the end of the program's stream."""
        line = self.requests.readline()
        return json.loads(line) if line.strip() else None

    def write(self, reply):
        self.write_bytes(json.dumps(reply, allow_nan=False).encode() + b"\n")

    def write_bytes(self, data):
        while data:
            data = data[os.write(self.replies, data) :]


# The one channel of this process; worker.py opens it.
current = None
