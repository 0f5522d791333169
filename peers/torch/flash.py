"""torch.flash: torch.nn.functional.scaled_dot_product_attention, its flash backend alone."""

from torch.nn.attention import SDPBackend
from torch.nn.attention.bias import causal_lower_right

from .._errors import Unsupported
from . import _shared

DEVICES = ("cpu", "cuda")
ABOUT = "torch's scaled_dot_product_attention, flash backend (FlashAttention-2 on CUDA, torch's own on CPU)"
THREADS = "dynamic"
# The f32 of CUDA has no flash kernel; torch says so itself, case by case.
CPU_OPERATOR = "aten::_scaled_dot_product_flash_attention_for_cpu"
CUDA_OPERATOR = "aten::_scaled_dot_product_flash_attention"


def describe(threads):
    return _shared.describe()


def masking(case):
    """(arguments of the call, what is told of them)."""
    if case.pattern == "full":
        return {}, ""
    if case.pattern == "causal":
        return {"is_causal": True}, "is_causal"
    if not case.cuda:
        return {"attn_mask": _shared.bool_mask(case)}, "explicit mask"
    if case.pattern == "causal_bottom_right" and case.seq_q <= case.seq_kv:
        return {"attn_mask": causal_lower_right(case.seq_q, case.seq_kv)}, "causal_lower_right"
    raise Unsupported(
        "window, align: torch's flash backend on CUDA takes causal at the top left with seq_q = seq_kv, or "
        f"at the bottom right with seq_q <= seq_kv, and no window; came {case.describe_mask()}"
    )


def operators(case):
    name = CUDA_OPERATOR if case.cuda else CPU_OPERATOR
    return lambda backward: (name + "_backward" if backward else name,)


def prepare(case):
    arguments, note = masking(case)
    attend = _shared.sdpa(case, **arguments)
    layout, backend = _shared.fused_layout(case), SDPBackend.FLASH_ATTENTION
    return _shared.prepare(case, attend, layout, backend, wanted=operators(case), note=note)
