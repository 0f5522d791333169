// The online softmax of one tile over a range of keys (see simd/online_softmax.inl), for matrix tiles: strips
// of 64 keys, whose weights wait for V until a block of them is together.
//
// The reference of a lane is the maximum of its scores when it first sees a key. Later strips need no
// maximum: their weights may pass 1, until a strip's sum in some lane passes 2^9, so that no weight does.
// Then that lane, and no other, takes its maximum for reference, and the strip is weighed anew. So a strip is
// read once, and the matrix unit, which falls asleep after some 1,000 cycles without work, never waits longer
// than 64 keys take.

constexpr std::int64_t kStrip = kTileStrip;

template <int N>
struct TileSoftmax {
  static constexpr int kWidth = kLanes * N;

  const AttentionProblem& p;
  const BlockScratch& scratch;
  const Partial& to;
  Float by;
  float* weights;
  Float reference[N];
  Float sum[N];
  bool empty = true;  // no values so far
  // The strips whose weights wait.
  Staged waiting{};
  std::int64_t waiting_begin = 0;
  std::int64_t waiting_keys = 0;

  TileSoftmax(const AttentionProblem& problem, const Tile& tile, Scale scale, const BlockScratch& memory,
              const Partial& partial)
      : p(problem),
        scratch(memory),
        to(partial),
        by(broadcast(scale.log2)),
        weights(memory.s + kStrip * kWidth) {
    const Int rows = broadcast_int(static_cast<std::int32_t>(tile.rows));
    for (int n = 0; n < N; ++n) {
      const Int lane = add(lane_numbers(), broadcast_int(n * kLanes));
      // Padding lanes wait for nothing.
      reference[n] = select(within(broadcast_int(0), lane, rows), broadcast(-__builtin_inff()), zero());
      sum[n] = zero();
    }
  }

  void multiply_values() {
    if (waiting_keys == 0) return;
    values<N>(waiting, waiting_begin, waiting_keys, weights, p.head_dim_v, empty, to.o);
    empty = false;
    waiting_keys = 0;
  }

  // Where the weights of the strip at `begin` go, behind those that wait.
  float* weights_at(std::int64_t begin) const {
    return weights + (waiting_keys == 0 ? 0 : begin - waiting_begin) / 2 * kParts * kWidth;
  }

  bool unseen() const {
    bool some = false;
    for (int n = 0; n < N; ++n) some = some || any(equal(reference[n], broadcast(-__builtin_inff())));
    return some;
  }

  // Of the scores of a vector of lanes; a latency of 4 hides behind four maxima.
  static Float largest(const float* s, std::int64_t keys, Float before) {
    Float peak[4] = {before, before, before, before};
    std::int64_t j = 0;
    for (; j + 4 <= keys; j += 4) {
      for (int i = 0; i < 4; ++i) peak[i] = maximum(load(s + (j + i) * kWidth), peak[i]);
    }
    for (; j < keys; ++j) peak[0] = maximum(load(s + j * kWidth), peak[0]);
    return maximum(maximum(peak[0], peak[1]), maximum(peak[2], peak[3]));
  }

  // Lanes of `which` take the largest of their scores for reference, if it is larger, and `rows` rows of O^T
  // with them.
  [[gnu::noinline]] void raise(const float* s, std::int64_t keys, const Mask (&which)[N], std::int64_t rows) {
    const Float minus_infinity = broadcast(-__builtin_inff());
    for (int n = 0; n < N; ++n) {
      const Float peak = largest(s + n * kLanes, keys, reference[n]);
      const Float next = select(which[n], peak, reference[n]);
      const Mask same = equal(next, reference[n]);
      const Float shift = select(equal(next, minus_infinity), zero(), next);
      const Float keep =
          select(same, broadcast(1.0F), exp2_nonpositive(multiply(subtract(reference[n], shift), by)));
      sum[n] = multiply(sum[n], keep);
      reference[n] = next;
      for (std::int64_t d = 0; d < rows; ++d) {
        float* cell = to.o + d * kWidth + n * kLanes;
        store(cell, multiply(load(cell), keep));
      }
    }
  }

  // Lanes without a reference get one.
  void find_references(const float* s, std::int64_t keys) {
    Mask none[N];
    for (int n = 0; n < N; ++n) none[n] = equal(reference[n], broadcast(-__builtin_inff()));
    raise(s, keys, none, 0);  // their O^T, and the weights that wait, are 0
  }

