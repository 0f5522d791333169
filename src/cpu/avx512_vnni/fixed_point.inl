// Rows of f16 as 16-bit integers with a power of two, and what is lost there.
//
//   A row of Q or K is x = 2^e i, |i| < 2^15, e from its Euclidean norm, which is in [2^14, 2^15) after that:
//   by Cauchy and Schwarz a sum of products stays below 2^30, whatever the signs and in any order. An element
//   of f16 (11 bits) keeps all its bits down to a sixteenth of the norm; a smaller one errs by 2^-15 of the
//   norm at most. Where norms are large beside the scores that matter, that is too much: kMostNorms.
//   A row of V is 2^e i, |i| < 2^14, e from its largest element; one of f16 is at most 2^14 - 8. Weights of a
//   step of 32 keys, times 2^e of their keys, become integers by the lane's sum of them, below 2^17: even
//   weights have 12 bits, few large ones 14 (those of f16 have 11). Rounded, (2^17 + 16) (2^14 - 8) < 2^31.

inline int columns_from(std::int64_t first, std::int64_t count);  // of simd/tile_rows.inl

// Pairs of columns, or of keys, are the dwords that the instruction multiplies.
constexpr std::int64_t pairs_of(std::int64_t count) { return (count + 1) / 2; }

// g++ 12 copies and spills the sums round its builtin: 0.38 of the rate of this.
inline void multiply_pairs(Int a, Int b, Int& sum) {
  __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
}
inline Int broadcast_pair(const std::int16_t* p) {
  std::int32_t pair = 0;
  __builtin_memcpy(&pair, p, sizeof(pair));
  return _mm512_set1_epi32(pair);
}
inline Int to_nearest(Float x) { return _mm512_cvtps_epi32(x); }
inline Int interleave(Int even, Int odd) {
  return _mm512_mask_mov_epi16(_mm512_slli_epi32(odd, 16), 0x55555555U, even);
}

inline float power_of_two(int exponent) {
  const int bits = (exponent + 127) << 23;
  float x = 0;
  __builtin_memcpy(&x, &bits, sizeof(x));
  return x;
}
inline int bits_of(float x) {
  int bits = 0;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  return bits;
}
constexpr int kInfinityBits = 0x7F800000;
constexpr int kFixedBits = 14;                    // norms of Q and K are in [2^14, 2^15)
constexpr int kValueBits = 13;                    // largest elements of V in [2^13, 2^14)
constexpr int kWeightBits = 13;                   // largest weights at most there
constexpr int kSumBits = 16;                      // sums of weights at most in [2^16, 2^17)
constexpr std::int64_t kStep = 32;                // keys whose products an int32 holds
constexpr std::int64_t kMostSteps = 256 / kStep;  // of a block: policies

// One row of K.
inline void fix_key(const Element* row, std::int64_t columns, std::int16_t* to, float& scale, float& norm) {
  Float squares = zero();
  for (std::int64_t d = 0; d < columns; d += kLanes) {
    const Float x = load_first(row + d, columns_from(d, columns));
    squares = fma(x, x, squares);
  }
  const float sum = _mm512_reduce_add_ps(squares);
  const bool special = (bits_of(sum) & 0x7FFFFFFF) >= kInfinityBits;
  const int exponent = ((bits_of(sum) >> 23) - 127) >> 1;  // of the norm; -64 of a row of zeros
  const Float up = broadcast(special ? 0.0F : power_of_two(kFixedBits - exponent));
  scale = special ? 0.0F : power_of_two(exponent - kFixedBits);
  norm = special ? __builtin_inff() : _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(sum)));
  for (std::int64_t d = 0; d < columns; d += kLanes) {
    const Int x = to_nearest(multiply(load_first(row + d, columns_from(d, columns)), up));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + d), _mm512_cvtepi32_epi16(x));
  }
}

inline void prefetch_row(const Element* row, std::int64_t columns) {
  constexpr int kLine = 64 / sizeof(Element);
  for (std::int64_t d = 0; d < columns; d += kLine) prefetch(row + d);
}
constexpr std::int64_t kRowsAhead = 16;  // past the end of a tensor in vain, which is no error

