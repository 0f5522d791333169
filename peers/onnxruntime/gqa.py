"""onnxruntime.gqa: the contrib operator GroupQueryAttention.

The operator is made for generation. With as many keys as queries it is given no cache (a prompt). With more
keys, the earlier ones come in a cache and those of the queries themselves beside it; the operator writes
these into the cache, which is bound as both past and present so that nothing else is copied.
"""

import numpy
import onnx

from .. import _arrays
from .._errors import Unsupported
from . import _shared

DEVICES = ("cpu", "cuda")
ABOUT = "onnxruntime's com.microsoft.GroupQueryAttention: prompts, and steps with a cache; on a CPU no bf16"
THREADS = "dynamic"


def describe(threads):
    return _shared.describe()


def masking(case):
    """(attributes, note): the operator's own mask is causal with the last query at the last key."""
    if case.seq_q > case.seq_kv:
        raise Unsupported(
            "seq_q: GroupQueryAttention takes at most seq_kv queries, for each brings its own key; "
            f"came seq_q {case.seq_q} and seq_kv {case.seq_kv}"
        )
    if case.pattern == "full":
        return ({}, "") if case.seq_q == 1 else ({"causal": 0}, "; causal=0")
    at_the_end = case.offset == case.seq_kv - case.seq_q
    if not at_the_end or case.right not in ((0, None) if case.seq_q == 1 else (0,)):
        raise Unsupported(
            "causal, align, window: GroupQueryAttention takes no mask, or causal with the last query at the "
            "last key (bottom_right) and a window to the left of it; came another"
        )
    if case.left is None:
        return {}, "; causal"
    # The operator counts the query's own key.
    return {"local_window_size": case.left + 1}, f"; causal, local_window_size {case.left + 1}"


def tensors(case):
    """(inputs, caches) of the node; the caches are also its second and third output."""
    old = case.seq_kv - case.seq_q
    inputs = [_shared.Tensor("q", case.dtype, _arrays.folded(case, "q"))]
    for name in ("k", "v"):
        new = case.array(name)[:, old:]
        folded = _arrays.copied(new.reshape(case.batch, case.seq_q, -1))
        inputs.append(_shared.Tensor(name, case.dtype, folded))
    caches = [_arrays.heads_first(case, name) for name in ("k", "v")] if old else []
    inputs += [_shared.Tensor("past_" + name, case.dtype, cache) for name, cache in zip("kv", caches)]
    # The operator counts the keys of each sequence from 0.
    last = numpy.full(case.batch, case.seq_kv - 1, numpy.int32)
    inputs.append(_shared.Tensor("last", "i32", last))
    inputs.append(_shared.Tensor("total", "i32", numpy.array([case.seq_kv], numpy.int32), on_host=True))
    return inputs, [_shared.Tensor("present_" + name, case.dtype, cache) for name, cache in zip("kv", caches)]


def prepare(case):
    _shared.refuse(case)
    attributes, told = masking(case)
    inputs, caches = tensors(case)
    presents = caches
    if caches:
        note = f"cache of {case.seq_kv} keys, both past and present, {case.seq_q} of them written each call"
    elif case.cuda:
        # The CUDA kernel insists on writing the cache of the prompt.
        presents = [
            _shared.Tensor("present_" + name, case.dtype, _arrays.heads_first(case, name)) for name in "kv"
        ]
        note = "prompt without a cache, present outputs written"
    else:
        note = "prompt without a cache, present outputs left out"
    names = [tensor.name for tensor in inputs]
    if not caches:
        names[3:3] = ["", ""]
    node = onnx.helper.make_node(
        "GroupQueryAttention",
        names,
        ["out", *(tensor.name for tensor in presents)],
        domain=_shared.CONTRIB,
        num_heads=case.heads,
        kv_num_heads=case.kv_heads,
        scale=case.softmax_scale,
        **attributes,
    )
    return _shared.prepare(case, node, inputs, "BSHD", note + told, presents)
