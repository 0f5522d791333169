"""torch.math: torch.nn.functional.scaled_dot_product_attention, its unfused reference."""

import re

from torch.nn.attention import SDPBackend

from . import _shared

DEVICES = ("cpu", "cuda")
ABOUT = "torch's scaled_dot_product_attention, math backend: its unfused reference; all scores in memory"
THREADS = "dynamic"
OPERATOR = "aten::_scaled_dot_product_attention_math"
FUSED = re.compile("_scaled_dot_product_(flash|efficient|cudnn|fused)")


def describe(threads):
    return _shared.describe()


def operators(backward):
    """Its backward is that of the operators it is made of."""
    return () if backward else (OPERATOR,)


def prepare(case):
    arguments, words = {}, ""
    if case.pattern == "causal":
        arguments, words = {"is_causal": True}, "is_causal"
    elif case.pattern != "full":
        arguments, words = {"attn_mask": _shared.bool_mask(case)}, "explicit mask"
    attend = _shared.sdpa(case, **arguments)
    layout, backend = _shared.ContiguousHeads, SDPBackend.MATH
    return _shared.prepare(case, attend, layout, backend, wanted=operators, forbidden=FUSED, note=words)
