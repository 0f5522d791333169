// Eight floats: the vocabulary in which simd/ is written. A Mask is a vector whose lanes are all ones or all
// zeros.

using Float = __m256;
using Int = __m256i;
using Mask = __m256;
constexpr int kLanes = 8;
// 3 vectors of queries x 4 keys (or 4 columns of V) = 12 sums, 3 operands and a broadcast: all 16 registers,
// 7 loads for 12 multiply-adds, and enough sums to hide a latency of 4 at 2 a cycle.
constexpr int kProductVectors = 3;
constexpr int kTileRows = 4;

inline Float load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, Float x) { _mm256_storeu_ps(p, x); }
inline Int load_int(const std::int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline void store_int(std::int32_t* p, Int x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x); }
inline Int broadcast_int(std::int32_t x) { return _mm256_set1_epi32(x); }
// The first `count` (1 to kLanes) floats at p; memory behind them is neither read nor written.
inline Int first_lanes(int count) {
  return _mm256_cmpgt_epi32(broadcast_int(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Float load_first(const float* p, int count) { return _mm256_maskload_ps(p, first_lanes(count)); }
inline void store_first(float* p, Float x, int count) { _mm256_maskstore_ps(p, first_lanes(count), x); }
// 16-bit elements have no masked access here: parts of a vector go through memory of our own.
struct Halves {
  std::uint16_t bits[kLanes];
};
inline __m128i first_halves(const void* p, int count) {
  Halves part{};
  __builtin_memcpy(&part, p, static_cast<std::size_t>(count) * sizeof(std::uint16_t));
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(&part));
}
inline void store_halves(void* p, __m128i x, int count) {
  Halves part;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(&part), x);
  __builtin_memcpy(p, &part, static_cast<std::size_t>(count) * sizeof(std::uint16_t));
}
inline Float load(const float16* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Float load_first(const float16* p, int count) { return _mm256_cvtph_ps(first_halves(p, count)); }
inline Float widen_bfloat16(__m128i x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
inline Float load(const bfloat16* p) {
  return widen_bfloat16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Float load_first(const bfloat16* p, int count) { return widen_bfloat16(first_halves(p, count)); }
// To nearest, ties to even; a NaN stays one.
inline void store_first(float16* p, Float x, int count) {
  store_halves(p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), count);
}
inline Int bfloat16_bits(Float x) {
  const Int bits = _mm256_castps_si256(x);
  const Int odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), broadcast_int(1));
  const Int rounded = _mm256_add_epi32(_mm256_add_epi32(bits, odd), broadcast_int(0x7FFF));
  const Int quiet = _mm256_or_si256(bits, broadcast_int(0x400000));
  const Int nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
}
inline void store_first(bfloat16* p, Float x, int count) {
  const Int upper = bfloat16_bits(x);
  store_halves(p, _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1)), count);
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
  const Int pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  x[0] = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
  x[1] = _mm256_castsi256_ps(_mm256_and_si256(pairs, broadcast_int(-0x10000)));
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
  const Int odd = _mm256_slli_epi32(bfloat16_bits(load(from + kLanes)), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_or_si256(bfloat16_bits(load(from)), odd));
}
inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
inline Float broadcast(float x) { return _mm256_set1_ps(x); }
inline Float zero() { return _mm256_setzero_ps(); }
inline Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
// c - a * b in one rounding.
inline Float subtract_product(Float a, Float b, Float c) { return _mm256_fnmadd_ps(a, b, c); }
inline Float multiply(Float a, Float b) { return _mm256_mul_ps(a, b); }
inline Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
inline Float subtract(Float a, Float b) { return _mm256_sub_ps(a, b); }
inline Float divide(Float a, Float b) { return _mm256_div_ps(a, b); }
// `kept` where x is NaN: a NaN among scores must not make the maximum forget what it has seen. It
// reaches the row through its exponential.
inline Float maximum(Float x, Float kept) { return _mm256_max_ps(x, kept); }
inline Mask equal(Float a, Float b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
inline Float select(Mask m, Float yes, Float no) { return _mm256_blendv_ps(no, yes, m); }
inline Mask below(Float a, Float b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
inline Mask both(Mask a, Mask b) { return _mm256_and_ps(a, b); }
inline Mask either(Mask a, Mask b) { return _mm256_or_ps(a, b); }
inline Mask inverse(Mask a) { return _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(-1))); }
inline bool any(Mask a) { return _mm256_movemask_ps(a) != 0; }
// Of all lanes.
inline float largest(Float x) {
  const __m128 a = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 b = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}
