// Flash attention (Dao et al. 2022, arXiv:2205.14135) on transposed scores. The skeleton that every
// instruction set shares:
//
//   task = super-block of query tiles of one (batch, kv head); or, where a head is one tile, of several heads
//     chunk of kFlashChunk keys, from the sequence's first key       the K and V of a chunk stay in L2
//       tile of kLanes * kVectors rows
//         block of policy.block_kv keys in the tile's range          online_softmax.inl
//     combine: chunk partials merge in ascending order
//
// A chunk's partial (reference, sum, O^T) is the same whoever computes it, and merging always runs
// in ascending order, so the bits depend neither on threads nor on the batch, also where few tiles
// make it worth handing out single chunks (decoding).

constexpr std::int64_t kFlashChunk = 512;
constexpr KernelShape kShape{kLanes, kVectors, kStaging};

// `to` takes in `from`, whose keys come later. Lanes that `from` has nothing for keep their bits.
template <int N>
inline void merge(std::int64_t head_dim_v, Scale scale, const Partial& from, const Partial& to) {
  constexpr int kWidth = kLanes * N;
  const Float by = broadcast(scale.log2);
  const Float minus_infinity = broadcast(-__builtin_inff());
  for (int n = 0; n < N; ++n) {
    const std::int64_t at = n * kLanes;
    const Float a = load(to.reference + at);
    const Float b = load(from.reference + at);
    const Float added = load(from.sum + at);
    const Mask nothing = equal(added, zero());
    const Float next = maximum(b, a);
    const Float shift = select(equal(next, minus_infinity), zero(), next);
    const Float keep = exp2_nonpositive(multiply(subtract(a, shift), by));
    const Float take = exp2_nonpositive(multiply(subtract(b, shift), by));
    store(to.reference + at, next);
    const Float sum = load(to.sum + at);
    store(to.sum + at, select(nothing, sum, fma(added, take, multiply(sum, keep))));
    for (std::int64_t d = 0; d < head_dim_v; ++d) {
      float* cell = to.o + d * kWidth + at;
      const Float o = load(cell);
      store(cell, select(nothing, o, fma(load(from.o + d * kWidth + at), take, multiply(o, keep))));
    }
  }
}

struct FlashCall;
// K and V of keys for all tiles of a task, that of `tile` among them.
inline Staged share_staged(const FlashCall& call, const Tile& tile, KeyRange keys, int worker);

struct FlashCall {
  const AttentionArgs& args;
  const AttentionProblem& p;
  Scale scale;
  Tiling tiling;
  FlashLayout layout;
  std::int64_t block_kv;
  std::int64_t tiles_per_task;
  std::int64_t chunks;
  unsigned char* workspace;
  Staged (*share)(const FlashCall&, const Tile&, KeyRange, int) = share_staged;

  unsigned char* staged(int worker) const {
    return workspace + static_cast<std::size_t>(worker) * layout.worker_bytes;
  }
  unsigned char* visible(int worker) const { return staged(worker) + layout.visible_offset; }
  float* scratch(int worker) const { return reinterpret_cast<float*>(staged(worker) + layout.floats_offset); }
  Partial partial_at(float* base, int lanes) const {
    const std::int64_t o = kShape.output_rows(p) * lanes;
    return {base, base + o, base + o + lanes};
  }
  float* split_partial(std::int64_t tile, std::int64_t chunk) const {
    return reinterpret_cast<float*>(workspace + layout.partials_offset +
                                    static_cast<std::size_t>(tile * chunks + chunk) * layout.partial_bytes);
  }
};

inline Staged share_staged(const FlashCall& call, const Tile& tile, KeyRange keys, int worker) {
  return stage<Element, true>(call.args, call.p, tile.sequence, tile.kv_head, keys, call.staged(worker));
}

// Marks a partial that holds nothing yet.
inline void clear(const Partial& partial, int lanes) {
  for (int i = 0; i < lanes; ++i) {
    partial.reference[i] = -__builtin_inff();
    partial.sum[i] = 0;
  }
}

// Keys of a chunk, counted from the sequence's first key, that some row of a tile may see.
inline KeyRange keys_of_chunk(const Tile& tile, KeyRange seen, std::int64_t chunk) {
  const std::int64_t first = tile.band.keys.begin + chunk * kFlashChunk;
  return intersect(seen, {first, first + kFlashChunk});
}

