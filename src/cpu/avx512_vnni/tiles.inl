// The two products in 16-bit integers with sums in 32 bits (VPDPWSSD: 2 products a lane, added exactly); the
// names of simd/tiles.inl. The products run at twice the rate of f32 multiply-adds, and nothing is rounded
// between them: what is lost is lost where a row becomes integers.
//
// Rows become integers in fixed_point.inl, which has the arithmetic of what is lost there.
//
// Everything depends on the lane and on the keys that it sees, nothing on other lanes: rows keep their bits.

constexpr int kVectors = kProductVectors;
constexpr Staging kStaging = Staging::fixed_point;

struct ProductScope {};

struct Staged {
  const std::int16_t* k;  // of key `first`
  std::int64_t k_stride;
  const float* k_scale;   // 2^e of each key
  const float* k_norm;    // infinite where the row is not finite
  const std::int16_t* v;  // V^T [tile_rows(head_dim_v)][v_stride], column 0 is key `first`
  std::int64_t v_stride;
  const float* v_scale;
  const float* v_special;  // of key `special_first`: 1 where not all of its row is finite
  std::int64_t special_first;
  float* rows;  // room for kTileRows rows of K in f32
  std::int64_t first;
  // Where K and V lie, for rows that are not read as integers.
  const AttentionArgs* args;
  const AttentionProblem* p;
  Sequence sequence;
  std::int64_t kv_head;
};

template <class T, bool /*kShared*/ = false>
inline Staged stage(const AttentionArgs& args, const AttentionProblem& p, const Sequence& sequence,
                    std::int64_t kv_head, KeyRange keys, unsigned char* scratch) {
  const std::int64_t count = keys.end - keys.begin;
  const std::int64_t padded = widened_columns(count);
  auto* k_scale = reinterpret_cast<float*>(scratch);
  float* k_norm = k_scale + padded;
  float* v_scale = k_norm + padded;
  float* v_special = v_scale + padded;
  float* rows = v_special + padded;
  auto* k = reinterpret_cast<std::int16_t*>(rows + kTileRows * widened_columns(p.head_dim));
  const std::int64_t k_stride = tile_columns(p.head_dim);
  std::int16_t* v = k + count * k_stride;
  const std::int64_t v_stride = transposed_stride(count);
  fix_keys(args.k, p, sequence, kv_head, keys, k, k_stride, k_scale, k_norm);
  fix_values(args.v, p, sequence, kv_head, keys, v, v_stride, v_scale, v_special);
  return {k,          k_stride, k_scale,    k_norm, v,  v_stride, v_scale, v_special,
          keys.begin, rows,     keys.begin, &args,  &p, sequence, kv_head};
}

// V of keys [begin, begin + keys) of the staged ones, without those that `seen` has as 0: their weights are
// 0, which hides integers, so only rows that are not finite must go.
inline Staged visible_values(const Staged& from, std::int64_t begin, std::int64_t keys, const float* seen,
                             std::int64_t /*head_dim_v*/, unsigned char* scratch) {
  auto* special = reinterpret_cast<float*>(scratch);
  for (std::int64_t j = 0; j < keys; ++j) {
    special[j] = seen[j] != 0 ? from.v_special[begin - from.special_first + j] : 0.0F;
  }
  Staged visible = from;
  visible.v_special = special;
  visible.special_first = begin;
  return visible;
}

// Staging has just read the values.
template <int N>
inline void expect_values(const Staged& /*from*/, std::int64_t /*begin*/, std::int64_t /*keys*/,
                          std::int64_t /*head_dim_v*/) {}

// Q of a tile as pack_queries lays it out.
template <int N>
struct PackedQueries {
  const float* pairs;  // [pairs_of(head_dim)][lanes] of dwords
  const float* scale;  // 2^e of each lane
  const float* norm;   // of the row times the scale of scores; infinite or NaN where it is not finite
  const float* rows;   // [head_dim][lanes] in f32
  PackedQueries(const float* q, std::int64_t head_dim)
      : pairs(q),
        scale(q + pairs_of(head_dim) * kLanes * N),
        norm(scale + kLanes * N),
        rows(norm + kLanes * N) {}
};

