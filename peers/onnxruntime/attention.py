"""onnxruntime.attention: the Attention operator of ONNX, opset 23."""

import onnx

from .. import _arrays
from . import _shared

DEVICES = ("cpu", "cuda")
ABOUT = "onnxruntime's Attention operator (ONNX opset 23); on a CPU no bf16"
THREADS = "dynamic"


def describe(threads):
    return _shared.describe()


def prepare(case):
    _shared.refuse(case)
    # Heads first: with [batch, seq, hidden] inputs the operator transposes them itself, in every call.
    inputs = [_shared.Tensor(name, case.dtype, _arrays.heads_first(case, name)) for name in ("q", "k", "v")]
    note = "BHSD copies"
    if case.pattern == "causal":
        note += "; is_causal"
    elif case.pattern != "full":
        inputs.append(_shared.Tensor("mask", "bool", case.mask()))
        note += "; explicit bool mask"
    names = [tensor.name for tensor in inputs]
    causal = int(case.pattern == "causal")
    node = onnx.helper.make_node("Attention", names, ["out"], scale=case.softmax_scale, is_causal=causal)
    return _shared.prepare(case, node, inputs, "BHSD", note)
