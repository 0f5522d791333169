// Tiles of few rows (decoding): what tiles.inl does with a lane for each row would leave most lanes empty.
// Here lanes run along head_dim: a score is a product of two rows, and weights multiply whole rows of V. K
// and V are read where they lie and widened in registers, once for up to kRowsAtOnce rows.
//
//   chunk of a sequence's keys, for neighbouring kv heads together      few_rows_chunk
//     block of kFewBlock keys, from the sequence's first key
//       visits of 8 keys, head after head: scores                       few_rows_scores
//       head after head: features, maximum, weights                     few_rows_softmax
//       visits of 8 keys, head after head: O += P V                     few_rows_values
//
// Heads of a token lie side by side in memory, so with the heads innermost K and V are read in whole pages;
// one head after the other would take a part of each page and come back to it.

constexpr int kScoreKeys = 4;
// Of a head, before the next head's turn. As eight streams of rows, asked for ahead, K and V come at 25 to 29
// GB/s on a core of the Xeon that reads 16 to 24 as four streams, and 12 to 26 in the order of addresses.
constexpr int kVisitKeys = 8;
// Rows that share what a load of K or V brings: 4 keys x 4 rows are 16 sums of 32 registers, 4 x 2 of AVX2 8
// of 16.
constexpr int kRowsAtOnce = kLanes == 16 ? 4 : 2;
static_assert(kFewRows <= kLanes, "references and sums of a tile are a vector");

// Calls fn<R>(arguments...) for `rows` rows.
#define HEADWISE_FOR_ROWS(rows, fn, ...)                  \
  do {                                                    \
    if ((rows) == 1) {                                    \
      fn<1>(__VA_ARGS__);                                 \
    } else if ((rows) == 2) {                             \
      fn<2>(__VA_ARGS__);                                 \
    } else if ((rows) == 3) {                             \
      fn < kRowsAtOnce<3 ? kRowsAtOnce : 3>(__VA_ARGS__); \
    } else {                                              \
      fn<kRowsAtOnce>(__VA_ARGS__);                       \
    }                                                     \
  } while (false)

// The next of `left` rows, so that all parts are about equal.
inline int rows_at_once(std::int64_t left) {
  const std::int64_t parts = (left + kRowsAtOnce - 1) / kRowsAtOnce;
  return static_cast<int>((left + parts - 1) / parts);
}

// Columns lie in the order in which load_pair leaves them.
// A tile in this form: q is [rows][columns of whole vectors], zeros behind head_dim; to.o is [rows][columns],
// to.reference and to.sum are a vector.
struct FewRows {
  Tile tile;
  const float* q;
  Partial to;
};

inline void pack_few_queries(const AttentionArgs& args, const AttentionProblem& p, const Tile& tile,
                             float factor, float* q) {
  RowCursor at(Rows(p), tile.kv_head, tile.first_row);
  const Float times = broadcast(factor);
  for (std::int64_t i = 0; i < tile.rows; ++i, at.next()) {
    const Element* source =
        args.q.as<const Element>() + query_offset(args.q, tile.sequence, at.token, at.head);
    float* target = q + i * widened_columns(p.head_dim);
    std::int64_t d = 0;
    for (; d + 2 * kLanes <= p.head_dim; d += 2 * kLanes) {
      Float x[2];
      load_pair(source + d, x);
      store(target + d, multiply(x[0], times));
      store(target + d + kLanes, multiply(x[1], times));
    }
    for (; d < widened_columns(p.head_dim); d += kLanes) {
      const std::int64_t left = p.head_dim - d;
      const Float x = left <= 0 ? zero() : load_first(source + d, columns_from(d, p.head_dim));
      store(target + d, multiply(x, times));
    }
  }
}

// Scores of R rows and four keys.
template <int R>
[[gnu::noinline]] inline void score_keys(const Element* const (&k)[kScoreKeys], const float* q,
                                         std::int64_t q_stride, std::int64_t head_dim, float* s) {
  Float sum[R][kScoreKeys];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kScoreKeys; ++i) sum[r][i] = zero();
  }
  std::int64_t d = 0;
  for (; d + 2 * kLanes <= head_dim; d += 2 * kLanes) {
    Float x[R][2];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      x[r][0] = load(q + r * q_stride + d);
      x[r][1] = load(q + r * q_stride + d + kLanes);
    }
