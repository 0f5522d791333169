"""What the onnxruntime peers share: a model of one node, its session, its tensors, the check of what ran."""

import collections
import functools
import json
import os
import re
import tempfile

import numpy
import onnx
import onnxruntime

from .. import _arrays, _cpu
from .._errors import Fallback, OutOfMemory, Unsupported, first_lines
from . import _device

ONNX_TYPES = {
    "f32": onnx.TensorProto.FLOAT,
    "f16": onnx.TensorProto.FLOAT16,
    "bf16": onnx.TensorProto.BFLOAT16,
    "bool": onnx.TensorProto.BOOL,
    "i32": onnx.TensorProto.INT32,
}
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
CONTRIB = "com.microsoft"
OPSET = 23
# The intermediate representation that came with this opset.
IR_VERSION = 11
ERRORS_ONLY = 3
# Nodes that onnxruntime adds where no kernel takes the dtype.
CONVERSION = "Cast"
# How its kernels word that they refuse sizes or dtypes, as opposed to failing.
REFUSAL = re.compile(
    r"NOT_IMPLEMENTED|INVALID_GRAPH|INVALID_ARGUMENT|not implemented|not supported|only supports?|"
    r"\b(must|shall|should|expected)\b",
    re.IGNORECASE,
)
STATUS = re.compile(r".*Status Message: ", re.DOTALL)

# An input or output of the node: array holds the values on the host; on_host: the kernel reads it there.
Tensor = collections.namedtuple("Tensor", "name dtype array on_host", defaults=(False,))


def describe():
    """The parts of hello that all have; which dtype has no kernel onnxruntime says itself, case by case."""
    return {
        "version": f"onnxruntime {onnxruntime.__version__}",
        "devices": [device for device, provider in PROVIDERS.items() if usable(provider)],
        "dtypes": ["f32", "f16", "bf16"],
        "directions": ["forward"],
    }


@functools.cache
def usable(provider):
    """Whether a session really gets the provider, which may be built in and lack its device."""
    if provider not in onnxruntime.get_available_providers():
        return False
    if provider == PROVIDERS["cuda"] and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA's libraries as packages, which the loader does not find by itself
    node = onnx.helper.make_node("Identity", ["in"], ["out"])
    tensors = [Tensor(name, "f32", numpy.zeros(1, numpy.float32)) for name in ("in", "out")]
    try:
        session = onnxruntime.InferenceSession(model(node, tensors[:1], tensors[1:]), options(1), [provider])
    except Exception:  # a provider that cannot start is one that is not here
        return False
    return provider in session.get_providers()


def options(threads):
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = threads
    chosen.inter_op_num_threads = 1
    chosen.log_severity_level = ERRORS_ONLY
    return chosen


