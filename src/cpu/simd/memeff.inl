// Attention with one running (maximum, sum, output) a row, block by block over all of its keys (Rabe and
// Staats 2021, arXiv:2112.05682): the memory-efficient form. A tile is a task; K and V are read where they
// lie, nothing is split or merged, and a worker needs a tile's queries, scores of a block and outputs.

constexpr KernelShape kShape{kLanes, kVectors, kStaging};
static_assert(!kWidens, "widening K and V would copy them");

struct MemeffCall {
  const AttentionArgs& args;
  const AttentionProblem& p;
  Scale scale;
  Tiling tiling;
  std::int64_t block_kv;
  MemeffLayout layout;
  unsigned char* workspace;
};

template <int N>
inline void memeff_tile(const MemeffCall& call, const Tile& tile, unsigned char* memory) {
  constexpr int kWidth = kLanes * N;
  const AttentionProblem& p = call.p;
  const BlockRange range = tile_range(Rows(p), tile);
  auto* q = reinterpret_cast<float*>(memory + call.layout.floats_offset);
  float* s = q + p.head_dim * kWidth;
  float* factor = s + call.block_kv * kWidth;
  float* o = factor + kWidth;
  const Partial state{o, o + p.head_dim_v * kWidth, o + (p.head_dim_v + 1) * kWidth};
  pack_queries<N>(call.args, p, tile, call.scale.query, q);
  online_softmax<N>(call.args, p, tile, q, call.scale, range, range.any, call.block_kv, nullptr,
                    {s, factor, memory, memory + call.layout.visible_offset}, state);
  write_rows<N>(call.args, p, tile, state.o, call.scale, state.reference, state.sum);
}

inline void memeff_task(void* context, std::int64_t index, int worker) {
  const auto& call = *static_cast<const MemeffCall*>(context);
  const Tile tile = call.tiling.tile(call.args, call.p, index);
  if (tile.rows == 0) return;
  unsigned char* memory = call.workspace + static_cast<std::size_t>(worker) * call.layout.worker_bytes;
  HEADWISE_FOR_WIDTH(vectors_for(tile.rows), memeff_tile, call, tile, memory);
}

inline Status memeff_run(const AttentionArgs& args, const RunContext& context) noexcept {
  const AttentionProblem& p = context.problem;
  MemeffCall call{args,
                  p,
                  scale_of(p),
                  Tiling(p, kShape.width()),
                  context.policy.block_kv,
                  MemeffLayout(p, context.policy, kShape),
                  static_cast<unsigned char*>(context.workspace.data)};
  core::parallel_for(call.tiling.tiles(), context.threads, memeff_task, &call, context.executor);
  return {};
}
