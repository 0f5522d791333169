// The online softmax (Milakov and Gimelshein 2018, arXiv:1805.02867) of one tile over a range of keys, block
// by block: scores, mask, maximum, exponentials, values.

// Partial of a tile over `keys`, cut into blocks at multiples of block_kv from the sequence's first key.
// Overwrites `to`. `ready`: the keys staged already, for several tiles; null: each block is staged here,
// while it is in the caches.
template <int N>
inline void online_softmax(const AttentionArgs& args, const AttentionProblem& p, const Tile& tile,
                           const float* q, Scale scale, const BlockRange& range, KeyRange keys,
                           std::int64_t block_kv, const Staged* ready, const BlockScratch& scratch,
                           Partial to) {
  const Float minus_infinity = broadcast(-__builtin_inff());
  const Float by = broadcast(scale.log2);
  float* s = scratch.s;
  Float reference[N];
  Float sum[N];
  for (int n = 0; n < N; ++n) {
    reference[n] = minus_infinity;
    sum[n] = zero();
  }
  const bool featured = has_score_features(p);
  const bool masked = p.mask != MaskKind::none;
  LaneFeatures lanes;
  if (featured) find_lane_features(args, p, tile, kLanes * N, keys.begin, lanes);
  Sight sight;
  const std::int64_t origin = tile.band.keys.begin;
  bool empty = true;
  std::int64_t end = 0;
  for (std::int64_t begin = keys.begin; begin < keys.end; begin = end) {
    end = origin + ((begin - origin) / block_kv + 1) * block_kv;
    if (end > keys.end) end = keys.end;
    const std::int64_t count = end - begin;
    LaneRanges ranges;
    const bool ranged = block_kind(range, begin, end) != BlockKind::full;
    if (ranged || masked) lane_ranges(p, tile, kLanes * N, begin, count, ranges);
    if (masked) {
      look_at_mask(p, tile, lanes.mask, ranges, begin, count, sight);
      if (!sight.any) continue;
    }
    Float peak[N];
    for (int n = 0; n < N; ++n) peak[n] = minus_infinity;
    Staged from = ready != nullptr
                      ? *ready
                      : stage<Element>(args, p, tile.sequence, tile.kv_head, {begin, end}, scratch.staged);
    expect_values<N>(from, begin, count, p.head_dim_v);
    scores<N>(from, begin, count, q, p.head_dim, s, peak);
    if (featured) {
      transform_scores<N>(p, lanes, scale, masked && !sight.all, begin, count, s, peak);
      if (masked && sight.hides && hidden_values_matter<Element>(args, p, tile, begin, count, sight.seen))
        from = visible_values(from, begin, count, sight.seen, p.head_dim_v, scratch.visible);
    }
    if (ranged) mask_scores<N>(s, count, ranges.begin, ranges.end, peak);
    Float shift[N];
    for (int n = 0; n < N; ++n) {
      const Float next = maximum(peak[n], reference[n]);
      shift[n] = select(equal(next, minus_infinity), zero(), next);
      const Float rescale = exp2_nonpositive(multiply(subtract(reference[n], shift[n]), by));
      store(scratch.factor + n * kLanes, rescale);
      sum[n] = multiply(sum[n], rescale);
      reference[n] = next;
    }
    exponentials<N>(s, count, by, shift, sum);
    if (p.dropout_p != 0) drop_block<N>(args, p, lanes, begin, count, s);
    values<N>(from, begin, count, s, p.head_dim_v, empty ? nullptr : scratch.factor, to.o);
    empty = false;
  }
  // The mask hid every block: a merge multiplies by 0 what stands here, which may be NaN.
  for (std::int64_t i = 0; empty && i < p.head_dim_v * N; ++i) store(to.o + i * kLanes, zero());
  for (int n = 0; n < N; ++n) {
    store(to.reference + n * kLanes, reference[n]);
    store(to.sum + n * kLanes, sum[n]);
  }
}
