// Queries in the form in which amx/tiles.inl multiplies them: for each 32 columns 16 rows of pairs of
// columns, a dword a query, the parts of a row one after the other; zeros behind head_dim.

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
      Float x[kParts][kLanes];
      for (int i = 0; i < kLanes; ++i) {
        for (int part = 0; part < kParts; ++part) x[part][i] = zero();
        if (source[i] == nullptr) continue;
        Int parts[kParts];
        load_parts(source[i] + d, p.head_dim - d, factor, parts);
        for (int part = 0; part < kParts; ++part) x[part][i] = _mm512_castsi512_ps(parts[part]);
      }
      for (int part = 0; part < kParts; ++part) {
        transpose(x[part]);
        for (int i = 0; i < kLanes; ++i) {
          store(q + ((d / 2 + i) * kParts + part) * kWidth + n * kLanes, x[part][i]);
        }
      }
    }
  }
}
