"""What the fake peers share: attention from its formula in plain Python, for small f32 cases.

Each fake is this peer with one thing gone wrong, where seq_kv is over 1: the smallest case, by which a worker
measures the cost of a call, goes well in all of them.
"""

import array
import math

from .. import _cpu
from .._errors import Unsupported

ABOUT = "a fake for tests: attention from its formula in plain Python"
THREADS = "dynamic"


def describe(threads):
    return {"version": "fake 1", "devices": ["cpu"], "dtypes": ["f32"], "directions": ["forward"]}


def seen(case, query, key):
    middle = query + case.offset
    left = case.left is None or key >= middle - case.left
    return left and (case.right is None or key <= middle + case.right)


def row(case, q, k, v, query, width):
    """The output of one query of one head, from its row of q and that head's rows of k and v."""
    keys = [key for key in range(case.seq_kv) if seen(case, query, key)]
    scores = [case.softmax_scale * math.fsum(a * b for a, b in zip(q, k[key])) for key in keys]
    top = max(scores, default=0.0)
    weights = [math.exp(score - top) for score in scores]
    total = math.fsum(weights)
    return [
        math.fsum(w * v[key][i] for w, key in zip(weights, keys)) / total if keys else 0.0
        for i in range(width)
    ]


def attention(case):
    """The whole output, flat, as [batch, seq_q, heads, head_dim_v]."""
    flat = {name: case.view(name).cast("f").tolist() for name in case.inputs}
    depth, width, out = case.head_dim, case.head_dim_v, []
    for batch in range(case.batch):
        rows = {}
        for head in range(case.kv_heads):
            starts = [(batch * case.seq_kv + key) * case.kv_heads + head for key in range(case.seq_kv)]
            k = [flat["k"][start * depth : (start + 1) * depth] for start in starts]
            rows[head] = (k, [flat["v"][start * width : (start + 1) * width] for start in starts])
        for query in range(case.seq_q):
            for head in range(case.heads):
                start = ((batch * case.seq_q + query) * case.heads + head) * depth
                k, v = rows[head // case.groups]
                out += row(case, flat["q"][start : start + depth], k, v, query, width)
    return out


def write(case, values):
    if values:
        case.view("out").cast("f")[:] = memoryview(array.array("f", values))


class Run(_cpu.HostRun):
    """The good run; fakes override one of its methods."""

    def __init__(self, case):
        super().__init__(case, lambda: attention(case), lambda values: write(case, values), "plain Python")


def prepare(case, run=Run):
    if case.dtype != "f32":
        raise Unsupported(f"dtype: expected f32, came {case.dtype}")
    return run(case)
