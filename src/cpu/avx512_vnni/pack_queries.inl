// Queries in the form in which avx512_vnni/tiles.inl multiplies them: integers in pairs of columns, their
// scales and norms, and Q^T in f32 for products beyond kMostNorms.

template <int N>
inline void pack_queries(const AttentionArgs& args, const AttentionProblem& p, const Tile& tile, float factor,
                         float* q) {
  constexpr int kWidth = kLanes * N;
  RowCursor at(Rows(p), tile.kv_head, tile.first_row);
  const std::int64_t pairs = pairs_of(p.head_dim);
  float* scale = q + pairs * kWidth;
  float* norm = scale + kWidth;
  float* wide = norm + kWidth;
  const float natural = p.scale();
  const Float times = broadcast(factor);
  const Float magnitude_of_scale = broadcast(natural < 0 ? -natural : natural);
  for (int n = 0; n < N; ++n) {
    const Element* source[kLanes];
    for (int i = 0; i < kLanes; ++i, at.next()) {
      source[i] = n * kLanes + i < tile.rows
                      ? args.q.as<const Element>() + query_offset(args.q, tile.sequence, at.token, at.head)
                      : nullptr;
    }
    Float squares = zero();
    for (std::int64_t d = 0; d < p.head_dim; d += kLanes) {
      const int columns = columns_from(d, p.head_dim);
      Float x[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        x[i] = source[i] != nullptr ? load_first(source[i] + d, columns) : zero();
      }
      transpose(x);
      for (int i = 0; i < columns; ++i) {
        const Float y = multiply(x[i], times);
        store(wide + (d + i) * kWidth + n * kLanes, y);
        squares = fma(y, y, squares);
      }
    }
    // The exponent of the norm; -64 of a row of zeros. Rows that are not finite become zeros.
    const Mask finite = below(squares, broadcast(__builtin_inff()));
    const Float known = maximum(select(finite, squares, zero()), broadcast(0x1p-126F));
    const Float exponent = _mm512_roundscale_ps(multiply(_mm512_getexp_ps(known), broadcast(0.5F)),
                                                _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    const Float bits = broadcast(kFixedBits);
    const Float up = select(finite, _mm512_scalef_ps(broadcast(1.0F), subtract(bits, exponent)), zero());
    store(scale + n * kLanes, _mm512_scalef_ps(broadcast(1.0F), subtract(exponent, bits)));
    store(norm + n * kLanes,
          select(finite, multiply(_mm512_sqrt_ps(squares), magnitude_of_scale), broadcast(__builtin_inff())));
    for (std::int64_t d = 0; d < pairs; ++d) {
      const float* column = wide + 2 * d * kWidth + n * kLanes;
      const Int even = to_nearest(multiply(load(column), up));
      const Int odd =
          2 * d + 1 < p.head_dim ? to_nearest(multiply(load(column + kWidth), up)) : broadcast_int(0);
      _mm512_storeu_si512(q + d * kWidth + n * kLanes, interleave(even, odd));
    }
  }
}
