#!/usr/bin/env python3
"""Writes src/lab/structured_tables.inc: a quarter of a sine, and turns a position.

    structured_tables.py > src/lab/structured_tables.inc

kSine: entry i of 257 is round(2^24 * sin(i / 256 * pi / 2)); one more repeats the last, for the
segment that begins there.
kTurns: entry i of 64 is round(2^32 / period), with periods from 8 to 65536 positions in equal ratios.
"""

from math import pi, sin

SEGMENTS = 256
SCALE = 2**24
PERIODS = 64
SHORTEST = 8
LONGEST = 65536
PER_LINE = 10


def table(kind, name, entries):
    print(f"constexpr {kind} {name}[] = {{")
    for start in range(0, len(entries), PER_LINE):
        print(", ".join(str(entry) for entry in entries[start : start + PER_LINE]) + ",")
    print("};")


def main():
    sine = [round(SCALE * sin(i / SEGMENTS * pi / 2)) for i in range(SEGMENTS + 1)]
    periods = [SHORTEST * (LONGEST / SHORTEST) ** (i / (PERIODS - 1)) for i in range(PERIODS)]
    print("// Written by tools/structured_tables.py, which says what the numbers are. clang-format off")
    table("std::int32_t", "kSine", sine + sine[-1:])
    table("std::uint32_t", "kTurns", [round(2**32 / period) for period in periods])
    print("// clang-format on")


if __name__ == "__main__":
    main()
