// The two products in bf16 matrix tiles, with sums in f32; the names of simd/tiles.inl.
//
// An element is one of bf16, or a sum of several (bf16_parts.inl, f16_parts.inl).
//
//   S^T = K Q^T: 16 keys x 32 columns of K, as it lies in memory, times Q^T packed by pairs of columns.
//   O^T += V^T P^T: 16 columns of V x 32 keys, of V transposed, times P^T, whose pairs of keys are
//   neighbouring rows of S^T: they merge with a shift and a blend, without a shuffle.
//
// A tile multiplication takes 16 cycles and has a latency of 52, so at least four sums go at a time.

// 2 vectors of queries: 2 x 2 sums, two operands of either side: all 8 tiles, 4 loads for 4 multiplications.
constexpr int kVectors = 2;
// Keys of a step of the second product; pairs of keys (and of columns) are one dword.
constexpr std::int64_t kStep = 32;

// Matrix tiles give no subnormals; in a scope vectors give none either, so that weights below 2^-126 cost
// neither a comparison each nor an assist. Vectors still take them: a scale may be one.
struct ProductScope {
  ProductScope() : control_(_mm_getcsr()) {
    _mm_setcsr(control_ | _MM_FLUSH_ZERO_ON);
    configure_tiles();
  }
  ProductScope(const ProductScope&) = delete;
  ProductScope& operator=(const ProductScope&) = delete;
  ~ProductScope() {
    release_tiles();
    _mm_setcsr(control_);
  }

 private:
  unsigned control_;
};

struct Staged {
  const bfloat16* k;  // of key `first`
  std::int64_t k_stride;
  std::int64_t last;  // the key behind the last row of k that may be read
  const bfloat16* v;  // V^T [parts][tile_rows(head_dim_v)][v_stride], column 0 is key `first`
  std::int64_t v_stride;
  bfloat16* tail;  // room for kParts * tail_elements(): tiles of k or v that end early, and zeros behind
  std::int64_t first;
};

// The first `count` of 32 columns that are parts already.
inline void load_parts(const bfloat16* from, std::int64_t count, Int (&part)[1]) {
  part[0] = load_halves(from, count);
}

// Rows of 32 columns at a time as `Parts` parts, zeros behind `columns`; lower parts stand `low` behind.
template <int Parts = 1, class T>
inline void copy_rows(const T* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns,
                      bfloat16* to, std::int64_t to_stride, std::int64_t low = 0) {
  constexpr std::int64_t kAhead = 16;  // rows asked for; past the end of a tensor in vain, which is no error
  for (std::int64_t j = 0; j < rows; ++j) {
    for (std::int64_t d = 0; d < columns; d += 32) {
      prefetch(from + (j + kAhead) * from_stride + d);
      Int parts[Parts];
      load_parts(from + j * from_stride + d, columns - d, parts);
      for (int i = 0; i < Parts; ++i) _mm512_storeu_si512(to + j * to_stride + d + i * low, parts[i]);
    }
  }
}

// V^T, 32 keys x 16 columns at a time: a pair of keys is a row of dwords, and these are transposed. Lower
// parts stand behind all rows of higher ones.
inline void transpose_values(const TensorView& v, const AttentionProblem& p, const Sequence& sequence,
                             std::int64_t kv_head, KeyRange keys, bfloat16* to, std::int64_t to_stride) {
  const std::int64_t count = keys.end - keys.begin;
  const std::int64_t low = tile_rows(p.head_dim_v) * to_stride;
  for (std::int64_t j = 0; j < count; j += kStep) {
    const Element* source[kStep] = {};
    std::int64_t end = 0;
    for (std::int64_t key = j; key < count && key < j + kStep; key = end) {
      const std::int64_t last = j + kStep < count ? j + kStep : count;
      end = run_end(p, sequence, keys.begin + key, keys.begin + last) - keys.begin;
      const Element* run = v.as<const Element>() + key_offset(v, p, sequence, keys.begin + key, kv_head);
      for (std::int64_t i = key; i < end; ++i) source[i - j] = run + (i - key) * v.stride[1];
    }
    for (std::int64_t d = 0; d < p.head_dim_v; d += kLanes) {
      const int columns = p.head_dim_v - d < kLanes ? static_cast<int>(p.head_dim_v - d) : kLanes;
      Float x[kParts][kLanes];
      for (int r = 0; r < kLanes; ++r) {
        Int parts[kParts];
        load_key_pairs(source[2 * r], source[2 * r + 1], d, columns, parts);
        for (int i = 0; i < kParts; ++i) x[i][r] = _mm512_castsi512_ps(parts[i]);
      }
      for (int part = 0; part < kParts; ++part) {
        transpose(x[part]);
        for (int i = 0; i < kLanes; ++i) {
          _mm512_storeu_ps(to + part * low + (d + i) * to_stride + j, x[part][i]);
        }
      }
    }
  }
}

