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

// A score is multiplied by a positive factor only, so that the largest raw score stays the
// largest: a sign moves into Q, which is exact, and so does a zero.
struct Scale {
  float query = 1;    // Q is multiplied by this when it is packed: 1, -1 or 0
  float log2 = 0;     // > 0: scores times this are exponents of 2
  float natural = 0;  // and times this, of e
};
inline Scale scale_of(const AttentionProblem& p) {
  constexpr float kLog2e = 1.44269504F;
  const float s = p.scale();
  if (s == 0) return {0, kLog2e, 1};
  const float positive = s < 0 ? -s : s;
  const float log2 = positive * kLog2e;
  return {s < 0 ? -1.0F : 1.0F, log2 < __FLT_MAX__ ? log2 : __FLT_MAX__, positive};  // inf * 0 is NaN
}

// Columns are moved by squares of kLanes; the last one may be narrower.
inline int columns_from(std::int64_t d, std::int64_t head_dim) {
  return head_dim - d < kLanes ? static_cast<int>(head_dim - d) : kLanes;
}

// a / b, b with a finite reciprocal: one step of correction gives what a division would, for two
// multiply-adds instead of some ten cycles. An infinite a has no rest to correct by.
inline Float quotient(Float a, Float b, Float reciprocal) {
  const Float first = multiply(a, reciprocal);
  const Float rest = subtract_product(first, b, a);
  return select(equal(rest, rest), fma(rest, reciprocal, first), first);
}

// out = O^T / sum, 0 where a row saw no key (its sum is 0), and its LSE. reference is in raw scores.
template <int N>
inline void write_rows(const AttentionArgs& args, const AttentionProblem& p, const Tile& tile, const float* o,
                       Scale scale, const float* reference, const float* sum) {
  constexpr int kWidth = kLanes * N;
  const Rows rows(p);
  for (int n = 0; n < N; ++n) {
    Element* target[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const std::int64_t r = tile.first_row + n * kLanes + i;
      target[i] = n * kLanes + i < tile.rows
                      ? args.out.as<Element>() +
                            offset(args.out, tile.batch, rows.token(r), rows.head(tile.kv_head, r))
                      : nullptr;
    }
    const Float total = load(sum + n * kLanes);
    const Mask unseen = equal(total, zero());
    const Float over = divide(broadcast(1.0F), total);
    for (std::int64_t d = 0; d < p.head_dim_v; d += kLanes) {
      const int columns = columns_from(d, p.head_dim_v);
      Float x[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        if (i < columns) {
          x[i] = select(unseen, zero(), quotient(load(o + (d + i) * kWidth + n * kLanes), total, over));
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
  if (!args.lse.present()) return;
  for (std::int64_t i = 0; i < tile.rows; ++i) {
    const std::int64_t r = tile.first_row + i;
    args.lse.as<float>()[tile.batch * args.lse.stride[0] + rows.head(tile.kv_head, r) * args.lse.stride[1] +
                         rows.token(r) * args.lse.stride[2]] =
        log_sum_exp(reference[i], scale.natural, sum[i]);
  }
}

// Which keys each lane may see, relative to a block's first key; padding lanes see none.
struct LaneRanges {
  std::int32_t begin[kLanes * kVectors];
  std::int32_t end[kLanes * kVectors];
};
inline void lane_ranges(const AttentionProblem& p, const Tile& tile, int lanes, std::int64_t first_key,
                        std::int64_t keys, LaneRanges& out) {
  const Rows rows(p);
  KeyRange range{};
  for (int i = 0; i < lanes; ++i) {
    if (i >= tile.rows) {
      out.begin[i] = out.end[i] = 0;
      continue;
    }
    const std::int64_t r = tile.first_row + i;
    if (i == 0 || r % rows.group == 0) range = key_range(p, rows.token(r));
    const std::int64_t begin = range.begin - first_key;
    const std::int64_t end = range.end - first_key;
    out.begin[i] = static_cast<std::int32_t>(begin < 0 ? 0 : begin > keys ? keys : begin);
    out.end[i] = static_cast<std::int32_t>(end < 0 ? 0 : end > keys ? keys : end);
  }
}
