"""Attention as it is written in plain jax: three operators and the mask between them."""

import functools

import jax
import jax.numpy as jnp

from . import _shared


def attention(scale, seen, q, k, v):
    scores = jnp.matmul(q * scale, jnp.swapaxes(k, -1, -2))
    if seen is not None:
        scores = jnp.where(seen, scores, -jnp.inf)
    return jnp.matmul(jax.nn.softmax(scores, axis=-1), v)


def prepare(case, compiled):
    _shared.refuse(case)
    seen = _shared.mask(case, rows_of_groups=True)
    note = "jnp.matmul, jax.nn.softmax, jnp.matmul, " + ("one jitted program" if compiled else "op by op")
    if seen is not None:
        note += ", explicit mask"
    attend = functools.partial(attention, case.softmax_scale)
    return _shared.prepare(case, attend, _shared.HeadsFirst, seen, note, compiled)