// S^T of kTileRows keys, whose rows need not be neighbours (the last tile repeats its last key).
// `peak` gathers the maximum over keys.
template <int N>
inline void score_tile(const std::int16_t* const (&rows)[kTileRows], const float (&row_scale)[kTileRows],
                       const PackedQueries<N>& q, std::int64_t pairs, float* s, Float (&peak)[N]) {
  constexpr int kWidth = kLanes * N;
  Int sum[kTileRows][N];
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) sum[r][n] = _mm512_setzero_si512();
  }
  for (std::int64_t d = 0; d < pairs; ++d) {
    Int x[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) x[n] = _mm512_loadu_si512(q.pairs + d * kWidth + n * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r) {
      const Int k = broadcast_pair(rows[r] + 2 * d);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) multiply_pairs(k, x[n], sum[r][n]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) {
    const Float by = broadcast(row_scale[r]);
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const Float x = multiply(multiply(_mm512_cvtepi32_ps(sum[r][n]), by), load(q.scale + n * kLanes));
      store(s + r * kWidth + n * kLanes, x);
      peak[n] = maximum(x, peak[n]);
    }
  }
}

// A score errs by about 2^-16 |q| |k| scale where the elements that make it are small beside their rows'
// norms, and its weight relatively as much: with 32, 5e-4. Rows of n normal elements have norms of sqrt n, 8
// at head_dim 64 and 16 at 256, and then it is 1e-4 to 2e-4, as much as one rounding to f16. Beyond, products
// are summed in f32. (Without a limit tests/numerics fails from 100 on.)
constexpr float kMostNorms = 32.0F;

inline Mask beyond(Float norms) { return _mm512_cmp_ps_mask(norms, broadcast(kMostNorms), _CMP_NLE_UQ); }

