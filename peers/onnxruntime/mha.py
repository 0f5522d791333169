"""onnxruntime.mha: the contrib operator MultiHeadAttention."""

import onnx

from .. import _arrays
from .._errors import Unsupported
from . import _shared

DEVICES = ("cpu", "cuda")
ABOUT = "onnxruntime's com.microsoft.MultiHeadAttention; no grouped heads; on a CPU f32 alone"
THREADS = "dynamic"
# Above this share of queries the operator's own transposes of K and V cost less than its other path.
MANY_QUERIES = 4


def describe(threads):
    return _shared.describe()


def keys_and_values(case):
    """K and V heads first, or as [batch, seq, hidden] where that is faster or the only way."""
    if case.head_dim_v != case.head_dim or MANY_QUERIES * case.seq_q >= case.seq_kv:
        return _arrays.folded, "BSHD"
    return _arrays.heads_first, "BSHD query, BHSD key and value"


def masking(case):
    """(attributes, tensors, note) for the case's mask."""
    # With fewer queries than keys, unidirectional lets the last query see every key.
    if case.pattern == "causal" and case.seq_q >= case.seq_kv:
        return {"unidirectional": 1}, [], "; unidirectional"
    if case.pattern == "full":
        return {}, [], ""
    bias = _arrays.additive(case.mask(), case.dtype)[None, None]
    return {}, [_shared.Tensor("bias", case.dtype, bias)], "; explicit attention_bias"


def prepare(case):
    _shared.refuse(case)
    if case.grouped:
        raise Unsupported(
            f"kv_heads: MultiHeadAttention takes as many as heads ({case.heads}); came {case.kv_heads}; "
            "take onnxruntime.gqa or onnxruntime.attention"
        )
    attributes, masks, told = masking(case)
    layout, note = keys_and_values(case)
    inputs = [_shared.Tensor("q", case.dtype, _arrays.folded(case, "q"))]
    inputs += [_shared.Tensor(name, case.dtype, layout(case, name)) for name in ("k", "v")]
    # Between value and attention_bias stand a bias and a padding mask, which are not there.
    names = ["q", "k", "v"] + (["", "", "bias"] if masks else [])
    node = onnx.helper.make_node(
        "MultiHeadAttention",
        names,
        ["out"],
        domain=_shared.CONTRIB,
        num_heads=case.heads,
        scale=case.softmax_scale,
        **attributes,
    )
    return _shared.prepare(case, node, inputs + masks, "BSHD", note + told)