#pragma GCC unroll 4
    for (int i = 0; i < kScoreKeys; ++i) {
      Float key[2];
      load_pair(k[i] + d, key);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sum[r][i] = fma(key[1], x[r][1], fma(key[0], x[r][0], sum[r][i]));
    }
  }
  for (; d < head_dim; d += kLanes) {
    const int columns = columns_from(d, head_dim);
#pragma GCC unroll 4
    for (int i = 0; i < kScoreKeys; ++i) {
      const Float key = load_first(k[i] + d, columns);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sum[r][i] = fma(key, load(q + r * q_stride + d), sum[r][i]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) store_totals(s + r * kFewBlock, sum[r]);
}

// O += P V: `keys` keys, R rows, C vectors of columns from d on: pairs, or one of `columns` columns.
template <int R, int C>
[[gnu::noinline]] inline void add_columns(const Element* const* v, int keys, const float* weights,
                                          std::int64_t d, int columns, float* o, std::int64_t o_stride) {
  Float sum[R][C];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) sum[r][c] = load(o + r * o_stride + d + c * kLanes);
  }
  for (int j = 0; j < keys; ++j) {
    Float w[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) w[r] = broadcast(weights[r * kFewBlock + j]);
    if constexpr (C == 1) {
      const Float x = load_first(v[j] + d, columns);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sum[r][0] = fma(x, w[r], sum[r][0]);
    } else {
#pragma GCC unroll 4
      for (int c = 0; c < C; c += 2) {
        Float x[2];
        load_pair(v[j] + d + c * kLanes, x);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          sum[r][c] = fma(x[0], w[r], sum[r][c]);
          sum[r][c + 1] = fma(x[1], w[r], sum[r][c + 1]);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) store(o + r * o_stride + d + c * kLanes, sum[r][c]);
  }
}

template <int R, int C>
inline void add_columns_from(const Element* const* v, int keys, const float* weights, std::int64_t& d,
                             std::int64_t head_dim_v, float* o, std::int64_t o_stride) {
  for (; d + C * kLanes <= head_dim_v; d += C * kLanes)
    add_columns<R, C>(v, keys, weights, d, kLanes, o, o_stride);
  if constexpr (C > 2) add_columns_from<R, C / 2>(v, keys, weights, d, head_dim_v, o, o_stride);
}

template <int R>
inline void add_values(const Element* const* v, int keys, const float* weights, std::int64_t head_dim_v,
                       float* o, std::int64_t o_stride) {
  constexpr int kColumns = R * 8 <= kRowsAtOnce * 4 ? 8 : 4;  // as many sums as score_keys has
  std::int64_t d = 0;
  add_columns_from<R, kColumns>(v, keys, weights, d, head_dim_v, o, o_stride);
  for (; d < head_dim_v; d += kLanes)
    add_columns<R, 1>(v, keys, weights, d, columns_from(d, head_dim_v), o, o_stride);
}

// Weights of a row in place of its scores; its reference, sums (a vector of them) and O follow.
inline void few_rows_weights(Float by, std::int64_t keys, float* s, float& reference, float* sums,
                             std::int64_t columns, float* o) {
  Float peak = broadcast(-__builtin_inff());
  for (std::int64_t j = 0; j < keys; j += kLanes) peak = maximum(load(s + j), peak);
  const float highest = largest(peak);
  const float next = highest > reference ? highest : reference;
  const Float shift = next == -__builtin_inff() ? zero() : broadcast(next);
  Float sum = load(sums);
  if (next != reference) {
    const Float rescale = exp2_nonpositive(multiply(subtract(broadcast(reference), shift), by));
    sum = multiply(sum, rescale);
    for (std::int64_t d = 0; d < columns; d += kLanes) store(o + d, multiply(load(o + d), rescale));
    reference = next;
  }
  for (std::int64_t j = 0; j < keys; j += kLanes) {
    const Float x = exp2_nonpositive(multiply(subtract(load(s + j), shift), by));
    store(s + j, x);
    sum = add(sum, x);
  }
  store(sums, sum);
}

