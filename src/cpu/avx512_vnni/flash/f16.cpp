// cpu/avx512_vnni/flash/f16: flash attention in f16 on AVX-512 VNNI, products in 16-bit integers.
#include <immintrin.h>

#include <cstdint>
#include <string_view>

#include "attention/dropout.h"
#include "attention/kernel.h"
#include "core/parallel_for.h"
#include "cpu/flash_layout.h"
#include "cpu/kernels.h"
#include "cpu/schedule.h"
#include "cpu/target_region.h"

HEADWISE_IMMINTRIN_BEGIN
HEADWISE_TARGET_BEGIN(HEADWISE_AVX512_VNNI)
namespace headwise::cpu::avx512_vnni {
namespace {
using Element = float16;
constexpr int kFewRows = 8;
// clang-format off: each .inl uses what stands above it.
#include "cpu/avx512/vector.inl"
#include "cpu/avx512_vnni/fixed_point.inl"
#include "cpu/avx512_vnni/tiles.inl"
#include "cpu/simd/mask_scores.inl"
#include "cpu/simd/tile_rows.inl"
#include "cpu/avx512_vnni/pack_queries.inl"
#include "cpu/simd/score_features.inl"
#include "cpu/simd/dropout.inl"
#include "cpu/simd/partial.inl"
#include "cpu/simd/online_softmax.inl"
#include "cpu/simd/row_features.inl"
#include "cpu/simd/few_rows.inl"
#include "cpu/simd/flash.inl"
// clang-format on
}  // namespace
}  // namespace headwise::cpu::avx512_vnni
HEADWISE_TARGET_END
HEADWISE_IMMINTRIN_END

namespace headwise::cpu {
namespace {

constexpr Traits kTraits{.algorithm = "flash",
                         .isa = "avx512_vnni",
                         .dtype = DType::f16,
                         .kv_dtype = DType::f16,
                         .accumulation = DType::int32,
                         .kv_chunk = avx512_vnni::kFlashChunk};
// Who wants it asks for it (kernels.cpp): a channel of V far below its row's largest has fewer digits here
// than f16 has, which the pass rule does not see. From 48 rows a key on it is faster than avx512/flash/f16:
// 16 rows took 1.26 of its time, 32 1.05, 48 0.95, 96 0.86 (head_dim 64, 4,096 keys).
//
// 8 tiles of 48 rows for one K and V made integers, which costs 60 operations a key, a tile 1,000 (head_dim
// 64). block_kv 128 against 64: 1.00 to 1.02 as fast.
constexpr Policy kPolicies[] = {
    {"q384_kv128", 384, 128}, {"q384_kv64", 384, 64}, {"q192_kv64", 192, 64}, {"q384_kv256", 384, 256}};

std::size_t workspace_bytes(const AttentionProblem& p, const Policy& policy) {
  return FlashLayout(p, policy, avx512_vnni::kShape, avx512_vnni::kFlashChunk, p.threads).bytes;
}

}  // namespace

const Kernel kAvx512VnniFlashF16{
    "cpu/avx512_vnni/flash/f16", kTraits, kEveryFeature, kPolicies, workspace_bytes, avx512_vnni::flash_run};

}  // namespace headwise::cpu
