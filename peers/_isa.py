"""HEADWISE_MAX_ISA for the libraries: the variables by which each lets itself be lowered.

They are read when a library is loaded, so a worker sets them before it imports one. What the caller has set
itself stays.
"""

import os

LIMIT = "HEADWISE_MAX_ISA"
# MKL's E3 is AVX-512 with vdpbf16ps, what it takes on a processor that has no AMX; plain AVX512 widens to f32.
MKL = {"avx512": "AVX512_E3", "avx2": "AVX2", "scalar": "SSE4_2"}
ONEDNN = {"avx512": "AVX512_CORE_FP16", "avx2": "AVX2", "scalar": "SSE41"}
ATEN = {"avx512": "avx512", "avx2": "avx2", "scalar": "default"}
# By set. One that is not here has no such switch.
SETS = {
    "torch": {"ATEN_CPU_CAPABILITY": ATEN, "MKL_ENABLE_INSTRUCTIONS": MKL, "ONEDNN_MAX_CPU_ISA": ONEDNN},
    "openvino": {"ONEDNN_MAX_CPU_ISA": ONEDNN},
}


def limit():
    """The limit of the kernels, None without one; an unknown word means scalar to them, and so to peers."""
    word = os.environ.get(LIMIT)
    if word is None or word == "amx":
        return None
    return word if word in ATEN else "scalar"


def lower(peer):
    """Lowers the libraries that the peer's set is about to import."""
    most = limit()
    for variable, words in SETS.get(peer.partition(".")[0], {}).items():
        if most is not None:
            os.environ.setdefault(variable, words[most])


def told(peer):
    """For `ran`: what lowers the peer, whoever set it, or that nothing does; empty where none was asked."""
    name = peer.partition(".")[0]
    found = [f"{variable}={os.environ[variable]}" for variable in SETS.get(name, {}) if variable in os.environ]
    if found:
        return "; lowered by " + " ".join(found)
    return "" if limit() is None else f"; not lowered to {limit()}, {name} has no switch"