// K beside V^T that is there already: `values` has `v_stride` keys a row and begins with the first of `keys`.
// Many tiles read a copy of K: rows of a head lie pages apart where many heads interleave.
template <class T>
inline Staged stage_beside(const bfloat16* values, std::int64_t v_stride, const AttentionArgs& args,
                           const AttentionProblem& p, const Sequence& sequence, std::int64_t kv_head,
                           KeyRange keys, bfloat16* tail, bool many_tiles) {
  if constexpr (kParts == 1) {
    const bool apart = args.k.stride[1] != p.head_dim;
    if (p.head_dim % 32 == 0 && run_end(p, sequence, keys.begin, keys.end) == keys.end &&
        !(many_tiles && apart)) {
      const T* k = args.k.as<const T>() + key_offset(args.k, p, sequence, keys.begin, kv_head);
      return {k, args.k.stride[1], keys.end, values, v_stride, tail, keys.begin};
    }
  }
  // Rows that do not fill tiles: what stands behind them is somebody else's.
  const std::int64_t low = tile_columns(p.head_dim);
  const std::int64_t k_stride = kParts * low;
  bfloat16* own_k = tail + kParts * tail_elements(p.head_dim);
  std::int64_t end = 0;
  for (std::int64_t key = keys.begin; key < keys.end; key = end) {
    end = run_end(p, sequence, key, keys.end);
    copy_rows<kParts>(args.k.as<const T>() + key_offset(args.k, p, sequence, key, kv_head), args.k.stride[1],
                      end - key, p.head_dim, own_k + (key - keys.begin) * k_stride, k_stride, low);
  }
  return {own_k, k_stride, keys.end, values, v_stride, tail, keys.begin};
}

// K and V of `keys`, for several tiles if kShared.
template <class T, bool kShared = false>
inline Staged stage(const AttentionArgs& args, const AttentionProblem& p, const Sequence& sequence,
                    std::int64_t kv_head, KeyRange keys, unsigned char* scratch) {
  const std::int64_t v_stride = transposed_stride(keys.end - keys.begin);
  auto* own_v = reinterpret_cast<bfloat16*>(scratch);
  transpose_values(args.v, p, sequence, kv_head, keys, own_v, v_stride);
  return stage_beside<T>(own_v, v_stride, args, p, sequence, kv_head, keys,
                         own_v + kParts * tile_rows(p.head_dim_v) * v_stride, kShared);
}

// V of keys [begin, begin + keys) of the staged ones, with zeros for those that `seen` has as 0.
inline Staged visible_values(const Staged& from, std::int64_t begin, std::int64_t keys, const float* seen,
                             std::int64_t head_dim_v, unsigned char* scratch) {
  auto* v = reinterpret_cast<bfloat16*>(scratch);
  const std::int64_t stride = transposed_stride(keys);
  const std::int64_t rows = kParts * tile_rows(head_dim_v);
  copy_rows(from.v + (begin - from.first), from.v_stride, rows, keys, v, stride);
  for (std::int64_t j = 0; j < keys; ++j) {
    if (seen[j] != 0) continue;
    for (std::int64_t d = 0; d < rows; ++d) __builtin_memset(static_cast<void*>(v + d * stride + j), 0, 2);
  }
  return {nullptr, 0, 0, v, stride, from.tail, begin};
}

