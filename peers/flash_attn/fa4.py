"""flash_attn.fa4: FlashAttention 4, written in CuTe DSL and compiled for a shape's kind at its first call."""

import functools
import re

import flash_attn.cute
import torch
from flash_attn.cute import flash_attn_func

from .._errors import Unsupported
from ..torch import _shared

DEVICES = ("cuda",)
ABOUT = "flash_attn.cute.flash_attn_func (FlashAttention 4)"
THREADS = "dynamic"
KERNEL = re.compile(r"flash_attn|FlashAttention|flash_fwd|flash_bwd|cutlass_", re.IGNORECASE)


def describe(threads):
    hello = _shared.describe(dtypes=("f16", "bf16"), devices=("cuda",))
    version = getattr(flash_attn.cute, "__version__", "of unknown version")
    return dict(hello, version=f"flash_attn_4 {version}, {hello['version']}")


def attention(q, k, v, **arguments):
    result = flash_attn_func(q, k, v, **arguments)
    return result[0] if isinstance(result, tuple) else result


def prepare(case):
    if case.pattern == "causal" and case.seq_q != case.seq_kv:
        raise Unsupported(
            f"align: FlashAttention's causal is bottom_right where seq_q differs from seq_kv; came {case.describe_mask()}"
        )
    arguments = {"softmax_scale": case.softmax_scale, "causal": case.right == 0}
    if case.pattern == "band":
        if case.offset != case.seq_kv - case.seq_q:
            raise Unsupported(f"align: FlashAttention's window is bottom_right; came {case.describe_mask()}")
        arguments.update(causal=False, window_size=(case.left, case.right))
    if case.seq_q == 1:
        arguments["num_splits"] = 0
    attend = functools.partial(attention, **arguments)
    words = _shared.notes("BSHD", "causal" if arguments["causal"] else "", "num_splits 0" if case.seq_q == 1 else "")
    with torch.cuda.device(case.device):
        run = _shared.prepare(case, attend, layout=_shared.Packed, note=words, compiles=True, forbidden=_shared.ATEN)
    return run
