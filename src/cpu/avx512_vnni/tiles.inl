// The two products in 16-bit integers with sums in 32 bits (VPDPWSSD: 2 products a lane, added exactly); the
// names of simd/tiles.inl. The products run at twice the rate of f32 multiply-adds, and nothing is rounded
// between them: what is lost is lost where a row becomes integers.
//
//   A row of Q or K is x = 2^e i, |i| < 2^15, e from its Euclidean norm, which is in [2^14, 2^15) after that:
//   by Cauchy and Schwarz a sum of products stays below 2^30, whatever the signs and in any order. An element
//   of f16 (11 bits) keeps all its bits down to a sixteenth of the norm; a smaller one errs by 2^-15 of the
//   norm at most. Where norms are large beside the scores that matter, that is too much: kMostNorms.
//   A row of V is 2^e i, |i| < 2^14, e from its largest element; one of f16 is at most 2^14 - 8. Weights of a
//   step of 32 keys, times 2^e of their keys, become integers by the lane's sum of them, below 2^17: even
//   weights have 12 bits, few large ones 14 (those of f16 have 11). Rounded, (2^17 + 16) (2^14 - 8) < 2^31.
//
// Everything depends on the lane and on the keys that it sees, nothing on other lanes: rows keep their bits.

constexpr int kVectors = kProductVectors;
constexpr Staging kStaging = Staging::fixed_point;

struct ProductScope {};

inline int columns_from(std::int64_t first, std::int64_t count);  // of simd/tile_rows.inl

struct Staged {
  const std::int16_t* k;  // of key `first`
  std::int64_t k_stride;
  const float* k_scale;   // 2^e of each key
  const float* k_norm;    // infinite where the row is not finite
  const std::int16_t* v;  // V^T [tile_rows(head_dim_v)][v_stride], column 0 is key `first`
  std::int64_t v_stride;
  const float* v_scale;
  const float*
      v_special;  // of key `special_first`: 1 where the row is not finite, its integers are zeros then
  std::int64_t special_first;
  float* rows;  // room for kTileRows rows of K in f32
  std::int64_t first;
  // Where K and V lie, for rows that are not read as integers.
  const AttentionArgs* args;
  const AttentionProblem* p;
  Sequence sequence;
  std::int64_t kv_head;
};

// Pairs of columns, or of keys, are the dwords that the instruction multiplies.
constexpr std::int64_t pairs_of(std::int64_t count) { return (count + 1) / 2; }

// g++ 12 copies and spills the sums round its builtin: 0.38 of the rate of this.
inline void multiply_pairs(Int a, Int b, Int& sum) {
  __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
}
inline Int broadcast_pair(const std::int16_t* p) {
  std::int32_t pair = 0;
  __builtin_memcpy(&pair, p, sizeof(pair));
  return _mm512_set1_epi32(pair);
}
inline Int to_nearest(Float x) { return _mm512_cvtps_epi32(x); }
inline Int interleave(Int even, Int odd) {
  return _mm512_mask_mov_epi16(_mm512_slli_epi32(odd, 16), 0x55555555U, even);
}

inline float power_of_two(int exponent) {
  const int bits = (exponent + 127) << 23;
  float x = 0;
  __builtin_memcpy(&x, &bits, sizeof(x));
  return x;
}
inline int bits_of(float x) {
  int bits = 0;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  return bits;
}
constexpr int kInfinityBits = 0x7F800000;
constexpr int kFixedBits = 14;                    // norms of Q and K are in [2^14, 2^15)
constexpr int kValueBits = 13;                    // largest elements of V in [2^13, 2^14)
constexpr int kWeightBits = 13;                   // largest weights at most there
constexpr int kSumBits = 16;                      // sums of weights at most in [2^16, 2^17)
constexpr std::int64_t kStep = 32;                // keys whose products an int32 holds
constexpr std::int64_t kMostSteps = 256 / kStep;  // of a block: policies

// One row of K.
inline void fix_key(const Element* row, std::int64_t columns, std::int16_t* to, float& scale, float& norm) {
  Float squares = zero();
  for (std::int64_t d = 0; d < columns; d += kLanes) {
    const Float x = load_first(row + d, columns_from(d, columns));
    squares = fma(x, x, squares);
  }
  const float sum = _mm512_reduce_add_ps(squares);
  const bool special = (bits_of(sum) & 0x7FFFFFFF) >= kInfinityBits;
  const int exponent = ((bits_of(sum) >> 23) - 127) >> 1;  // of the norm; -64 of a row of zeros
  const Float up = broadcast(special ? 0.0F : power_of_two(kFixedBits - exponent));
  scale = special ? 0.0F : power_of_two(exponent - kFixedBits);
  norm = special ? __builtin_inff() : _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(sum)));
  for (std::int64_t d = 0; d < columns; d += kLanes) {
    const Int x = to_nearest(multiply(load_first(row + d, columns_from(d, columns)), up));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + d), _mm512_cvtepi32_epi16(x));
  }
}

