"""Writes made-up runs for tests of the report: make_rows.py KIND FILE.

Nothing here was measured. Times and errors come from formulas and a seeded generator, and the run says so in its
environment. Kinds: see KINDS below.
"""

import json
import random
import sys

SCHEMA = "headwise.rows/1"
KERNELS = {  # id: (isa, algorithm, GFLOP/s at one thread, grows with seq)
    "cpu/avx512/flash/f32": ("avx512", "flash", 95.0),
    "cpu/avx512/unfused/f32": ("avx512", "unfused", 55.0),
    "cpu/scalar/naive/f32": ("scalar", "naive", 2.4),
}


def run_line(**changes):
    environment = {
        "note": "synthetic rows for tests; nothing was measured",
        "tool_version": "0.0.0-test", "git_sha": "0" * 40, "git_dirty": "no", "build_type": "Release",
        "compiler": "g++ 12.2.0", "compiler_flags": "-O3 -DNDEBUG", "os": "Debian GNU/Linux 12 (bookworm)",
        "kernel": "6.1.0-test", "glibc": "2.36", "cpu": "Imaginary Processor 9000 @ 3.00GHz", "cpus_usable": "2",
        "isa": "avx512", "instruction_sets": "avx512f avx512bw avx512vl amx_bf16", "sockets": "1", "cores": "2", "smt": "no",
        "affinity": "0-1", "l1d_bytes": "49152", "l2_bytes": "2097152", "l3_bytes": "110100480",
        "governor": "not readable", "aslr": "on", "load_average": "0.42", "memory_total": "24 GiB",
    }
    run = {"schema": SCHEMA, "type": "run", "run": "synthetic-1", "started": "2026-01-02T03:04:05+00:00",
           "command": "headwise bench --suite synthetic --out run.jsonl", "environment": environment}
    run.update(changes)
    return run


def row(cell, contender, **changes):
    """A row that ran, in a case given as a dict of row fields; `changes` overrides any field."""
    random.seed(f"{sorted(cell.items())} {contender}")
    isa, algorithm, rate = KERNELS.get(contender, ("scalar", "other", 10.0))
    heads, seq_q, seq_kv, dim = cell["heads"], cell["seq_q"], cell["seq_kv"], cell["head_dim"]
    pairs = cell["batch"] * heads * seq_q * seq_kv * (0.5 if cell["causal"] else 1.0)
    flops = 4.0 * dim * pairs
    slowing = 1.0 + (seq_kv / 6000.0 if algorithm == "unfused" else 0.0)
    ms = (flops / (rate * cell["threads"] * 1e6) * slowing + 0.004) * random.uniform(0.97, 1.03)
    inputs = 4 * cell["batch"] * dim * (heads * seq_q + 2 * cell["kv_heads"] * seq_kv)
    outputs = 4 * cell["batch"] * dim * heads * seq_q
    workspace = {"unfused": 4 * heads * seq_q * seq_kv, "flash": 400_000}.get(algorithm, 0)
    limit = 4e-7 * (1 + seq_kv / 8192)
    error = limit * random.uniform(0.15, 0.6)
    words = " ".join(f"{name}={value}" for name, value in cell.items())
    made = {
        "type": "row", "schema": SCHEMA, "run": "synthetic-1", "case": words, "contender": contender,
        "kind": "kernel", "status": "ok", "reason": "", "device": "cpu", "isa": isa, "algorithm": algorithm,
        "dtype": "f32", "kv_dtype": "f32", "direction": "forward", "head_dim_v": dim, "align": "",
        "window_left": -1, "window_right": -1, "softmax_scale": None, "page_size": 0, "lengths": "", "seed": 1,
        "ms_median": ms, "ms_mean": ms * 1.01, "ms_min": ms * 0.97, "ms_p5": ms * 0.98, "ms_p95": ms * 1.06,
        "ms_p99": ms * 1.11, "ms_stddev": ms * 0.02, "ms_low": ms * 0.995, "ms_high": ms * 1.005,
        "samples_ms": [ms, ms * 1.01, ms * 0.99], "samples": 3, "repeats": 1, "warmups": 5, "stop": "interval",
        "prepare_ms": 0.1, "verify_ms": 20.0, "overhead_ms": None, "latency_ms": None, "version": "", "tokens_per_s": cell["batch"] * seq_q / ms * 1e3,
        "tflops": flops / ms / 1e9, "gb_per_s": (inputs + outputs) / ms / 1e6,
        "input_bytes": inputs, "output_bytes": outputs, "workspace_bytes": workspace,
        "peak_bytes": inputs + outputs + workspace, "peak_allocated_bytes": inputs + outputs + workspace,
        "least_bytes": inputs + outputs, "error_max": error, "error_rms": error / 5, "error_limit": limit,
        "error_rms_limit": limit / 4, "plain_max": limit / 2, "plain_rms": limit / 10, "lse_error": None,
        "lse_limit": None, "rows_verified": min(seq_q, 256) * heads, "speedup": None, "speedup_low": None,
        "speedup_high": None, "baseline": "cpu/avx512/unfused/f32", "timer": "steady_clock",
        "regime": "sustained", "cache": "hot", "clock_mhz": 3000.0, "ran": contender,
        "reproduce": f"headwise bench --contenders {contender} {words}",
    }
    made.update(cell)
    made.update(changes)
    return made


