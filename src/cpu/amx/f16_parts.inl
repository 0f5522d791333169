// f16 in matrix tiles of bf16: an element is the sum of two parts, exactly (11 bits of significand: 8 and,
// with a sign, 3), and a weight nearly (16 bits of 24). A product is higher by higher, higher by lower and
// lower by higher.
//
// Lower by lower is left out. The lower part of an element is at most 2^-8 of it, with either sign, so a
// score errs by at most 2^-16 of the sum of |q k|, and as a rule by 2^-18 of the root of the sum of their
// squares. Rounding scores to f16, as the pass rule's plain attention does, takes 2^-12 of a score. So it
// shows only where products cancel: logits of about 1 that are what is left of logits of 100 pass with errors
// of a third of their limits, of 400 they do not (tests/numerics: ScoresOfProductsThatCancel).
//
// What is not finite is a lower part, beside a higher one of 0: it meets each factor once, so that infinity
// times a factor whose lower part is 0 stays infinity.

constexpr int kParts = 2;
constexpr Staging kStaging = Staging::split_tiles;

inline Int without_lower_half(Int x) {
  return _mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(0xFFFF0000U)));
}
inline Float higher_part(Float x) {
  const Int rounded = _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
  const Mask finite = below(magnitude(x), broadcast(__builtin_inff()));
  return _mm512_castsi512_ps(_mm512_maskz_mov_epi32(finite, without_lower_half(rounded)));
}

// The parts of two vectors of elements, a in the lower halves of dwords.
inline void split(Float a, Float b, Int (&part)[2]) {
  const Float high_a = higher_part(a);
  const Float high_b = higher_part(b);
  part[0] = upper_halves(_mm512_castps_si512(high_a), _mm512_castps_si512(high_b));
  part[1] = upper_halves(_mm512_castps_si512(subtract(a, high_a)), _mm512_castps_si512(subtract(b, high_b)));
}

inline Float load_columns_from(const float16* p, std::int64_t count) {
  return load_first(p, count >= kLanes ? kLanes : count < 0 ? 0 : static_cast<int>(count));
}

// The first `count` of 32 columns, zeros behind. Columns i and 16 + i are a pair: K's and Q's alike, so that
// they meet.
inline void load_parts(const float16* from, std::int64_t count, Int (&part)[2]) {
  split(load_columns_from(from, count), load_columns_from(from + kLanes, count - kLanes), part);
}

// Columns of a query times 1, -1 or 0 (Scale).
inline void load_parts(const float16* from, std::int64_t count, float factor, Int (&part)[2]) {
  const Float by = broadcast(factor);
  split(multiply(load_columns_from(from, count), by),
        multiply(load_columns_from(from + kLanes, count - kLanes), by), part);
}

// Columns [d, d + 16) of two keys, a dword a column; a null key is zeros.
inline void load_key_pairs(const float16* even, const float16* odd, std::int64_t d, int columns,
                           Int (&part)[2]) {
  split(even != nullptr ? load_first(even + d, columns) : zero(),
        odd != nullptr ? load_first(odd + d, columns) : zero(), part);
}

// A multiply-add with a reference errs by its rounding, 2^-24 of it: up to 2^9 that is 2^-15 of a weight.
constexpr float kFarReference = 0x1p9F;

// exp2_nonpositive() for weights that are rounded to 2^-16: degree 4, 3e-6. Weights below 2^-126 become 0 by
// ProductScope.
inline Float weight_of(Float t) {
  const Float f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  Float p = broadcast(0x1.b7f73p-7F);
  p = fma(p, f, broadcast(0x1.abf868p-5F));
  p = fma(p, f, broadcast(0x1.ee2450p-3F));
  p = fma(p, f, broadcast(0x1.62d6c6p-1F));
  p = fma(p, f, broadcast(1.0F));
  return _mm512_scalef_ps(p, t);
}

// What a weight has beyond its higher part, rounded. The higher one is cut: to round it would take an
// addition more, for a bit that 2^-16 of a weight has to spare.
inline Int lower_weight(Float x) {
  const Float cut = _mm512_castsi512_ps(without_lower_half(_mm512_castps_si512(x)));
  return _mm512_add_epi32(_mm512_castps_si512(subtract(x, cut)), _mm512_set1_epi32(0x8000));
}
inline void pair_weights(Float even, Float odd, Int (&part)[2]) {
  part[0] = upper_halves(_mm512_castps_si512(even), _mm512_castps_si512(odd));
  part[1] = upper_halves(lower_weight(even), lower_weight(odd));
}
