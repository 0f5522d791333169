// bf16 in matrix tiles, which multiply it as it is: an element, and a weight, is one part. The names that
// amx/tiles.inl and amx/weights.inl need of an element; f16_parts.inl has them too.

constexpr int kParts = 1;
constexpr Staging kStaging = Staging::tiles;

// Columns of a query times 1, -1 or 0 (Scale): a sign, or nothing but NaN of what is not finite.
inline void load_parts(const bfloat16* from, std::int64_t count, float factor, Int (&part)[1]) {
  const Int halves = load_halves(from, count);
  if (factor != 0) {
    part[0] = _mm512_xor_si512(halves, _mm512_set1_epi16(static_cast<std::int16_t>(factor < 0 ? 0x8000 : 0)));
    return;
  }
  const Int exponent = _mm512_set1_epi16(0x7F80);
  const Int nan = _mm512_set1_epi16(0x7FC0);
  part[0] =
      _mm512_maskz_mov_epi16(_mm512_cmpeq_epi16_mask(_mm512_and_si512(halves, exponent), exponent), nan);
}

inline Int widen_halves(const bfloat16* row, int count) {
  return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_lanes(count), row));
}

// Columns [d, d + 16) of two keys, a dword a column; a null key is zeros.
inline void load_key_pairs(const bfloat16* even, const bfloat16* odd, std::int64_t d, int columns,
                           Int (&part)[1]) {
  const Int low = even != nullptr ? widen_halves(even + d, columns) : _mm512_setzero_si512();
  const Int high = odd != nullptr ? widen_halves(odd + d, columns) : _mm512_setzero_si512();
  part[0] = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// A multiply-add with a reference errs by its rounding, 2^-24 of it: up to 2^13 that is 2^-11 of a weight,
// where rounding to bf16 takes 2^-9.
constexpr float kFarReference = 0x1p13F;

// exp2_nonpositive() for weights that are rounded to bf16 (2^-9) anyway: degree 3, 9e-5. Weights below 2^-126
// become 0 by ProductScope.
inline Float weight_of(Float t) {
  const Float f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  Float p = broadcast(0x1.3bab6p-4F);
  p = fma(p, f, broadcast(0x1.d23724p-3F));
  p = fma(p, f, broadcast(0x1.63e65ep-1F));
  p = fma(p, f, broadcast(1.0F));
  return _mm512_scalef_ps(p, t);
}

// Halves up: ties are one in 65,536. The even key's weight is the lower half of a dword.
inline void pair_weights(Float even, Float odd, Int (&part)[1]) {
  const Int half = _mm512_set1_epi32(0x8000);
  const Int low = _mm512_add_epi32(_mm512_castps_si512(even), half);
  const Int high = _mm512_add_epi32(_mm512_castps_si512(odd), half);
  part[0] = upper_halves(low, high);
}