def failed(cell, contender, status, reason):
    nothing = {name: None for name, value in row(cell, contender).items() if isinstance(value, float)}
    return row(cell, contender, **nothing, status=status, reason=reason, samples=None, samples_ms=[], stop="",
               peak_bytes=None, rows_verified=None, timer="", regime="", cache="", ran="")


def with_speedups(rows):
    for case in {made["case"] for made in rows}:
        group = [made for made in rows if made["case"] == case and made["status"] == "ok"]
        base = [made["ms_median"] for made in group if made["contender"] == made["baseline"]]
        for made in group if base else []:
            if made["reason"].startswith("not ranked"):
                continue
            ratio = base[0] / made["ms_median"]
            made.update(speedup=ratio, speedup_low=ratio * 0.97, speedup_high=ratio * 1.03)
    return rows


def case(seq, causal=False, heads=8, kv_heads=8, head_dim=64, threads=2, inputs="normal", seq_q=None, batch=1):
    return {"batch": batch, "heads": heads, "kv_heads": kv_heads, "seq_q": seq if seq_q is None else seq_q,
            "seq_kv": seq, "head_dim": head_dim, "causal": causal, "threads": threads, "inputs": inputs}


def sweep():
    """The shape of a default suite: several families, lengths, captured inputs, and every kind of failure."""
    rows = []
    for causal in (False, True):
        for kv_heads in (8, 2):
            for seq in (128, 256, 512, 1024, 2048, 4096):
                for contender in KERNELS:
                    cell = case(seq, causal, kv_heads=kv_heads)
                    if contender.endswith("naive/f32") and seq > 2048:
                        rows.append(failed(cell, contender, "timeout", "took over 2 s a call (--max-seconds)"))
                    else:
                        rows.append(row(cell, contender))
    for layer in (0, 2, 5):
        cell = case(256, heads=12, kv_heads=12, head_dim=32, inputs=f"captured:{layer}")
        rows += [row(cell, contender) for contender in KERNELS]
    for seq in (1024, 4096, 16384):
        cell = case(seq, causal=True, seq_q=1) | {"align": "bottom_right"}
        rows += [row(cell, contender) for contender in KERNELS]
    big = case(65536)
    rows.append(failed(big, "cpu/avx512/unfused/f32", "out_of_memory", "needs 128.1 GiB, and 22.4 GiB are free"))
    rows.append(failed(big, "cpu/avx512/flash/f32", "unsupported", "head_dim 64: a made-up reason"))
    rows.append(row(case(64), "cpu/avx512/flash/f32", status="inaccurate", error_max=3.0,
                    reason="error_max 3.0 is over its limit of 4.0e-07"))
    return with_speedups(rows)


