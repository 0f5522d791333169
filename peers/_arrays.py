"""numpy arrays for libraries that take them: aligned, laid out as a library likes, every page in place.

The copies are made before anything is timed, and their pages are written, so that no later reading of memory
counts them.
"""

import numpy

from ._case import ALIGNMENT, NUMPY_NAMES


def filled(shape, dtype):
    """An array of zeros that starts where the program's own tensors would."""
    dtype = numpy.dtype(dtype)
    size = int(numpy.prod(shape, dtype=numpy.int64)) * dtype.itemsize
    memory = numpy.empty(size + ALIGNMENT, numpy.uint8)
    memory.fill(0)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def copied(array):
    """An aligned copy in the order of the array's own axes."""
    copy = filled(array.shape, array.dtype)
    copy[...] = array
    return copy


def sequence_first(case, name):
    """[batch, seq, heads, head_dim]: the shared memory itself."""
    return case.array(name)


def heads_first(case, name):
    """[batch, heads, seq, head_dim], a copy."""
    return copied(case.array(name).transpose(0, 2, 1, 3))


def folded(case, name):
    """[batch, seq, heads * head_dim]: the shared memory itself."""
    array = case.array(name)
    return array.reshape(*array.shape[:2], -1)


def of_dtype(shape, dtype):
    """Zeros of one of the case's dtypes; bf16 comes as uint16."""
    return filled(shape, NUMPY_NAMES[dtype])


def additive(seen, dtype):
    """A mask as what is added to the scores: 0 where a query may see a key, minus infinity elsewhere."""
    if dtype == "bf16":
        return numpy.where(seen, numpy.uint16(0), numpy.uint16(0xFF80))
    return numpy.where(seen, 0.0, -numpy.inf).astype(NUMPY_NAMES[dtype])
