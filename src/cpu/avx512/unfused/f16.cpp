// cpu/avx512/unfused/f16: attention with materialised scores, the baseline, in f16 on AVX-512, widened to
// f32.
#include <immintrin.h>

#include <cstdint>

#include "attention/dropout.h"
#include "attention/kernel.h"
#include "core/parallel_for.h"
#include "cpu/unfused_layout.h"
#include "cpu/kernels.h"
#include "cpu/schedule.h"
#include "cpu/target_region.h"

HEADWISE_IMMINTRIN_BEGIN
HEADWISE_TARGET_BEGIN(HEADWISE_AVX512)
namespace headwise::cpu::avx512 {
namespace {
using Element = float16;
// clang-format off: each .inl uses what stands above it.
#include "cpu/avx512/vector.inl"
#include "cpu/simd/tiles.inl"
#include "cpu/simd/mask_scores.inl"
#include "cpu/simd/tile_rows.inl"
#include "cpu/simd/pack_queries.inl"
#include "cpu/simd/score_features.inl"
#include "cpu/simd/dropout.inl"
#include "cpu/simd/unfused.inl"
// clang-format on
}  // namespace
}  // namespace headwise::cpu::avx512
HEADWISE_TARGET_END
HEADWISE_IMMINTRIN_END

namespace headwise::cpu {
namespace {

constexpr Traits kTraits{
    .algorithm = "unfused", .isa = "avx512", .dtype = DType::f16, .kv_dtype = DType::f16};
constexpr Policy kPolicies[] = {{"q48", 48, 0}};

std::size_t workspace_bytes(const AttentionProblem& p, const Policy& /*policy*/) {
  return UnfusedLayout(p, avx512::kShape, p.threads).bytes;
}

}  // namespace

const Kernel kAvx512UnfusedF16{"cpu/avx512/unfused/f16", kTraits, kEveryFeature, kPolicies, workspace_bytes,
                               avx512::unfused_run};

}  // namespace headwise::cpu