template <int N>
inline void flash_tile_chunk(const FlashCall& call, const Tile& tile, const float* q, const BlockRange& range,
                             KeyRange keys, const Staged* ready, int worker, const Partial& to,
                             bool merge_into) {
  float* s = call.scratch(worker);
  float* factor = s + call.block_kv * kLanes * N;
  const Partial fresh = merge_into ? call.partial_at(factor + kLanes * N, kLanes * N) : to;
  online_softmax<N>(call.args, call.p, tile, q, call.scale, range, keys, call.block_kv, ready,
                    {s, factor, call.staged(worker), call.visible(worker)}, fresh);
  if (merge_into) merge<N>(call.p.head_dim_v, call.scale, fresh, to);
}

// One task: a super-block of tiles, all chunks. Tiles of one head share what is staged. Tiles of neighbouring
// heads (decoding) share pages: a token's heads lie side by side, and one head after the other would walk
// through all pages of K and V for each (4,096 tokens of 8 heads of 128 are 8,192 pages, twice what a TLB
// holds).
inline void flash_task(void* context, std::int64_t index, int worker) {
  const auto& call = *static_cast<const FlashCall*>(context);
  const bool one_head = call.tiling.tiles_per_head > 1;
  const std::int64_t heads = call.tiling.heads;
  const std::int64_t first = (one_head ? index / heads : index) * call.tiles_per_task;
  const std::int64_t behind = one_head ? call.tiling.tiles_per_head : heads;
  const std::int64_t last = first + call.tiles_per_task < behind ? first + call.tiles_per_task : behind;

  [[maybe_unused]] const ProductScope scope;
  constexpr int kMost = FlashLayout::kTilesPerTask;
  struct {
    Tile tile;
    BlockRange range;
    int vectors;
    float* q;
    Partial state;
    bool started;
  } member[kMost];
  float* free = call.scratch(worker) + call.layout.block_floats;
  KeyRange all{INT64_MAX, 0};
  const int count = static_cast<int>(last - first);
  for (int i = 0; i < count; ++i) {
    auto& m = member[i];
    m.tile = call.tiling.tile(call.args, call.p, one_head ? (first + i) * heads + index % heads : first + i);
    m.range = tile_range(Rows(call.p), m.tile);
    m.vectors = vectors_for(m.tile.rows);
    if (m.vectors == 0) continue;
    const int lanes = m.vectors * kLanes;
    m.q = free;
    const std::int64_t q_rows = kShape.query_rows(call.p);
    m.state = call.partial_at(free + q_rows * lanes, lanes);
    free += (q_rows + kShape.output_rows(call.p) + 2) * lanes;
    m.started = false;
    HEADWISE_FOR_WIDTH(m.vectors, pack_queries, call.args, call.p, m.tile, call.scale.query, m.q);
    clear(m.state, lanes);
    if (m.range.any.empty()) continue;
    const std::int64_t origin = m.tile.band.keys.begin;
    if (m.range.any.begin - origin < all.begin) all.begin = m.range.any.begin - origin;
    if (m.range.any.end - origin > all.end) all.end = m.range.any.end - origin;
  }
  for (std::int64_t chunk = all.begin / kFlashChunk; chunk * kFlashChunk < all.end; ++chunk) {
    Staged shared{};
    const bool share = one_head && ((count > 1 && call.layout.shares) || call.share != share_staged);
    if (share) {
      const Tile& tile = member[0].tile;
      const std::int64_t origin = tile.band.keys.begin;
      const KeyRange keys = keys_of_chunk(tile, {origin + all.begin, origin + all.end}, chunk);
      shared = call.share(call, tile, keys, worker);
    }
    for (int i = 0; i < count; ++i) {
      auto& m = member[i];
      const KeyRange keys = keys_of_chunk(m.tile, m.range.any, chunk);
      if (m.vectors == 0 || keys.empty()) continue;
      HEADWISE_FOR_WIDTH(m.vectors, flash_tile_chunk, call, m.tile, m.q, m.range, keys,
                         share ? &shared : nullptr, worker, m.state, m.started);
      m.started = true;
    }
  }
  for (int i = 0; i < count; ++i) {
    auto& m = member[i];
    if (m.vectors == 0) continue;
    HEADWISE_FOR_WIDTH(m.vectors, write_rows, call.args, call.p, m.tile, m.state.o, call.scale,
                       m.state.reference, m.state.sum);
  }
}