inline void fix_keys(const TensorView& k, const AttentionProblem& p, const Sequence& sequence,
                     std::int64_t kv_head, KeyRange keys, std::int16_t* to, std::int64_t stride, float* scale,
                     float* norm) {
  std::int64_t end = 0;
  for (std::int64_t key = keys.begin; key < keys.end; key = end) {
    end = run_end(p, sequence, key, keys.end);
    const Element* run = k.as<const Element>() + key_offset(k, p, sequence, key, kv_head);
    for (std::int64_t i = 0; i < end - key; ++i) {
      const Element* row = run + i * k.stride[1];
      prefetch_row(row + kRowsAhead * k.stride[1], p.head_dim);
      const std::int64_t at = key - keys.begin + i;
      fix_key(row, p.head_dim, to + at * stride, scale[at], norm[at]);
    }
  }
}

// What a row of V is multiplied with to become integers: by its largest finite element. Others become zeros
// there, and `special` says so.
inline float fix_scale(const Element* row, std::int64_t columns, float& scale, float& special) {
  Int most = broadcast_int(0);
  Mask finite = equal(zero(), zero());
  for (std::int64_t d = 0; d < columns; d += kLanes) {
    const Float x = magnitude(load_first(row + d, columns_from(d, columns)));
    const Mask here = below(x, broadcast(__builtin_inff()));
    finite = both(finite, here);
    most = _mm512_mask_max_epi32(most, here, most, _mm512_castps_si512(x));
  }
  const int largest = _mm512_reduce_max_epi32(most);
  const int exponent = largest == 0 ? 0 : (largest >> 23) - 127;
  scale = power_of_two(exponent - kValueBits);
  special = any(inverse(finite)) ? 1.0F : 0.0F;
  return power_of_two(kValueBits - exponent);
}

// What is not finite becomes 0x80000000, whose lower half is 0.
inline Int fixed_values(const Element* row, int columns, float up) {
  return to_nearest(multiply(load_first(row, columns), broadcast(up)));
}

// V^T, 32 keys x 16 columns at a time: a pair of keys is a row of dwords, and these are transposed.
inline void fix_values(const TensorView& v, const AttentionProblem& p, const Sequence& sequence,
                       std::int64_t kv_head, KeyRange keys, std::int16_t* to, std::int64_t to_stride,
                       float* scale, float* special) {
  const std::int64_t count = keys.end - keys.begin;
  for (std::int64_t j = 0; j < count; j += kStep) {
    const Element* source[kStep];
    float up[kStep];
    const std::int64_t last = j + kStep < count ? j + kStep : count;
    std::int64_t end = 0;
    for (std::int64_t key = j; key < last; key = end) {
      end = run_end(p, sequence, keys.begin + key, keys.begin + last) - keys.begin;
      const Element* run = v.as<const Element>() + key_offset(v, p, sequence, keys.begin + key, kv_head);
      for (std::int64_t i = key; i < end; ++i) {
        source[i - j] = run + (i - key) * v.stride[1];
        prefetch_row(source[i - j] + kRowsAhead * v.stride[1], p.head_dim_v);
        up[i - j] = fix_scale(source[i - j], p.head_dim_v, scale[i], special[i]);
      }
    }
    for (std::int64_t i = last - j; i < kStep; ++i) {  // behind the last key: any row, times 0
      source[i] = source[0];
      up[i] = 0;
    }
    for (std::int64_t d = 0; d < p.head_dim_v; d += kLanes) {
      const int columns = columns_from(d, p.head_dim_v);
      Float x[kLanes];
      for (int r = 0; r < kLanes; ++r) {
        x[r] = _mm512_castsi512_ps(interleave(fixed_values(source[2 * r] + d, columns, up[2 * r]),
                                              fixed_values(source[2 * r + 1] + d, columns, up[2 * r + 1])));
      }
      transpose(x);
      for (int i = 0; i < kLanes; ++i) _mm512_storeu_ps(to + (d + i) * to_stride + j, x[i]);
    }
  }
}
