// Attention with materialised scores, the fair way: all of S^T, then all softmaxes, then all of
// O^T, each a pass of blocked products by the micro-kernels of tiles.inl. Tiles compute only keys
// that a row of theirs may see; K and V are not repeated for grouped heads.
//
// Workspace: a block of K or V and Q^T or O^T a worker, then S^T [tile][seq_kv][lanes] and each lane's
// maximum and sum.

constexpr KernelShape kShape{kLanes, kVectors, kStaging};
constexpr std::int64_t kUnfusedKeys = UnfusedLayout::block_keys(kStaging);

struct UnfusedCall {
  const AttentionArgs& args;
  const AttentionProblem& p;
  Scale scale;
  Tiling tiling;
  UnfusedLayout layout;
  unsigned char* workspace;

  unsigned char* staged(int worker) const {
    return workspace + static_cast<std::size_t>(worker) * layout.worker_bytes;
  }
  unsigned char* visible(int worker) const { return staged(worker) + layout.visible_offset; }
  float* scratch(int worker) const { return reinterpret_cast<float*>(staged(worker) + layout.floats_offset); }
  // S^T of a tile, from key 0.
  float* scores(std::int64_t tile) const {
    return reinterpret_cast<float*>(workspace + layout.tiles_offset +
                                    static_cast<std::size_t>(tile) * layout.tile_bytes);
  }
  float* reference(std::int64_t tile) const { return scores(tile) + p.seq_kv * kLanes * kVectors; }
  float* sum(std::int64_t tile) const { return reference(tile) + kLanes * kVectors; }
};

// The block of keys that starts at `begin`.
inline KeyRange unfused_block(std::int64_t begin, const KeyRange& keys) {
  return {begin, begin + kUnfusedKeys < keys.end ? begin + kUnfusedKeys : keys.end};
}

template <int N>
inline void unfused_scores(const UnfusedCall& call, const Tile& tile, std::int64_t index, int worker) {
  const AttentionArgs& args = call.args;
  const AttentionProblem& p = call.p;
  const KeyRange keys = tile_range(Rows(p), tile).any;
  if (keys.empty()) return;
  float* q = call.scratch(worker);
  pack_queries<N>(args, p, tile, call.scale.query, q);
  Float peak[N];
  for (int n = 0; n < N; ++n) peak[n] = zero();  // the softmax finds it anew
  KeyRange block{};
  for (std::int64_t begin = keys.begin; begin < keys.end; begin = block.end) {
    block = unfused_block(begin, keys);
    const Staged from = stage<Element>(args, p, tile.sequence, tile.kv_head, block, call.staged(worker));
    scores<N>(from, begin, block.end - begin, q, p.head_dim, call.scores(index) + begin * kLanes * N, peak);
  }
}

// Scores of a block become what the softmax takes. `peak` is their maximum.
template <int N>
inline void unfused_transform(const UnfusedCall& call, const Tile& tile, const LaneFeatures& lanes,
                              const BlockRange& range, KeyRange block, float* s, Float (&peak)[N]) {
  const AttentionProblem& p = call.p;
  const std::int64_t count = block.end - block.begin;
  const bool ranged = block_kind(range, block.begin, block.end) != BlockKind::full;
  for (int n = 0; n < N; ++n) peak[n] = broadcast(-__builtin_inff());
  for (std::int64_t j = 0; j < count && !ranged; ++j) {
    for (int n = 0; n < N; ++n) peak[n] = maximum(load(s + (j * N + n) * kLanes), peak[n]);
  }
  if (has_score_features(p))
    transform_scores<N>(p, lanes, call.scale, p.mask != MaskKind::none, block.begin, count, s, peak);
  if (!ranged) return;
  LaneRanges ranges;
  lane_ranges(p, tile, kLanes * N, block.begin, count, ranges);
  mask_scores<N>(s, count, ranges.begin, ranges.end, peak);
}

