// The loops of cpu/peaks.h in the words of an instruction set: Float, kLanes, kSums (as many sums as hide the
// latency of a multiply-add and fit into registers), load, store, broadcast, fma, either (bitwise or).

// What is stored here is of no use to anybody, which the compiler must not know.
inline void keep(const float* p) { __asm__ volatile("" : : "r"(p) : "memory"); }

// Sums neither vanish nor overflow, and their bits keep changing: x -> b - a x with a just below 1 swings
// round b / 2 and takes a million rounds to calm down. Units that see zeros or constants may clock higher.
inline void multiply_add_rounds(std::int64_t rounds) {
  float values[kSums * kLanes + 2];
  for (int i = 0; i < kSums * kLanes; ++i) values[i] = 1.0F + 0.37F * static_cast<float>(i % 13);
  values[kSums * kLanes] = -0.9999990F;
  values[kSums * kLanes + 1] = 3.1415927F;
  keep(values);
  const Float a = broadcast(values[kSums * kLanes]);
  const Float b = broadcast(values[kSums * kLanes + 1]);
  Float sums[kSums];
#pragma GCC unroll 24
  for (int i = 0; i < kSums; ++i) sums[i] = load(values + i * kLanes);
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
    for (int i = 0; i < kSums; ++i) sums[i] = fma(sums[i], a, b);
  }
#pragma GCC unroll 24
  for (int i = 0; i < kSums; ++i) store(values + i * kLanes, sums[i]);
  keep(values);
}

// Every byte comes into a register. Bitwise or, since it has the most ports of all that can take an operand
// from memory: two or three a cycle.
inline void read_bytes(const void* data, std::int64_t bytes) {
  constexpr int kReads = 8;
  static_assert(kReadBlock % (kReads * kLanes * 4) == 0, "a block is whole rounds");
  const float* p = static_cast<const float*>(data);
  float values[kReads * kLanes];
  Float seen[kReads];
#pragma GCC unroll 8
  for (int i = 0; i < kReads; ++i) seen[i] = load(p + i * kLanes);
  for (const float* const end = p + bytes / 4; p != end; p += kReads * kLanes) {
#pragma GCC unroll 8
    for (int i = 0; i < kReads; ++i) seen[i] = either(seen[i], load(p + i * kLanes));
  }
#pragma GCC unroll 8
  for (int i = 0; i < kReads; ++i) store(values + i * kLanes, seen[i]);
  keep(values);
}