// Sums (A x N of them) are tiles 0 to 3, row-major. With two columns: rows 4 and 5, columns 6 and 7. With
// one: column 4, rows 5 to 7 in turn.
template <int N>
constexpr int kRowTiles = N == 1 ? kMostRowTiles : 2;
template <int N, int A>
constexpr int kRowTile = N == 1 ? 5 + A % 3 : 4 + A;
template <int N>
constexpr int kColumnTile = N == 1 ? 4 : 6;

template <int Count, int I = 0>
inline void zero_sums() {
  if constexpr (I < Count) {
    tile_zero<I>();
    zero_sums<Count, I + 1>();
  }
}
// Loads row A, unless it is there still, and multiplies it with the columns.
template <int N, int Count, bool Loaded = false, int A = 0>
inline void multiply_rows(const bfloat16* const (&row)[Count], const std::int64_t (&stride)[Count],
                          std::int64_t at) {
  if constexpr (A < Count) {
    if constexpr (!Loaded) tile_load<kRowTile<N, A>>(row[A] + at, stride[A] * 2);
    tile_multiply_bf16<A * N, kRowTile<N, A>, kColumnTile<N>>();
    if constexpr (N == 2) tile_multiply_bf16<A * N + 1, kRowTile<N, A>, kColumnTile<N> + 1>();
    multiply_rows<N, Count, Loaded, A + 1>(row, stride, at);
  }
}
// 16 rows of pairs, a vector each, whose parts alternate.
template <int N>
inline void load_columns(const float* from) {
  constexpr std::int64_t kStride = std::int64_t{4} * kParts * N * kLanes;
  tile_load<kColumnTile<N>>(from, kStride);
  if constexpr (N == 2) tile_load<kColumnTile<N> + 1>(from + kLanes, kStride);
}
// Adds the product of 32 columns of rows, from column `at` on, and as many rows of `columns`. The rows' lower
// parts stand `low` behind.
template <int N, int Count>
inline void multiply_step(const bfloat16* const (&row)[Count], const std::int64_t (&stride)[Count],
                          std::int64_t at, [[maybe_unused]] std::int64_t low, const float* columns) {
  load_columns<N>(columns);
  if constexpr (kParts == 2) multiply_rows<N, Count>(row, stride, at + low);
  multiply_rows<N, Count>(row, stride, at);
  if constexpr (kParts == 2) {
    load_columns<N>(columns + kLanes * N);
    multiply_rows<N, Count, N == 2>(row, stride, at);
  }
}
template <int N, int Count, int I = 0>
inline void load_sums(const float* from) {
  if constexpr (I < Count * N) {
    tile_load<I>(from + (I / N * kTileHeight * N + I % N) * kLanes, kLanes * N * 4);
    load_sums<N, Count, I + 1>(from);
  }
}
template <int N, int Count, int I = 0>
inline void store_sums(float* to) {
  if constexpr (I < Count * N) {
    tile_store<I>(to + (I / N * kTileHeight * N + I % N) * kLanes, kLanes * N * 4);
    store_sums<N, Count, I + 1>(to);
  }
}

// S^T of 16 * Count keys from key j of `keys` on.
template <int N, int Count>
inline void score_tiles(const Staged& from, std::int64_t begin, std::int64_t j, const float* q,
                        std::int64_t head_dim, float* s) {
  const bfloat16* row[Count];
  std::int64_t stride[Count];
  const std::int64_t low = tile_columns(head_dim);
  const std::int64_t columns = kParts * low;
  for (int a = 0; a < Count; ++a) {
    const std::int64_t key = begin + j + a * kTileHeight;
    row[a] = from.k + (key - from.first) * from.k_stride;
    stride[a] = from.k_stride;
    if (key + kTileHeight > from.last) {
      const std::int64_t rows = from.last - key;
      copy_rows(row[a], from.k_stride, rows, columns, from.tail, columns);
      __builtin_memset(static_cast<void*>(from.tail + rows * columns), 0,
                       static_cast<std::size_t>((kTileHeight - rows) * columns) * 2);
      row[a] = from.tail;
      stride[a] = columns;
    }
  }
  zero_sums<Count * N>();
  for (std::int64_t d = 0; d < low; d += kStep) {
    multiply_step<N, Count>(row, stride, d, low, q + d / 2 * kParts * kLanes * N);
  }
  store_sums<N, Count>(s + j * kLanes * N);
}