def peaks():
    """Peaks of the imaginary processor at one and two threads."""
    made = []
    for threads in (1, 2):
        for what, name, isa, dtype, value, unit, size in (
                ("flops", "scalar f32", "scalar", "f32", 0.006, "TFLOP/s", 0),
                ("flops", "avx512 f32", "avx512", "f32", 0.11, "TFLOP/s", 0),
                ("bytes", "L1", "avx512", "", 400.0, "GB/s", 24576), ("bytes", "L2", "avx512", "", 190.0, "GB/s", 524288),
                ("bytes", "memory", "avx512", "", 14.0, "GB/s", 134217728)):
            made.append({"schema": SCHEMA, "type": "peak", "device": "cpu", "what": what, "name": name, "isa": isa,
                         "dtype": dtype, "unit": unit, "threads": threads, "set_bytes": size, "samples": 9,
                         "value": value * threads, "low": value * threads * 0.99, "high": value * threads * 1.01})
    return made


def wide():
    """Two devices, two dtypes, two masks, three batches, many samples, and peaks of one of the devices."""
    rows = []
    for batch in (1, 2, 4):
        for causal in (False, True):
            for seq in (256, 1024):
                for dtype in ("f32", "bf16"):
                    for contender in ("cpu/avx512/flash/", "cpu/avx512/unfused/"):
                        made = row(case(seq, causal, batch=batch), contender + dtype, dtype=dtype, kv_dtype=dtype,
                                   baseline=f"cpu/avx512/unfused/{dtype}", isa="avx512", algorithm=contender.split("/")[2])
                        made["case"] += f" dtype={dtype}"
                        random.seed(made["case"] + contender)
                        samples = [made["ms_median"] * random.lognormvariate(0, 0.03) for _ in range(500)]
                        made.update(samples_ms=samples + [made["ms_median"] * 3], samples=501)
                        rows.append(made)
    for seq in (256, 1024):
        made = row(case(seq), "made/up/flash/f32", device="imaginary:0", isa="none", kind="kernel", baseline="")
        made["case"] += " device=imaginary:0"
        rows.append(made)
    return with_speedups(rows)


PEERS = {  # name: (GFLOP/s at one thread, overhead in ms, peak memory beyond inputs and outputs in bytes)
    "jax.dot_product_attention": (28.0, 0.012, 900_000), "jax.eager": (14.0, 0.05, 6_000_000), "jax.jit": (31.0, 0.011, 0),
    "onnxruntime.attention": (61.0, 0.006, 1_000_000), "onnxruntime.gqa": (44.0, 0.008, 2_000_000), "onnxruntime.mha": (70.0, 0.009, 1_400_000),
    "openvino.sdpa": (83.0, 0.9, 800_000),
    "torch.compiled": (52.0, 0.02, 3_000_000), "torch.eager": (36.0, 0.013, 5_000_000), "torch.flash": (99.0, 0.008, 300_000),
    "torch.flex": (66.0, 0.035, 2_500_000), "torch.math": (21.0, 0.019, 7_000_000),
}
VERSIONS = {"jax": "jax 0.0.0-test", "onnxruntime": "onnxruntime 0.0.0-test", "openvino": "openvino 0.0.0-test", "torch": "torch 0.0.0-test"}


def scaled(made, factor):
    """The row at `factor` times its speed."""
    for field in [field for field in made if field.startswith("ms_")]:
        made[field] /= factor
    made["samples_ms"] = [sample / factor for sample in made["samples_ms"]]
    for field in ("tokens_per_s", "tflops", "gb_per_s"):
        made[field] *= factor
    return made


def peer(cell, name, **changes):
    """A peer's row; one whose call costs more than 5 % of its time says that it is not ranked, as the runner does."""
    rate, overhead, extra = PEERS[name]
    made = row(cell, name)
    made = scaled(made, rate * cell["threads"] / (made["tflops"] * 1e3))  # `row` knows no peer's rate
    made.update(kind="peer", isa="", algorithm="", version=VERSIONS[name.split(".")[0]], ran=f"made-up operation of {name}", overhead_ms=overhead,
                workspace_bytes=None, peak_allocated_bytes=None, peak_bytes=made["least_bytes"] + extra)
    made.update(changes)
    if made["overhead_ms"] > 0.05 * made["ms_median"]:
        made["reason"] = f"not ranked: calling it takes {overhead:.3g} ms with next to nothing to do, {100 * overhead / made['ms_median']:.0f} % of its time"
    return made


