"""What the jax peers share: tensors, the step that is timed, and the check of what was compiled.

Imports jax: only after _start has settled its CPUs.
"""

import contextlib
import functools
import os
import re

import jax
import jax.numpy as jnp
import numpy

from .. import _cpu
from .._errors import Fallback, Unsupported, first_lines

# Within a GPU's f32, jax's own default is TF32: 10 bits of mantissa in place of 23.
F32_PRECISION = "highest"
REFUSAL = re.compile(
    r"not supported|unsupported|support(s|ed)? only|only supports?|must (be|have|match)|should be|"
    r"doesn't support|not implemented|UNIMPLEMENTED|NotImplementedError|cuDNN is not detected|Require",
    re.IGNORECASE,
)
CALLED = re.compile(r'custom_call_target="([^"]+)"')


def device(case):
    name, _, index = case.device.partition(":")
    return jax.devices(name)[int(index or 0)]


class Packed:
    """Tensors [batch, seq, heads, head_dim], as they come."""

    note = "BSHD"

    @staticmethod
    def arrange(case, name, array):
        return array

    @staticmethod
    def restore(case, name, array):
        return array


class HeadsFirst:
    """[batch, kv_heads, groups * seq, head_dim]: queries of a group are rows of their one kv head."""

    note = "BHSD copies, a group's queries as rows of its kv head"

    @staticmethod
    def arrange(case, name, array):
        batch, seq, heads, head_dim = array.shape
        rows = seq * heads // case.kv_heads
        return numpy.ascontiguousarray(array.transpose(0, 2, 1, 3)).reshape(
            batch, case.kv_heads, rows, head_dim
        )

    @staticmethod
    def restore(case, name, array):
        batch, seq, heads, head_dim = case.place(name)[2]
        return array.reshape(batch, heads, seq, head_dim).transpose(0, 2, 1, 3)


def load(case, name, layout):
    """A copy of a tensor on the case's device."""
    array = case.array(name)
    if case.place(name)[1] == "bf16":
        array = array.view(jnp.bfloat16)
    return jax.device_put(layout.arrange(case, name, array), device(case), may_alias=False)


def writer(case, layout):
    """A function that puts the outputs of a step where the program reads them."""

    def write(outputs):
        for name, value in zip(case.outputs, outputs if case.backward else (outputs,)):
            array = layout.restore(case, name, numpy.asarray(value))
            case.array(name)[...] = array.view(numpy.uint16) if array.dtype == jnp.bfloat16 else array

    return write


def mask(case, rows_of_groups):
    """True where a query may see a key, a row for each row of the scores; None where all is seen."""
    seen = case.mask()
    if seen is None:
        return None
    return jax.device_put(numpy.tile(seen, (case.groups, 1)) if rows_of_groups else seen, device(case))


def refuse(case):
    if case.empty:
        raise Unsupported("sizes: expected none that is 0; jax is not asked for empty tensors")
    if case.empty_rows:
        raise Unsupported(
            f"mask: expected a key for every query, a softmax over none is NaN; came {case.describe_mask()}"
        )


@contextlib.contextmanager
def refusals():
    """What jax says when it does not do a case becomes the reason of an unsupported row."""
    try:
        yield
    except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
        named = f"{type(error).__name__}: {error}"
        if not REFUSAL.search(named) or "RESOURCE_EXHAUSTED" in named:
            raise
        raise Unsupported(f"jax: {first_lines(str(error).partition(chr(10))[0])}") from None


def surroundings(case):
    """The context round every loop of calls."""

    @contextlib.contextmanager
    def context():
        # Else what jax makes itself on the way would lie on a GPU while the case is the CPU's.
        with contextlib.ExitStack() as stack:
            stack.enter_context(jax.default_device(device(case)))
            if case.dtype == "f32":
                stack.enter_context(jax.default_matmul_precision(F32_PRECISION))
            yield

    return context


def pull(pullback, gradient):
    return pullback(gradient)


class Program:
    """attend(mask, q, k, v) as it is called: op by op, or compiled whole.

    Backward: the forward runs when a step is made and leaves its pullback; the step is the pullback alone.
    """

    def __init__(self, case, attend, compiled):
        self.case = case
        self.compiled = compiled
        self.attend = attend
        self.forward = self.differentiate if case.backward else attend
        self.backward = pull
        if compiled:
            self.forward, self.backward = jax.jit(self.forward), jax.jit(pull)

    def differentiate(self, seen, *tensors):
        return jax.vjp(functools.partial(self.attend, seen), *tensors)

    def step(self, seen, tensors):
        """(function, arguments) of the call to time."""
        if not self.case.backward:
            return self.forward, (seen, *tensors)
        _, pullback = self.forward(seen, *tensors[:3])
        return self.backward, (pullback, tensors[3])


def compiled_calls(function, arguments, required):
    """The library calls that XLA compiled in, in words; an error where the required one is not asked."""
    lowered = function.lower(*arguments)
    if required is not None and required not in lowered.as_text():
        raise Fallback(f"expected a call of {required} in the compiled program, it has none")
    called = sorted(set(CALLED.findall(lowered.compile().as_text())))
    return "; XLA's own kernels" + (" and " + ", ".join(called) if called else "")


def prepare(case, attend, layout, seen, note, compiled, required=None):
    """A run of attend(seen, q, k, v), seen being the mask or None.

    compiled   whether the whole is one program, or each operator one of its own
    required   a library call that the program must make
    """
    program = Program(case, attend, compiled)
    context = surroundings(case)
    with refusals(), context():
        tensors = [load(case, name, layout) for name in case.inputs]
        function, arguments = program.step(seen, tensors)
        told = compiled_calls(function, arguments, required) if compiled else ""
        # Compiles what is not compiled yet. jax keeps no memory of a call, so nothing of this one stays.
        jax.block_until_ready(function(*arguments))
    precision = f"; matmul precision {F32_PRECISION}" if case.dtype == "f32" and case.cuda else ""
    cpus = (
        ""
        if case.cuda
        else f"; CPUs by affinity, set before jax was imported: {len(os.sched_getaffinity(0))}"
    )
    ran = f"{note}; {layout.note}{told}{precision}{cpus}"
    if case.cuda:
        from . import _cuda

        make = functools.partial(copies_of, case, program, seen, layout)
        return _cuda.DeviceRun(case, (function, arguments), make, writer(case, layout), ran, context)
    return _cpu.HostRun(
        case, functools.partial(finished, function, arguments), writer(case, layout), ran, context
    )


def copies_of(case, program, seen, layout):
    """The same step over tensors of its own."""
    return program.step(seen, [load(case, name, layout) for name in case.inputs])


def finished(function, arguments):
    return jax.block_until_ready(function(*arguments))
