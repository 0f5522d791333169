#!/usr/bin/env python3
"""Writes grid.txt: combinations of what attention can be asked for, one problem a line.

    python3 tests/numerics/write_grid.py > tests/numerics/grid.txt

Each pair of values of two parameters stands in some line where both matter: a bias beside a single key, say,
changes nothing, so what else such a line has beside "one key" does not count. Lines are found greedily, with a
fixed seed, so the file is the same everywhere.
"""

import itertools
import random

# Values as the words they put into a line. A value that needs no word is the default.
PARAMETERS = {
    "causal": ["", "causal=1"],
    "align": ["align=top_left", "align=bottom_right"],
    "window": ["", "window_left=40", "window_right=3", "window_left=70 window_right=9", "window_left=0 window_right=0"],
    "softcap": ["", "softcap=0.5", "softcap=30"],
    "alibi": ["", "alibi=per_head", "alibi=per_batch_head"],
    "sinks": ["", "sinks=1"],
    "bias": ["", "bias=1", "bias=1 bias_axes=h", "bias=1 bias_axes=hq", "bias=1 bias_axes=bhq"],
    "mask": [
        "",
        "mask=bool mask_axes=b",
        "mask=bool mask_axes=bq",
        "mask=bool mask_axes=hq",
        "mask=bool mask_axes=bhq",
        "mask=additive mask_axes=q",
        "mask=additive mask_axes=bhq",
    ],
    "dropout": ["", "dropout_p=0.1", "dropout_p=0.5"],
    # All that validation allows: packed keys have neither lengths nor starts nor pages.
    "storage": [
        "",
        "lengths=1",
        "starts=1",
        "lengths=1 starts=1",
        "varlen=1",
        "page_size=1 lengths=1",
        "page_size=5 lengths=1",
        "page_size=16 lengths=1",
        "page_size=64 lengths=1",
        "page_size=5 lengths=1 starts=1",
        "page_size=16 lengths=1 varlen=1",
    ],
    "heads": ["heads=1 kv_heads=1", "heads=4 kv_heads=4", "heads=6 kv_heads=2", "heads=8 kv_heads=1"],
    "head_dim": [
        "head_dim=1 head_dim_v=1",
        "head_dim=16 head_dim_v=16",
        "head_dim=33 head_dim_v=21",
        "head_dim=64 head_dim_v=64",
        "head_dim=80 head_dim_v=128",
        "head_dim=128 head_dim_v=128",
        "head_dim=576 head_dim_v=512",
    ],
    # A paged line has seq_kv rounded up to whole pages.
    "sizes": [
        "seq_q=1 seq_kv=1",
        "seq_q=1 seq_kv=530",
        "seq_q=17 seq_kv=100",
        "seq_q=50 seq_kv=49",
        "seq_q=70 seq_kv=600",
        "seq_q=130 seq_kv=130",
        "seq_q=300 seq_kv=100",
    ],
    "batch": ["batch=1", "batch=3"],
    "softmax_scale": ["", "softmax_scale=-0.25", "softmax_scale=0", "softmax_scale=1.5"],
    "threads": ["threads=1", "threads=3"],
    "lse": ["", "lse=1"],
}
NAMES = list(PARAMETERS)

# Time: the widest heads come with few pairs of query and key.
TOO_LARGE = {
    ("head_dim", "head_dim=576 head_dim_v=512", "sizes", "seq_q=70 seq_kv=600"),
    ("head_dim", "head_dim=576 head_dim_v=512", "sizes", "seq_q=300 seq_kv=100"),
}


def allowed(first, value, second, other):
    return (first, value, second, other) not in TOO_LARGE and (second, other, first, value) not in TOO_LARGE


def idle(row):
    """Which parameters change nothing in a row, each with the parameter that is the reason (None: several)."""
    found = {}
    if row["sizes"] == "seq_q=1 seq_kv=1":  # all weight is with the one key, whatever its score
        found.update(dict.fromkeys(("window", "softcap", "alibi", "bias", "storage", "softmax_scale"), "sizes"))
    if row["softmax_scale"] == "softmax_scale=0":
        found["softcap"] = "softmax_scale"
    if row["batch"] == "batch=1":  # one sequence fills its storage
        found["storage"] = "batch"
    if not (row["causal"] or row["window"] or row["alibi"]):
        found["align"] = None
    return found


def pairs_of(row):
    """The pairs that a row covers, each as (parameter, value, parameter, value)."""
    reasons = idle(row)
    for first, second in itertools.combinations(NAMES, 2):
        if all(p not in reasons or reasons[p] in (first, second) for p in (first, second)):
            yield first, row[first], second, row[second]


def all_pairs():
    for first, second in itertools.combinations(NAMES, 2):
        for value, other in itertools.product(PARAMETERS[first], PARAMETERS[second]):
            if allowed(first, value, second, other):
                yield first, value, second, other


def line_of(row):
    words = dict(word.split("=") for name in NAMES for word in row[name].split())
    page = int(words.get("page_size", 1))
    words["seq_kv"] = str(-(-int(words["seq_kv"]) // page) * page)
    return " ".join(f"{key}={value}" for key, value in words.items())


class Search:
    """One row after the other, each the best of some that grow from a pair not covered yet."""

    CANDIDATES = 24

    def __init__(self):
        self.random = random.Random(20)
        self.missing = dict.fromkeys(all_pairs())  # ordered, as a set is not

    def below(self, count):
        # random() alone is the same in every version of Python.
        return int(self.random.random() * count)

    def grow(self, seed):
        row = {seed[0]: seed[1], seed[2]: seed[3]}
        rest = [name for name in NAMES if name not in row]
        while rest:
            name = rest.pop(self.below(len(rest)))
            best = []
            for value in PARAMETERS[name]:
                if not all(allowed(name, value, other, row[other]) for other in row):
                    continue
                gain = sum(
                    ((name, value, other, row[other]) in self.missing)
                    or ((other, row[other], name, value) in self.missing)
                    for other in row
                )
                best.append((gain, value))
            most = max(gain for gain, _ in best)
            best = [value for gain, value in best if gain == most]
            row[name] = best[self.below(len(best))]
        return row

    def rows(self):
        while self.missing:
            seeds = list(self.missing)
            grown = [self.grow(seeds[self.below(len(seeds))]) for _ in range(self.CANDIDATES)]
            gains = [sum(pair in self.missing for pair in pairs_of(row)) for row in grown]
            if max(gains) == 0:  # each was idle in what it grew from
                continue
            row = grown[gains.index(max(gains))]
            for pair in pairs_of(row):
                self.missing.pop(pair, None)
            yield row


def text():
    return "".join(line_of(row) + "\n" for row in Search().rows())


if __name__ == "__main__":
    print(text(), end="")
