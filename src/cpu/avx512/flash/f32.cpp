// cpu/avx512/flash/f32: flash attention in f32 on AVX-512.
#include <immintrin.h>

#include <cstdint>

#include "attention/dropout.h"
#include "attention/kernel.h"
#include "core/cpu_features.h"
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

constexpr Traits kTraits{.algorithm = "flash", .isa = "avx512", .kv_chunk = avx512::kFlashChunk};
// block_kv 64: S^T is 12 KB beside Q^T and O^T of 12 KB each at head_dim 64, within an L1 of 48 KB.
constexpr Policy kPolicies[] = {{"q768_kv64", 768, 64}, {"q768_kv128", 768, 128}, {"q48_kv64", 48, 64}};

std::size_t workspace_bytes(const AttentionProblem& p, const Policy& policy) {
  return FlashLayout(p, policy, avx512::kShape, avx512::kFlashChunk, p.threads).bytes;
}

// Measured on Zen 5 (docs/performance.md): where one vector of queries reads K and V from memory and the rows
// of a head lie a page or more apart, reading all of K before V is up to 32 % faster, until an item's K and V
// are several times the last cache. On Xeons it is 8 to 55 % slower.
std::string_view yields(const AttentionProblem& p) {
  constexpr int kZen5 = 26;
  constexpr std::int64_t kPage = 4096;
  constexpr double kMegabyte = 1 << 20;
  if (core::cpu_features().family != kZen5 || Rows(p).count > avx512::kLanes) return {};
  const std::int64_t row = p.kv_heads * p.head_dim * 4;
  // In double: problems without queries may have more keys than 64 bits can count bytes of.
  const double item = static_cast<double>(p.seq_kv) * static_cast<double>(p.kv_heads) *
                      static_cast<double>((p.head_dim + p.head_dim_v) * 4);
  const double all = p.batch_invariant ? item : item * static_cast<double>(p.batch);
  const bool from_memory = all > 24 * kMegabyte && item < 96 * kMegabyte;
  return row >= kPage && from_memory ? "few queries, and K and V from memory with rows a page apart" : "";
}

}  // namespace

const Kernel kAvx512FlashF32{"cpu/avx512/flash/f32", kTraits,           kEveryFeature, kPolicies,
                             workspace_bytes,        avx512::flash_run, yields};

}  // namespace headwise::cpu
