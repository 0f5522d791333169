"""torch.flex: FlexAttention, compiled once a shape."""

import functools
import re

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from .._errors import Unsupported
from . import _compile, _shared

DEVICES = ("cpu", "cuda")
ABOUT = "torch's FlexAttention under torch.compile; blocks that a mask hides are skipped"
THREADS = "fixed"
UNFUSED = re.compile("softmax|aten::bmm|aten::matmul|" + _shared.SDPA)


def describe(threads):
    return _shared.describe()


def block_mask(case):
    if case.pattern == "full":
        return None
    offset, left, right = case.offset, case.left, case.right

    def seen(batch, head, query, key):
        middle = query + offset
        if left is None:
            return key <= middle + right
        if right is None:
            return key >= middle - left
        return (key >= middle - left) & (key <= middle + right)

    return create_block_mask(seen, None, None, case.seq_q, case.seq_kv, device=torch.device(case.device))


def prepare(case):
    if case.empty:
        # With no queries its kernel for the CPU ends the process by an illegal instruction (torch 2.15).
        raise Unsupported("sizes: compiled FlexAttention takes none that is 0; came one")
    torch.set_num_threads(case.threads)
    function = _compile.compiled(flex_attention)
    arguments = {"scale": case.softmax_scale, "enable_gqa": case.grouped, "block_mask": block_mask(case)}
    attend = functools.partial(function, **arguments)
    words = "" if case.pattern == "full" else "block mask"
    layout = _shared.fused_layout(case)
    with _compile.compilers():
        return _shared.prepare(case, attend, layout, forbidden=UNFUSED, note=words, compiles=True)
