// cpu/amx/flash/bf16: flash attention in bf16 matrix tiles (AMX), the softmax in f32 on AVX-512.
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
using Element = bfloat16;
// Row by row 4 rows take 0.8 of the time of a tile, 8 take 1.4.
constexpr int kFewRows = 4;
// clang-format off: each .inl uses what stands above it.
#include "cpu/avx512/vector.inl"
#include "cpu/amx/bf16_parts.inl"
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
                         .dtype = DType::bf16,
                         .kv_dtype = DType::bf16,
                         .kv_chunk = amx::kFlashChunk};
// 16 tiles of 32 rows for one copy of K; block_kv 256: a strip of scores (8 KB) and the weights that wait (16
// KB) stay in an L1 of 48 KB.
constexpr Policy kPolicies[] = {{"q512_kv256", 512, 256}, {"q256_kv256", 256, 256}, {"q512_kv512", 512, 512}};

std::size_t workspace_bytes(const AttentionProblem& p, const Policy& policy) {
  return FlashLayout(p, policy, amx::kShape, amx::kFlashChunk, p.threads).bytes;
}

std::string_view yields(const AttentionProblem& p) {
  return p.seq_kv < 32 ? "tiles multiply 32 keys at a time, and there are fewer" : "";
}

}  // namespace

const Kernel kAmxFlashBf16{"cpu/amx/flash/bf16", kTraits,         kEveryFeature, kPolicies,
                           workspace_bytes,      amx::run_packed, yields};

}  // namespace headwise::cpu
