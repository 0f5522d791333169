"""torch.compile for the peers that need it: one compilation a shape."""

import contextlib
import os

# One compiling process: a pool of them would idle beside what is measured.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import torch  # noqa: E402
import torch._dynamo  # noqa: E402
import torch._functorch.config  # noqa: E402

# A backward that gives its saved tensors away can run once; a timed one runs many times.
torch._functorch.config.donated_buffer = False


def compiled(function):
    """The function compiled anew: past its limit of recompilations torch would run it uncompiled, unsaid."""
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, dynamic=False)


@contextlib.contextmanager
def compilers():
    """A missing compiler is told in words that help."""
    try:
        yield
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        if "Python.h" in text:
            raise RuntimeError("torch.compile: Python.h is missing; install python3-dev") from None
        if "InvalidCxxCompiler" in text or "No working C++ compiler" in text:
            raise RuntimeError("torch.compile: no C++ compiler found; install g++") from None
        raise
