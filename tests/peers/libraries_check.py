"""Every peer whose library is installed, on small cases against attention from its formula.

HEADWISE_ENVIRONMENTS names the folder with <set>/bin/python; the default is build/peers, where make peers
puts them. HEADWISE_PEER_DEVICE is the device, cpu or cuda:0.
Arguments narrow it: libraries_check.py torch.flash jax.jit
No part of ctest: compiling a shape takes half a minute, and there are many.
"""

import os
import sys
import unittest

from program_side import SOURCE, Shared, Worker, largest_error, reference

ENVIRONMENTS = os.environ.get("HEADWISE_ENVIRONMENTS") or os.path.join(SOURCE, "build", "peers")
DEVICE = os.environ.get("HEADWISE_PEER_DEVICE") or "cpu"
SKIPPED = 77
# Of the largest value: a few roundings of the type, as unfused attention makes them.
ALLOWED = {"f32": 2e-5, "f16": 6e-3, "bf16": 5e-2}
WIDE = dict(head_dim=32, head_dim_v=32)
CASES = [
    dict(WIDE, batch=2, seq_q=19, seq_kv=19),
    dict(WIDE, heads=4, causal=True, seq_q=33, seq_kv=33),
    dict(WIDE, heads=4, causal=True, seq_q=7, seq_kv=20, align="bottom_right"),
    dict(WIDE, causal=True, seq_q=7, seq_kv=20, align="top_left"),
    dict(WIDE, causal=True, seq_q=1, seq_kv=40, heads=8, align="bottom_right"),
    dict(WIDE, seq_q=24, seq_kv=24, window_left=5, window_right=2),
    dict(WIDE, seq_q=24, seq_kv=24, window_left=5, causal=True, softmax_scale=0.3),
    dict(WIDE, seq_q=9, seq_kv=4, causal=True, align="bottom_right"),
    dict(WIDE, seq_q=40, seq_kv=40, cold=True),
    dict(WIDE, heads=4, seq_q=40, seq_kv=72),
    dict(head_dim=32, head_dim_v=16),
    dict(WIDE, seq_q=0),
    dict(WIDE, seq_kv=0),
]
REPLIES = {"ok", "unsupported"}


def peers():
    """(peer, its Python) for every peer whose environment is here."""
    for name in sorted(os.listdir(ENVIRONMENTS)) if os.path.isdir(ENVIRONMENTS) else []:
        python = os.path.join(ENVIRONMENTS, name, "bin", "python")
        folder = os.path.join(SOURCE, "peers", name)
        if os.path.exists(python) and os.path.isdir(folder):
            files = sorted(file for file in os.listdir(folder) if file.endswith(".py") and file[0] != "_")
            yield from ((f"{name}.{file[:-3]}", python) for file in files)


class LibraryTest(unittest.TestCase):
    wanted = []

    def check(self, worker, shared):
        """One case through every operation; what the peer does not take must say why."""
        reply = worker.ask("prepare", seconds=300, case=shared.case)
        self.assertIn(reply["status"], REPLIES, reply)
        if reply["status"] == "unsupported":
            self.assertRegex(reply["reason"], r"\w+.*\w+")
            return False
        self.assertTrue(reply["ran"])
        self.assertGreater(reply.get("overhead_ms", 1), 0)
        right, allowed = reference(shared), ALLOWED[shared.case["dtype"]]
        for operation, fields in (("call", {}), ("time", dict(calls=3, lead_in_ms=1))):
            shared.clear()
            reply = worker.ask(operation, **fields)
            self.assertEqual("ok", reply["status"], reply)
            if operation == "time":
                self.assertGreaterEqual(reply["calls"], 3)
                self.assertEqual("ok", worker.ask("output")["status"])
            self.assertLess(largest_error(shared, right), allowed, operation)
        self.assertEqual("ok", worker.ask("release")["status"])
        return True

    def test_every_peer_is_right_or_says_why_not(self):
        for peer, python in peers():
            if self.wanted and peer not in self.wanted:
                continue
            worker = Worker(peer, python, threads=2)
            self.addCleanup(worker.kill)
            hello = worker.hello
            self.assertEqual("ok", hello["status"], hello)
            if DEVICE.partition(":")[0] not in hello["devices"]:
                print(f"{peer}: {hello['devices']}, not {DEVICE}", file=sys.stderr)
                continue
            done = 0
            # What is compiled a shape takes half a minute a case.
            cases = CASES[:: 3 if hello["threads"] == "fixed" else 1]
            kinds = [(dtype, direction) for dtype in hello["dtypes"] for direction in hello["directions"]]
            for dtype, direction in kinds:
                for fields in cases:
                    with self.subTest(peer=peer, dtype=dtype, direction=direction, **fields):
                        shared = Shared(dtype=dtype, direction=direction, threads=2, device=DEVICE, **fields)
                        done += self.check(worker, shared)
                        shared.close()
            self.assertGreater(done, 0, f"{peer} took no case at all")
            self.assertEqual(0, worker.close())


if __name__ == "__main__":
    LibraryTest.wanted = sys.argv[1:]
    if not list(peers()):
        print(f"libraries_check.py: no environment in {ENVIRONMENTS}; make peers puts them there")
        sys.exit(SKIPPED)
    unittest.main(argv=sys.argv[:1])