// One task of a split call: one chunk of one tile, into its own partial.
inline void flash_split_task(void* context, std::int64_t index, int worker) {
  const auto& call = *static_cast<const FlashCall*>(context);
  const std::int64_t tiles = call.tiling.tiles();
  const std::int64_t tile_index = index % tiles;
  const std::int64_t chunk = index / tiles;
  const Tile tile = call.tiling.tile(call.args, call.p, tile_index);
  const BlockRange range = tile_range(Rows(call.p), tile);
  const KeyRange keys = keys_of_chunk(tile, range.any, chunk);
  const int vectors = vectors_for(tile.rows);
  if (vectors == 0) return;
  [[maybe_unused]] const ProductScope scope;
  float* q = call.scratch(worker) + call.layout.block_floats;
  const Partial to = call.partial_at(call.split_partial(tile_index, chunk), vectors * kLanes);
  clear(to, vectors * kLanes);
  if (keys.empty()) return;
  HEADWISE_FOR_WIDTH(vectors, pack_queries, call.args, call.p, tile, call.scale.query, q);
  HEADWISE_FOR_WIDTH(vectors, flash_tile_chunk, call, tile, q, range, keys, nullptr, worker, to, false);
}

inline void flash_combine_task(void* context, std::int64_t index, int /*worker*/) {
  const auto& call = *static_cast<const FlashCall*>(context);
  const Tile tile = call.tiling.tile(call.args, call.p, index);
  const BlockRange range = tile_range(Rows(call.p), tile);
  const int vectors = vectors_for(tile.rows);
  if (vectors == 0) return;
  const int lanes = vectors * kLanes;
  const std::int64_t origin = tile.band.keys.begin;
  const std::int64_t first = range.any.empty() ? 0 : (range.any.begin - origin) / kFlashChunk;
  const Partial to = call.partial_at(call.split_partial(index, first), lanes);
  for (std::int64_t chunk = first + 1; chunk * kFlashChunk < range.any.end - origin; ++chunk) {
    const Partial from = call.partial_at(call.split_partial(index, chunk), lanes);
    HEADWISE_FOR_WIDTH(vectors, merge, call.p.head_dim_v, call.scale, from, to);
  }
  HEADWISE_FOR_WIDTH(vectors, write_rows, call.args, call.p, tile, to.o, call.scale, to.reference, to.sum);
}

inline FlashCall flash_call(const AttentionArgs& args, const RunContext& context) {
  const AttentionProblem& p = context.problem;
  FlashCall call{args,
                 p,
                 scale_of(p),
                 Tiling(p, kLanes * kVectors),
                 FlashLayout(p, context.policy, kShape, kFlashChunk, context.threads),
                 context.policy.block_kv,
                 1,
                 (p.seq_kv + kFlashChunk - 1) / kFlashChunk,
                 static_cast<unsigned char*>(context.workspace.data)};
  call.tiles_per_task = call.layout.tiles_per_task(call.tiling, context.threads);
  return call;
}

inline void run_tasks(FlashCall& call, const RunContext& context) {
  const std::int64_t tasks = call.tiling.tasks(call.tiles_per_task);
  core::parallel_for(tasks, context.threads, flash_task, &call, context.executor);
}

// Few tiles: a chunk of one is a task.
inline void run_split(FlashCall& call, const RunContext& context) {
  const std::int64_t tiles = call.tiling.tiles();
  core::parallel_for(tiles * call.chunks, context.threads, flash_split_task, &call, context.executor);
  core::parallel_for(tiles, context.threads, flash_combine_task, &call, context.executor);
}

inline Status flash_run(const AttentionArgs& args, const RunContext& context) noexcept {
  FlashCall call = flash_call(args, context);
  const std::int64_t tiles = call.tiling.tiles();
  if (tiles == 0) return {};
  if (call.layout.split(tiles, call.chunks)) {
    run_split(call, context);
  } else {
    run_tasks(call, context);
  }
  return {};
}
