"""The program's side of the peer protocol, for tests: starts a worker, shares memory, asks, stops it between.

Standard library only; the reference is attention from its formula in double precision.
"""

import itertools
import json
import math
import mmap
import os
import random
import select
import signal
import struct
import subprocess

SOURCE = os.environ.get("HEADWISE_SOURCE_DIR") or os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)
WORKER = os.path.join(SOURCE, "peers", "worker.py")
FAKES = os.path.join(SOURCE, "tests", "peers", "fakes")
ITEM_BYTES = {"f32": 4, "f16": 2, "bf16": 2}
FORMATS = {"f32": "f", "f16": "e"}


def encode(values, dtype):
    if dtype != "bf16":
        return struct.pack(f"{len(values)}{FORMATS[dtype]}", *values)
    bits = struct.unpack(f"{len(values)}I", struct.pack(f"{len(values)}f", *values))
    return struct.pack(f"{len(values)}H", *((b + 0x7FFF + (b >> 16 & 1)) >> 16 for b in bits))


def decode(data, dtype):
    count = len(data) // ITEM_BYTES[dtype]
    if dtype != "bf16":
        return list(struct.unpack(f"{count}{FORMATS[dtype]}", data))
    return list(
        struct.unpack(f"{count}f", b"".join(b"\0\0" + data[i : i + 2] for i in range(0, 2 * count, 2)))
    )


class Shared:
    """A case with its tensors in shared memory, random inputs, outputs of NaN."""

    def __init__(self, direction="forward", dtype="f32", seed=1, **fields):
        case = dict(
            device="cpu", threads=1, direction=direction, dtype=dtype, kv_dtype=dtype, batch=1, heads=2
        )
        case.update(
            kv_heads=2, seq_q=5, seq_kv=5, head_dim=8, head_dim_v=8, causal=False, align="unspecified"
        )
        case.update(window_left=-1, window_right=-1, cold=False, last_level_cache_bytes=1 << 20)
        case.update(fields)
        case.setdefault("softmax_scale", case["head_dim"] ** -0.5)
        self.case = case
        self.inputs = ["q", "k", "v"] + ["dout"] * (direction == "backward")
        self.outputs = ["out"] if direction == "forward" else ["dq", "dk", "dv"]
        queries, keys = (
            (case["batch"], case[f"seq_{s}"], case[h]) for s, h in (("q", "heads"), ("kv", "kv_heads"))
        )
        depth, width = (case["head_dim"],), (case["head_dim_v"],)
        shapes = {"q": queries + depth, "k": keys + depth, "v": keys + width, "out": queries + width}
        shapes.update(dout=shapes["out"], dq=shapes["q"], dk=shapes["k"], dv=shapes["v"])
        case["tensors"], end = {}, 0
        for name in self.inputs + self.outputs:
            case["tensors"][name] = {"offset": end, "dtype": dtype, "shape": list(shapes[name])}
            end += math.prod(shapes[name]) * ITEM_BYTES[dtype]
            end += -end % 64
        self.descriptor = os.memfd_create("peers-test")
        os.ftruncate(self.descriptor, max(end, 1))
        self.memory = mmap.mmap(self.descriptor, max(end, 1))
        case["memory"] = {"path": f"/proc/{os.getpid()}/fd/{self.descriptor}", "bytes": end}
        draw = random.Random(seed)
        for name in self.inputs:
            self.set(name, [draw.gauss(0, 1) for _ in range(math.prod(shapes[name]))])
        self.clear()

    def place(self, name):
        tensor = self.case["tensors"][name]
        size = math.prod(tensor["shape"]) * ITEM_BYTES[tensor["dtype"]]
        return slice(tensor["offset"], tensor["offset"] + size), tensor

    def set(self, name, values):
        where, tensor = self.place(name)
        self.memory[where] = encode(values, tensor["dtype"])

    def get(self, name):
        where, tensor = self.place(name)
        return decode(self.memory[where], tensor["dtype"])

    def clear(self):
        for name in self.outputs:
            self.set(name, [math.nan] * math.prod(self.place(name)[1]["shape"]))

    def rows(self, name, batch, head):
        """The rows of one head of a tensor."""
        shape, values = self.case["tensors"][name]["shape"], self.get(name)
        starts = [((batch * shape[1] + row) * shape[2] + head) * shape[3] for row in range(shape[1])]
        return [values[start : start + shape[3]] for start in starts]

    def close(self):
        self.memory.close()
        os.close(self.descriptor)


