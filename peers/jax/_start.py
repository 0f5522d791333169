"""Starting jax: what must be settled before it is imported.

XLA makes as many threads as the process has CPUs, and takes no number. The process therefore keeps as many
CPUs as it may use threads, one of each core first.
"""

import os

SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def cpus_listed(text):
    """The CPUs of a list as the kernel writes it: 0,4 or 0-1."""
    found = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def rank(cpu):
    """How many CPUs of the same core come before this one, then its number."""
    try:
        with open(SIBLINGS.format(cpu), encoding="ascii") as siblings:
            return cpus_listed(siblings.read()).index(cpu), cpu
    except (OSError, ValueError):
        return 0, cpu


def start(threads):
    """jax, imported with `threads` CPUs to run on."""
    allowed = sorted(os.sched_getaffinity(0), key=rank)
    os.sched_setaffinity(0, allowed[:threads])
    # All of a GPU's memory at once would be taken from the other contenders.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    return jax


def describe(threads, devices=("cpu", "cuda"), dtypes=("f32", "f16", "bf16")):
    """The parts of hello that all jax peers have."""
    jax = start(threads)
    here = ["cpu"]
    try:
        here += ["cuda"] if jax.devices("cuda") else []
    except RuntimeError:
        # So it says that there is no such backend.
        pass
    return {
        "version": f"jax {jax.__version__}",
        "devices": [device for device in devices if device in here],
        "dtypes": list(dtypes),
        "directions": ["forward", "backward"],
    }