// Rows of K or V of neighbouring keys, of one kv head.
inline void list_rows(const TensorView& t, const AttentionProblem& p, const Tile& tile, KeyRange keys,
                      const Element** to) {
  std::int64_t end = 0;
  for (std::int64_t key = keys.begin; key < keys.end; key = end) {
    end = run_end(p, tile.sequence, key, keys.end);
    const Element* row = t.as<const Element>() + key_offset(t, p, tile.sequence, key, tile.kv_head);
    for (std::int64_t j = key; j < end; ++j, row += t.stride[1]) *to++ = row;
  }
}

// A block of keys of neighbouring kv heads: rows in the order in which they are read.
struct FewBlock {
  const Element* row[3 * kFewBlock];  // K, V, and K of the next block
  std::int64_t begin;
  int keys, next_keys;
};

// What a chunk of a gang of heads needs.
struct FewGang {
  const AttentionArgs& args;
  const AttentionProblem& p;
  Scale scale;
  const FewRows* member;
  int members;
  float* s;            // [member][kFewRows][kFewBlock]
  std::int64_t ahead;  // keys
  FewBlock block;
  LaneFeatures lanes[FlashLayout::kHeadsPerTask];
  Sight sight[FlashLayout::kHeadsPerTask];
  float sums[FlashLayout::kHeadsPerTask][kFewRows][kLanes];

  // Leaves the rest as it is: 20 KB, of which few calls need much.
  FewGang(const AttentionArgs& a, const AttentionProblem& problem, Scale by, const FewRows* first, int count,
          float* scores)
      : args(a), p(problem), scale(by), member(first), members(count), s(scores) {}

  float* scores_of(int m) { return s + m * kFewRows * kFewBlock; }
};

// How far ahead rows are asked for, in whole visits: 8 KB, what a core with 25 GB/s receives in 330 ns.
inline std::int64_t keys_ahead(const AttentionProblem& p, int members) {
  constexpr std::int64_t kBytes = 8192;
  const std::int64_t visit = kVisitKeys * members * p.head_dim * std::int64_t{sizeof(Element)};
  const std::int64_t visits = (kBytes + visit - 1) / visit;
  return visits * kVisitKeys < kFewBlock ? visits * kVisitKeys : kFewBlock;
}

// Asks for a visit's rows of member m from row `at` of the block on, as far as they are all of K or of V.
inline void expect_rows(const FewGang& gang, std::int64_t at, int m) {
  const FewBlock& block = gang.block;
  const bool v = at >= block.keys && at < 2 * block.keys;
  std::int64_t end = v ? 2 * block.keys : at < block.keys ? block.keys : 2 * block.keys + block.next_keys;
  if (end > at + kVisitKeys) end = at + kVisitKeys;
  const std::int64_t columns = v ? gang.p.head_dim_v : gang.p.head_dim;
  const std::int64_t head = m * (v ? gang.args.v : gang.args.k).stride[2];
  constexpr int kLine = 64 / sizeof(Element);
  for (; at < end; ++at) {
    const Element* row = block.row[at] + head;
    for (std::int64_t d = 0; d < columns; d += kLine) prefetch(row + d);
  }
}

inline void few_rows_scores(FewGang& gang) {
  const AttentionProblem& p = gang.p;
  const FewBlock& block = gang.block;
  const std::int64_t q_stride = widened_columns(p.head_dim);
  for (int first = 0; first < block.keys; first += kVisitKeys) {
    for (int m = 0; m < gang.members; ++m) {
      if (!gang.sight[m].any) continue;
      expect_rows(gang, first + gang.ahead, m);
      const FewRows& member = gang.member[m];
      for (int j = first; j < first + kVisitKeys && j < block.keys; j += kScoreKeys) {
        const Element* k[kScoreKeys];
        for (int i = 0; i < kScoreKeys; ++i) {
          k[i] = block.row[j + i < block.keys ? j + i : block.keys - 1] + m * gang.args.k.stride[2];
        }
        int n = 0;
        for (std::int64_t r = 0; r < member.tile.rows; r += n) {
          n = rows_at_once(member.tile.rows - r);
          HEADWISE_FOR_ROWS(n, score_keys, k, member.q + r * q_stride, q_stride, p.head_dim,
                            gang.scores_of(m) + r * kFewBlock + j);
        }
      }
    }
  }
}

