"""jax.eager: matmul, softmax, matmul, op by op."""

from . import _start

DEVICES = ("cpu", "cuda")
ABOUT = "jnp matmul, softmax, matmul, op by op, with an explicit mask; all scores in memory"
THREADS = "fixed"


def describe(threads):
    return _start.describe(threads)


def prepare(case):
    from . import _plain

    return _plain.prepare(case, compiled=False)