  void weigh_strip(const float* s, std::int64_t keys, float* at, Float (&added)[N]) const {
    const Exponents<N> e(reference, by);
    for (int n = 0; n < N; ++n) added[n] = zero();
    if (e.any_far) {
      weigh<N, true>(s, keys, e, added, at);
    } else {
      weigh<N, false>(s, keys, e, added, at);
    }
  }

  // The strip's weights, behind those that wait.
  void add_strip(const Staged& from, const float* s, std::int64_t begin, std::int64_t keys) {
    if (unseen()) find_references(s, keys);
    Float added[N];
    weigh_strip(s, keys, weights_at(begin), added);
    Mask beyond[N];
    bool some = false;
    for (int n = 0; n < N; ++n) {
      beyond[n] = below(broadcast(0x1p9F), added[n]);
      some = some || any(beyond[n]);
    }
    if (some) {
      multiply_values();
      raise(s, keys, beyond, empty ? 0 : tile_rows(p.head_dim_v));
      weigh_strip(s, keys, weights, added);
    }
    for (int n = 0; n < N; ++n) sum[n] = add(sum[n], added[n]);
    if (waiting_keys == 0) {
      waiting = from;
      waiting_begin = begin;
    }
    waiting_keys = begin + keys - waiting_begin;
  }

  void finish() {
    multiply_values();
    // The mask hid every strip: a merge multiplies by 0 what stands here, which may be NaN.
    for (std::int64_t i = 0; empty && i < p.head_dim_v * N; ++i) store(to.o + i * kLanes, zero());
    for (int n = 0; n < N; ++n) {
      store(to.reference + n * kLanes, reference[n]);
      store(to.sum + n * kLanes, sum[n]);
    }
  }
};

// Partial of a tile over `keys`, in strips and blocks cut at multiples of kStrip and block_kv from the
// sequence's first key. Overwrites `to`. `ready`: the keys staged already, for several tiles; null: each
// block is staged here, while it is in the caches.
template <int N>
inline void online_softmax(const AttentionArgs& args, const AttentionProblem& p, const Tile& tile,
                           const float* q, Scale scale, const BlockRange& range, KeyRange keys,
                           std::int64_t block_kv, const Staged* ready, const BlockScratch& scratch,
                           Partial to) {
  TileSoftmax<N> softmax(p, tile, scale, scratch, to);
  const bool featured = has_score_features(p);
  const bool masked = p.mask != MaskKind::none;
  LaneFeatures lanes;
  if (featured) find_lane_features(args, p, tile, kLanes * N, keys.begin, lanes);
  Sight sight;
  LaneRanges ranges;
  Float peak[N];
  const std::int64_t origin = tile.band.keys.begin;
  float* s = scratch.s;
  std::int64_t block_end = keys.begin;
  Staged staged{};
  if (ready != nullptr) staged = *ready;
  std::int64_t end = 0;
  for (std::int64_t begin = keys.begin; begin < keys.end; begin = end) {
    if (begin >= block_end) {
      softmax.multiply_values();
      block_end = origin + ((begin - origin) / block_kv + 1) * block_kv;
      if (block_end > keys.end) block_end = keys.end;
      if (ready == nullptr) {
        staged = stage<Element>(args, p, tile.sequence, tile.kv_head, {begin, block_end}, scratch.staged);
      }
    }
    end = origin + ((begin - origin) / kStrip + 1) * kStrip;
    if (end > keys.end) end = keys.end;
    const std::int64_t count = end - begin;
    const bool ranged = block_kind(range, begin, end) != BlockKind::full;
    if (ranged || masked) lane_ranges(p, tile, kLanes * N, begin, count, ranges);
    if (masked) {
      look_at_mask(p, tile, lanes.mask, ranges, begin, count, sight);
      if (!sight.any) {
        softmax.multiply_values();
        continue;
      }
    }
    scores<N>(staged, begin, count, q, p.head_dim, s);
    Staged from = staged;
    bool own = false;
    if (featured) {
      transform_scores<N>(p, lanes, scale, masked && !sight.all, begin, count, s, peak);
      own = masked && sight.hides && hidden_values_matter<Element>(args, p, tile, begin, count, sight.seen);
    }
    if (own) {
      softmax.multiply_values();
      from = visible_values(from, begin, count, sight.seen, p.head_dim_v, scratch.visible);
    }
    if (ranged) mask_scores<N>(s, count, ranges.begin, ranges.end, peak);
    softmax.add_strip(from, s, begin, count);
    if (p.dropout_p != 0) {
      drop_block<N>(args, p, lanes, begin, count,
                    softmax.weights + (begin - softmax.waiting_begin) / 2 * kParts * kLanes * N);
    }
    if (own || count % kStep != 0) softmax.multiply_values();
  }
  softmax.finish();
}
