// Prefill with V transposed once for all tasks of its head, beforehand: a task of 256 rows would spend a
// sixth of its time on it.

// A chunk of V^T, of one (sequence, kv head), stands at `packed + index * chunk_bytes`.
inline bfloat16* packed_chunk(const FlashCall& call, std::int64_t head, std::int64_t chunk) {
  return reinterpret_cast<bfloat16*>(call.workspace + call.layout.packed_offset +
                                     static_cast<std::size_t>(head * call.chunks + chunk) *
                                         call.layout.packed_bytes);
}

// Of a chunk, the keys that some query of the sequence may see.
inline KeyRange packed_keys(const AttentionProblem& p, const Sequence& sequence, std::int64_t chunk) {
  const Band band = band_of(p, sequence);
  if (sequence.seq_q == 0) return {};
  const KeyRange seen = block_range(band, 0, sequence.seq_q - 1).any;
  const std::int64_t first = band.keys.begin + chunk * kFlashChunk;
  return intersect(seen, {first, first + kFlashChunk});
}

inline void pack_task(void* context, std::int64_t index, int /*worker*/) {
  const auto& call = *static_cast<const FlashCall*>(context);
  const std::int64_t head = index / call.chunks;
  const std::int64_t chunk = index % call.chunks;
  const Sequence sequence = sequence_of(call.args, call.p, head / call.p.kv_heads);
  const KeyRange keys = packed_keys(call.p, sequence, chunk);
  if (keys.empty()) return;
  transpose_values(call.args.v, call.p, sequence, head % call.p.kv_heads, keys,
                   packed_chunk(call, head, chunk), call.layout.packed_stride);
}

inline Staged share_packed(const FlashCall& call, const Tile& tile, KeyRange keys, int worker) {
  const std::int64_t chunk = (keys.begin - tile.band.keys.begin) / kFlashChunk;
  const KeyRange packed = packed_keys(call.p, tile.sequence, chunk);
  const bfloat16* values =
      packed_chunk(call, tile.batch * call.p.kv_heads + tile.kv_head, chunk) + (keys.begin - packed.begin);
  return stage_beside<Element>(values, call.layout.packed_stride, call.args, call.p, tile.sequence,
                               tile.kv_head, keys, reinterpret_cast<bfloat16*>(call.staged(worker)), true);
}

inline Status run_packed(const AttentionArgs& args, const RunContext& context) noexcept {
  FlashCall call = flash_call(args, context);
  const bool several_tasks = call.tiling.tiles_per_head > call.tiles_per_task;
  if (several_tasks && !call.layout.split(call.tiling.tiles(), call.chunks)) {
    call.share = share_packed;
    core::parallel_for(call.tiling.heads * call.chunks, context.threads, pack_task, &call, context.executor);
  }
  return run_call(call, context);
}