def refused(cell, name, status, reason):
    return failed(cell, name, status, reason) | {"kind": "peer", "isa": "", "algorithm": "", "version": VERSIONS.get(name.split(".")[0], "")}


def peers_run():
    """Kernels beside peers: ahead, behind, without a rank, unsupported, absent; a GPU whose timers differ; a gradient."""
    rows = []
    for dtype in ("f32", "bf16"):
        for causal in (False, True):
            for seq in (256, 1024, 4096):
                typed = {"dtype": dtype, "kv_dtype": dtype}
                cell = case(seq, causal) | typed
                baseline = f"cpu/avx512/unfused/{dtype}"
                for algorithm in ("flash", "unfused"):
                    made = row(cell, f"cpu/avx512/{algorithm}/{dtype}", isa="avx512", algorithm=algorithm, baseline=baseline)
                    rate = (180.0 if causal else 90.0) if algorithm == "flash" else 55.0
                    rows.append(scaled(made, rate * cell["threads"] / (made["tflops"] * 1e3)))
                rows += [peer(cell, name, baseline=baseline) for name in PEERS]
                rows += [refused(cell, name, "unsupported", f"{name}: runs on no device that is here") for name in ("jax.cudnn", "torch.cudnn")]
                rows += [refused(cell, name, "absent", "made is not installed; make peers PEERS=made installs it") for name in ("made.one", "made.two")]
    for seq in (1024, 2048):
        gpu = case(seq) | {"device": "cuda:0"}
        gpu_row = lambda name, gpu=gpu, **changes: row(gpu, name, threads=0, baseline="", **changes)
        rows.append(gpu_row("cuda/sm90/prefill/f32", timer="graph", isa="sm90", algorithm="prefill"))
        rows.append(gpu_row("torch.flash", timer="graph", kind="peer", isa="", algorithm="", version=VERSIONS["torch"], latency_ms=0.02))
        rows.append(gpu_row("torch.math", timer="events", kind="peer", isa="", algorithm="", version=VERSIONS["torch"]))
    for seq in (256, 1024):
        back = case(seq) | {"direction": "backward"}
        rows.append(row(back, "cpu/avx512/flash_backward/f32", isa="avx512", algorithm="flash_backward", baseline=""))
        rows.append(peer(back, "torch.flash", baseline=""))
    return with_speedups(rows)


HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'"><!-- \u2028 {{data}}'


def hostile():
    rows = [row(case(seq), HOSTILE, reason=HOSTILE, inputs=HOSTILE, reproduce=HOSTILE, case=HOSTILE, ran=HOSTILE,
                timer=HOSTILE, stop=HOSTILE, baseline=HOSTILE) for seq in (128, 256)]
    return rows + [row(case(128), "cpu/avx512/flash/f32", status=HOSTILE, reason="=cmd|' /C calc'!A0")]


KINDS = {
    "sweep": (run_line(), sweep),
    "wide": (run_line(), wide),
    "peers": (run_line(), peers_run),
    "empty": (run_line(), list),
    "one": (run_line(), lambda: [row(case(256), "cpu/avx512/flash/f32")]),
    "failed": (run_line(), lambda: [failed(case(256), name, "unsupported", "not on this processor") for name in KERNELS]),
    "hostile": (run_line(command=HOSTILE, environment={HOSTILE: HOSTILE, "cpu": HOSTILE}), hostile),
}


def lines(kind):
    first, make = KINDS[kind]
    return "".join(json.dumps(line) + "\n" for line in [first, *(peaks() if kind == "wide" else []), *make()])


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in KINDS:
        sys.exit(f"usage: make_rows.py {{{','.join(KINDS)}}} FILE")
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(lines(sys.argv[1]))
