// Weights of a strip of scores, rounded to bf16 and paired by keys, as the second product reads them.

// What makes exponents of 2 of the scores of N vectors of lanes.
template <int N>
struct Exponents {
  Float by;            // > 0
  Float reference[N];  // 0 for lanes that have seen no key
  Float minus[N];      // -reference * by
  Mask far[N];         // lanes for which `minus` is too coarse
  bool any_far;

  Exponents(const Float (&seen)[N], Float factor) : by(factor), any_far(false) {
    // A multiply-add with `minus` errs by its rounding, 2^-24 of it: up to 2^13 that is 2^-11 of a weight,
    // where rounding to bf16 takes 2^-9. Beyond, and where it is infinite, scores lose their reference first.
    const Float most = broadcast(0x1p13F);
    for (int n = 0; n < N; ++n) {
      reference[n] = select(equal(seen[n], broadcast(-__builtin_inff())), zero(), seen[n]);
      minus[n] = multiply(subtract(zero(), reference[n]), by);
      far[n] = inverse(below(magnitude(minus[n]), most));
      any_far = any_far || any(far[n]);
    }
  }
};

template <int N, bool Far>
inline Float exponent_of(Float score, const Exponents<N>& e, int n) {
  const Float near = fma(score, e.by, e.minus[n]);
  if constexpr (!Far) return near;
  return select(e.far[n], multiply(subtract(score, e.reference[n]), e.by), near);
}

// exp2_nonpositive() for weights that are rounded to bf16 (2^-9) anyway: degree 3, 9e-5. Weights below 2^-126
// become 0 by ProductScope.
inline Float exp2_for_bfloat16(Float t) {
  const Float f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  Float p = broadcast(0x1.3bab6p-4F);
  p = fma(p, f, broadcast(0x1.d23724p-3F));
  p = fma(p, f, broadcast(0x1.63e65ep-1F));
  p = fma(p, f, broadcast(1.0F));
  return _mm512_scalef_ps(p, t);
}

// Halves up: ties are one in 65,536. The even key's weight is the lower half of a dword.
inline Int pair_of_halves(Float even, Float odd) {
  const Int half = _mm512_set1_epi32(0x8000);
  const Int low = _mm512_add_epi32(_mm512_castps_si512(even), half);
  const Int high = _mm512_add_epi32(_mm512_castps_si512(odd), half);
  return _mm512_mask_alignr_epi8(high, 0x3333333333333333U, low, low, 2);
}

// Rows 2r and 2r + 1 of scores become row r of weights, for r in [first, last), added to `sum`.
template <int N, bool Far>
inline void weigh_pairs(const float* s, std::int64_t first, std::int64_t last, const Exponents<N>& e,
                        Float (&sum)[N], float* weights) {
  constexpr int kWidth = kLanes * N;
  for (std::int64_t r = first; r < last; ++r) {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      const float* cell = s + 2 * r * kWidth + n * kLanes;
      const Float even = exp2_for_bfloat16(exponent_of<N, Far>(load(cell), e, n));
      const Float odd = exp2_for_bfloat16(exponent_of<N, Far>(load(cell + kWidth), e, n));
      sum[n] = add(sum[n], add(even, odd));
      _mm512_storeu_si512(weights + r * kWidth + n * kLanes, pair_of_halves(even, odd));
    }
  }
}

// All `keys` of a strip; zeros up to whole steps of the second product.
template <int N, bool Far>
inline void weigh(const float* s, std::int64_t keys, const Exponents<N>& e, Float (&sum)[N], float* weights) {
  constexpr int kWidth = kLanes * N;
  weigh_pairs<N, Far>(s, 0, keys / 2, e, sum, weights);
  if (keys % 2 != 0) {
    for (int n = 0; n < N; ++n) {
      const Float last = load(s + (keys - 1) * kWidth + n * kLanes);
      const Float even = exp2_for_bfloat16(exponent_of<N, Far>(last, e, n));
      sum[n] = add(sum[n], even);
      _mm512_storeu_si512(weights + keys / 2 * kWidth + n * kLanes, pair_of_halves(even, zero()));
    }
  }
  for (std::int64_t r = (keys + 1) / 2; r < tile_columns(keys) / 2; ++r) {
    for (int n = 0; n < N; ++n) store(weights + r * kWidth + n * kLanes, zero());
  }
}
