// Sixteen floats: the vocabulary in which simd/ is written.

using Float = __m512;
using Int = __m512i;
using Mask = __mmask16;
constexpr int kLanes = 16;
// 3 vectors of queries x 8 keys (or 8 columns of V) = 24 sums, 3 operands and a broadcast: 28 of
// 32 registers, 11 loads for 24 multiply-adds, and enough sums to hide a latency of 4 at 2 a cycle.
constexpr int kProductVectors = 3;
constexpr int kTileRows = 8;

inline Float load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Float x) { _mm512_storeu_ps(p, x); }
// The first `count` (1 to kLanes) floats at p; memory behind them is neither read nor written.
inline Mask first_lanes(int count) { return static_cast<Mask>(0xFFFFU >> (kLanes - count)); }
inline Float load_first(const float* p, int count) { return _mm512_maskz_loadu_ps(first_lanes(count), p); }
inline void store_first(float* p, Float x, int count) { _mm512_mask_storeu_ps(p, first_lanes(count), x); }
inline Float load(const float16* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Float load_first(const float16* p, int count) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(count), p));
}
inline Float widen_bfloat16(__m256i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
inline Float load(const bfloat16* p) {
  return widen_bfloat16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Float load_first(const bfloat16* p, int count) {
  return widen_bfloat16(_mm256_maskz_loadu_epi16(first_lanes(count), p));
}
// The first `count` of 32, zeros behind.
inline Int load_halves(const bfloat16* p, std::int64_t count) {
  return _mm512_maskz_loadu_epi16(count >= 32 ? 0xFFFFFFFFU : (1U << count) - 1U, p);
}
// To nearest, ties to even; a NaN stays one.
inline void store_first(float16* p, Float x, int count) {
  _mm256_mask_storeu_epi16(p, first_lanes(count),
                           _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
// AVX512_BF16 has an instruction for this, which flushes subnormals and not every processor has.
inline Int bfloat16_bits(Float x) {
  const Int bits = _mm512_castps_si512(x);
  const Int odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const Int rounded =
      _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7FFF)), 16);
  const Int quiet = _mm512_or_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
  return _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), quiet);
}
inline void store_first(bfloat16* p, Float x, int count) {
  _mm256_mask_storeu_epi16(p, first_lanes(count), _mm512_cvtepi32_epi16(bfloat16_bits(x)));
}
// Two vectors in an order of their own, which store_pair undoes: bf16 as even and odd elements, which takes
// one instruction a vector where their own order takes two.
inline void load_pair(const float* p, Float (&x)[2]) {
  x[0] = load(p);
  x[1] = load(p + kLanes);
}
inline void load_pair(const float16* p, Float (&x)[2]) {
  x[0] = load(p);
  x[1] = load(p + kLanes);
}
inline void load_pair(const bfloat16* p, Float (&x)[2]) {
  const Int pairs = _mm512_loadu_si512(p);
  x[0] = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
  x[1] = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(-0x10000)));
}
inline void store_pair(float* p, const float* from) {
  store(p, load(from));
  store(p + kLanes, load(from + kLanes));
}
inline void store_pair(float16* p, const float* from) {
  store_first(p, load(from), kLanes);
  store_first(p + kLanes, load(from + kLanes), kLanes);
}
inline void store_pair(bfloat16* p, const float* from) {
  const Int odd = _mm512_slli_epi32(bfloat16_bits(load(from + kLanes)), 16);
  _mm512_storeu_si512(p, _mm512_mask_blend_epi16(0xAAAAAAAAU, bfloat16_bits(load(from)), odd));
}
inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
inline Float broadcast(float x) { return _mm512_set1_ps(x); }
inline Float zero() { return _mm512_setzero_ps(); }
inline Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
// c - a * b in one rounding.
inline Float subtract_product(Float a, Float b, Float c) { return _mm512_fnmadd_ps(a, b, c); }
inline Float multiply(Float a, Float b) { return _mm512_mul_ps(a, b); }
inline Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
inline Float subtract(Float a, Float b) { return _mm512_sub_ps(a, b); }
inline Float divide(Float a, Float b) { return _mm512_div_ps(a, b); }
// `kept` where x is NaN: a NaN among scores must not make the maximum forget what it has seen. It
// reaches the row through its exponential.
inline Float maximum(Float x, Float kept) { return _mm512_max_ps(x, kept); }
inline Mask equal(Float a, Float b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
inline Float select(Mask m, Float yes, Float no) { return _mm512_mask_blend_ps(m, no, yes); }
inline Mask below(Float a, Float b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
inline Mask both(Mask a, Mask b) { return static_cast<Mask>(a & b); }
inline Mask either(Mask a, Mask b) { return static_cast<Mask>(a | b); }
inline Mask inverse(Mask a) { return static_cast<Mask>(~a); }
inline bool any(Mask a) { return a != 0; }
// Of all lanes.
inline float largest(Float x) { return _mm512_reduce_max_ps(x); }
inline float total(Float x) { return _mm512_reduce_add_ps(x); }
// to[i] = the sum of x[i]'s lanes: four sums share a tree, two shuffles and an addition each.
inline void store_totals(float* to, const Float (&x)[4]) {
  const Float a = _mm512_add_ps(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
  const Float b = _mm512_add_ps(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
  const Float c = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xEE));
  const __m256 d = _mm256_add_ps(_mm512_castps512_ps256(c), _mm512_extractf32x8_ps(c, 1));
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(d), _mm256_extractf128_ps(d, 1)));
}
inline Float magnitude(Float x) { return _mm512_abs_ps(x); }
// x where it is NaN, and otherwise within [-limit, limit].
inline Float clamp(Float x, Float limit) {
  return _mm512_max_ps(subtract(zero(), limit), _mm512_min_ps(limit, x));
}

