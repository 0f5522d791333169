"""Writes the node tests of ONNX's operator Attention as files, one safetensors file a case.

    python write_cases.py FOLDER

The package onnx makes its node tests in memory, by running its reference implementation; this writes them down
for a program that has no Python: tensors input.NAME and output.NAME, called as in the operator's definition,
and as metadata the opset, the tolerances, the attributes and the version of the package. FOLDER is written
whole or not at all. Cases whose name ends in _expanded have the same tensors and are not written.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx.backend.test.case.node import collect_testcases

INPUTS = ["Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen"]
OUTPUTS = ["Y", "present_key", "present_value", "qk_matmul_output"]
DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int32": "I32", "bool": "BOOL"}


def attention_cases():
    for case in collect_testcases("Attention"):
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type == "Attention":
            yield case


def named(kind, places, names, values):
    """The tensors that a case gives, by their names in the operator's definition: places left empty have none."""
    given = [place for place, name in zip(places, names, strict=False) if name]
    if len(given) != len(values):
        raise ValueError(f"{len(given)} names of {kind}s, but {len(values)} tensors")
    for place, value in zip(given, values, strict=True):
        value = np.asarray(value)
        if value.dtype == np.int64:  # what the reader has; the values are lengths
            narrow = value.astype(np.int32)
            if not np.array_equal(narrow, value):
                raise ValueError(f"{place} has values beyond 32 bits")
            value = narrow
        yield f"{kind}.{place}", np.ascontiguousarray(value)


def opset_of(case):
    return next(entry.version for entry in case.model.opset_import if entry.domain in ("", "ai.onnx"))


def metadata_of(case):
    node = case.model.graph.node[0]
    attributes = {f"attribute.{entry.name}": repr(onnx.helper.get_attribute_value(entry)) for entry in node.attribute}
    return {
        "name": case.name,
        "opset": str(opset_of(case)),
        "rtol": repr(float(case.rtol)),
        "atol": repr(float(case.atol)),
        "onnx": onnx.__version__,
        **attributes,
    }


def write(path, tensors, metadata):
    header, offset = {"__metadata__": metadata}, 0
    for name, value in tensors.items():
        end = offset + value.nbytes
        header[name] = {"dtype": DTYPES[value.dtype.name], "shape": list(value.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for value in tensors.values():
            file.write(value.tobytes())


def write_all(folder):
    count = 0
    for case in attention_cases():
        if len(case.data_sets) != 1:
            raise ValueError(f"{case.name}: expected one set of tensors, got {len(case.data_sets)}")
        inputs, outputs = case.data_sets[0]
        node = case.model.graph.node[0]
        tensors = dict(named("input", INPUTS, node.input, inputs))
        tensors.update(named("output", OUTPUTS, node.output, outputs))
        write(folder / f"{case.name}.safetensors", tensors, metadata_of(case))
        count += 1
    return count


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    target = Path(sys.argv[1])
    made = target.with_name(f"{target.name}.{os.getpid()}")
    made.mkdir(parents=True)
    try:
        count = write_all(made)
        if count == 0:
            raise ValueError("the package has no node tests of Attention")
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    print(f"{count} cases of onnx {onnx.__version__} in {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
