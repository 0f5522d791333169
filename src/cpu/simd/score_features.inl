// What changes scores beyond the range of keys: scale, softcap, bias, ALiBi and masks, each a pass over a
// block of scores that lies in the first cache. A block that a mask hides wholly is found before its scores
// are computed.

constexpr int kMostLanes = kLanes * kVectors;
// Keys of a block, at most: policies and unfused blocks.
constexpr std::int64_t kMostBlock = 256;

inline bool has_score_features(const AttentionProblem& p) {
  return makes_logits(p) || p.mask != MaskKind::none || p.dropout_p != 0;
}

// A mask or bias as the lanes of a tile read it.
struct LaneRows {
  const unsigned char* row[kMostLanes];  // of key 0; padding lanes repeat lane 0
  DType dtype;
  std::int64_t keys;  // those behind are hidden
  bool by_head,
      by_query;  // whether rows differ by these, which an axis with a stride of 0 does not make them
  bool same;     // all lanes read one row
};

// What the features need to know of a tile's lanes.
struct LaneFeatures {
  LaneRows mask, bias;
  float slope[kMostLanes];  // of ALiBi
  float place[kMostLanes];  // i' minus `origin`
  std::int64_t origin;
  std::int32_t query[kMostLanes];
  std::int32_t plane[kMostLanes];  // sequence * heads + head
};

inline void find_lane_rows(const TensorView& t, const Rows& rows, const Tile& tile, int lanes,
                           LaneRows& out) {
  const auto size = static_cast<std::int64_t>(size_of(t.dtype));
  const std::int64_t item = t.shape[0] == 1 ? 0 : t.stride[0] * size;
  const std::int64_t head = t.shape[1] == 1 ? 0 : t.stride[1] * size;
  const std::int64_t query = t.shape[2] == 1 ? 0 : t.stride[2] * size;
  out.dtype = t.dtype;
  out.keys = t.shape[3];
  out.by_head = head != 0 && rows.group > 1;
  out.by_query = query != 0;
  out.same = !out.by_head && !out.by_query;
  for (int i = 0; i < lanes; ++i) {
    const std::int64_t r = tile.first_row + (i < tile.rows ? i : 0);
    out.row[i] = t.as<const unsigned char>() + tile.batch * item + rows.head(tile.kv_head, r) * head +
                 rows.token(r) * query;
  }
}

inline void find_lane_features(const AttentionArgs& args, const AttentionProblem& p, const Tile& tile,
                               int lanes, std::int64_t origin, LaneFeatures& out) {
  const Rows rows(p);
  if (p.mask != MaskKind::none) find_lane_rows(args.mask, rows, tile, lanes, out.mask);
  if (p.bias) find_lane_rows(args.bias, rows, tile, lanes, out.bias);
  if (p.alibi == AlibiKind::none && p.dropout_p == 0) return;
  const bool per_batch = p.alibi == AlibiKind::per_batch_head;
  const TensorView& slopes = args.alibi_slopes;
  out.origin = origin;
  for (int i = 0; i < lanes; ++i) {
    const std::int64_t r = tile.first_row + (i < tile.rows ? i : 0);
    const std::int64_t head = rows.head(tile.kv_head, r);
    out.query[i] = static_cast<std::int32_t>(rows.token(r));
    out.plane[i] = static_cast<std::int32_t>(tile.batch * p.heads + head);
    if (p.alibi == AlibiKind::none) continue;
    const std::int64_t at =
        per_batch ? tile.batch * slopes.stride[0] + head * slopes.stride[1] : head * slopes.stride[0];
    out.slope[i] = slopes.as<const float>()[at];
    out.place[i] = static_cast<float>(rows.token(r) + tile.band.offset - origin);
  }
}

inline Float load_first(const double* p, int count) {
  float x[kLanes] = {};
  for (int i = 0; i < count; ++i) x[i] = static_cast<float>(p[i]);
  return load(x);
}