inline void prefetch_row(const Element* row, std::int64_t columns) {
  constexpr int kLine = 64 / sizeof(Element);
  for (std::int64_t d = 0; d < columns; d += kLine) prefetch(row + d);
}
constexpr std::int64_t kRowsAhead = 16;  // past the end of a tensor in vain, which is no error

inline void fix_keys(const TensorView& k, const AttentionProblem& p, const Sequence& sequence,
                     std::int64_t kv_head, KeyRange keys, std::int16_t* to, std::int64_t stride, float* scale,
                     float* norm) {
  std::int64_t end = 0;
  for (std::int64_t key = keys.begin; key < keys.end; key = end) {
    end = run_end(p, sequence, key, keys.end);
    const Element* run = k.as<const Element>() + key_offset(k, p, sequence, key, kv_head);
    for (std::int64_t i = 0; i < end - key; ++i) {
      const Element* row = run + i * k.stride[1];
      prefetch_row(row + kRowsAhead * k.stride[1], p.head_dim);
      const std::int64_t at = key - keys.begin + i;
      fix_key(row, p.head_dim, to + at * stride, scale[at], norm[at]);
    }
  }
}

// What a row of V is multiplied with to become integers: by its largest finite element. Others become zeros
// there, and `special` says so.
inline float fix_scale(const Element* row, std::int64_t columns, float& scale, float& special) {
  Int most = broadcast_int(0);
  Mask finite = equal(zero(), zero());
  for (std::int64_t d = 0; d < columns; d += kLanes) {
    const Float x = magnitude(load_first(row + d, columns_from(d, columns)));
    const Mask here = below(x, broadcast(__builtin_inff()));
    finite = both(finite, here);
    most = _mm512_mask_max_epi32(most, here, most, _mm512_castps_si512(x));
  }
  const int largest = _mm512_reduce_max_epi32(most);
  const int exponent = largest == 0 ? 0 : (largest >> 23) - 127;
  scale = power_of_two(exponent - kValueBits);
  special = any(inverse(finite)) ? 1.0F : 0.0F;
  return power_of_two(kValueBits - exponent);
}

// What is not finite becomes 0x80000000, whose lower half is 0.
inline Int fixed_values(const Element* row, int columns, float up) {
  return to_nearest(multiply(load_first(row, columns), broadcast(up)));
}

// V^T, 32 keys x 16 columns at a time: a pair of keys is a row of dwords, and these are transposed.
inline void fix_values(const TensorView& v, const AttentionProblem& p, const Sequence& sequence,
                       std::int64_t kv_head, KeyRange keys, std::int16_t* to, std::int64_t to_stride,
                       float* scale, float* special) {
  const std::int64_t count = keys.end - keys.begin;
  for (std::int64_t j = 0; j < count; j += kStep) {
    const Element* source[kStep];
    float up[kStep];
    const std::int64_t last = j + kStep < count ? j + kStep : count;
    std::int64_t end = 0;
    for (std::int64_t key = j; key < last; key = end) {
      end = run_end(p, sequence, keys.begin + key, keys.begin + last) - keys.begin;
      const Element* run = v.as<const Element>() + key_offset(v, p, sequence, keys.begin + key, kv_head);
      for (std::int64_t i = key; i < end; ++i) {
        source[i - j] = run + (i - key) * v.stride[1];
        prefetch_row(source[i - j] + kRowsAhead * v.stride[1], p.head_dim_v);
        up[i - j] = fix_scale(source[i - j], p.head_dim_v, scale[i], special[i]);
      }
    }
    for (std::int64_t i = last - j; i < kStep; ++i) {  // behind the last key: any row, times 0
      source[i] = source[0];
      up[i] = 0;
    }
    for (std::int64_t d = 0; d < p.head_dim_v; d += kLanes) {
      const int columns = columns_from(d, p.head_dim_v);
      Float x[kLanes];
      for (int r = 0; r < kLanes; ++r) {
        x[r] = _mm512_castsi512_ps(interleave(fixed_values(source[2 * r] + d, columns, up[2 * r]),
                                              fixed_values(source[2 * r + 1] + d, columns, up[2 * r + 1])));
      }
      transpose(x);
      for (int i = 0; i < kLanes; ++i) _mm512_storeu_ps(to + (d + i) * to_stride + j, x[i]);
    }
  }
}

template <class T>
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

// A score errs by about 2^-16 |q| |k| scale where the elements that make it are small beside their rows' norms,
// and its weight relatively as much: with 32, 5e-4. Rows of n normal elements have norms of sqrt n, 8 at
// head_dim 64 and 16 at 256, and then it is 2e-4 at most, as much as one rounding to f16. Beyond, products are
// summed in f32. (Without a limit tests/numerics fails from 100 on.)
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