inline void few_rows_values(FewGang& gang) {
  const AttentionProblem& p = gang.p;
  const FewBlock& block = gang.block;
  const std::int64_t o_stride = widened_columns(p.head_dim_v);
  for (int j = 0; j < block.keys; j += kVisitKeys) {
    const int keys = block.keys - j < kVisitKeys ? block.keys - j : kVisitKeys;
    for (int m = 0; m < gang.members; ++m) {
      const Sight& sight = gang.sight[m];
      if (!sight.any) continue;
      int shown = 0;
      if (sight.hides) {
        while (sight.seen[shown] == 0) ++shown;
      }
      expect_rows(gang, block.keys + j + gang.ahead, m);
      const Element* v[kVisitKeys];
      for (int i = 0; i < keys; ++i) {
        // A key that nobody sees has a weight of 0, and may have a NaN for a value: another stands in.
        const int at = sight.hides && sight.seen[j + i] == 0 ? shown : j + i;
        v[i] = block.row[block.keys + at] + m * gang.args.v.stride[2];
      }
      const FewRows& member = gang.member[m];
      int n = 0;
      for (std::int64_t r = 0; r < member.tile.rows; r += n) {
        n = rows_at_once(member.tile.rows - r);
        HEADWISE_FOR_ROWS(n, add_values, v, keys, gang.scores_of(m) + r * kFewBlock + j, p.head_dim_v,
                          member.to.o + r * o_stride, o_stride);
      }
    }
  }
}

inline void few_rows_softmax(FewGang& gang, bool ranged, const LaneRanges& ranges) {
  const AttentionProblem& p = gang.p;
  const FewBlock& block = gang.block;
  const bool featured = has_score_features(p);
  const std::int64_t columns = widened_columns(p.head_dim_v);
  for (int m = 0; m < gang.members; ++m) {
    if (!gang.sight[m].any) continue;
    const FewRows& member = gang.member[m];
    const bool masked = p.mask != MaskKind::none && !gang.sight[m].all;
    for (int r = 0; r < member.tile.rows; ++r) {
      float* s = gang.scores_of(m) + r * kFewBlock;
      if (featured) transform_row(p, gang.lanes[m], r, gang.scale, masked, block.begin, block.keys, s);
      if (ranged) {
        hide_outside(ranges.begin[r], ranges.end[r], block.keys, s);
      } else if (block.keys % kLanes != 0) {
        hide_outside(0, block.keys, block.keys, s);
      }
      few_rows_weights(broadcast(gang.scale.log2), block.keys, s, member.to.reference[r], gang.sums[m][r],
                       columns, member.to.o + r * columns);
      if (p.dropout_p != 0) drop_row(gang.args, p, gang.lanes[m], r, block.begin, block.keys, s);
    }
  }
}

inline void start_chunk(FewGang& gang, std::int64_t origin) {
  const std::int64_t columns = widened_columns(gang.p.head_dim_v);
  const bool featured = has_score_features(gang.p);
  for (int m = 0; m < gang.members; ++m) {
    const FewRows& member = gang.member[m];
    const auto rows = static_cast<int>(member.tile.rows);
    if (featured) find_lane_features(gang.args, gang.p, member.tile, rows, origin, gang.lanes[m]);
    gang.sight[m].any = gang.sight[m].all = true;
    gang.sight[m].hides = false;
    for (std::int64_t i = 0; i < rows * columns; i += kLanes) store(member.to.o + i, zero());
    store(member.to.reference, broadcast(-__builtin_inff()));
    store(member.to.sum, zero());
    for (int r = 0; r < rows; ++r) store(gang.sums[m][r], zero());
  }
}

