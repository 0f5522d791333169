// What score_features.inl and dropout.inl do to a block of scores with a lane for each row, for the scores of
// one row with a lane for each key.

// Scores of a row's keys become logits, as in transform_scores, and -inf where the mask hides them.
template <class T>
[[gnu::noinline]] inline void add_to_row(const LaneRows& from, int row, bool hides, std::int64_t begin,
                                         std::int64_t keys, float* s) {
  const Float minus_infinity = broadcast(-__builtin_inff());
  for (std::int64_t j = 0; j < keys; j += kLanes) {
    const Float x = addends<T>(from, row, begin + j, columns_from(j, keys));
    const Float sum = add(load(s + j), x);
    store(s + j, hides ? select(equal(x, minus_infinity), minus_infinity, sum) : sum);
  }
}

inline void transform_row(const AttentionProblem& p, const LaneFeatures& lanes, int row, Scale scale,
                          bool masked, std::int64_t begin, std::int64_t keys, float* s) {
  if (makes_logits(p)) {
    const bool capped = is_capped(p, scale);
    const bool alibi = p.alibi != AlibiKind::none;
    const Float by = logit_factor(capped, scale.logit, p.softcap);
    for (std::int64_t j = 0; j < keys; j += kLanes) {
      Float x = multiply(load(s + j), by);
      if (capped) x = multiply(broadcast(p.softcap), hyperbolic_tangent(x));
      if (alibi) {
        float distance[kLanes];
        for (int i = 0; i < kLanes; ++i)
          distance[i] = lanes.place[row] - static_cast<float>(begin - lanes.origin + j + i);
        x = subtract_product(magnitude(load(distance)), broadcast(lanes.slope[row]), x);
      }
      store(s + j, x);
    }
  }
  if (p.bias) HEADWISE_FOR_ADDENDS(lanes.bias.dtype, add_to_row, lanes.bias, row, false, begin, keys, s);
  if (masked) HEADWISE_FOR_ADDENDS(lanes.mask.dtype, add_to_row, lanes.mask, row, true, begin, keys, s);
}

// Scores of keys outside [begin, end) become -inf, up to the end of the last vector.
inline void hide_outside(std::int32_t begin, std::int32_t end, std::int64_t keys, float* s) {
  for (std::int64_t j = 0; j < keys; j += kLanes) {
    const Int at = add(lane_numbers(), broadcast_int(static_cast<std::int32_t>(j)));
    const Mask seen = within(broadcast_int(begin), at, broadcast_int(end));
    store(s + j, select(seen, load(s + j), broadcast(-__builtin_inff())));
  }
}

// The weights of a row that are not kept become 0: lanes draw groups of eight keys.
[[gnu::noinline]] inline void drop_row(const AttentionArgs& args, const AttentionProblem& p,
                                       const LaneFeatures& lanes, int row, std::int64_t begin,
                                       std::int64_t keys, float* s) {
  const std::uint32_t threshold = dropout_threshold(p.dropout_p);
  for (std::int64_t group = begin / kDropoutLanes; group * kDropoutLanes < begin + keys; group += kLanes) {
    Int counter[4] = {add(lane_numbers(), broadcast_int(static_cast<std::int32_t>(group))),
                      broadcast_int(lanes.query[row]), broadcast_int(lanes.plane[row]),
                      broadcast_int(static_cast<std::int32_t>(args.dropout_offset))};
    philox_rounds(args, counter);
    std::int32_t words[kDropoutLanes / 2][kLanes];
    for (int i = 0; i < kDropoutLanes / 2; ++i) store_int(words[i], counter[i]);
    for (int i = 0; i < kLanes * kDropoutLanes; ++i) {
      const std::int64_t j = group * kDropoutLanes + i - begin;
      if (j < 0 || j >= keys) continue;
      const auto word = static_cast<std::uint32_t>(words[i % kDropoutLanes / 2][i / kDropoutLanes]);
      if ((i % 2 == 0 ? word & 0xFFFFU : word >> 16) < threshold) s[j] = 0;
    }
  }
}
