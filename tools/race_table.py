"""Prints the fastest kernel beside the fastest peer of each cell of result files, as a Markdown table.

    headwise bench --suite cpu-race --out race.jsonl
    python3 tools/race_table.py race.jsonl

A cell is a case with its threads. Prefill is told in GFLOP/s, decoding (one query) in GB/s of K, V, Q and output,
calls too short for either in microseconds. The ratio is the peer's median over the kernel's, with a 95 % bootstrap
interval over the rounds that both ran, as the program's own speedups have it. Rows that are not `ok` are not
compared: those of kernels, and of peers that failed instead of refusing, are named below the table.
"""

import json
import random
import statistics
import sys

RESAMPLES = 1000
INTERVAL = (0.025, 0.975)
# A peer's call may cost this part of its time before the row says more of the call than of the arithmetic.
MOST_OVERHEAD = 0.05
SHORT_MS = 0.1


def rows_of(paths):
    """{(run, case): its forward rows that were measured}, in the files' order; and rows that failed."""
    cells, failures = {}, []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            for row in map(json.loads, file):
                if row.get("type") != "row" or row["direction"] != "forward":
                    continue
                # Ratios hold within one run alone.
                rows = cells.setdefault((row["run"], row["case"]), [])
                if row["status"] == "ok" and row["ms_median"]:
                    rows.append(row)
                elif row["kind"] == "kernel" or row["status"] != "unsupported":
                    failures.append(row)
    return cells, failures


def cell_of(row):
    """The sizes of a case, and its threads, as two columns."""
    return f"{sizes_of(row)} | {row['threads']}"


def sizes_of(row):
    seen = "causal" if row["causal"] else "full"
    heads = f"{row['heads']}/{row['kv_heads']}" if row["heads"] != row["kv_heads"] else row["heads"]
    sizes = f"B{row['batch']} H{heads} D{row['head_dim']}"
    if row["seq_q"] == 1:
        return f"{row['dtype']} decode {sizes} kv {row['seq_kv']}"
    return f"{row['dtype']} {seen} {sizes} S {row['seq_q']}"


def ratio_of(peer, kernel):
    """(median over median, low, high): rounds are drawn as pairs, so what disturbed both cancels."""
    count = min(len(peer), len(kernel))
    pairs = list(zip(peer[:count], kernel[:count]))
    draw = random.Random(1)

    def quotient(some):
        return statistics.median(p for p, _ in some) / statistics.median(k for _, k in some)

    drawn = sorted(quotient(draw.choices(pairs, k=count)) for _ in range(RESAMPLES))
    low, high = (drawn[round(q * (RESAMPLES - 1))] for q in INTERVAL)
    return quotient(pairs), low, high


def rate(row, short):
    if short:
        return f"{row['ms_median'] * 1000:.3g} us"
    return f"{row['gb_per_s']:.1f} GB/s" if row["seq_q"] == 1 else f"{row['tflops'] * 1000:.0f} GFLOP/s"


def line_of(kernel, peer):
    short = kernel["ms_median"] < SHORT_MS
    value, low, high = ratio_of(peer["samples_ms"], kernel["samples_ms"])
    calls = (peer["overhead_ms"] or 0) > MOST_OVERHEAD * peer["ms_median"]
    note = f" ({peer['overhead_ms'] * 1000:.3g} us of it the call)" if calls else ""
    return (
        f"| {cell_of(kernel)} | `{kernel['contender']}` {rate(kernel, short)} "
        f"| {peer['contender']} {rate(peer, short)}{note} | {value:.2f} [{low:.2f}, {high:.2f}] |"
    )


def main(paths):
    if not paths:
        sys.stderr.write("race_table.py: expected result files (headwise bench --out FILE), came none\n")
        return 3
    cells, failures = rows_of(paths)
    print("| cell | threads | Headwise | best peer | ratio |\n| --- | --- | --- | --- | --- |")
    told = []
    for (_, case), rows in cells.items():
        best = {}
        for row in rows:
            if row["kind"] not in best or row["ms_median"] < best[row["kind"]]["ms_median"]:
                best[row["kind"]] = row
        if len(best) == 2:
            print(line_of(best["kernel"], best["peer"]))
        else:
            told.append(f"{case}: no {'peer' if 'kernel' in best else 'kernel'} ran")
    told += [f"{row['case']}: {row['contender']} {row['status']}: {row['reason']}" for row in failures]
    if told:
        print("\n" + "\n".join(f"- {text}" for text in told))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
