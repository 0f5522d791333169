// Flash attention (Dao et al. 2022, arXiv:2205.14135) on transposed scores. The skeleton that every
// instruction set shares:
//
//   task = super-block of query tiles of one (batch, kv head); or, where a head is one tile, of several heads
//     chunk of kFlashChunk keys, from the sequence's first key       the K and V of a chunk stay in L2
//       tile of kLanes * kVectors rows
//         block of policy.block_kv keys in the tile's range          online_softmax.inl
//       tiles of at most kFewRows rows, of neighbouring heads         few_rows.inl
//     combine: chunk partials merge in ascending order
//
// A chunk's partial (reference, sum, O^T) is the same whoever computes it, and merging always runs
// in ascending order, so the bits depend neither on threads nor on the batch, also where few tiles
// make it worth handing out single chunks (decoding).

constexpr std::int64_t kFlashChunk = 512;
constexpr KernelShape kShape{kLanes, kVectors, kStaging, kFewRows};

// `to` takes in `from`, whose keys come later. Lanes that `from` has nothing for keep their bits.
template <int N>
inline void merge(std::int64_t head_dim_v, Scale scale, const Partial& from, const Partial& to) {
  constexpr int kWidth = kLanes * N;
  for (int n = 0; n < N; ++n) {
    const std::int64_t at = n * kLanes;
    const Shares shares = merge_sums(scale, from, to, at);
    for (std::int64_t d = 0; d < head_dim_v; ++d) {
      float* cell = to.o + d * kWidth + at;
      const Float o = load(cell);
      store(cell, select(shares.nothing, o,
                         fma(load(from.o + d * kWidth + at), shares.take, multiply(o, shares.keep))));
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
  // Of a tile of few rows.
  Partial few_partial_at(float* base) const {
    const std::int64_t o = kShape.few_rows * widened_columns(p.head_dim_v);
    return {base, base + o, base + o + kLanes};
  }
  Partial split_partial(std::int64_t tile, std::int64_t chunk, bool few, int lanes) const {
    auto* base =
        reinterpret_cast<float*>(workspace + layout.partials_offset +
                                 static_cast<std::size_t>(tile * chunks + chunk) * layout.partial_bytes);
    return few ? few_partial_at(base) : partial_at(base, lanes);
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
  float* factor = s + kShape.score_rows(call.block_kv) * kLanes * N;
  const Partial fresh = merge_into ? call.partial_at(factor + kLanes * N, kLanes * N) : to;
  online_softmax<N>(call.args, call.p, tile, q, call.scale, range, keys, call.block_kv, ready,
                    {s, factor, call.staged(worker), call.visible(worker)}, fresh);
  if (merge_into) merge<N>(call.p.head_dim_v, call.scale, fresh, to);
}

// Decided by rows and visible keys of the tile's own sequence, so that it has the bits it has alone. A short
// sequence that attends to itself (causal, its first tokens) sees no more keys than it may have rows: so its
// bits stay those of the same tokens in a longer one.
inline bool has_few_rows(const FlashCall& call, const Tile& tile, const BlockRange& range) {
  return tile.sequence.seq_q * Rows(call.p).group <= kFewRows && range.any.end - range.any.begin > kFewRows;
}

// A tile of a task.
struct TaskTile {
  Tile tile;
  BlockRange range;
  int vectors;
  bool few;
  float* q;
  Partial state;
  bool started;
};

// Packs the queries of a tile at `free`, and its empty state behind them; returns what is behind both.
inline float* begin_tile(const FlashCall& call, TaskTile& m, float* free) {
  const AttentionProblem& p = call.p;
  m.q = free;
  m.started = false;
  m.few = has_few_rows(call, m.tile, m.range);
  if (m.few) {
    m.state = call.few_partial_at(free + kShape.few_query_floats(p));
    pack_few_queries(call.args, p, m.tile, call.scale.query, m.q);
    clear(m.state, kLanes);
    return free + kShape.few_query_floats(p) + kShape.few_partial_floats(p);
  }
  const int lanes = m.vectors * kLanes;
  const std::int64_t q_floats = kShape.query_rows(p) * lanes;
  m.state = call.partial_at(free + q_floats, lanes);
  HEADWISE_FOR_WIDTH(m.vectors, pack_queries, call.args, p, m.tile, call.scale.query, m.q);
  clear(m.state, lanes);
  return free + q_floats + (kShape.output_rows(p) + 2) * lanes;
}

// Tiles from `first` on, up to `last`, that few_rows_chunk takes together.
inline int few_together(const TaskTile* first, const TaskTile* last) {
  const TaskTile* m = first + 1;
  while (m < last && m->few && m->tile.batch == first->tile.batch &&
         m->tile.kv_head == first->tile.kv_head + (m - first))
    ++m;
  return static_cast<int>(m - first);
}

inline void few_tiles_chunk(const FlashCall& call, TaskTile* first, int count, KeyRange keys, int worker) {
  float* s = call.scratch(worker);
  float* free = s + FlashLayout::kHeadsPerTask * kFewRows * kFewBlock;
  FewRows rows[FlashLayout::kHeadsPerTask];
  for (int i = 0; i < count; ++i) {
    rows[i] = {first[i].tile, first[i].q, first[i].started ? call.few_partial_at(free) : first[i].state};
    free += kShape.few_partial_floats(call.p);
  }
  few_rows_chunk(call.args, call.p, call.scale, first->range, keys, first->range.any.end, rows, count, s);
  for (int i = 0; i < count; ++i) {
    if (first[i].started)
      merge_few_rows(call.p.head_dim_v, first[i].tile.rows, call.scale, rows[i].to, first[i].state);
    first[i].started = true;
  }
}

inline void write_tile(const FlashCall& call, const Tile& tile, bool few, int vectors, const Partial& from) {
  if (few) {
    write_few_rows(call.args, call.p, tile, call.scale, from);
  } else {
    HEADWISE_FOR_WIDTH(vectors, write_rows, call.args, call.p, tile, from.o, call.scale, from.reference,
                       from.sum);
  }
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
  TaskTile member[FlashLayout::kTilesPerTask];
  float* free = call.scratch(worker) + call.layout.block_floats;
  KeyRange all{INT64_MAX, 0};
  int count = 0;
  for (std::int64_t i = first; i < last; ++i) {
    auto& m = member[count];
    m.tile = call.tiling.tile(call.args, call.p, one_head ? i * heads + index % heads : i);
    m.range = tile_range(Rows(call.p), m.tile);
    m.vectors = vectors_for(m.tile.rows);
    if (m.vectors == 0) continue;
    ++count;
    free = begin_tile(call, m, free);
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
    int together = 1;
    for (int i = 0; i < count; i += together) {
      auto& m = member[i];
      const KeyRange keys = keys_of_chunk(m.tile, m.range.any, chunk);
      together = m.few ? few_together(&m, member + count) : 1;
      if (keys.empty()) continue;
      if (m.few) {
        few_tiles_chunk(call, &m, together, keys, worker);
        continue;
      }
      HEADWISE_FOR_WIDTH(m.vectors, flash_tile_chunk, call, m.tile, m.q, m.range, keys,
                         share ? &shared : nullptr, worker, m.state, m.started);
      m.started = true;
    }
  }
  for (int i = 0; i < count; ++i)
    write_tile(call, member[i].tile, member[i].few, member[i].vectors, member[i].state);
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
  const bool few = has_few_rows(call, tile, range);
  const Partial to = call.split_partial(tile_index, chunk, few, vectors * kLanes);
  clear(to, few ? kLanes : vectors * kLanes);
  if (keys.empty()) return;
  if (few) {
    const FewRows member{tile, q, to};
    pack_few_queries(call.args, call.p, tile, call.scale.query, q);
    few_rows_chunk(call.args, call.p, call.scale, range, keys, keys.end, &member, 1, call.scratch(worker));
    return;
  }
  HEADWISE_FOR_WIDTH(vectors, pack_queries, call.args, call.p, tile, call.scale.query, q);
  HEADWISE_FOR_WIDTH(vectors, flash_tile_chunk, call, tile, q, range, keys, nullptr, worker, to, false);
}

inline void flash_combine_task(void* context, std::int64_t index, int /*worker*/) {
  const auto& call = *static_cast<const FlashCall*>(context);
  const Tile tile = call.tiling.tile(call.args, call.p, index);
  const BlockRange range = tile_range(Rows(call.p), tile);
  const int vectors = vectors_for(tile.rows);
  if (vectors == 0) return;
  [[maybe_unused]] const ProductScope scope;  // subnormals as in a call that is not split
  const bool few = has_few_rows(call, tile, range);
  const std::int64_t origin = tile.band.keys.begin;
  const std::int64_t first = range.any.empty() ? 0 : (range.any.begin - origin) / kFlashChunk;
  const Partial to = call.split_partial(index, first, few, vectors * kLanes);
  for (std::int64_t chunk = first + 1; chunk * kFlashChunk < range.any.end - origin; ++chunk) {
    const Partial from = call.split_partial(index, chunk, few, vectors * kLanes);
    if (few) {
      merge_few_rows(call.p.head_dim_v, tile.rows, call.scale, from, to);
    } else {
      HEADWISE_FOR_WIDTH(vectors, merge, call.p.head_dim_v, call.scale, from, to);
    }
  }
  write_tile(call, tile, few, vectors, to);
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

inline Status run_call(FlashCall& call, const RunContext& context) noexcept {
  const std::int64_t tiles = call.tiling.tiles();
  if (tiles == 0) return {};
  if (call.layout.split(tiles, call.chunks)) {
    core::parallel_for(tiles * call.chunks, context.threads, flash_split_task, &call, context.executor);
    core::parallel_for(tiles, context.threads, flash_combine_task, &call, context.executor);
    return {};
  }
  const std::int64_t tasks = call.tiling.tasks(call.tiles_per_task);
  core::parallel_for(tasks, context.threads, flash_task, &call, context.executor);
  return {};
}

inline Status flash_run(const AttentionArgs& args, const RunContext& context) noexcept {
  FlashCall call = flash_call(args, context);
  return run_call(call, context);
}
