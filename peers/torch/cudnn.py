"""torch.cudnn: torch.nn.functional.scaled_dot_product_attention, its cuDNN backend alone."""

from torch.nn.attention import SDPBackend

from .._errors import Unsupported
from . import _shared

DEVICES = ("cuda",)
ABOUT = "torch's scaled_dot_product_attention, cuDNN backend"
THREADS = "dynamic"
OPERATOR = "aten::_scaled_dot_product_cudnn_attention"


def describe(threads):
    return _shared.describe(dtypes=("f16", "bf16"), devices=("cuda",))


def operators(backward):
    return (OPERATOR + "_backward" if backward else OPERATOR,)


def prepare(case):
    if case.pattern not in ("full", "causal"):
        raise Unsupported(
            "window, align: torch's cuDNN backend takes causal at the top left and no window; "
            f"came {case.describe_mask()}"
        )
    causal = case.pattern == "causal"
    attend = _shared.sdpa(case, is_causal=causal)
    layout, backend = _shared.fused_layout(case), SDPBackend.CUDNN_ATTENTION
    words = "is_causal" if causal else ""
    return _shared.prepare(case, attend, layout, backend, wanted=operators, note=words)
