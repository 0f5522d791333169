"""jax.cudnn: jax.nn.dot_product_attention, its implementation in cuDNN."""

from . import _start

DEVICES = ("cuda",)
ABOUT = "jax.nn.dot_product_attention, implementation cudnn, jitted; on a GPU alone"
THREADS = "fixed"
LIBRARY_CALL = "__cudnn$fmha"


def describe(threads):
    return _start.describe(threads, devices=("cuda",), dtypes=("f16", "bf16"))


def prepare(case):
    from . import _nn

    return _nn.prepare(case, "cudnn", required=LIBRARY_CALL)
