// cpu/avx512/flash/bf16: flash attention in bf16 on AVX-512, widened to f32.
#include <immintrin.h>

#include <cstdint>

#include "attention/dropout.h"
#include "attention/kernel.h"
#include "core/parallel_for.h"
#include "cpu/flash_layout.h"
#include "cpu/kernels.h"
#include "cpu/schedule.h"
#include "cpu/target_region.h"

HEADWISE_IMMINTRIN_BEGIN
HEADWISE_TARGET_BEGIN(HEADWISE_AVX512)
namespace headwise::cpu::avx512 {
namespace {
using Element = bfloat16;
// Of 16 lanes: row by row 8 rows take 0.5 to 0.85 of the time of a vector of lanes.
constexpr int kFewRows = 8;
// clang-format off: each .inl uses what stands above it.
#include "cpu/avx512/vector.inl"
#include "cpu/simd/tiles.inl"
#include "cpu/simd/mask_scores.inl"
#include "cpu/simd/tile_rows.inl"
#include "cpu/simd/pack_queries.inl"
#include "cpu/simd/score_features.inl"
#include "cpu/simd/dropout.inl"
#include "cpu/simd/partial.inl"
#include "cpu/simd/online_softmax.inl"
#include "cpu/simd/row_features.inl"
#include "cpu/simd/few_rows.inl"
#include "cpu/simd/flash.inl"
// clang-format on
}  // namespace
}  // namespace headwise::cpu::avx512
HEADWISE_TARGET_END
HEADWISE_IMMINTRIN_END

namespace headwise::cpu {
namespace {

constexpr Traits kTraits{.algorithm = "flash",
                         .isa = "avx512",
                         .dtype = DType::bf16,
                         .kv_dtype = DType::bf16,
                         .kv_chunk = avx512::kFlashChunk};
// block_kv 64: S^T is 12 KB beside Q^T and O^T of 12 KB each at head_dim 64, within an L1 of 48 KB.
constexpr Policy kPolicies[] = {{"q768_kv64", 768, 64}, {"q768_kv128", 768, 128}, {"q48_kv64", 48, 64}};

std::size_t workspace_bytes(const AttentionProblem& p, const Policy& policy) {
  return FlashLayout(p, policy, avx512::kShape, avx512::kFlashChunk, p.threads).bytes;
}

}  // namespace

const Kernel kAvx512FlashBf16{"cpu/avx512/flash/bf16", kTraits,          kEveryFeature, kPolicies,
                              workspace_bytes,         avx512::flash_run};

}  // namespace headwise::cpu
