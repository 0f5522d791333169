"""What the torch peers share: tensors, the step that is timed, and the check of what really ran."""

import contextlib
import functools
import os
import re
import warnings

# Its profiler tells each start and stop on stderr, whose tail the program quotes.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch  # noqa: E402
from torch.nn.functional import scaled_dot_product_attention  # noqa: E402

from .. import _cpu  # noqa: E402
from .._errors import Fallback, Unsupported  # noqa: E402

torch.set_num_threads(int(os.environ.get("HEADWISE_THREADS") or torch.get_num_threads()))
torch.set_num_interop_threads(1)

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
DIRECTIONS = ("forward", "backward")
# How torch words that it has no such kernel, as opposed to failing in one.
REFUSAL = re.compile(
    r"No available kernel|No viable backend|not (currently |yet )?supported|does not support|only supports?|"
    r"[Nn]ot implemented|NotImplementedError|NYI"
)
# Where torch's own sources warned; Python's warnings lack it.
WARNING_ORIGIN = re.compile(r"\s*\(Triggered internally at [^)]*\)\.?")
# torch.compile wraps the message that matters in a page of advice.
WRAPPED = re.compile(r"raised exception \w+\(['\"](.*?)['\"]\)")
SDPA = "scaled_dot_product"
# torch's own attention and products: a library with kernels of its own that ran these fell back.
ATEN = re.compile(r"aten::(bmm|matmul|baddbmm|_softmax|_scaled_dot_product)")
MOST_NAMES = 6
# Operators that compute nothing, and the frames that torch draws round those that do.
PLUMBING = re.compile(
    r"^(aten::(empty|as_strided|view|_unsafe_view|reshape|transpose|permute|unsqueeze|slice|select|t|expand|"
    r"to|copy_|detach|empty_like|empty_strided|_to_copy|clone|zeros|zeros_like|ones|ones_like|zero_|fill_|"
    r"alias|resize_|result_type|contiguous|narrow|squeeze|_reshape_alias|matmul|softmax|"
    r"scaled_dot_product_attention|new_\w+|resolve_conj|resolve_neg|item|_local_scalar_dense|is_nonzero)$|"
    r"cuda[A-Z]|cu[A-Z]|Activity Buffer|Command Buffer|Lazy Function|Memcpy|Memset|\[memory\]|ProfilerStep|"
    r"detach$|autograd::|\w+Backward[01]?$|Torch-Compiled|TorchDynamo|AOTDispatcher|Pregraph)"
)
COMPILED_GRAPH = re.compile(r"^## Call (\w+) .*")


def describe(dtypes=tuple(DTYPES), devices=("cpu", "cuda"), directions=DIRECTIONS):
    """The parts of hello that all torch peers have."""
    here = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    return {
        "version": f"torch {torch.__version__}",
        "devices": [device for device in devices if device in here],
        "dtypes": list(dtypes),
        "directions": list(directions),
    }


def host_tensor(case, name):
    """A tensor [batch, seq, heads, head_dim] over the shared memory itself."""
    offset, dtype, shape, count = case.place(name)
    if count == 0:
        return torch.empty(shape, dtype=DTYPES[dtype])
    return torch.frombuffer(case.memory, dtype=DTYPES[dtype], count=count, offset=offset).view(shape)


def bool_mask(case):
    """The explicit mask on the case's device, True where a query may see a key; None where all is seen."""
    mask = case.mask()
    return None if mask is None else torch.from_numpy(mask).to(case.device)


class Heads:
    """Tensors as torch takes them: [batch, heads, seq, head_dim], views of the packed layout."""

    words = "BSHD views"

    @staticmethod
    def load(case, name):
        return host_tensor(case, name).to(case.device).transpose(1, 2)

    @staticmethod
    def store(case, name, tensor):
        host_tensor(case, name).copy_(tensor.detach().transpose(1, 2))


class Packed:
    """Tensors as they lie: [batch, seq, heads, head_dim]."""

    words = "BSHD"

    @staticmethod
    def load(case, name):
        return host_tensor(case, name).to(case.device)

    @staticmethod
    def store(case, name, tensor):
        host_tensor(case, name).copy_(tensor.detach())


class ContiguousHeads(Heads):
    """The same, copied so that a head's rows lie side by side.

    On the host that is up to twice as fast for a flash kernel with one query, 20 times for matmul in 16 bits.
    """

    words = "BHSD copies"

    @staticmethod
    def load(case, name):
        return Heads.load(case, name).contiguous()


class GroupRows(Heads):
    """The queries of a group as rows of their one kv head: [batch, kv_heads, groups * seq_q, head_dim]."""

    words = "BHSD copies, a group's queries as rows of its kv head"
    FOLDED = ("q", "out", "dq", "dout")

    @classmethod
    def load(cls, case, name):
        tensor = ContiguousHeads.load(case, name)
        if name not in cls.FOLDED:
            return tensor
        return tensor.reshape(case.batch, case.kv_heads, case.groups * case.seq_q, tensor.shape[-1])

    @classmethod
    def store(cls, case, name, tensor):
        if name in cls.FOLDED:
            tensor = tensor.reshape(case.batch, case.heads, case.seq_q, tensor.shape[-1])
        Heads.store(case, name, tensor)


def fused_layout(case):
    """On CUDA the fused kernels take either layout at the same speed: no reason to copy."""
    return Heads if case.cuda else ContiguousHeads


