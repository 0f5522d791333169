"""Runs one peer for the headwise program: answers its requests, one JSON object a line.

    python -B peers/worker.py torch.flash          serves the peer until the requests end
    python -B peers/worker.py --describe torch     prints what each peer of a set is, and ends

A peer is a file peers/<set>/<name>.py with

    ABOUT = "one line"
    THREADS = "dynamic" or "fixed"     fixed: the library takes the number of threads once, when it starts
    def describe(threads)              {"version", "devices", "dtypes", "directions"}; threads: as started
    def prepare(case)                  a run, as _cpu.HostRun is one: timer, regime, cache_method, ran,
                                       call, time, output, release

and may import from .. (_case, _cpu, _errors) and from its own set (. _shared). HEADWISE_PEERS names another
folder with sets, which is looked at first.
"""

import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))
# This folder holds folders named like the libraries: it must never be where `import torch` looks.
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != FOLDER]

import gc  # noqa: E402
import glob  # noqa: E402
import importlib  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
import types  # noqa: E402

PROTOCOL = "headwise.peers/1"
PACKAGE = "headwise_peers"
OVERHEAD_SAMPLES = 15
OVERHEAD_SAMPLE_MS = 1.0
OVERHEAD_MOST_CALLS = 200


def mount():
    """Makes the peers importable as one package; returns the folders that hold sets."""
    folders = [os.path.abspath(folder) for folder in (os.environ.get("HEADWISE_PEERS"), FOLDER) if folder]
    package = types.ModuleType(PACKAGE)
    package.__path__ = folders
    sys.modules[PACKAGE] = package
    return folders


def shared(name):
    return importlib.import_module(f"{PACKAGE}.{name}")


def own_threads():
    """What the libraries are started with; the program sets it before the process begins."""
    threads = int(os.environ.get("HEADWISE_THREADS") or os.cpu_count() or 1)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    return threads


def load(peer, threads):
    """(the peer's module or None, its hello)."""
    hello = {"id": 0, "protocol": PROTOCOL, "peer": peer}
    shared("_isa").lower(peer)
    try:
        module = importlib.import_module(f"{PACKAGE}.{peer}")
        hello.update(status="ok", **module.describe(threads))
        hello.update(threads=module.THREADS, about=module.ABOUT)
        return module, hello
    except ModuleNotFoundError as error:
        reason = str(error)
        if (error.name or "").startswith(PACKAGE):
            reason = f"peer: expected one of those in {FOLDER}, came {peer}; see headwise list peers"
    except Exception as error:  # a broken library breaks in any way at import
        traceback.print_exc()
        reason = f"{type(error).__name__}: {shared('_errors').first_lines(error)}"
    return None, dict(hello, status="absent", reason=reason)