// Addends of keys [key, key + count): what the tensor has, -inf behind its last key and for false. Lanes
// behind `count` are of no meaning.
template <class T>
inline Float addends(const LaneRows& from, int lane, std::int64_t key, int count) {
  const std::int64_t left = from.keys - key;
  if (left <= 0) return broadcast(-__builtin_inff());
  const int there = left < count ? static_cast<int>(left) : count;
  const Float x = load_first(reinterpret_cast<const T*>(from.row[lane]) + key, there);
  if (there == count) return x;
  return select(within(broadcast_int(0), lane_numbers(), broadcast_int(there)), x,
                broadcast(-__builtin_inff()));
}

// Calls fn<T>(arguments...) for the elements of a mask or bias.
#define HEADWISE_FOR_ADDENDS(dtype, fn, ...)                      \
  do {                                                            \
    switch (dtype) {                                              \
      case DType::boolean: fn<unsigned char>(__VA_ARGS__); break; \
      case DType::f16: fn<float16>(__VA_ARGS__); break;           \
      case DType::bf16: fn<bfloat16>(__VA_ARGS__); break;         \
      case DType::f64: fn<double>(__VA_ARGS__); break;            \
      default: fn<float>(__VA_ARGS__); break;                     \
    }                                                             \
  } while (false)

// What a mask shows of a block of keys.
struct Sight {
  bool any;                         // to some row of the tile
  bool all;                         // every key to every row: the mask adds nothing
  bool hides;                       // some key from all rows
  float seen[kMostBlock + kLanes];  // 0: hidden from all rows of the tile
};

// Rows and keys in `lanes`' ranges (relative to `begin`). Lanes that read the row of another are looked at
// once: with the range that all of them have together where queries share a row.
template <class T>
[[gnu::noinline]] inline void look_at_rows(const AttentionProblem& p, const Tile& tile, const LaneRows& mask,
                                           const LaneRanges& lanes, std::int64_t begin, std::int64_t keys,
                                           Sight& out) {
  const Float minus_infinity = broadcast(-__builtin_inff());
  const std::int64_t group = Rows(p).group;
  const int rows = static_cast<int>(tile.rows);
  const int heads = group < rows ? static_cast<int>(group) : rows;  // that lie side by side in the tile
  const int step = mask.by_query && !mask.by_head && tile.first_row % group == 0 ? heads : 1;
  const int count = mask.by_query ? rows : mask.by_head ? heads : 1;
  Mask everything_seen = equal(zero(), zero());
  bool any_seen = false;
  bool hides = false;
  for (std::int64_t j = 0; j < keys; j += kLanes) {
    const int columns = columns_from(j, keys);
    const Int at = add(lane_numbers(), broadcast_int(static_cast<std::int32_t>(j)));
    const Mask here = within(broadcast_int(0), lane_numbers(), broadcast_int(columns));
    Mask seen = inverse(equal(zero(), zero()));
    for (int i = 0; i < count; i += step) {
      const Float x = addends<T>(mask, i, begin + j, columns);
      const Mask shown = inverse(equal(x, minus_infinity));
      const Mask in_range =
          mask.by_query ? within(broadcast_int(lanes.begin[i]), at, broadcast_int(lanes.end[i])) : here;
      seen = either(seen, both(both(shown, in_range), here));
      everything_seen = both(everything_seen, either(equal(x, zero()), inverse(here)));
    }
    any_seen = any_seen || any(seen);
    hides = hides || any(both(here, inverse(seen)));
    store(out.seen + j, select(seen, broadcast(1.0F), zero()));
  }
  out.any = any_seen;
  out.hides = hides;
  out.all = !any(inverse(everything_seen));
}

inline void look_at_mask(const AttentionProblem& p, const Tile& tile, const LaneRows& mask,
                         const LaneRanges& lanes, std::int64_t begin, std::int64_t keys, Sight& out) {
  HEADWISE_FOR_ADDENDS(mask.dtype, look_at_rows, p, tile, mask, lanes, begin, keys, out);
}