def steps(case, attend, layout):
    """A function that makes a step (one call) over its own copy of the inputs.

    Backward: the forward runs when the step is made, its graph is kept, and the step asks for the gradients.
    """
    first = [layout.load(case, name) for name in case.inputs]

    def make(copy):
        tensors = [tensor.clone() for tensor in first] if copy else first
        if not case.backward:
            return functools.partial(attend, *tensors)
        leaves = tuple(tensor.detach().requires_grad_() for tensor in tensors[:3])
        with torch.enable_grad():
            out = attend(*leaves)
        return functools.partial(torch.autograd.grad, out, leaves, tensors[3], retain_graph=True)

    return make


def writer(case, layout):
    def write(outputs):
        for name, tensor in zip(case.outputs, (outputs,) if not case.backward else outputs):
            layout.store(case, name, tensor)

    return write


def surroundings(case, backend=None):
    """The context round every loop of calls: no graph is recorded in forward, one backend is allowed."""

    @contextlib.contextmanager
    def context():
        with contextlib.ExitStack() as stack:
            if not case.backward:
                stack.enter_context(torch.inference_mode())
            if backend is not None:
                stack.enter_context(torch.nn.attention.sdpa_kernel([backend]))
            yield

    return context


@contextlib.contextmanager
def refusals():
    """What torch says and warns when it has no kernel becomes the reason of an unsupported row."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            yield
        except (RuntimeError, NotImplementedError, ValueError) as error:
            if not REFUSAL.search(f"{type(error).__name__}: {error}") or isinstance(
                error, torch.OutOfMemoryError
            ):
                raise
            hints = [str(entry.message) for entry in told]
            hints = [WARNING_ORIGIN.sub("", hint) for hint in hints if WARNING_ORIGIN.search(hint)]
            # Two backends' headings stand before the reasons of the one that was asked for.
            noise = ("not used because:", "runtime disabled.")
            hints = [hint for hint in hints if not hint.endswith(noise)]
            wrapped = WRAPPED.search(str(error))
            text = wrapped[1] if wrapped else " ".join(str(error).split("\n\nSet TORCH")[0].split())
            raise Unsupported(" ".join([f"torch: {text}"] + hints)) from None


def profiled(action, cuda):
    """(the action's result, names of what ran, the slowest first)."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        result = action()
        if cuda:
            torch.cuda.synchronize()
    events = profile.key_averages()

    def cost(event):
        return (event.self_device_time_total, event.self_cpu_time_total)

    return result, [event.key for event in sorted(events, key=cost, reverse=True)]


def short_name(name):
    """A kernel's name without its template arguments and its signature."""
    plain = name.replace("(anonymous namespace)::", "")
    return COMPILED_GRAPH.sub(r"\1", re.sub(r"^void ", "", re.split(r"[<(]", plain)[0])).strip()


def computing(names):
    """The few names worth telling, the slowest first."""
    told = []
    for name in names:
        short = short_name(name)
        if short and not PLUMBING.search(name) and short not in told:
            told.append(short)
    return told[:MOST_NAMES]


def check(case, forward, names, wanted, forbidden):
    """An error unless what the profiler saw is the named peer. Returns what a timed call ran, in words.

    forward: what the forward pass ran; names: what a timed call ran, the backward pass in its direction
    """
    directions = ((False, forward), (True, names)) if case.backward else ((False, names),)
    own = []
    for backward, seen in directions:
        choices = wanted(backward) if wanted is not None else ()
        own = [name for name in choices if name in seen]
        if choices and case.empty:
            raise Unsupported(
                "sizes: torch answers a case with a size of 0 before it reaches a kernel; came one"
            )
        if choices and not own:
            saw = ", ".join(computing(seen)) or "nothing"
            raise Fallback(f"expected {' or '.join(choices)} to run; the profiler saw {saw}")
        other = [name for name in seen if forbidden is not None and forbidden.search(name)]
        if other:
            raise Fallback(f"expected no {forbidden.pattern} to run; the profiler saw {other[0]}")
    others = [name for name in computing(names) if name not in own]
    return ", ".join(own + (others if case.cuda or not own else []))


def prepare(case, attend, layout, backend=None, wanted=None, forbidden=None, note="", compiles=False):
    """A run of `attend(q, k, v)`.

    wanted     wanted(backward) -> names of operators, one of which must have run; none: nothing to check
    forbidden  a pattern of names, none of which may have run
    compiles   whether the first call compiles, which a profiler should not watch
    """
    torch.set_num_threads(case.threads)
    context = surroundings(case, backend)
    if case.cuda:
        torch.cuda.set_device(case.device)
        case.when_released.append(torch.cuda.empty_cache)
    make = steps(case, attend, layout)
    with refusals(), context():
        if compiles:
            make(0)()
        step, forward = profiled(lambda: make(0), case.cuda)
        _, names = profiled(step, case.cuda)
    if not case.backward:
        forward = names
    ran = check(case, forward, names, wanted, forbidden)
    ran = notes(ran, layout.words, note)
    if not case.cuda:
        return _cpu.HostRun(case, step, writer(case, layout), ran, context)
    from . import _cuda

    del step
    return _cuda.DeviceRun(case, make, writer(case, layout), ran, context)


def sdpa(case, **arguments):
    """torch's own function, as every peer of one backend calls it; no frame of ours in the timed loop."""
    arguments.update(scale=case.softmax_scale, enable_gqa=case.grouped)
    return functools.partial(scaled_dot_product_attention, **arguments)


def notes(*parts):
    return "; ".join(part for part in parts if part)
