"""openvino.sdpa: the operation ScaledDotProductAttention of OpenVINO, as its CPU plugin runs it."""

import functools
import re

import numpy
import openvino
from openvino import opset13

from .. import _arrays, _cpu
from .._errors import Unsupported, first_lines

DEVICES = ("cpu",)
ABOUT = "OpenVINO's opset13 ScaledDotProductAttention on its CPU plugin; no grouped heads"
THREADS = "dynamic"
DEVICE = "CPU"
TYPES = {"f32": openvino.Type.f32, "f16": openvino.Type.f16, "bf16": openvino.Type.bf16}
# What the plugin says that it computes in, by the dtype's name here.
CAPABILITIES = {"f32": "FP32", "f16": "FP16", "bf16": "BF16"}
# Parts of a compiled model that compute nothing.
PLUMBING = ("Input", "Const", "Output")
REFUSAL = re.compile(
    r"not compatible|not supported|unsupported|Unexpected|Expected|should|must|descriptors list is empty",
    re.IGNORECASE,
)
# OpenVINO's messages begin with the places in its sources; the reason comes last.
PLACES = re.compile(r"^(Exception from|Check ').*$", re.MULTILINE)


@functools.cache
def core():
    return openvino.Core()


def describe(threads):
    capable = core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    return {
        "version": f"openvino {openvino.__version__.partition('-')[0]}",
        "devices": ["cpu"],
        "dtypes": [dtype for dtype, name in CAPABILITIES.items() if name in capable],
        "directions": ["forward"],
    }


def refuse(case):
    if case.empty:
        raise Unsupported("sizes: expected none that is 0; OpenVINO is not asked for empty tensors")
    if case.grouped:
        raise Unsupported(
            f"kv_heads: ScaledDotProductAttention takes as many as heads ({case.heads}), its shapes of "
            f"K and V must fit those of Q; came {case.kv_heads}"
        )
    if case.empty_rows:
        raise Unsupported(
            "mask: expected a key for every query; the operation leaves a row without one undefined"
        )


def arrays(case):
    """(inputs in the operation's order, note); the explicit mask is the last."""
    inputs = [(_arrays.heads_first(case, name), TYPES[case.dtype]) for name in ("q", "k", "v")]
    if case.pattern == "full":
        return inputs, ""
    if case.pattern == "causal":
        return inputs, "; causal"
    return [*inputs, (case.mask(), openvino.Type.boolean)], "; explicit bool mask"


def network(case, inputs):
    """The model that is the one operation, of the case's own sizes: what is fixed the plugin can plan for."""
    parameters = [opset13.parameter(list(array.shape), kind) for array, kind in inputs]
    # numpy has no bf16, a constant of it is made from one of f32.
    scale = opset13.constant(numpy.array(case.softmax_scale, numpy.float32))
    if case.dtype != "f32":
        scale = opset13.convert(scale, case.dtype)
    mask = {"attention_mask": parameters[3]} if len(parameters) > 3 else {}
    causal = case.pattern == "causal"
    node = opset13.scaled_dot_product_attention(*parameters[:3], scale=scale, causal=causal, **mask)
    return openvino.Model([node.output(0)], parameters, "headwise")


def properties(case):
    return {
        "INFERENCE_NUM_THREADS": case.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": TYPES[case.dtype],
    }


def tensor(array, kind):
    """A tensor over the array's own memory."""
    if kind == openvino.Type.bf16:
        return openvino.Tensor(array, openvino.Shape(array.shape), kind)
    return openvino.Tensor(array, shared_memory=True)


def executed(compiled):
    """What the plugin made of the model: operations, each with its kernel and the kernel's precision."""
    parts = []
    for operation in compiled.get_runtime_model().get_ordered_ops():
        told = {
            key: value.astype(str) for key, value in operation.get_rt_info().items() if "astype" in dir(value)
        }
        if told.get("layerType") not in PLUMBING:
            parts.append(
                f"{told.get('layerType', operation.get_type_name())} {told.get('primitiveType', 'unknown')}"
            )
    return " + ".join(parts)


class RequestRun(_cpu.HostRun):
    """An inference request as a prepared case.

    A request keeps the memory of its first call, so the most that any call took is what a call takes.
    """

    def __init__(self, case, request, inputs, result, ran):
        super().__init__(case, self.one, self.store, ran, allocates=False)
        self.request = request
        # A request reads the arrays' memory and does not keep the arrays.
        self.inputs = inputs
        self.result = result
        self.most = 0

    def one(self):
        self.request.infer()
        return self.result

    def store(self, result):
        self.case.array("out")[...] = result.transpose(0, 2, 1, 3)

    def call(self):
        reply = super().call()
        self.most = max(self.most, reply["peak_bytes"])
        return dict(reply, peak_bytes=self.most)

    def release(self):
        super().release()
        self.request = self.inputs = self.result = None


def prepare(case):
    refuse(case)
    inputs, note = arrays(case)
    result = _arrays.of_dtype((case.batch, case.heads, case.seq_q, case.head_dim_v), case.dtype)
    try:
        compiled = core().compile_model(network(case, inputs), DEVICE, properties(case))
    except RuntimeError as error:
        text = first_lines(PLACES.sub("", str(error)))
        if not REFUSAL.search(text):
            raise
        raise Unsupported(f"openvino: {text}") from None
    request = compiled.create_infer_request()
    for index, (array, kind) in enumerate(inputs):
        request.set_input_tensor(index, tensor(array, kind))
    request.set_output_tensor(0, tensor(result, TYPES[case.dtype]))
    ran = f"ScaledDotProductAttention of {case.dtype} tensors, run by the CPU plugin as {executed(compiled)}"
    return RequestRun(case, request, inputs, result, f"{ran}; BHSD copies, bound{note}")
