// Between a tile's rows in memory and its lanes: scales and ranges in, output out.

// Lanes of N vectors for `rows` rows; the rest are padding, packed as zeros and never written.
inline int vectors_for(std::int64_t rows) { return static_cast<int>((rows + kLanes - 1) / kLanes); }

// Calls fn<N>(arguments...) for the tile's width.
#define HEADWISE_FOR_WIDTH(vectors, fn, ...) \
  do {                                       \
    if ((vectors) == 1) {                    \
      fn<1>(__VA_ARGS__);                    \
    } else if ((vectors) == 2) {             \
      fn<2>(__VA_ARGS__);                    \
    } else {                                 \
      fn<kVectors>(__VA_ARGS__);             \
    }                                        \
  } while (false)
static_assert(kVectors == 3 || kVectors == 2);

// Whether something is added to scores, so that they must have their scale; otherwise they stay as the
// product left them.
inline bool makes_logits(const AttentionProblem& p) {
  return p.softcap != 0 || p.alibi != AlibiKind::none || p.bias || p.mask == MaskKind::additive;
}

// A score is multiplied by a positive factor only, so that the largest raw score stays the
// largest: a sign moves into Q, which is exact, and so does a zero.
struct Scale {
  float query = 1;    // Q is multiplied by this when it is packed: 1, -1 or 0
  float log2 = 0;     // > 0: scores times this are exponents of 2
  float natural = 0;  // and times this, of e
  float logit = 1;    // products times this are scores, where something is added to them
};
inline Scale scale_of(const AttentionProblem& p) {
  constexpr float kLog2e = 1.44269504F;
  const float s = p.scale();
  if (s == 0) return {0, kLog2e, 1, 1};
  const float sign = s < 0 ? -1.0F : 1.0F;
  const float positive = s < 0 ? -s : s;
  if (makes_logits(p)) return {sign, kLog2e, 1, positive};
  const float log2 = positive * kLog2e;
  return {sign, log2 < __FLT_MAX__ ? log2 : __FLT_MAX__, positive, 1};  // inf * 0 is NaN
}

// Columns, or keys, are moved by squares of kLanes; the last one may be narrower.
inline int columns_from(std::int64_t first, std::int64_t count) {
  return count - first < kLanes ? static_cast<int>(count - first) : kLanes;
}

// a / b, b with a finite reciprocal: one step of correction gives what a division would, for two
// multiply-adds instead of some ten cycles. An infinite a has no rest to correct by.
inline Float quotient(Float a, Float b, Float reciprocal) {
  const Float first = multiply(a, reciprocal);
  const Float rest = subtract_product(first, b, a);
  return select(equal(rest, rest), fma(rest, reciprocal, first), first);
}

// The sinks of a vector of lanes join their sums: both then refer to the larger of the reference and the
// sink, and `factor` is what O is multiplied with.
inline void join_sinks(const AttentionArgs& args, const Rows& rows, const Tile& tile, int first, Scale scale,
                       Float reference, Float& total, Float& factor) {
  constexpr float kLog2e = 1.44269504F;
  float sinks[kLanes] = {};
  RowCursor at(rows, tile.kv_head, tile.first_row + first);
  for (int i = 0; i < kLanes && first + i < tile.rows; ++i, at.next()) {
    sinks[i] = args.sinks.as<const float>()[at.head * args.sinks.stride[0]];
  }
  const Float sink = load(sinks);
  const Float logit = multiply(reference, broadcast(scale.natural));
  const Float larger = maximum(sink, logit);
  const Float by = broadcast(kLog2e);
  const Float one = broadcast(1.0F);  // infinities that are equal differ by nothing
  factor = select(equal(logit, larger), one, exp2_nonpositive(multiply(subtract(logit, larger), by)));
  const Float added =
      select(equal(sink, larger), one, exp2_nonpositive(multiply(subtract(sink, larger), by)));
  total = fma(total, factor, added);
}

// 1 / dropout_scale(), exact: kept weights are scaled where rows are written.
inline Float kept_share(const AttentionProblem& p) {
  return broadcast(1.0F - static_cast<float>(dropout_threshold(p.dropout_p)) / 65536.0F);
}

inline void write_lse(const AttentionArgs& args, const Rows& rows, const Tile& tile, Scale scale,
                      const float* reference, const float* sum) {
  if (!args.lse.present()) return;
  RowCursor row(rows, tile.kv_head, tile.first_row);
  for (std::int64_t i = 0; i < tile.rows; ++i, row.next()) {
    args.lse.as<float>()[tile.sequence.item_q * args.lse.stride[0] + row.head * args.lse.stride[1] +
                         (tile.sequence.row_q + row.token) * args.lse.stride[2]] =
        log_sum_exp(reference[i], scale.natural, sum[i]);
  }
}

// out = O^T / sum, 0 where a row saw no key (its sum is 0), and its LSE. reference is in raw scores.
template <int N>
inline void write_rows(const AttentionArgs& args, const AttentionProblem& p, const Tile& tile, const float* o,
                       Scale scale, const float* reference, const float* sum) {
  constexpr int kWidth = kLanes * N;
  const Rows rows(p);
  RowCursor at(rows, tile.kv_head, tile.first_row);
  for (int n = 0; n < N; ++n) {
    Element* target[kLanes];
    for (int i = 0; i < kLanes; ++i, at.next()) {
      target[i] = n * kLanes + i < tile.rows
                      ? args.out.as<Element>() + query_offset(args.out, tile.sequence, at.token, at.head)
                      : nullptr;
    }
    Float total = load(sum + n * kLanes);
    const Mask unseen = equal(total, zero());
    Float factor = broadcast(1.0F);
    if (p.sinks) join_sinks(args, rows, tile, n * kLanes, scale, load(reference + n * kLanes), total, factor);
    if (p.dropout_p != 0) total = multiply(total, kept_share(p));
    const Float over = divide(broadcast(1.0F), total);
    for (std::int64_t d = 0; d < p.head_dim_v; d += kLanes) {
      const int columns = columns_from(d, p.head_dim_v);
      Float x[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        if (i < columns) {
          Float sums = load(o + (d + i) * kWidth + n * kLanes);
          if (p.sinks) sums = multiply(sums, factor);
          x[i] = select(unseen, zero(), quotient(sums, total, over));
        } else {
          x[i] = zero();
        }
      }
      transpose(x);
      for (int i = 0; i < kLanes; ++i) {
        if (target[i] != nullptr) store_first(target[i] + d, x[i], columns);
      }
    }
  }
  write_lse(args, rows, tile, scale, reference, sum);
}

// Which keys each lane may see, relative to a block's first key; padding lanes see none.
struct LaneRanges {
  std::int32_t begin[kLanes * kVectors];
  std::int32_t end[kLanes * kVectors];
};
inline void lane_ranges(const AttentionProblem& p, const Tile& tile, int lanes, std::int64_t first_key,
                        std::int64_t keys, LaneRanges& out) {
  RowCursor row(Rows(p), tile.kv_head, tile.first_row);
  std::int64_t token = -1;
  KeyRange range{};
  for (int i = 0; i < lanes; ++i, row.next()) {
    if (i >= tile.rows) {
      out.begin[i] = out.end[i] = 0;
      continue;
    }
    if (row.token != token) range = key_range(tile.band, token = row.token);
    const std::int64_t begin = range.begin - first_key;
    const std::int64_t end = range.end - first_key;
    out.begin[i] = static_cast<std::int32_t>(begin < 0 ? 0 : begin > keys ? keys : begin);
    out.end[i] = static_cast<std::int32_t>(end < 0 ? 0 : end > keys ? keys : end);
  }
}
