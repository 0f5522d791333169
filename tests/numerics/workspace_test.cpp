// How much memory prefill takes beside its tensors: at most 2 MB a thread and one packed copy of V, at any
// length, or two where matrix tiles multiply its elements in two parts; with several threads also the partial
// results that smaller calls of the same plan need.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "headwise/headwise.h"
#include "support/run_kernel.h"

namespace headwise::numerics {
namespace {

constexpr std::size_t kThreadBytes = std::size_t{2} << 20;
// Rows of a packed copy are padded, because a power of two apart they would share cache sets.
constexpr std::size_t kPackedEighths = 9;

// f16 in tiles of bf16 is a sum of two.
std::size_t copies_of_v(const KernelInfo& kernel) {
  return kernel.traits.isa == "amx" && kernel.traits.dtype == DType::f16 ? 2 : 1;
}

// A plan serves smaller calls too, and those with fewer than two tiles a thread split their keys, as decoding
// does: a partial result in f32 for each row of such a tile and each chunk of keys.
std::size_t partials(const AttentionProblem& p) {
  constexpr std::int64_t kTileRows = 64, kChunk = 512, kBesideOutput = 16;
  if (p.threads == 1) return 0;
  const std::int64_t rows = (2 * p.threads - 1) * kTileRows * ((p.seq_kv + kChunk - 1) / kChunk);
  return static_cast<std::size_t>(rows * (p.head_dim_v + kBesideOutput)) * sizeof(float);
}

class PrefillWorkspace : public testing::TestWithParam<KernelInfo> {
 protected:
  void SetUp() override {
    if (const std::string why = cannot_run_here(GetParam()); !why.empty()) GTEST_SKIP() << why;
    // The others hold scores of whole rows or of a tile over all keys, by what they are.
    if (GetParam().traits.algorithm != "flash") GTEST_SKIP() << GetParam().id << " is no flash kernel";
  }
};

TEST_P(PrefillWorkspace, IsTwoMegabytesAThreadAndCopiesOfV) {
  double most = 0;
  std::string where;
  for (const char* heads : {"heads=1", "heads=8", "heads=32 kv_heads=8", "batch=4 heads=8"}) {
    for (const std::int64_t seq : {512, 1024, 4096, 16384, 65536}) {
      for (const std::int64_t head_dim : {32, 64, 128, 256}) {
        for (const int threads : {1, 2, 16}) {
          for (const char* mask : {"", " causal=1", " window_left=100 align=top_left"}) {
            AttentionProblem p = check(parse_problem(std::string(heads) + mask));
            p.seq_q = p.seq_kv = seq;
            p.head_dim = p.head_dim_v = head_dim;
            p.threads = threads;
            p.dtype = p.kv_dtype = GetParam().traits.dtype;
            const Plan planned = check(plan(p, {}, GetParam().id));
            const auto values = static_cast<std::size_t>(p.batch * p.kv_heads * seq * head_dim) *
                                size_of(p.dtype) * copies_of_v(GetParam());
            const std::size_t allowed =
                kThreadBytes * static_cast<std::size_t>(threads) + values / 8 * kPackedEighths + partials(p);
            EXPECT_LE(planned.workspace_bytes(), allowed) << to_string(p);
            const double part = static_cast<double>(planned.workspace_bytes()) / static_cast<double>(allowed);
            if (part > most) where = to_string(p);
            most = std::max(most, part);
          }
        }
      }
    }
  }
  RecordProperty("most_of_what_is_allowed", std::to_string(most) + " by " + where);
  EXPECT_GT(most, 0);
}

INSTANTIATE_TEST_SUITE_P(Registry, PrefillWorkspace, testing::ValuesIn(forward_kernels()),
                         [](const testing::TestParamInfo<KernelInfo>& info) {
                           return test_name(info.param.id);
                         });

}  // namespace
}  // namespace headwise::numerics