def seen(case, query, key):
    middle = query + (case["seq_kv"] - case["seq_q"] if case["align"] == "bottom_right" else 0)
    if case["causal"] and key > middle:
        return False
    if case["window_left"] >= 0 and key < middle - case["window_left"]:
        return False
    return case["window_right"] < 0 or key <= middle + case["window_right"]


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b))


def head_reference(shared, batch, head, kv_head):
    """(out, dq, dk, dv) of one query head, the last three empty in forward."""
    case = shared.case
    q, k, v = (
        shared.rows("q", batch, head),
        shared.rows("k", batch, kv_head),
        shared.rows("v", batch, kv_head),
    )
    backward = case["direction"] == "backward"
    dout = shared.rows("dout", batch, head) if backward else []
    scale, width = case["softmax_scale"], case["head_dim_v"]
    out, dq = [], []
    dk, dv = [[0.0] * case["head_dim"] for _ in k], [[0.0] * width for _ in v]
    for i, query in enumerate(q):
        keys = [j for j in range(len(k)) if seen(case, i, j)]
        scores = [scale * dot(query, k[j]) for j in keys]
        top = max(scores, default=0.0)
        weights = [math.exp(score - top) for score in scores]
        weights = [weight / math.fsum(weights) for weight in weights]
        out.append([math.fsum(p * v[j][c] for p, j in zip(weights, keys)) for c in range(width)])
        if not backward:
            continue
        slopes = [dot(dout[i], v[j]) for j in keys]
        middle = dot(weights, slopes)
        ds = [scale * p * (slope - middle) for p, slope in zip(weights, slopes)]
        dq.append([math.fsum(s * k[j][c] for s, j in zip(ds, keys)) for c in range(case["head_dim"])])
        for p, s, j in zip(weights, ds, keys):
            dk[j] = [total + s * x for total, x in zip(dk[j], query)]
            dv[j] = [total + p * x for total, x in zip(dv[j], dout[i])]
    return out, dq, dk, dv


def reference(shared):
    """{output: its right values, flat} in double precision."""
    case = shared.case
    groups = case["heads"] // case["kv_heads"]
    totals = {name: [0.0] * math.prod(shared.case["tensors"][name]["shape"]) for name in shared.outputs}
    for batch, head in itertools.product(range(case["batch"]), range(case["heads"])):
        found = dict(zip(("out", "dq", "dk", "dv"), head_reference(shared, batch, head, head // groups)))
        for name in shared.outputs:
            shape = case["tensors"][name]["shape"]
            own = head if name in ("out", "dq") else head // groups
            for row, values in enumerate(found[name]):
                start = ((batch * shape[1] + row) * shape[2] + own) * shape[3]
                for column, value in enumerate(values):
                    totals[name][start + column] += value
    return totals


def largest_error(shared, right):
    """The largest distance from the reference, in units of its largest value; NaN counts as infinite."""
    worst = 0.0
    for name, values in right.items():
        unit = max((abs(value) for value in values), default=0.0) or 1.0
        for got, value in zip(shared.get(name), values):
            worst = max(worst, abs(got - value) / unit if math.isfinite(got) else math.inf)
    return worst


class Worker:
    """A worker process, stopped while no request is open."""

    def __init__(self, peer, python, threads=1, start_seconds=120, **environment):
        names = ("HEADWISE_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, str(threads)), **environment}
        command = [python, "-B", WORKER, peer]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
        self.process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
        self.rest = b""
        self.asked = 0
        self.hello = self.line(start_seconds)

    def line(self, seconds):
        """The next line as an object; None where the worker ended, TimeoutError where none came in time."""
        while b"\n" not in self.rest:
            if not select.select([self.process.stdout], [], [], seconds)[0]:
                raise TimeoutError(self.rest)
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                return None
            self.rest += data
        line, _, self.rest = self.rest.partition(b"\n")
        return json.loads(line)

    def signal(self, number):
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def ask(self, operation, seconds=120, **fields):
        self.asked += 1
        request = dict(id=self.asked, op=operation, **fields)
        self.signal(signal.SIGCONT)
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        reply = self.line(seconds)
        self.signal(signal.SIGSTOP)
        return reply

    def close(self):
        """Ends the requests; the worker's exit code, by its own end."""
        self.signal(signal.SIGCONT)
        self.process.stdin.close()
        code = self.process.wait(timeout=20)
        self.process.stdout.close()
        return code

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
