// The three micro-kernels every tiled algorithm is made of. Scores are held transposed, a row of
// queries for each key: S^T = K Q^T, O^T += V^T P^T. So a maximum or a sum over keys runs down
// lanes, masks and scales are lane-wise, and K and V are read as they lie, one scalar at a time.
//
// A tile has kLanes * N queries (N vectors): Q^T is [head_dim][lanes], S^T [keys][lanes], O^T
// [head_dim_v][lanes].

// S^T of kTileRows keys, whose rows need not be neighbours (the last tile repeats its last key).
// `peak` gathers the maximum over keys.
template <int N>
inline void score_tile(const float* const (&rows)[kTileRows], const float* q, std::int64_t head_dim, float* s,
                       Float (&peak)[N]) {
  constexpr int kWidth = kLanes * N;
  Float sum[kTileRows][N];
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) sum[r][n] = zero();
  }
  for (std::int64_t d = 0; d < head_dim; ++d) {
    Float x[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) x[n] = load(q + d * kWidth + n * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r) {
      const Float k = broadcast(rows[r][d]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[r][n] = fma(k, x[n], sum[r][n]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      store(s + r * kWidth + n * kLanes, sum[r][n]);
      peak[n] = maximum(sum[r][n], peak[n]);
    }
  }
}

// O^T rows [0, R) = factor * O^T + V^T P^T over `keys` keys: v points at column 0 of the first
// key. `factor` is null where O^T is still empty.
template <int N, int R>
inline void value_tile(const float* v, std::int64_t v_stride, const float* p, std::int64_t keys,
                       const float* factor, float* o) {
  constexpr int kWidth = kLanes * N;
  Float sum[R][N];
  if (factor == nullptr) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[r][n] = zero();
    }
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        sum[r][n] = multiply(load(o + r * kWidth + n * kLanes), load(factor + n * kLanes));
      }
    }
  }
  for (std::int64_t j = 0; j < keys; ++j) {
    Float x[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) x[n] = load(p + j * kWidth + n * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Float w = broadcast(v[j * v_stride + r]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[r][n] = fma(w, x[n], sum[r][n]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store(o + r * kWidth + n * kLanes, sum[r][n]);
  }
}

// All head_dim_v rows of O^T, eight at a time, the rest by halves.
template <int N>
inline void values(const float* v, std::int64_t v_stride, const float* p, std::int64_t keys,
                   std::int64_t head_dim_v, const float* factor, float* o) {
  constexpr int kWidth = kLanes * N;
  std::int64_t d = 0;
  for (; d + 8 <= head_dim_v; d += 8) value_tile<N, 8>(v + d, v_stride, p, keys, factor, o + d * kWidth);
  if (head_dim_v - d >= 4) {
    value_tile<N, 4>(v + d, v_stride, p, keys, factor, o + d * kWidth);
    d += 4;
  }
  if (head_dim_v - d >= 2) {
    value_tile<N, 2>(v + d, v_stride, p, keys, factor, o + d * kWidth);
    d += 2;
  }
  if (head_dim_v > d) value_tile<N, 1>(v + d, v_stride, p, keys, factor, o + d * kWidth);
}

// Asks for kTileRows rows of K or V. Rows of one head lie pages apart where many heads interleave, so
// the hardware does not foresee them. Past the end of a tensor it asks in vain, which is no error.
inline void prefetch_rows(const float* row, std::int64_t stride, std::int64_t columns) {
  constexpr int kLine = 16;  // floats in a cache line
  for (int r = 0; r < kTileRows; ++r) {
    for (std::int64_t d = 0; d < columns; d += kLine) prefetch(row + r * stride + d);
  }
}

// Tiles of one vector have a tenth of the arithmetic for each byte of K and V that full ones have:
// they wait for memory, not for multiply-adds, and prefetch.
template <int N>
constexpr bool kWaitsForMemory = N == 1;
constexpr std::int64_t kRowsAhead = 2 * kTileRows;

// Scores of `keys` keys from row-major K; rows past `keys` up to the tile's end repeat the last.
template <int N>
inline void scores(const float* k, std::int64_t k_stride, std::int64_t keys, const float* q,
                   std::int64_t head_dim, float* s, Float (&peak)[N]) {
  for (std::int64_t j = 0; j < keys; j += kTileRows) {
    if constexpr (kWaitsForMemory<N>) prefetch_rows(k + (j + kRowsAhead) * k_stride, k_stride, head_dim);
    const float* rows[kTileRows];
    for (int r = 0; r < kTileRows; ++r) rows[r] = k + (j + r < keys ? j + r : keys - 1) * k_stride;
    score_tile<N>(rows, q, head_dim, s + j * kLanes * N, peak);
  }
}

// The score transform of a masked block: -inf where a lane may not see the key, then the maximum
// anew. Lane ranges are relative to the block's first key.
template <int N>
inline void mask_scores(float* s, std::int64_t keys, const std::int32_t* begin, const std::int32_t* end,
                        Float (&peak)[N]) {
  const Float minus_infinity = broadcast(-__builtin_inff());
  for (int n = 0; n < N; ++n) peak[n] = minus_infinity;
  for (std::int64_t j = 0; j < keys; ++j) {
    const Int at = broadcast_int(static_cast<std::int32_t>(j));
    for (int n = 0; n < N; ++n) {
      float* cell = s + (j * N + n) * kLanes;
      const Mask seen = within(load_int(begin + n * kLanes), at, load_int(end + n * kLanes));
      const Float x = select(seen, load(cell), minus_infinity);
      store(cell, x);
      peak[n] = maximum(x, peak[n]);
    }
  }
}

// P^T = 2^(scale * (S^T - reference)) in place, added to `sum`. reference is the maximum of the
// raw scores, so that the largest weight is exactly 1; 0 for a lane that has seen no key.
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
