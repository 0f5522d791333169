"""torch.efficient: torch.nn.functional.scaled_dot_product_attention, its memory-efficient backend alone."""

from torch.nn.attention import SDPBackend
from torch.nn.attention.bias import causal_lower_right

from .._errors import Fallback, Unsupported
from . import _shared

DEVICES = ("cuda",)
ABOUT = "torch's scaled_dot_product_attention, memory-efficient backend (CUTLASS kernels)"
THREADS = "dynamic"
# The second of each is what torch calls for causal at the bottom right.
OPERATORS = {
    False: ("aten::_scaled_dot_product_efficient_attention", "aten::_efficient_attention_forward"),
    True: ("aten::_scaled_dot_product_efficient_attention_backward", "aten::_efficient_attention_backward"),
}


def describe(threads):
    return _shared.describe(devices=("cuda",))


def prepare_as(case, arguments, words):
    attend = _shared.sdpa(case, **arguments)
    layout, backend = _shared.fused_layout(case), SDPBackend.EFFICIENT_ATTENTION
    return _shared.prepare(case, attend, layout, backend, wanted=OPERATORS.__getitem__, note=words)


def prepare(case):
    if case.pattern == "full":
        return prepare_as(case, {}, "")
    if case.pattern == "causal":
        return prepare_as(case, {"is_causal": True}, "is_causal")
    if case.pattern == "causal_bottom_right" and case.seq_q <= case.seq_kv and not case.grouped:
        try:
            bias = causal_lower_right(case.seq_q, case.seq_kv)
            return prepare_as(case, {"attn_mask": bias}, "causal_lower_right")
        except (Fallback, Unsupported):
            # A mask says the same, at the price of computing all scores.
            pass
    return prepare_as(case, {"attn_mask": _shared.bool_mask(case)}, "explicit mask")
