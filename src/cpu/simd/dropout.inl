// Dropout of weights, by the lanes of attention/dropout.h: a vector of queries, or of groups of eight keys,
// draws the bits of eight keys at a time. Kept weights are scaled where rows are written.

inline void philox_rounds(const AttentionArgs& args, Int (&counter)[4]) {
  const Int multiplier[2] = {broadcast_int(static_cast<std::int32_t>(kPhiloxMultiplier[0])),
                             broadcast_int(static_cast<std::int32_t>(kPhiloxMultiplier[1]))};
  auto key_low = static_cast<std::uint32_t>(args.dropout_seed);
  auto key_high = static_cast<std::uint32_t>(args.dropout_seed >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    Int low[2];
    Int high[2];
    multiply_wide(counter[0], multiplier[0], low[0], high[0]);
    multiply_wide(counter[2], multiplier[1], low[1], high[1]);
    counter[0] =
        exclusive_or(exclusive_or(high[1], counter[1]), broadcast_int(static_cast<std::int32_t>(key_low)));
    counter[1] = low[1];
    counter[2] =
        exclusive_or(exclusive_or(high[0], counter[3]), broadcast_int(static_cast<std::int32_t>(key_high)));
    counter[3] = low[0];
    key_low += kPhiloxWeyl[0];
    key_high += kPhiloxWeyl[1];
  }
}

template <int N>
[[gnu::noinline]] inline void drop_block(const AttentionArgs& args, const AttentionProblem& p,
                                         const LaneFeatures& lanes, std::int64_t begin, std::int64_t keys,
                                         float* s) {
  const Int threshold = broadcast_int(static_cast<std::int32_t>(dropout_threshold(p.dropout_p)));
  const Int most = broadcast_int(0x10000);
  for (std::int64_t group = begin / kDropoutLanes; group * kDropoutLanes < begin + keys; ++group) {
    for (int n = 0; n < N; ++n) {
      Int counter[4] = {broadcast_int(static_cast<std::int32_t>(group)), load_int(lanes.query + n * kLanes),
                        load_int(lanes.plane + n * kLanes),
                        broadcast_int(static_cast<std::int32_t>(args.dropout_offset))};
      philox_rounds(args, counter);
      for (int lane = 0; lane < kDropoutLanes; ++lane) {
        const std::int64_t j = group * kDropoutLanes + lane - begin;
        if (j < 0 || j >= keys) continue;
        const Int word = counter[lane / 2];
        drop_weights<N>(s, j, n,
                        within(threshold, lane % 2 == 0 ? lower_half(word) : upper_half(word), most));
      }
    }
  }
}
