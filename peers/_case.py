"""One case: sizes, what each query may see, and the tensors that both processes share.

All tensors are packed [batch, seq, heads, head_dim]. Inputs are read and never written. numpy is imported
where an array is asked for, so that a peer of plain Python needs none.
"""

import math
import mmap
import os

from ._errors import Unsupported

ITEM_BYTES = {"f32": 4, "f16": 2, "bf16": 2}
# numpy has no bf16: its bits come as whole numbers.
NUMPY_NAMES = {"f32": "float32", "f16": "float16", "bf16": "uint16"}
ALIGNMENT = 64
# Fields of the description that become attributes as they are.
SIZES = ("batch", "heads", "kv_heads", "seq_q", "seq_kv", "head_dim", "head_dim_v")
FIELDS = SIZES + ("device", "threads", "direction", "dtype", "kv_dtype", "softmax_scale", "causal", "align")
FIELDS += ("window_left", "window_right", "cold", "last_level_cache_bytes", "tensors")
INPUTS = {"forward": ("q", "k", "v"), "backward": ("q", "k", "v", "dout")}
OUTPUTS = {"forward": ("out",), "backward": ("dq", "dk", "dv")}


def map_shared(path, size):
    """The program's memory, its pages already in place so that no later reading of memory counts them."""
    if size == 0:
        return bytearray()
    descriptor = os.open(path, os.O_RDWR)
    try:
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        return mmap.mmap(descriptor, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(descriptor)


class Case:
    """A case as the program described it; every field of the description is an attribute."""

    def __init__(self, description, memory=None):
        missing = [name for name in FIELDS if name not in description]
        if missing:
            raise ValueError(
                f"case: expected the field {missing[0]}, none came; program and worker.py differ"
            )
        self.description = description
        for name in FIELDS:
            setattr(self, name, description[name])
        self.inputs = INPUTS[self.direction]
        self.outputs = OUTPUTS[self.direction]
        self.backward = self.direction == "backward"
        self.grouped = self.heads != self.kv_heads
        self.groups = self.heads // max(1, self.kv_heads)
        self.cuda = self.device.startswith("cuda")
        self.offset, self.left, self.right = self._band()
        # What a library should do once nothing of the case is left, also where prepare failed half way.
        self.when_released = []
        shared = description.get("memory", {})
        self.memory = map_shared(shared["path"], shared["bytes"]) if memory is None else memory

    def _band(self):
        """(offset, left, right): query i sees keys i + offset - left to i + offset + right; None is open."""
        left = self.window_left if self.window_left >= 0 else None
        right = self.window_right if self.window_right >= 0 else None
        if self.causal:
            right = 0 if right is None else min(right, 0)
        offset = self.seq_kv - self.seq_q if self.align == "bottom_right" else 0
        if left is not None and self.seq_q - 1 + offset - left <= 0:
            left = None
        if right is not None and offset + right >= self.seq_kv - 1:
            right = None
        if (left, right) != (None, None) and self.seq_q != self.seq_kv and self.align == "unspecified":
            raise Unsupported("align: expected top_left or bottom_right where seq_q != seq_kv under a mask")
        return offset, left, right

    @property
    def pattern(self):
        """full, causal (the first query sees one key), causal_bottom_right, or band (any other window).

        A mask that hides nothing is full: causal with one query at the bottom right, say.
        """
        if self.left is None and self.right is None:
            return "full"
        if self.left is None and self.right == 0:
            return "causal" if self.offset == 0 else "causal_bottom_right"
        return "band"

    def describe_mask(self):
        """The mask in the words of the flags."""
        words = ["causal"] if self.causal else []
        words += [f"window_left {self.window_left}"] if self.window_left >= 0 else []
        words += [f"window_right {self.window_right}"] if self.window_right >= 0 else []
        return ", ".join(words + [f"align {self.align}", f"seq_q {self.seq_q}", f"seq_kv {self.seq_kv}"])

    @property
    def empty_rows(self):
        """Whether some query sees no key at all."""
        first = self.offset + (self.right if self.right is not None else self.seq_kv)
        # An open left side reaches the first key from any query.
        last = self.seq_q - 1 + self.offset - self.left if self.left is not None else 0
        return self.seq_q > 0 and (self.seq_kv == 0 or first < 0 or last >= self.seq_kv)

    @property
    def empty(self):
        """Whether there is nothing to compute."""
        return 0 in (getattr(self, name) for name in SIZES)

    def mask(self):
        """numpy bool [seq_q, seq_kv], True where a query may see a key; None where it may see all."""
        if self.pattern == "full":
            return None
        import numpy

        middle = numpy.arange(self.seq_q)[:, None] + self.offset
        keys = numpy.arange(self.seq_kv)[None, :]
        seen = numpy.ones((self.seq_q, self.seq_kv), dtype=bool)
        if self.left is not None:
            seen &= keys >= middle - self.left
        if self.right is not None:
            seen &= keys <= middle + self.right
        return seen

    def place(self, name):
        """(offset, dtype, shape, number of elements) of a tensor in the memory."""
        tensor = self.tensors[name]
        return tensor["offset"], tensor["dtype"], tuple(tensor["shape"]), math.prod(tensor["shape"])

    def view(self, name):
        """The bytes of a tensor, writable."""
        offset, dtype, _, count = self.place(name)
        return memoryview(self.memory)[offset : offset + count * ITEM_BYTES[dtype]]

    def array(self, name):
        """A numpy array over the tensor's memory, in its packed shape; bf16 comes as uint16."""
        import numpy

        offset, dtype, shape, count = self.place(name)
        if count == 0:
            return numpy.empty(shape, NUMPY_NAMES[dtype])
        return numpy.frombuffer(self.memory, NUMPY_NAMES[dtype], count, offset).reshape(shape)

    def bytes_of(self, names):
        return sum(self.place(name)[3] * ITEM_BYTES[self.place(name)[1]] for name in names)

    @property
    def input_bytes(self):
        return self.bytes_of(self.inputs)

    @property
    def output_bytes(self):
        return self.bytes_of(self.outputs)

    def smallest(self):
        """The least problem of the same kind: what a call costs that has next to nothing to do."""
        heads = 2 if self.grouped else 1
        sizes = dict(batch=1, heads=heads, kv_heads=1, seq_q=1, seq_kv=1)
        rows = {"k": [1, 1, 1, self.head_dim], "v": [1, 1, 1, self.head_dim_v]}
        rows.update(q=[1, 1, heads, self.head_dim], out=[1, 1, heads, self.head_dim_v])
        rows.update(dq=rows["q"], dk=rows["k"], dv=rows["v"], dout=rows["out"])
        tensors, end = {}, 0
        for name in self.inputs + self.outputs:
            tensors[name] = dict(offset=end, dtype=self.tensors[name]["dtype"], shape=rows[name])
            end += math.prod(rows[name]) * ITEM_BYTES[tensors[name]["dtype"]]
            end += -end % ALIGNMENT
        description = dict(self.description, tensors=tensors, causal=False, cold=False, window_left=-1)
        description.update(window_right=-1, align="unspecified", **sizes)
        return Case(description, bytearray(max(end, ALIGNMENT)))

    def release(self):
        memory, self.memory = self.memory, bytearray()
        if isinstance(memory, mmap.mmap):
            try:
                memory.close()
            except BufferError:
                # A library still holds a view; the mapping goes with the last of them.
                pass
        for action in self.when_released:
            action()
