"""torch.eager: matmul, softmax, matmul."""

import re

from . import _eager, _shared

DEVICES = ("cpu", "cuda")
ABOUT = "matmul, softmax, matmul in torch, with an explicit mask; all scores in memory"
THREADS = "dynamic"
FUSED = re.compile(_shared.SDPA)


def describe(threads):
    return _shared.describe()


def prepare(case):
    attend = _eager.bound(case, _eager.attention)
    return _shared.prepare(case, attend, _eager.layout(case), forbidden=FUSED, note=_eager.note(case))