// Partials of tiles of few rows over `keys`: neighbouring kv heads of one sequence, which have the same rows
// and see the same keys but for a mask. Overwrites member[].to. Keys up to `behind` are asked for ahead.
inline void few_rows_chunk(const AttentionArgs& args, const AttentionProblem& p, Scale scale,
                           const BlockRange& range, KeyRange keys, std::int64_t behind, const FewRows* member,
                           int members, float* s) {
  FewGang gang(args, p, scale, member, members, s);
  const Tile& tile = member[0].tile;
  const std::int64_t origin = tile.band.keys.begin;
  const bool masked = p.mask != MaskKind::none;
  gang.ahead = keys_ahead(p, members);
  start_chunk(gang, keys.begin);
  FewBlock& block = gang.block;
  for (std::int64_t begin = keys.begin, end = 0; begin < keys.end; begin = end) {
    end = origin + ((begin - origin) / kFewBlock + 1) * kFewBlock;
    if (end > keys.end) end = keys.end;
    const std::int64_t next = end + kFewBlock < behind ? end + kFewBlock : behind;
    block.begin = begin;
    block.keys = static_cast<int>(end - begin);
    block.next_keys = static_cast<int>(next - end);
    list_rows(args.k, p, tile, {begin, end}, block.row);
    list_rows(args.v, p, tile, {begin, end}, block.row + block.keys);
    list_rows(args.k, p, tile, {end, next}, block.row + 2 * block.keys);
    LaneRanges ranges;
    const bool ranged = block_kind(range, begin, end) != BlockKind::full;
    if (ranged || masked) lane_ranges(p, tile, static_cast<int>(tile.rows), begin, end - begin, ranges);
    for (int m = 0; masked && m < members; ++m)
      look_at_mask(p, member[m].tile, gang.lanes[m].mask, ranges, begin, end - begin, gang.sight[m]);
    few_rows_scores(gang);
    few_rows_softmax(gang, ranged, ranges);
    few_rows_values(gang);
  }
  for (int m = 0; m < members; ++m) {
    for (int r = 0; r < tile.rows; ++r) member[m].to.sum[r] = total(load(gang.sums[m][r]));
  }
}

// `to` takes in `from`, whose keys come later: merge() of flash.inl for rows.
inline void merge_few_rows(std::int64_t head_dim_v, std::int64_t rows, Scale scale, const Partial& from,
                           const Partial& to) {
  const std::int64_t columns = widened_columns(head_dim_v);
  const Shares shares = merge_sums(scale, from, to, 0);
  float keep[kLanes];
  float take[kLanes];
  store(keep, shares.keep);
  store(take, shares.take);
  for (std::int64_t r = 0; r < rows; ++r) {
    if (from.sum[r] == 0) continue;
    for (std::int64_t d = r * columns; d < (r + 1) * columns; d += kLanes)
      store(to.o + d,
            fma(load(from.o + d), broadcast(take[r]), multiply(load(to.o + d), broadcast(keep[r]))));
  }
}

// write_rows() for rows.
inline void write_few_rows(const AttentionArgs& args, const AttentionProblem& p, const Tile& tile,
                           Scale scale, const Partial& from) {
  const Rows rows(p);
  const std::int64_t columns = widened_columns(p.head_dim_v);
  Float sums = load(from.sum);
  Float factor = broadcast(1.0F);
  if (p.sinks) join_sinks(args, rows, tile, 0, scale, load(from.reference), sums, factor);
  if (p.dropout_p != 0) sums = multiply(sums, kept_share(p));
  float totals[kLanes];
  float factors[kLanes];
  float over[kLanes];
  store(totals, sums);
  store(factors, factor);
  store(over, divide(broadcast(1.0F), sums));
  RowCursor at(rows, tile.kv_head, tile.first_row);
  for (std::int64_t i = 0; i < tile.rows; ++i, at.next()) {
    Element* target = args.out.as<Element>() + query_offset(args.out, tile.sequence, at.token, at.head);
    const Float row_factor = broadcast(factors[i]);
    const Float row_total = broadcast(totals[i]);
    const Float row_over = broadcast(over[i]);
    std::int64_t d = 0;
    for (; d < p.head_dim_v; d += kLanes) {
      float* cell = from.o + i * columns + d;
      Float x = load(cell);
      if (p.sinks) x = multiply(x, row_factor);
      store(cell, from.sum[i] == 0 ? zero() : quotient(x, row_total, row_over));
    }
    const float* source = from.o + i * columns;
    for (d = 0; d + 2 * kLanes <= p.head_dim_v; d += 2 * kLanes) store_pair(target + d, source + d);
    for (; d < p.head_dim_v; d += kLanes)
      store_first(target + d, load(source + d), columns_from(d, p.head_dim_v));
  }
  write_lse(args, rows, tile, scale, from.reference, from.sum);
}
