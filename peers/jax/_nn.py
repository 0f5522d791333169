"""jax.nn.dot_product_attention, jitted, by one of its implementations."""

import functools

import jax

from . import _shared


def attention(arguments, seen, q, k, v):
    return jax.nn.dot_product_attention(q, k, v, mask=seen, **arguments)


def masking(case):
    """(arguments, explicit mask or None, note): the function's own masks count from the top left."""
    if case.pattern == "full":
        return {}, None, ""
    if case.pattern == "causal":
        return {"is_causal": True}, None, ", is_causal"
    if case.offset == 0 and case.left is not None and case.right == 0:
        return (
            {"is_causal": True, "local_window_size": (case.left, 0)},
            None,
            ", is_causal, local_window_size",
        )
    return {}, _shared.mask(case, rows_of_groups=False)[None, None], ", explicit mask"


def prepare(case, implementation, required=None):
    _shared.refuse(case)
    arguments, seen, told = masking(case)
    arguments.update(scale=case.softmax_scale, implementation=implementation)
    note = f"jax.nn.dot_product_attention, implementation {implementation}, jitted{told}"
    attend = functools.partial(attention, arguments)
    return _shared.prepare(case, attend, _shared.Packed, seen, note, True, required)
