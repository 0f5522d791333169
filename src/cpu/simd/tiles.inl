// The two products every tiled algorithm is made of, in multiply-adds, and K and V as they read them.
// Scores are held transposed, a row of queries for each key: S^T = K Q^T, O^T += V^T P^T. So a maximum
// or a sum over keys runs down lanes, masks and scales are lane-wise, and K and V are read one scalar at a
// time, as they lie or from copies of their rows.
//
// A tile has kLanes * N queries (N vectors): Q^T is [head_dim][lanes], S^T [keys][lanes], O^T
// [head_dim_v][lanes], all f32. A file of micro-kernels has these names: kVectors, kStaging, ProductScope,
// Staged, stage, expect_values, scores, exponentials, drop_weights, visible_values, values; and pack_queries
// in a file beside it.

constexpr int kVectors = kProductVectors;

// 16-bit rows are widened to f32 once a chunk, for all tiles that read it: a broadcast of a 16-bit scalar
// costs three instructions where one of f32 is a part of the load.
constexpr bool kWidens = sizeof(Element) == 2;
constexpr Staging kStaging = kWidens ? Staging::widened : Staging::as_they_lie;

// What a task must set up before its products and take down after them: nothing.
struct ProductScope {};

// K and V of neighbouring keys.
struct Staged {
  const float* k;  // of key `first`
  std::int64_t k_stride;
  const float* v;
  std::int64_t v_stride;
  std::int64_t first;
};

inline void widen(const Element* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns,
                  float* to, std::int64_t to_stride) {
  constexpr std::int64_t kAhead = 8;  // rows asked for; past the end of a tensor in vain, which is no error
  constexpr int kLine = 64 / sizeof(Element);
  for (std::int64_t j = 0; j < rows; ++j) {
    const Element* source = from + j * from_stride;
    float* target = to + j * to_stride;
    for (std::int64_t d = 0; d < columns; d += kLine) prefetch(source + kAhead * from_stride + d);
    std::int64_t d = 0;
    for (; d + kLanes <= columns; d += kLanes) store(target + d, load(source + d));
    if (d < columns) store(target + d, load_first(source + d, static_cast<int>(columns - d)));
  }
}

// Rows of keys, one after the other in memory only as far as a page goes.
inline void widen_keys(const TensorView& t, const AttentionProblem& p, const Sequence& sequence,
                       std::int64_t kv_head, KeyRange keys, std::int64_t columns, float* to,
                       std::int64_t to_stride) {
  std::int64_t end = 0;
  for (std::int64_t key = keys.begin; key < keys.end; key = end) {
    end = run_end(p, sequence, key, keys.end);
    widen(t.as<const Element>() + key_offset(t, p, sequence, key, kv_head), t.stride[1], end - key, columns,
          to + (key - keys.begin) * to_stride, to_stride);
  }
}

// Whether rows of f32 that several tiles read are copied first. Rows of one head lie pages apart where many
// heads interleave, in few sets of the caches, and each tile would fetch them anew: from 256 keys and 512 KB
// on that costs two tiles what the copy does.
inline bool copies_rows(const AttentionArgs& args, KeyRange keys) {
  constexpr std::int64_t kKeys = 256;
  constexpr std::int64_t kSpan = 512 * 1024 / std::int64_t{sizeof(float)};
  const std::int64_t stride = args.k.stride[1] > args.v.stride[1] ? args.k.stride[1] : args.v.stride[1];
  const std::int64_t count = keys.end - keys.begin;
  return count >= kKeys && (stride >= kSpan || count * stride >= kSpan);
}

// K and V of `keys`, for several tiles if kShared.
template <class T, bool kShared = false>
inline Staged stage(const AttentionArgs& args, const AttentionProblem& p, const Sequence& sequence,
                    std::int64_t kv_head, KeyRange keys, unsigned char* scratch) {
  if constexpr (!kWidens) {
    const bool in_place = !kShared || !copies_rows(args, keys);
    if (in_place && run_end(p, sequence, keys.begin, keys.end) == keys.end) {
      return {args.k.as<const T>() + key_offset(args.k, p, sequence, keys.begin, kv_head), args.k.stride[1],
              args.v.as<const T>() + key_offset(args.v, p, sequence, keys.begin, kv_head), args.v.stride[1],
              keys.begin};
    }
  }
  const std::int64_t k_stride = widened_columns(p.head_dim);
  const std::int64_t v_stride = widened_columns(p.head_dim_v);
  auto* wide_k = reinterpret_cast<float*>(scratch);
  float* wide_v = wide_k + (keys.end - keys.begin) * k_stride;
  widen_keys(args.k, p, sequence, kv_head, keys, p.head_dim, wide_k, k_stride);
  widen_keys(args.v, p, sequence, kv_head, keys, p.head_dim_v, wide_v, v_stride);
  return {wide_k, k_stride, wide_v, v_stride, keys.begin};
}