template <int N>
inline void unfused_softmax(const UnfusedCall& call, const Tile& tile, std::int64_t index) {
  const AttentionProblem& p = call.p;
  const BlockRange range = tile_range(Rows(p), tile);
  const KeyRange keys = range.any;
  float* s = call.scores(index);
  const Float minus_infinity = broadcast(-__builtin_inff());
  LaneFeatures lanes;
  find_lane_features(call.args, p, tile, kLanes * N, keys.begin, lanes);
  Float peak[N];
  for (int n = 0; n < N; ++n) peak[n] = minus_infinity;
  KeyRange block{};
  for (std::int64_t begin = keys.begin; begin < keys.end; begin = block.end) {
    block = unfused_block(begin, keys);
    Float block_peak[N];
    unfused_transform<N>(call, tile, lanes, range, block, s + begin * kLanes * N, block_peak);
    for (int n = 0; n < N; ++n) peak[n] = maximum(block_peak[n], peak[n]);
  }
  Float shift[N];
  Float sum[N];
  for (int n = 0; n < N; ++n) {
    store(call.reference(index) + n * kLanes, peak[n]);
    shift[n] = select(equal(peak[n], minus_infinity), zero(), peak[n]);
    sum[n] = zero();
  }
  if (!keys.empty()) {
    float* first = s + keys.begin * kLanes * N;
    exponentials<N>(first, keys.end - keys.begin, broadcast(call.scale.log2), shift, sum);
    if (p.dropout_p != 0) drop_block<N>(call.args, p, lanes, keys.begin, keys.end - keys.begin, first);
  }
  for (int n = 0; n < N; ++n) store(call.sum(index) + n * kLanes, sum[n]);
}

// V of a block as far as the mask shows it to the tile.
template <int N>
inline Staged unfused_visible(const UnfusedCall& call, const Tile& tile, const LaneRows& mask, KeyRange block,
                              const Staged& from, int worker) {
  const AttentionProblem& p = call.p;
  const std::int64_t count = block.end - block.begin;
  LaneRanges ranges;
  Sight sight;
  lane_ranges(p, tile, kLanes * N, block.begin, count, ranges);
  look_at_mask(p, tile, mask, ranges, block.begin, count, sight);
  if (!sight.hides || !hidden_values_matter<Element>(call.args, p, tile, block.begin, count, sight.seen))
    return from;
  return visible_values(from, block.begin, count, sight.seen, p.head_dim_v, call.visible(worker));
}

template <int N>
inline void unfused_values(const UnfusedCall& call, const Tile& tile, std::int64_t index, int worker) {
  const AttentionArgs& args = call.args;
  const AttentionProblem& p = call.p;
  const BlockRange range = tile_range(Rows(p), tile);
  const float* s = call.scores(index);
  float* o = call.scratch(worker);
  float ones[kLanes * N];
  for (float& x : ones) x = 1;
  const float* factor = nullptr;
  LaneRows mask;
  if (p.mask != MaskKind::none) find_lane_rows(args.mask, Rows(p), tile, kLanes * N, mask);
  KeyRange block{};
  for (std::int64_t begin = range.any.begin; begin < range.any.end; begin = block.end) {
    block = unfused_block(begin, range.any);
    Staged from = stage<Element>(args, p, tile.sequence, tile.kv_head, block, call.staged(worker));
    if (p.mask != MaskKind::none) from = unfused_visible<N>(call, tile, mask, block, from, worker);
    values<N>(from, begin, block.end - begin, s + begin * kLanes * N, p.head_dim_v, factor, o);
    factor = ones;
  }
  write_rows<N>(args, p, tile, o, call.scale, call.reference(index), call.sum(index));
}

inline void unfused_scores_task(void* context, std::int64_t index, int worker) {
  const auto& call = *static_cast<const UnfusedCall*>(context);
  const Tile tile = call.tiling.tile(call.args, call.p, index);
  if (tile.rows == 0) return;
  HEADWISE_FOR_WIDTH(vectors_for(tile.rows), unfused_scores, call, tile, index, worker);
}
inline void unfused_softmax_task(void* context, std::int64_t index, int /*worker*/) {
  const auto& call = *static_cast<const UnfusedCall*>(context);
  const Tile tile = call.tiling.tile(call.args, call.p, index);
  if (tile.rows == 0) return;
  HEADWISE_FOR_WIDTH(vectors_for(tile.rows), unfused_softmax, call, tile, index);
}
inline void unfused_values_task(void* context, std::int64_t index, int worker) {
  const auto& call = *static_cast<const UnfusedCall*>(context);
  const Tile tile = call.tiling.tile(call.args, call.p, index);
  if (tile.rows == 0) return;
  HEADWISE_FOR_WIDTH(vectors_for(tile.rows), unfused_values, call, tile, index, worker);
}

inline Status unfused_run(const AttentionArgs& args, const RunContext& context) noexcept {
  const AttentionProblem& p = context.problem;
  UnfusedCall call{args,
                   p,
                   scale_of(p),
                   Tiling(p, kLanes * kVectors),
                   UnfusedLayout(p, kShape, context.threads),
                   static_cast<unsigned char*>(context.workspace.data)};
  const std::int64_t tiles = call.tiling.tiles();
  if (tiles == 0) return {};
  core::parallel_for(tiles, context.threads, unfused_scores_task, &call, context.executor);
  core::parallel_for(tiles, context.threads, unfused_softmax_task, &call, context.executor);
  core::parallel_for(tiles, context.threads, unfused_values_task, &call, context.executor);
  return {};
}
