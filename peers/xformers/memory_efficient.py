"""xformers.memory_efficient: xFormers' memory_efficient_attention, by the operator that it chooses itself."""

import functools

import torch
import xformers
import xformers.ops
from xformers.ops import fmha

from .._errors import Unsupported
from ..torch import _shared

DEVICES = ("cuda",)
ABOUT = "xformers.ops.memory_efficient_attention, by the operator that it chooses"
THREADS = "dynamic"


def describe(threads):
    hello = _shared.describe(devices=("cuda",))
    return dict(hello, version=f"xformers {xformers.__version__}, {hello['version']}")


def bias_of(case):
    if case.pattern == "full":
        return None
    if case.pattern == "causal":
        return fmha.attn_bias.LowerTriangularMask()
    if case.pattern == "causal_bottom_right":
        return fmha.attn_bias.LowerTriangularFromBottomRightMask()
    raise Unsupported(f"window: this peer has none; came {case.describe_mask()}")


def attention(q, k, v, groups, **arguments):
    """Grouped heads are a fifth dimension of q, along which k and v have a stride of 0."""
    if groups == 1:
        return xformers.ops.memory_efficient_attention(q, k, v, **arguments)
    batch, seq_q, heads, head_dim = q.shape
    q = q.reshape(batch, seq_q, heads // groups, groups, head_dim)
    k = k.unsqueeze(3).expand(-1, -1, -1, groups, -1)
    v = v.unsqueeze(3).expand(-1, -1, -1, groups, -1)
    return xformers.ops.memory_efficient_attention(q, k, v, **arguments).reshape(batch, seq_q, heads, -1)


def prepare(case):
    if case.backward and case.grouped:
        raise Unsupported("heads: xFormers takes grouped heads in forward alone; came backward")
    arguments = {"attn_bias": bias_of(case), "scale": case.softmax_scale}
    attend = functools.partial(attention, groups=case.groups, **arguments)
    with torch.cuda.device(case.device):
        return _shared.prepare(case, attend, layout=_shared.Packed, note="BSHD", forbidden=_shared.ATEN)
