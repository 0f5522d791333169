// Queries in the form in which amx/tiles.inl multiplies them: for each 32 columns 16 rows of pairs of
// columns, a dword a query, zeros behind head_dim.

// Queries times 1, -1 or 0 (Scale): a sign, or nothing but NaN of what is not finite.
inline Int scaled_halves(Int halves, float factor) {
  if (factor != 0) {
    return _mm512_xor_si512(halves, _mm512_set1_epi16(static_cast<std::int16_t>(factor < 0 ? 0x8000 : 0)));
  }
  const Int exponent = _mm512_set1_epi16(0x7F80);
  const Int nan = _mm512_set1_epi16(0x7FC0);
  return _mm512_maskz_mov_epi16(_mm512_cmpeq_epi16_mask(_mm512_and_si512(halves, exponent), exponent), nan);
}

template <int N>
inline void pack_queries(const AttentionArgs& args, const AttentionProblem& p, const Tile& tile, float factor,
                         float* q) {
  constexpr int kWidth = kLanes * N;
  RowCursor at(Rows(p), tile.kv_head, tile.first_row);
  for (int n = 0; n < N; ++n) {
    const Element* source[kLanes];
    for (int i = 0; i < kLanes; ++i, at.next()) {
      source[i] = n * kLanes + i < tile.rows
                      ? args.q.as<const Element>() + query_offset(args.q, tile.sequence, at.token, at.head)
                      : nullptr;
    }
    for (std::int64_t d = 0; d < p.head_dim; d += kStep) {
      Float x[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        x[i] = zero();
        if (source[i] == nullptr) continue;
        x[i] = _mm512_castsi512_ps(scaled_halves(load_halves(source[i] + d, p.head_dim - d), factor));
      }
      transpose(x);
      for (int i = 0; i < kLanes; ++i) store(q + (d / 2 + i) * kWidth + n * kLanes, x[i]);
    }
  }
}
