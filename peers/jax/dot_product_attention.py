"""jax.dot_product_attention: jax.nn.dot_product_attention, its implementation in XLA."""

from . import _start

DEVICES = ("cpu", "cuda")
ABOUT = "jax.nn.dot_product_attention, implementation xla, jitted"
THREADS = "fixed"


def describe(threads):
    return _start.describe(threads)


def prepare(case):
    from . import _nn

    return _nn.prepare(case, "xla")