def model(node, inputs, outputs):
    """The bytes of a model that is this one node."""
    infos = [
        [onnx.helper.make_tensor_value_info(t.name, ONNX_TYPES[t.dtype], t.array.shape) for t in side]
        for side in (inputs, outputs)
    ]
    graph = onnx.helper.make_graph([node], "headwise", *infos)
    opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(CONTRIB, 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString()


def refusal(error, asked):
    """The error as what a row can say; asked: what onnxruntime was asked for."""
    text = first_lines(STATUS.sub("", str(error)))
    if re.search("allocate memory|bad_alloc", text, re.IGNORECASE):
        return OutOfMemory(text)
    return Unsupported(f"onnxruntime, asked for {asked}: {text}") if REFUSAL.search(text) else error


class Bound:
    """A session with every input and output bound where the kernel reads and writes them."""

    def __init__(self, case, serialized, inputs, outputs, profile=None):
        self.device = _device.Device(case.device)
        chosen = options(case.threads)
        if profile is not None:
            chosen.enable_profiling = True
            chosen.profile_file_prefix = profile
        provider = PROVIDERS[self.device.kind]
        providers = [(provider, self.device.provider_options)]
        # Without this, a node that the provider does not take would quietly go to the CPU.
        chosen.add_session_config_entry("session.disable_cpu_ep_fallback", "1" if case.cuda else "0")
        self.session = onnxruntime.InferenceSession(serialized, chosen, providers)
        if provider not in self.session.get_providers():
            raise Fallback(
                f"expected the provider {provider}; the session has {self.session.get_providers()}"
            )
        self.binding = self.session.io_binding()
        self.held = {}
        for bind, tensors in ((self.binding.bind_input, inputs), (self.binding.bind_output, outputs)):
            for tensor in tensors:
                self.bind(bind, tensor)
        self.device.settle()

    def bind(self, bind, tensor):
        """The same array bound under two names is one buffer: a cache that is written in place."""
        device = _device.HOST if tensor.on_host else self.device
        key = id(tensor.array)
        if key not in self.held:
            self.held[key] = device.hold(tensor.array)
        address = device.address(self.held[key])
        element = ONNX_TYPES[tensor.dtype]
        bind(tensor.name, device.kind, device.index, element, list(tensor.array.shape), address)

    def values(self, tensor):
        """What the tensor holds now, on the host."""
        return self.device.values(self.held[id(tensor.array)])

    def __call__(self):
        self.session.run_with_iobinding(self.binding)


def nodes_that_ran(case, serialized, inputs, outputs):
    """[(operator, provider)] of one run of the whole case in a session of its own, which then goes."""
    with tempfile.TemporaryDirectory() as folder:
        bound = Bound(case, serialized, inputs, outputs, os.path.join(folder, "profile"))
        bound()
        with open(bound.session.end_profiling(), encoding="utf-8") as profile:
            events = json.load(profile)
    return [
        (event["args"]["op_name"], event["args"]["provider"])
        for event in events
        if event.get("cat") == "Node" and event.get("args", {}).get("provider")
    ]


def check(case, node, ran):
    """An error unless the profile of the run holds the named node alone, on the device's own provider."""
    provider = PROVIDERS[_device.Device(case.device).kind]
    if any(operator == CONVERSION for operator, _ in ran):
        raise Unsupported(
            f"dtype: onnxruntime has no {node.op_type} of {case.dtype} on {provider}, it puts Cast "
            "nodes round one of f32; take f32"
        )
    if ran != [(node.op_type, provider)]:
        saw = ", ".join(f"{operator} on {where}" for operator, where in ran) or "nothing"
        raise Fallback(f"expected one {node.op_type} on {provider} to run; the profile has {saw}")


class SessionRun(_cpu.HostRun):
    """A bound session as a prepared case.

    A session keeps the memory of its first run, so the most that any call took is what a call takes.
    """

    def __init__(self, case, bound, result, layout, ran):
        super().__init__(case, self.one, self.store, ran, allocates=False)
        self.bound = bound
        self.result = result
        self.layout = layout
        self.most = 0

    def one(self):
        self.bound()
        return self.bound

    def store(self, bound):
        values = bound.values(self.result)
        target = self.case.array("out")
        target[...] = values.transpose(0, 2, 1, 3) if self.layout == "BHSD" else values.reshape(target.shape)

    def call(self):
        reply = super().call()
        if self.case.cuda:
            reply.update(peak_bytes=self.bound.device.taken(), peak_method="allocator")
        self.most = max(self.most, reply["peak_bytes"])
        return dict(reply, peak_bytes=self.most)

    def release(self):
        super().release()
        self.bound = None


def output(case, layout):
    """Where the node writes: [batch, heads, seq, head_dim] or [batch, seq, heads * head_dim]."""
    if layout == "BHSD":
        shape = (case.batch, case.heads, case.seq_q, case.head_dim_v)
    else:
        shape = (case.batch, case.seq_q, case.heads * case.head_dim_v)
    return Tensor("out", case.dtype, _arrays.of_dtype(shape, case.dtype))


def refuse(case):
    """What no operator here answers as the program means it."""
    if case.empty:
        raise Unsupported("sizes: expected none that is 0; onnxruntime is not asked for empty tensors")
    if case.empty_rows:
        raise Unsupported(
            "mask: expected a key for every query; the operator leaves a row without one undefined"
        )
    if case.cuda and case.cold:
        raise Unsupported("cold: expected a case on the CPU; bound tensors on a GPU cannot be rotated")


def prepare(case, node, inputs, layout, note, outputs=()):
    """A run of a model that is `node`; the result is its first output, in `layout`."""
    result = output(case, layout)
    outputs = [result, *outputs]
    provider = PROVIDERS[_device.Device(case.device).kind]
    try:
        serialized = model(node, inputs, outputs)
        check(case, node, nodes_that_ran(case, serialized, inputs, outputs))
        bound = Bound(case, serialized, inputs, outputs)
    except (Unsupported, Fallback, MemoryError):
        raise
    except Exception as error:  # pybind has a class for each status, under names that change
        raise refusal(error, f"{node.op_type} of {case.dtype} on {provider}") from None
    domain = f"{node.domain}." if node.domain else f"opset {OPSET} "
    waits = "; every run waits for the device" if case.cuda else ""
    ran = f"{domain}{node.op_type} on {provider} (profile of a run); IO binding; {note}{waits}"
    return SessionRun(case, bound, result, layout, ran)