inline float total(Float x) {
  const __m128 a = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 b = _mm_add_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
// to[i] = the sum of x[i]'s lanes: four sums share a tree, two shuffles and an addition each.
inline void store_totals(float* to, const Float (&x)[4]) {
  const Float a = _mm256_add_ps(_mm256_unpacklo_ps(x[0], x[1]), _mm256_unpackhi_ps(x[0], x[1]));
  const Float b = _mm256_add_ps(_mm256_unpacklo_ps(x[2], x[3]), _mm256_unpackhi_ps(x[2], x[3]));
  const Float c = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xEE));
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(c), _mm256_extractf128_ps(c, 1)));
}
inline Float magnitude(Float x) {
  return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF)));
}
// x where it is NaN, and otherwise within [-limit, limit].
inline Float clamp(Float x, Float limit) {
  return _mm256_max_ps(subtract(zero(), limit), _mm256_min_ps(limit, x));
}
inline Int lane_numbers() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
inline Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
inline Int exclusive_or(Int a, Int b) { return _mm256_xor_si256(a, b); }
inline Int lower_half(Int a) { return _mm256_and_si256(a, _mm256_set1_epi32(0xFFFF)); }
inline Int upper_half(Int a) { return _mm256_srli_epi32(a, 16); }
// Products of unsigned numbers, 64 bits a lane.
inline void multiply_wide(Int a, Int b, Int& low, Int& high) {
  const Int even = _mm256_mul_epu32(a, b);
  const Int odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), b);
  low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
  high = _mm256_blend_epi32(odd, _mm256_srli_epi64(even, 32), 0x55);
}
// Booleans as addends: 0, or -inf where false.
inline Float load_first(const unsigned char* p, int count) {
  std::uint64_t bytes = 0;
  __builtin_memcpy(&bytes, p, static_cast<std::size_t>(count));
  const Int x = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(bytes)));
  const Mask hidden = _mm256_castsi256_ps(
      _mm256_and_si256(_mm256_cmpeq_epi32(x, _mm256_setzero_si256()), first_lanes(count)));
  return select(hidden, broadcast(-__builtin_inff()), zero());
}
// begin <= x < end
inline Mask within(Int begin, Int x, Int end) {
  return _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_cmpgt_epi32(begin, x), _mm256_cmpgt_epi32(end, x)));
}

// 2^t for t <= 0, and exactly 1 at 0: p(t - floor t) 2^floor t, the polynomial of avx512/vector.inl. The
// power goes into the exponent of p, which lies in [1, 2]: from t = -126 up that is a normal number, below
// the weight is 0. NaN stays NaN (its floor converts to 0x80000000, of which the shift leaves 0).
inline Float exp2_nonpositive(Float t) {
  const Float floor = _mm256_round_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  const Float f = subtract(t, floor);
  Float p = broadcast(0x1.c54174p-13F);
  p = fma(p, f, broadcast(0x1.46d64ep-10F));
  p = fma(p, f, broadcast(0x1.3d0b92p-7F));
  p = fma(p, f, broadcast(0x1.c68912p-5F));
  p = fma(p, f, broadcast(0x1.ebfd58p-3F));
  p = fma(p, f, broadcast(0x1.62e42cp-1F));
  p = fma(p, f, broadcast(1.0F));
  const Int power = _mm256_slli_epi32(_mm256_cvtps_epi32(floor), 23);
  const Float scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), power));
  return _mm256_and_ps(_mm256_cmp_ps(t, broadcast(-126.0F), _CMP_NLT_UQ), scaled);
}

// x[i] lane j becomes x[j] lane i: pairs, quadruples, then 128-bit halves.
inline void transpose(Float (&x)[kLanes]) {
  Float y[kLanes];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    y[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
    y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    x[i] = _mm256_shuffle_ps(y[i], y[i + 2], 0x44);
    x[i + 1] = _mm256_shuffle_ps(y[i], y[i + 2], 0xEE);
    x[i + 2] = _mm256_shuffle_ps(y[i + 1], y[i + 3], 0x44);
    x[i + 3] = _mm256_shuffle_ps(y[i + 1], y[i + 3], 0xEE);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    y[i] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x20);
    y[i + 4] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x31);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) x[i] = y[i];
}
