// cpu/amx/flash/f16: flash attention in f16 on AMX: elements and weights as sums of two bf16 numbers in
// matrix tiles, three products for one; the softmax in f32 on AVX-512.
#include <immintrin.h>

#include <cstdint>

#include "attention/dropout.h"
#include "attention/kernel.h"
#include "core/parallel_for.h"
#include "cpu/amx/tile.h"
#include "cpu/flash_layout.h"
#include "cpu/kernels.h"
#include "cpu/schedule.h"
#include "cpu/target_region.h"

HEADWISE_IMMINTRIN_BEGIN
HEADWISE_TARGET_BEGIN(HEADWISE_AVX512)
namespace headwise::cpu::amx {
namespace {
using Element = float16;
// Row by row 8 rows take 0.75 to 0.9 of the time of a tile, 16 take 1.3 to 1.6.
constexpr int kFewRows = 8;
// clang-format off: each .inl uses what stands above it.
#include "cpu/avx512/vector.inl"
#include "cpu/amx/f16_parts.inl"
#include "cpu/amx/tiles.inl"
#include "cpu/simd/mask_scores.inl"
#include "cpu/simd/tile_rows.inl"
#include "cpu/amx/pack_queries.inl"
#include "cpu/simd/score_features.inl"
#include "cpu/simd/dropout.inl"
#include "cpu/simd/partial.inl"
#include "cpu/amx/weights.inl"
#include "cpu/amx/online_softmax.inl"
#include "cpu/simd/row_features.inl"
#include "cpu/simd/few_rows.inl"
#include "cpu/simd/flash.inl"
#include "cpu/amx/packed_values.inl"
// clang-format on
}  // namespace
}  // namespace headwise::cpu::amx
HEADWISE_TARGET_END
HEADWISE_IMMINTRIN_END

namespace headwise::cpu {
namespace {

constexpr Traits kTraits{.algorithm = "flash",
                         .isa = "amx",
                         .dtype = DType::f16,
                         .kv_dtype = DType::f16,
                         .kv_chunk = amx::kFlashChunk};
// block_kv 128: the weights' two parts (16 KB) and a strip of scores (8 KB) stay in an L1 of 48 KB.
constexpr Policy kPolicies[] = {{"q512_kv128", 512, 128}, {"q256_kv128", 256, 128}, {"q512_kv256", 512, 256}};

std::size_t workspace_bytes(const AttentionProblem& p, const Policy& policy) {
  return FlashLayout(p, policy, amx::kShape, amx::kFlashChunk, p.threads).bytes;
}

// Against avx512/flash/f16 at head_dim 64: 24 keys took 1.05 to 1.5 of its time, 32 keys 0.7 (256 rows)
// to 1.1 (16), 48 keys 0.8 to 1.25, 64 keys 0.5 to 0.9.
std::string_view yields(const AttentionProblem& p) {
  if (p.seq_kv < 32) return "tiles multiply 32 keys at a time, and there are fewer";
  if (p.seq_kv < 64 && Rows(p).count <= amx::kLanes)
    return "K and V in two parts take longer than few rows save";
  return "";
}

}  // namespace

const Kernel kAmxFlashF16{"cpu/amx/flash/f16", kTraits,         kEveryFeature, kPolicies,
                          workspace_bytes,     amx::run_packed, yields};

}  // namespace headwise::cpu