// Whether a value of a key that nobody sees is not finite: times a weight of 0 it would be NaN.
template <class T>
inline bool hidden_values_matter(const AttentionArgs& args, const AttentionProblem& p, const Tile& tile,
                                 std::int64_t begin, std::int64_t keys, const float* seen) {
  for (std::int64_t j = 0; j < keys; ++j) {
    if (seen[j] != 0) continue;
    const T* row = args.v.as<const T>() + key_offset(args.v, p, tile.sequence, begin + j, tile.kv_head);
    Float nothing = zero();  // stays 0 unless a value is infinite or NaN
    for (std::int64_t d = 0; d < p.head_dim_v; d += kLanes) {
      const int columns = columns_from(d, p.head_dim_v);
      nothing = fma(load_first(row + d, columns), zero(), nothing);
    }
    if (any(inverse(equal(nothing, nothing)))) return true;
  }
  return false;
}

// tanh x = x P(y) / Q(y), y = x^2, both of degree 4, of least relative error on [0, 9.01], 2e-8 before
// rounding; beyond, tanh is 1 in f32. Below 1.25 it is x + x y R(y) / Q(y) with R = (P - Q) / y, which rounds
// the smaller part only: what scores below the cap lose is then what one rounding takes (3e-8 instead of
// 6e-8). NaN stays NaN.
inline Float hyperbolic_tangent(Float value) {
  const Float x = clamp(value, broadcast(9.01F));
  const Float y = multiply(x, x);
  Float p = broadcast(0x1.cb4dd2p-27F);
  p = fma(p, y, broadcast(0x1.59eb1p-16F));
  p = fma(p, y, broadcast(0x1.ca3f56p-9F));
  p = fma(p, y, broadcast(0x1.120d98p-3F));
  p = fma(p, y, broadcast(1.0F));
  Float q = broadcast(0x1.a1c85cp-21F);
  q = fma(q, y, broadcast(0x1.589ec2p-12F));
  q = fma(q, y, broadcast(0x1.a800e6p-6F));
  q = fma(q, y, broadcast(0x1.de5c16p-2F));
  q = fma(q, y, broadcast(1.0F));
  Float r = broadcast(-0x1.9a9b24p-21F);
  r = fma(r, y, broadcast(-0x1.43001p-12F));
  r = fma(r, y, broadcast(-0x1.6eb8fcp-6F));
  r = fma(r, y, broadcast(-0x1.55554ap-2F));
  const Mask small = below(y, broadcast(1.25F * 1.25F));
  const Float over = multiply(x, select(small, multiply(y, r), p));
  return add(divide(over, q), select(small, x, zero()));
}

// What scores are multiplied by before the cap, or alone.
inline Float logit_factor(bool capped, float scale, float softcap) {
  const float factor = capped ? scale / softcap : scale;
  return broadcast(factor < __FLT_MAX__ ? factor : __FLT_MAX__);  // inf * 0 is NaN
}

// A cap so far off that scores would be subnormal beside it caps nothing.
inline bool is_capped(const AttentionProblem& p, Scale scale) {
  return p.softcap != 0 && scale.logit / p.softcap >= __FLT_MIN__;
}

