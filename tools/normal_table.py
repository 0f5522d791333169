#!/usr/bin/env python3
"""Writes src/lab/normal_table.inc: the upper half of the standard normal distribution's inverse.

    normal_table.py > src/lab/normal_table.inc

Entry i of 4097 is round(2^24 * x), with x the value below which 0.5 + i / 8192 of the distribution
lies. The last entry would be infinite: it is set so that the segment before it, drawn uniformly,
has the mean of the true tail beyond entry 4095.
"""

from statistics import NormalDist

SEGMENTS = 4096
SCALE = 2**24
PER_LINE = 10


def main():
    normal = NormalDist()
    values = [normal.inv_cdf(0.5 + i / (2 * SEGMENTS)) for i in range(SEGMENTS)]
    tail_mean = normal.pdf(values[-1]) * 2 * SEGMENTS  # of x beyond values[-1], which 1 in 8192 reaches
    values.append(2 * tail_mean - values[-1])
    entries = [str(round(value * SCALE)) for value in values]
    print("// Written by tools/normal_table.py, which says what the numbers are. clang-format off")
    for start in range(0, len(entries), PER_LINE):
        print(", ".join(entries[start : start + PER_LINE]) + ",")
    print("// clang-format on")


if __name__ == "__main__":
    main()
