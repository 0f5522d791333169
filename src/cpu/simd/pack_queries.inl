// Queries in the form in which tiles.inl multiplies them: Q^T [head_dim][kLanes * N] in f32.

template <int N>
inline void pack_queries(const AttentionArgs& args, const AttentionProblem& p, const Tile& tile, float factor,
                         float* q) {
  constexpr int kWidth = kLanes * N;
  RowCursor at(Rows(p), tile.kv_head, tile.first_row);
  const Float times = broadcast(factor);
  for (int n = 0; n < N; ++n) {
    const Element* source[kLanes];
    for (int i = 0; i < kLanes; ++i, at.next()) {
      source[i] = n * kLanes + i < tile.rows
                      ? args.q.as<const Element>() + query_offset(args.q, tile.sequence, at.token, at.head)
                      : nullptr;
    }
    for (std::int64_t d = 0; d < p.head_dim; d += kLanes) {
      const int columns = columns_from(d, p.head_dim);
      Float x[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        x[i] = source[i] != nullptr ? load_first(source[i] + d, columns) : zero();
      }
      transpose(x);
      for (int i = 0; i < kLanes; ++i) {
        if (i < columns) store(q + (d + i) * kWidth + n * kLanes, multiply(x[i], times));
      }
    }
  }
}