// Scores times the scale, capped, and ALiBi's distances taken off.
template <int N, bool Capped, bool Alibi>
[[gnu::noinline]] inline void logits_of(float* s, std::int64_t begin, std::int64_t keys, float scale,
                                        float softcap, const LaneFeatures& lanes, Float (&peak)[N]) {
  const Float by = logit_factor(Capped, scale, softcap);
  const Float cap = broadcast(softcap);
  Float slope[N];
  Float place[N];
  for (int n = 0; n < N; ++n) {
    peak[n] = broadcast(-__builtin_inff());
    if constexpr (Alibi) {
      slope[n] = load(lanes.slope + n * kLanes);
      place[n] =
          subtract(load(lanes.place + n * kLanes), broadcast(static_cast<float>(begin - lanes.origin)));
    }
  }
  for (std::int64_t j = 0; j < keys; ++j) {
    const Float at = broadcast(static_cast<float>(j));
    for (int n = 0; n < N; ++n) {
      float* cell = s + (j * N + n) * kLanes;
      Float x = multiply(load(cell), by);
      if constexpr (Capped) x = multiply(cap, hyperbolic_tangent(x));
      if constexpr (Alibi) x = subtract_product(magnitude(subtract(place[n], at)), slope[n], x);
      store(cell, x);
      peak[n] = maximum(x, peak[n]);
    }
  }
}

// Of kLanes lanes and `count` keys: a row of addends for each key.
template <class T>
[[gnu::noinline]] inline void addends_by_key(const LaneRows& from, int first_lane, std::int64_t key,
                                             int count, float* out) {
  if (from.same) {
    float one[kLanes];
    store(one, addends<T>(from, 0, key, count));
    for (int i = 0; i < count; ++i) store(out + i * kLanes, broadcast(one[i]));
    return;
  }
  Float x[kLanes];
  for (int i = 0; i < kLanes; ++i) x[i] = addends<T>(from, first_lane + i, key, count);
  transpose(x);
  for (int i = 0; i < kLanes; ++i) store(out + i * kLanes, x[i]);
}

// Adds a bias, or a mask, whose -inf hides a score whatever it is.
template <int N, bool Hides>
[[gnu::noinline]] inline void add_rows(const LaneRows& from, std::int64_t begin, std::int64_t keys, float* s,
                                       Float (&peak)[N]) {
  const Float minus_infinity = broadcast(-__builtin_inff());
  for (int n = 0; n < N; ++n) peak[n] = minus_infinity;
  float added[kLanes * kLanes];
  for (std::int64_t j = 0; j < keys; j += kLanes) {
    const int columns = columns_from(j, keys);
    for (int n = 0; n < N; ++n) {
      if (n == 0 || !from.same)
        HEADWISE_FOR_ADDENDS(from.dtype, addends_by_key, from, n * kLanes, begin + j, columns, added);
      for (int i = 0; i < columns; ++i) {
        float* cell = s + ((j + i) * N + n) * kLanes;
        const Float x = load(added + i * kLanes);
        Float sum = add(load(cell), x);
        if constexpr (Hides) sum = select(equal(x, minus_infinity), minus_infinity, sum);
        store(cell, sum);
        peak[n] = maximum(sum, peak[n]);
      }
    }
  }
}

// All that comes between the product and the softmax, but for the ranges of keys. `masked`: the mask adds
// something to this block.
template <int N>
inline void transform_scores(const AttentionProblem& p, const LaneFeatures& lanes, Scale scale, bool masked,
                             std::int64_t begin, std::int64_t keys, float* s, Float (&peak)[N]) {
  if (makes_logits(p)) {
    const bool alibi = p.alibi != AlibiKind::none;
    const bool capped = is_capped(p, scale);
    if (capped && alibi) {
      logits_of<N, true, true>(s, begin, keys, scale.logit, p.softcap, lanes, peak);
    } else if (capped) {
      logits_of<N, true, false>(s, begin, keys, scale.logit, p.softcap, lanes, peak);
    } else if (alibi) {
      logits_of<N, false, true>(s, begin, keys, scale.logit, p.softcap, lanes, peak);
    } else {
      logits_of<N, false, false>(s, begin, keys, scale.logit, p.softcap, lanes, peak);
    }
  }
  if (p.bias) add_rows<N, false>(lanes.bias, begin, keys, s, peak);
  if (masked) add_rows<N, true>(lanes.mask, begin, keys, s, peak);
}
