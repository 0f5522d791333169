"""Where onnxruntime's tensors lie: the host's own arrays, or buffers on a GPU that onnxruntime allocates."""

import ctypes
import re

import numpy
import onnxruntime

BYTES_PER_BUFFER = numpy.uint8
# Memory of the GPU is asked for as it is needed: what a session took is then what its calls needed.
GROWTH = "kSameAsRequested"


class Device:
    """A device by the case's name for it: cpu, cuda:0."""

    def __init__(self, name):
        self.kind, _, index = name.partition(":")
        self.index = int(index or 0)
        self.before = 0
        self.provider_options = {}
        if self.kind == "cuda":
            self.provider_options = {"device_id": str(self.index), "arena_extend_strategy": GROWTH}

    def hold(self, array):
        """The array itself, or its bytes on the GPU."""
        if self.kind == "cpu":
            return array
        flat = numpy.ascontiguousarray(array).reshape(-1).view(BYTES_PER_BUFFER)
        return array, onnxruntime.OrtValue.ortvalue_from_numpy(flat, self.kind, self.index)

    def address(self, held):
        return held.ctypes.data if self.kind == "cpu" else held[1].data_ptr()

    def values(self, held):
        if self.kind == "cpu":
            return held
        array, buffer = held
        return buffer.numpy().view(array.dtype).reshape(array.shape)

    def settle(self):
        """Called when all buffers are in place: what is used from here on is used by calls."""
        if self.kind == "cuda":
            self.before = self.used()

    def taken(self):
        """How far the GPU's used memory grew since; a session keeps what it took."""
        return max(0, self.used() - self.before)

    def used(self):
        """Bytes of the GPU's memory in use, asked of the CUDA runtime that onnxruntime has loaded."""
        with open("/proc/self/maps", encoding="utf-8") as maps:
            found = re.search(r"\S*libcudart\S*", maps.read())
        if found is None:
            raise RuntimeError(
                "libcudart: expected it in the process, onnxruntime's CUDA provider has not loaded it"
            )
        runtime = ctypes.CDLL(found.group())
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        status = runtime.cudaSetDevice(self.index) or runtime.cudaMemGetInfo(
            ctypes.byref(free), ctypes.byref(total)
        )
        if status != 0:
            raise RuntimeError(f"cudaMemGetInfo: expected 0, came {status}")
        return total.value - free.value


HOST = Device("cpu")
