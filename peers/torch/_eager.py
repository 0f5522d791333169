"""Attention as it is written in plain torch: three operators and the mask between them."""

import functools
import math

import torch

from .._errors import Unsupported
from . import _shared


def attention(q, k, v, scale, mask):
    scores = torch.matmul(q * scale, k.transpose(-2, -1))
    if mask is not None:
        scores = scores + mask
    return torch.matmul(torch.softmax(scores, dim=-1), v)


def additive_mask(case):
    """0 where a query may see a key, -inf elsewhere, a row for each row of scores; None: all is seen."""
    seen = _shared.bool_mask(case)
    if seen is None:
        return None
    if case.empty_rows:
        raise Unsupported(
            "align, window: a row of the softmax without any key is NaN, so each query must see one; "
            f"came {case.describe_mask()}"
        )
    mask = torch.zeros(seen.shape, dtype=_shared.DTYPES[case.dtype], device=seen.device)
    mask.masked_fill_(~seen, -math.inf)
    return mask.repeat(case.groups, 1) if case.grouped else mask


def bound(case, function):
    """function(q, k, v) with what the case fixes."""
    return functools.partial(function, scale=case.softmax_scale, mask=additive_mask(case))


def layout(case):
    return _shared.GroupRows if case.grouped else _shared.ContiguousHeads


def note(case):
    return "" if case.pattern == "full" else "explicit mask"
