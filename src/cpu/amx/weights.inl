// Weights of a strip of scores as the second product reads them: paired by keys, in parts (bf16_parts.inl).

// What makes exponents of 2 of the scores of N vectors of lanes.
template <int N>
struct Exponents {
  Float by;            // > 0
  Float reference[N];  // 0 for lanes that have seen no key
  Float minus[N];      // -reference * by
  Mask far[N];         // lanes for which `minus` is too coarse
  bool any_far;

  Exponents(const Float (&seen)[N], Float factor) : by(factor), any_far(false) {
    // Beyond kFarReference, and where it is infinite, scores lose their reference first.
    const Float most = broadcast(kFarReference);
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

// Stores row r of weights of vector n, its parts one after the other.
template <int N>
inline void store_weights(Float even, Float odd, float* weights, std::int64_t r, int n) {
  Int part[kParts];
  pair_weights(even, odd, part);
  for (int i = 0; i < kParts; ++i) {
    _mm512_storeu_si512(weights + ((r * kParts + i) * N + n) * kLanes, part[i]);
  }
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
      const Float even = weight_of(exponent_of<N, Far>(load(cell), e, n));
      const Float odd = weight_of(exponent_of<N, Far>(load(cell + kWidth), e, n));
      sum[n] = add(sum[n], add(even, odd));
      store_weights<N>(even, odd, weights, r, n);
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
      const Float even = weight_of(exponent_of<N, Far>(last, e, n));
      sum[n] = add(sum[n], even);
      store_weights<N>(even, zero(), weights, keys / 2, n);
    }
  }
  for (std::int64_t r = (keys + 1) / 2 * kParts; r < tile_columns(keys) / 2 * kParts; ++r) {
    for (int n = 0; n < N; ++n) store(weights + r * kWidth + n * kLanes, zero());
  }
}