// Rows behind the last key, up to the tile's end, are of no meaning.
template <int N>
inline void scores(const Staged& from, std::int64_t begin, std::int64_t keys, const float* q,
                   std::int64_t head_dim, float* s) {
  constexpr std::int64_t kMost = std::int64_t{kTileHeight} * kRowTiles<N>;
  std::int64_t j = 0;
  for (; j + kMost <= keys; j += kMost) score_tiles<N, kRowTiles<N>>(from, begin, j, q, head_dim, s);
  for (; j < keys; j += kTileHeight) score_tiles<N, 1>(from, begin, j, q, head_dim, s);
}

// Keys behind the last one have weights of 0, but what is staged of them for other tiles may not be finite.
template <int N, int Count>
inline void value_tiles(const bfloat16* v, std::int64_t v_stride, std::int64_t low, const float* p,
                        std::int64_t keys, bfloat16* tail, bool empty, float* o) {
  const bfloat16* row[Count];
  std::int64_t stride[Count];
  for (int a = 0; a < Count; ++a) {
    row[a] = v + a * kTileHeight * v_stride;
    stride[a] = v_stride;
  }
  if (empty) {
    zero_sums<Count * N>();
  } else {
    load_sums<N, Count>(o);
  }
  std::int64_t j = 0;
  for (; j + kStep <= keys; j += kStep) {
    multiply_step<N, Count>(row, stride, j, low, p + j / 2 * kParts * kLanes * N);
  }
  if (j < keys) {
    constexpr std::int64_t kTile = kTileHeight * kStep;
    for (int a = 0; a < Count; ++a) {
      bfloat16* const to = tail + a * kTile;
      for (int part = 0; part < kParts; ++part) {
        copy_rows(row[a] + part * low + j, v_stride, kTileHeight, keys - j, to + part * Count * kTile, kStep);
      }
      row[a] = to;
      stride[a] = kStep;
    }
    multiply_step<N, Count>(row, stride, 0, Count * kTile, p + j / 2 * kParts * kLanes * N);
  }
  store_sums<N, Count>(o);
}

// O^T += V^T P^T over keys [begin, begin + keys) of the staged ones; `empty`: O^T is 0 so far.
template <int N>
inline void values(const Staged& from, std::int64_t begin, std::int64_t keys, const float* p,
                   std::int64_t head_dim_v, bool empty, float* o) {
  constexpr int kWidth = kLanes * N;
  const std::int64_t rows = tile_rows(head_dim_v);
  const std::int64_t low = rows * from.v_stride;
  const bfloat16* v = from.v + (begin - from.first);
  constexpr std::int64_t kMost = std::int64_t{kTileHeight} * kRowTiles<N>;
  std::int64_t d = 0;
  for (; d + kMost <= rows; d += kMost) {
    value_tiles<N, kRowTiles<N>>(v + d * from.v_stride, from.v_stride, low, p, keys, from.tail, empty,
                                 o + d * kWidth);
  }
  for (; d < rows; d += kTileHeight) {
    value_tiles<N, 1>(v + d * from.v_stride, from.v_stride, low, p, keys, from.tail, empty, o + d * kWidth);
  }
}

// The weights of key j and vector n that are not kept become 0, in their halves of the dwords.
template <int N>
inline void drop_weights(float* s, std::int64_t j, int n, Mask kept) {
  const Int other = _mm512_set1_epi32(j % 2 == 0 ? static_cast<int>(0xFFFF0000U) : 0xFFFF);
  for (int part = 0; part < kParts; ++part) {
    float* cell = s + ((j / 2 * kParts + part) * N + n) * kLanes;
    const Int pair = _mm512_loadu_si512(cell);
    _mm512_storeu_si512(cell, _mm512_mask_and_epi32(pair, inverse(kept), pair, other));
  }
}
