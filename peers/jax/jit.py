"""jax.jit: matmul, softmax, matmul, compiled as one program."""

from . import _start

DEVICES = ("cpu", "cuda")
ABOUT = "jnp matmul, softmax, matmul under jax.jit, with an explicit mask"
THREADS = "fixed"


def describe(threads):
    return _start.describe(threads)


def prepare(case):
    from . import _plain

    return _plain.prepare(case, compiled=True)
