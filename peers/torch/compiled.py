"""torch.compiled: matmul, softmax, matmul under torch.compile."""

from . import _compile, _eager, _shared

DEVICES = ("cpu", "cuda")
ABOUT = "matmul, softmax, matmul under torch.compile (inductor, default mode), with an explicit mask"
THREADS = "fixed"


def describe(threads):
    return _shared.describe()


def prepare(case):
    attend = _eager.bound(case, _compile.compiled(_eager.attention))
    with _compile.compilers():
        return _shared.prepare(case, attend, _eager.layout(case), note=_eager.note(case), compiles=True)