// V of keys [begin, begin + keys) of the staged ones, with zeros for those that `seen` has as 0.
inline Staged visible_values(const Staged& from, std::int64_t begin, std::int64_t keys, const float* seen,
                             std::int64_t head_dim_v, unsigned char* scratch) {
  auto* v = reinterpret_cast<float*>(scratch);
  const std::int64_t stride = widened_columns(head_dim_v);
  for (std::int64_t j = 0; j < keys; ++j) {
    const float* row = from.v + (begin - from.first + j) * from.v_stride;
    for (std::int64_t d = 0; d < head_dim_v; d += kLanes) {
      const int columns = head_dim_v - d < kLanes ? static_cast<int>(head_dim_v - d) : kLanes;
      store(v + j * stride + d, seen[j] != 0 ? load_first(row + d, columns) : zero());
    }
  }
  return {nullptr, 0, v, stride, begin};
}

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

template <int N, int R>
inline void values_from(const Staged& from, std::int64_t begin, std::int64_t keys, const float* p,
                        std::int64_t& d, std::int64_t head_dim_v, const float* factor, float* o) {
  const float* v = from.v + (begin - from.first) * from.v_stride;
  for (; d + R <= head_dim_v; d += R) {
    value_tile<N, R>(v + d, from.v_stride, p, keys, factor, o + d * kLanes * N);
  }
  if constexpr (R > 1) values_from<N, R / 2>(from, begin, keys, p, d, head_dim_v, factor, o);
}

// All head_dim_v rows of O^T, kTileRows at a time, the rest by halves: O^T = factor * O^T + V^T P^T over
// keys [begin, begin + keys) of the staged ones. `factor` is null where O^T is still empty.
template <int N>
inline void values(const Staged& from, std::int64_t begin, std::int64_t keys, const float* p,
                   std::int64_t head_dim_v, const float* factor, float* o) {
  std::int64_t d = 0;
  values_from<N, kTileRows>(from, begin, keys, p, d, head_dim_v, factor, o);
}

// Asks for kTileRows rows of K or V. Rows of one head lie pages apart where many heads interleave, so
// the hardware does not foresee them.
inline void prefetch_rows(const float* row, std::int64_t stride, std::int64_t columns) {
  constexpr int kLine = 16;  // floats in a cache line
  for (int r = 0; r < kTileRows; ++r) {
    for (std::int64_t d = 0; d < columns; d += kLine) prefetch(row + r * stride + d);
  }
}

// Tiles of one vector have a tenth of the arithmetic for each byte of K and V that full ones have:
// they wait for memory, not for multiply-adds, and prefetch.
template <int N>
constexpr bool kWaitsForMemory = N == 1 && !kWidens;
constexpr std::int64_t kRowsAhead = 2 * kTileRows;

// The values of keys whose scores come next.
template <int N>
inline void expect_values(const Staged& from, std::int64_t begin, std::int64_t keys,
                          std::int64_t head_dim_v) {
  if constexpr (kWaitsForMemory<N>) {
    const float* v = from.v + (begin - from.first) * from.v_stride;
    for (std::int64_t j = 0; j < keys; j += kTileRows) {
      prefetch_rows(v + j * from.v_stride, from.v_stride, head_dim_v);
    }
  }
}

// Scores of keys [begin, begin + keys) of the staged ones; rows past the last one, up to the tile's end,
// repeat it.
template <int N>
inline void scores(const Staged& from, std::int64_t begin, std::int64_t keys, const float* q,
                   std::int64_t head_dim, float* s, Float (&peak)[N]) {
  const float* k = from.k + (begin - from.first) * from.k_stride;
  const std::int64_t k_stride = from.k_stride;
  for (std::int64_t j = 0; j < keys; j += kTileRows) {
    if constexpr (kWaitsForMemory<N>) prefetch_rows(k + (j + kRowsAhead) * k_stride, k_stride, head_dim);
    const float* rows[kTileRows];
    for (int r = 0; r < kTileRows; ++r) rows[r] = k + (j + r < keys ? j + r : keys - 1) * k_stride;
    score_tile<N>(rows, q, head_dim, s + j * kLanes * N, peak);
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

// The weights of key j and N vectors that are not kept become 0.
template <int N>
inline void drop_weights(float* s, std::int64_t j, int n, Mask kept) {
  float* cell = s + (j * N + n) * kLanes;
  store(cell, select(kept, load(cell), zero()));
}