// Scores in f32 of keys [key, key + count) for lanes beyond kMostNorms.
template <int N>
[[gnu::noinline]] inline void exact_scores(const Staged& from, std::int64_t key, int count,
                                           const PackedQueries<N>& q, std::int64_t head_dim, float* s,
                                           Float (&peak)[N]) {
  constexpr int kWidth = kLanes * N;
  const std::int64_t stride = widened_columns(head_dim);
  for (int r = 0; r < count; ++r) {
    const Element* row = from.args->k.as<const Element>() +
                         key_offset(from.args->k, *from.p, from.sequence, key + r, from.kv_head);
    for (std::int64_t d = 0; d < head_dim; d += kLanes) {
      store(from.rows + r * stride + d, load_first(row + d, columns_from(d, head_dim)));
    }
  }
  Float sum[kTileRows][N];
  for (int r = 0; r < kTileRows; ++r) {
    for (int n = 0; n < N; ++n) sum[r][n] = zero();
  }
  for (std::int64_t d = 0; d < head_dim; ++d) {
    Float x[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) x[n] = load(q.rows + d * kWidth + n * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r) {
      const Float k = broadcast(from.rows[(r < count ? r : count - 1) * stride + d]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[r][n] = fma(k, x[n], sum[r][n]);
    }
  }
  for (int r = 0; r < count; ++r) {
    const Float norm = broadcast(from.k_norm[key - from.first + r]);
    for (int n = 0; n < N; ++n) {
      float* cell = s + r * kWidth + n * kLanes;
      const Mask far = beyond(multiply(norm, load(q.norm + n * kLanes)));
      const Float x = select(far, sum[r][n], load(cell));
      store(cell, x);
      peak[n] = maximum(x, peak[n]);
    }
  }
}

// Scores of keys [begin, begin + keys) of the staged ones; rows past the last one, up to the tile's end,
// repeat it.
template <int N>
inline void scores(const Staged& from, std::int64_t begin, std::int64_t keys, const float* packed,
                   std::int64_t head_dim, float* s, Float (&peak)[N]) {
  const PackedQueries<N> q(packed, head_dim);
  Float norms = load(q.norm);
  for (int n = 1; n < N; ++n) norms = _mm512_max_ps(norms, load(q.norm + n * kLanes));
  const Float largest = broadcast(_mm512_reduce_max_ps(norms));
  norms = load(q.norm);
  for (int n = 1; n < N; ++n) norms = _mm512_min_ps(norms, load(q.norm + n * kLanes));
  const Float smallest = broadcast(_mm512_reduce_min_ps(norms));
  const std::int64_t at = begin - from.first;
  for (std::int64_t j = 0; j < keys; j += kTileRows) {
    const std::int16_t* rows[kTileRows];
    float row_scale[kTileRows];
    for (int r = 0; r < kTileRows; ++r) {
      const std::int64_t key = at + (j + r < keys ? j + r : keys - 1);
      rows[r] = from.k + key * from.k_stride;
      row_scale[r] = from.k_scale[key];
    }
    const int count = keys - j < kTileRows ? static_cast<int>(keys - j) : kTileRows;
    const Float key_norms = load_first(from.k_norm + at + j, count);
    float* cell = s + j * kLanes * N;
    if (!any(both(beyond(multiply(key_norms, largest)), first_lanes(count)))) {
      score_tile<N>(rows, row_scale, q, pairs_of(head_dim), cell, peak);
      continue;
    }
    if (any(both(inverse(beyond(multiply(key_norms, smallest))), first_lanes(count)))) {
      Float unused[N];
      for (int n = 0; n < N; ++n) unused[n] = zero();
      score_tile<N>(rows, row_scale, q, pairs_of(head_dim), cell, unused);
    }
    exact_scores<N>(from, begin + j, count, q, head_dim, cell, peak);
  }
}

// P^T = 2^(scale * (S^T - reference)) in place, added to `sum`.
template <int N>
inline void exponentials(float* s, std::int64_t keys, Float scale, const Float (&reference)[N],
                         Float (&sum)[N]) {
  for (std::int64_t j = 0; j < keys; ++j) {
    for (int n = 0; n < N; ++n) {
      float* cell = s + (j * N + n) * kLanes;
      const Float p = exp2_nonpositive(multiply(subtract(load(cell), reference[n]), scale));
      store(cell, p);
      sum[n] = add(sum[n], p);
    }
  }
}

// The weights of key j and N vectors that are not kept become 0.
template <int N>
inline void drop_weights(float* s, std::int64_t j, int n, Mask kept) {
  float* cell = s + (j * N + n) * kLanes;
  store(cell, select(kept, load(cell), zero()));
}

// Weights of a step, times the scales of their keys' values, become integers: rows 2r and 2r + 1 become row
// r, in the lower and upper halves of a dword. `inverse` is what products with them are multiplied with.
template <int N>
inline void fix_weights(const float* v_scale, std::int64_t keys, float* w, float* to, float* inverse) {
  constexpr int kWidth = kLanes * N;
  Float most[N];
  Float sum[N];
  for (int n = 0; n < N; ++n) most[n] = sum[n] = broadcast(0x1p-100F);  // of no key: a finite scale
  for (std::int64_t j = 0; j < keys; ++j) {
    const Float by = broadcast(v_scale[j]);
    for (int n = 0; n < N; ++n) {
      float* cell = w + j * kWidth + n * kLanes;
      const Float x = multiply(load(cell), by);
      store(cell, x);
      most[n] = maximum(x, most[n]);
      sum[n] = add(x, sum[n]);
    }
  }
  Float up[N];
  for (int n = 0; n < N; ++n) {
    const Float by_sum = subtract(broadcast(kSumBits), _mm512_getexp_ps(sum[n]));
    const Float by_most = subtract(broadcast(kWeightBits), _mm512_getexp_ps(most[n]));
    const Float bits = _mm512_min_ps(by_sum, by_most);
    up[n] = _mm512_scalef_ps(broadcast(1.0F), bits);
    store(inverse + n * kLanes, _mm512_scalef_ps(broadcast(1.0F), subtract(zero(), bits)));
  }
  for (std::int64_t j = 0; j < keys; j += 2) {
    for (int n = 0; n < N; ++n) {
      const float* cell = w + j * kWidth + n * kLanes;
      const Int even = to_nearest(multiply(load(cell), up[n]));
      const Int odd = j + 1 < keys ? to_nearest(multiply(load(cell + kWidth), up[n])) : broadcast_int(0);
      _mm512_storeu_si512(to + j / 2 * kWidth + n * kLanes, interleave(even, odd));
    }
  }
}

// O^T rows [0, R) = factor * O^T + V^T P^T over one step of keys. `factor` is null where O^T is still empty.
template <int N, int R>
inline void value_tile(const std::int16_t* v, std::int64_t v_stride, const float* p, std::int64_t pairs,
                       const float* inverse, const float* factor, float* o) {
  constexpr int kWidth = kLanes * N;
  Int sum[R][N];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) sum[r][n] = _mm512_setzero_si512();
  }
  for (std::int64_t j = 0; j < pairs; ++j) {
    Int x[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) x[n] = _mm512_loadu_si512(p + j * kWidth + n * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Int w = broadcast_pair(v + r * v_stride + 2 * j);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) multiply_pairs(w, x[n], sum[r][n]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      float* cell = o + r * kWidth + n * kLanes;
      const Float before = factor == nullptr ? zero() : multiply(load(cell), load(factor + n * kLanes));
      store(cell, fma(_mm512_cvtepi32_ps(sum[r][n]), load(inverse + n * kLanes), before));
    }
  }
}