class Worker:
    """One peer and the one case that it holds."""

    def __init__(self, peer, hello):
        self.peer = peer
        self.hello = hello
        self.case = None
        self.run = None
        self.overheads = {}

    def answer(self, request):
        """The reply to a request, whatever happens."""
        reply = {"id": request["id"]}
        try:
            operation = {
                "prepare": lambda: self.prepare(request["case"]),
                "call": lambda: self.prepared().call(),
                "time": lambda: self.prepared().time(request["calls"], request["lead_in_ms"]),
                "output": lambda: self.prepared().output(),
                "release": self.release,
            }[request["op"]]
            return dict(reply, status="ok", **(operation() or {}))
        except Exception as error:  # whatever a library throws ends the row, not the worker
            status, reason = shared("_errors").outcome(error)
            if status == "error":
                traceback.print_exc()
            # The traceback holds the frames, and they hold the tensors.
            error.__traceback__ = None
        if request["op"] == "prepare":
            self.release()
        gc.collect()
        return dict(reply, status=status, reason=reason)

    def prepared(self):
        if self.run is None:
            raise RuntimeError("op: expected prepare first, no case is prepared")
        return self.run

    def prepare(self, description):
        self.release()
        self.case = shared("_case").Case(description)
        self.refuse()
        overhead = None if self.case.cuda else self.overhead()
        start = time.perf_counter_ns()
        self.run = self.peer.prepare(self.case)
        elapsed = time.perf_counter_ns() - start
        if self.case.cuda and self.run.timer != "graph":
            overhead = self.overhead()
        reply = {name: getattr(self.run, name) for name in ("ran", "timer", "regime", "cache_method")}
        if not self.case.cuda:
            reply["ran"] += shared("_isa").told(self.hello["peer"])
        reply["prepare_ms"] = elapsed / 1e6
        return reply if overhead is None else dict(reply, overhead_ms=overhead)

    def refuse(self):
        """What the peer's own description rules out."""
        refused = shared("_errors").Unsupported
        device = self.case.device.partition(":")[0]
        name = self.hello["peer"]
        for field, came, offered in (
            ("device", device, self.hello["devices"]),
            ("direction", self.case.direction, self.hello["directions"]),
            ("dtype", self.case.dtype, self.hello["dtypes"]),
        ):
            if came not in offered:
                takes = ", ".join(offered) or "none that this machine has"
                raise refused(f"{field}: {name} takes {takes}; came {came}")
        if self.case.kv_dtype != self.case.dtype:
            raise refused(f"kv_dtype: {name} takes that of q ({self.case.dtype}); came {self.case.kv_dtype}")

    def overhead(self):
        """Least milliseconds of a call with next to nothing to do, of some samples; None where it is refused."""
        case = self.case
        key = (case.device, case.threads, case.dtype, case.direction, case.head_dim, case.head_dim_v)
        key += (case.grouped,)
        if key not in self.overheads:
            try:
                self.overheads[key] = self.measure_overhead(case.smallest())
            except Exception as error:  # the case itself decides what becomes of the row
                sys.stderr.write(f"worker.py: the smallest case failed: {type(error).__name__}: {error}\n")
                self.overheads[key] = None
        return self.overheads[key]

    def measure_overhead(self, case):
        run = self.peer.prepare(case)
        try:
            run.call()
            first = run.time(2, OVERHEAD_SAMPLE_MS)
            each = max(first["ms"] / first["calls"], 1e-6)
            calls = max(1, min(OVERHEAD_MOST_CALLS, int(OVERHEAD_SAMPLE_MS / each)))
            samples = [run.time(calls, 0) for _ in range(OVERHEAD_SAMPLES)]
            return min(sample["ms"] / sample["calls"] for sample in samples)
        finally:
            run.release()

    def release(self):
        """What a library keeps of a GPU's memory, others lack: such a worker asks to be started anew."""
        run, case, self.run, self.case = self.run, self.case, None, None
        keeps = getattr(run, "keeps_memory", bool)()
        if run is not None:
            run.release()
        del run
        gc.collect()
        if case is not None:
            case.release()
        return {"restart": keeps}


def serve(channel, name, threads):
    peer, hello = load(name, threads)
    worker = Worker(peer, hello)
    # A collection in the middle of a timed loop would be a pause of ours in their figures.
    gc.collect()
    gc.freeze()
    gc.disable()
    channel.write(hello)
    while peer is not None:
        request = channel.read()
        if request is None:
            break
        channel.write(worker.answer(request))
    # Libraries' own ends (thread pools, device contexts) are slow and may hang; nothing here needs them.
    os._exit(0)


def describe(channel, folders, name, threads):
    files = sorted(glob.glob(os.path.join(folders[0], name, "[!_]*.py")))
    for file in files:
        peer = f"{name}.{os.path.splitext(os.path.basename(file))[0]}"
        channel.write(load(peer, threads)[1])
    sys.stderr.flush()
    os._exit(0 if files else 3)


def main(arguments):
    threads = own_threads()
    folders = mount()
    describing = len(arguments) == 2 and arguments[0] == "--describe"
    if not describing and (len(arguments) != 1 or arguments[0].startswith("-")):
        sys.stderr.write(f"worker.py: expected <set>.<name> or --describe <set>, came {arguments}\n")
        return 3
    module = shared("_channel")
    module.current = module.Channel()
    if describing:
        describe(module.current, folders, arguments[1], threads)
    serve(module.current, arguments[0], threads)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
