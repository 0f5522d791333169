// cpu/avx512/memeff/f32: memory-efficient attention in f32 on AVX-512.
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
using Element = float;
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
#include "cpu/simd/memeff.inl"
// clang-format on
}  // namespace
}  // namespace headwise::cpu::avx512
HEADWISE_TARGET_END
HEADWISE_IMMINTRIN_END

namespace headwise::cpu {
namespace {

constexpr Traits kTraits{.algorithm = "memeff", .isa = "avx512"};
constexpr Policy kPolicies[] = {{"q48_kv64", 48, 64}};

std::size_t workspace_bytes(const AttentionProblem& p, const Policy& policy) {
  return MemeffLayout(p, policy, avx512::kShape).worker_bytes * static_cast<std::size_t>(p.threads);
}

}  // namespace

const Kernel kAvx512MemeffF32{"cpu/avx512/memeff/f32", kTraits,           kEveryFeature, kPolicies,
                              workspace_bytes,         avx512::memeff_run};

}  // namespace headwise::cpu