template <int N, int R>
inline void values_from(const Staged& from, std::int64_t begin, std::int64_t keys, const float* p,
                        const float* inverse, const float* one, const float* factor, std::int64_t& d,
                        std::int64_t head_dim_v, float* o) {
  constexpr int kWidth = kLanes * N;
  for (; d + R <= head_dim_v; d += R) {
    const std::int16_t* v = from.v + d * from.v_stride + (begin - from.first);
    for (std::int64_t j = 0; j < keys; j += kStep) {
      const std::int64_t count = keys - j < kStep ? keys - j : kStep;
      value_tile<N, R>(v + j, from.v_stride, p + j / 2 * kWidth, pairs_of(count),
                       inverse + j / kStep * kWidth, j == 0 ? factor : one, o + d * kWidth);
    }
  }
  if constexpr (R > 1) {
    values_from<N, R / 2>(from, begin, keys, p, inverse, one, factor, d, head_dim_v, o);
  }
}

// O^T = factor * O^T + V^T P^T over elements of V that are not finite.
template <int N>
[[gnu::noinline]] inline void special_values(const Staged& from, std::int64_t begin, std::int64_t keys,
                                             const float* p, std::int64_t head_dim_v, const float* factor,
                                             float* o) {
  constexpr int kWidth = kLanes * N;
  for (std::int64_t d = 0; d < head_dim_v; ++d) {
    for (int n = 0; n < N; ++n) {
      float* cell = o + d * kWidth + n * kLanes;
      store(cell, factor == nullptr ? zero() : multiply(load(cell), load(factor + n * kLanes)));
    }
  }
  for (std::int64_t j = 0; j < keys; ++j) {
    if (from.v_special[begin - from.special_first + j] == 0) continue;
    const Element* row = from.args->v.as<const Element>() +
                         key_offset(from.args->v, *from.p, from.sequence, begin + j, from.kv_head);
    for (std::int64_t d = 0; d < head_dim_v; d += kLanes) {
      const int columns = columns_from(d, head_dim_v);
      float v[kLanes];
      store(v, load_first(row + d, columns));
      for (int i = 0; i < columns; ++i) {
        if ((bits_of(v[i]) & kInfinityBits) != kInfinityBits) continue;
        for (int n = 0; n < N; ++n) {
          float* cell = o + (d + i) * kWidth + n * kLanes;
          store(cell, fma(broadcast(v[i]), load(p + j * kWidth + n * kLanes), load(cell)));
        }
      }
    }
  }
}

// O^T = factor * O^T + V^T P^T over keys [begin, begin + keys) of the staged ones. `factor` is null where O^T
// is still empty. Weights are overwritten.
template <int N>
inline void values(const Staged& from, std::int64_t begin, std::int64_t keys, float* p,
                   std::int64_t head_dim_v, const float* factor, float* o) {
  constexpr int kWidth = kLanes * N;
  float one[kWidth];
  for (int n = 0; n < N; ++n) store(one + n * kLanes, broadcast(1.0F));
  Float special = zero();
  const float* specials = from.v_special + (begin - from.special_first);
  for (std::int64_t j = 0; j < keys; j += kLanes) {
    special = add(special, load_first(specials + j, columns_from(j, keys)));
  }
  if (any(inverse(equal(special, zero())))) {
    special_values<N>(from, begin, keys, p, head_dim_v, factor, o);
    factor = one;
  }
  float inverse_scale[kMostSteps * kWidth];
  const float* v_scale = from.v_scale + (begin - from.first);
  for (std::int64_t j = 0; j < keys; j += kStep) {
    const std::int64_t count = keys - j < kStep ? keys - j : kStep;
    fix_weights<N>(v_scale + j, count, p + j * kWidth, p + j / 2 * kWidth,
                   inverse_scale + j / kStep * kWidth);
  }
  std::int64_t d = 0;
  values_from<N, kTileRows>(from, begin, keys, p, inverse_scale, one, factor, d, head_dim_v, o);
}