inline Int load_int(const std::int32_t* p) { return _mm512_loadu_si512(p); }
inline void store_int(std::int32_t* p, Int x) { _mm512_storeu_si512(p, x); }
inline Int broadcast_int(std::int32_t x) { return _mm512_set1_epi32(x); }
inline Int lane_numbers() { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
// begin <= x < end
inline Mask within(Int begin, Int x, Int end) {
  return _mm512_mask_cmplt_epi32_mask(_mm512_cmple_epi32_mask(begin, x), x, end);
}
inline Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
inline Int exclusive_or(Int a, Int b) { return _mm512_xor_si512(a, b); }
inline Int lower_half(Int a) { return _mm512_and_si512(a, _mm512_set1_epi32(0xFFFF)); }
inline Int upper_half(Int a) { return _mm512_srli_epi32(a, 16); }
// Of a dword of each the upper half, a's in the lower one.
inline Int upper_halves(Int a, Int b) { return _mm512_mask_alignr_epi8(b, 0x3333333333333333U, a, a, 2); }
// Products of unsigned numbers, 64 bits a lane.
inline void multiply_wide(Int a, Int b, Int& low, Int& high) {
  const Int even = _mm512_mul_epu32(a, b);
  const Int odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), b);
  low = _mm512_mask_mov_epi32(even, 0xAAAA, _mm512_slli_epi64(odd, 32));
  high = _mm512_mask_mov_epi32(odd, 0x5555, _mm512_srli_epi64(even, 32));
}
// Booleans as addends: 0, or -inf where false.
inline Float load_first(const unsigned char* p, int count) {
  const __m128i x = _mm_maskz_loadu_epi8(first_lanes(count), p);
  const Mask hidden = _mm_mask_cmpeq_epi8_mask(first_lanes(count), x, _mm_setzero_si128());
  return select(hidden, broadcast(-__builtin_inff()), zero());
}

// 2^t for t <= 0, and exactly 1 at 0: p(t - floor t) 2^floor t, p the degree-6 polynomial with
// p(0) = 1 of least relative error on [0, 1), 2e-9 before rounding (degree 5: 8e-8, which shows in
// the last bit of rows with few keys). vreduce is t - floor t (0 for -inf), vscalef floors its
// exponent itself. Below 2^-126 the weight is 0: subnormal weights, which sharp heads of real models
// have by the thousand, cost an assist of some hundred cycles in each multiply-add (four times the
// whole call on one of the captured layers). NaN stays NaN.
inline Float exp2_nonpositive(Float t) {
  const Float f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  Float p = broadcast(0x1.c54174p-13F);
  p = fma(p, f, broadcast(0x1.46d64ep-10F));
  p = fma(p, f, broadcast(0x1.3d0b92p-7F));
  p = fma(p, f, broadcast(0x1.c68912p-5F));
  p = fma(p, f, broadcast(0x1.ebfd58p-3F));
  p = fma(p, f, broadcast(0x1.62e42cp-1F));
  p = fma(p, f, broadcast(1.0F));
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(t, broadcast(-126.0F), _CMP_NLT_UQ), p, t);
}

// x[i] lane j becomes x[j] lane i: pairs, quadruples, then 128-bit lanes in two steps.
inline void transpose(Float (&x)[kLanes]) {
  Float y[kLanes];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    x[i] = _mm512_shuffle_ps(y[i], y[i + 2], 0x44);
    x[i + 1] = _mm512_shuffle_ps(y[i], y[i + 2], 0xEE);
    x[i + 2] = _mm512_shuffle_ps(y[i + 1], y[i + 3], 0x44);
    x[i + 3] = _mm512_shuffle_ps(y[i + 1], y[i + 3], 0xEE);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    y[i] = _mm512_shuffle_f32x4(x[i], x[i + 4], 0x88);
    y[i + 4] = _mm512_shuffle_f32x4(x[i], x[i + 4], 0xDD);
    y[i + 8] = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0x88);
    y[i + 12] = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0xDD);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    x[i] = _mm512_shuffle_f32x4(y[i], y[i + 8], 0x88);
    x[i + 4] = _mm512_shuffle_f32x4(y[i + 4], y[i + 12], 0x88);
    x[i + 8] = _mm512_shuffle_f32x4(y[i], y[i + 8], 0xDD);
    x[i + 12] = _mm512_shuffle_f32x4(y[i + 4], y[i + 12], 0xDD);
  }
}
