// Decoding: heads whose rows are few have an arithmetic of their own in flash kernels on a CPU
// (cpu/simd/few_rows.inl). Every number of rows round its limits, lengths round its blocks, visits and
// chunks, widths round its vectors and pairs, and every feature.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "headwise/headwise.h"
#include "lab/inputs.h"
#include "lab/verify.h"
#include "numerics/cases.h"
#include "numerics/featured_case.h"
#include "support/run_kernel.h"

namespace headwise::numerics {
namespace {

class FewRows : public testing::TestWithParam<KernelInfo> {
 protected:
  void SetUp() override {
    if (const std::string why = cannot_run_here(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }
  static void expect_truth(const std::string& text) {
    SCOPED_TRACE(text);
    AttentionProblem problem = check(parse_problem(text));
    problem.dtype = problem.kv_dtype = GetParam().traits.dtype;
    lab::Inputs inputs = check(lab::make_inputs(problem, {}, cpu()));
    const lab::Reference reference = check(lab::make_reference(inputs, 0.5));
    const Plan planned = check(plan(problem, {}, GetParam().id));
    ASSERT_TRUE(lab::poison(inputs).ok());
    ASSERT_TRUE(run(planned, inputs.args()).ok());
    const lab::Verdict verdict = lab::verify(inputs, reference);
    EXPECT_TRUE(verdict.passed()) << verdict.reason << ", error_max " << verdict.error_max << " limit "
                                  << verdict.limit_max << ", rms " << verdict.error_rms << " limit "
                                  << verdict.limit_rms << ", lse " << verdict.lse_error;
  }
};

TEST_P(FewRows, AgreeWithTruthWhateverTheSizes) {
  const std::vector<int> keys = {9, 63, 64, 65, 127, 511, 513, 1100};
  const std::vector<int> widths = {1, 7, 8, 16, 17, 31, 32, 33, 48, 64, 80, 100, 128, 160, 288};
  std::size_t next = 0;
  for (const int kv_heads : {1, 3, 9}) {
    for (const int group : {1, 2, 3, 4, 5, 6, 7, 8, 9}) {
      for (const int queries : {1, 2}) {
        const int count = keys[next % keys.size()];
        const int width = widths[next % widths.size()];
        ++next;
        const int width_v = widths[next * 7 % widths.size()];
        expect_truth("batch=2 lse=1 causal=1 align=bottom_right seq_q=" + std::to_string(queries) +
                     " seq_kv=" + std::to_string(count) + " heads=" + std::to_string(kv_heads * group) +
                     " kv_heads=" + std::to_string(kv_heads) + " head_dim=" + std::to_string(width) +
                     " head_dim_v=" + std::to_string(width_v));
      }
    }
  }
}

// 32 rows and more: of one or two rows the root mean square is chance, and one case of fifty is above the
// limit.
TEST_P(FewRows, AgreeWithTruthInEveryFeature) {
  for (const char* feature :
       {"softcap=5", "alibi=per_head", "alibi=per_batch_head softcap=5", "sinks=1", "bias=1", "mask=bool",
        "mask=additive", "mask=bool softcap=5 bias=1 sinks=1", "dropout_p=0.3", "window_left=100",
        "dropout_p=0.3 mask=additive alibi=per_head"}) {
    const std::string rest = std::string(" lse=1 causal=1 align=bottom_right ") + feature;
    const AttentionProblem problem = check(parse_problem("seq_q=1 seq_kv=1" + rest));
    if (!has_features(GetParam().features, problem)) continue;
    expect_truth("batch=2 seq_q=2 seq_kv=700 heads=6 kv_heads=3 head_dim=72 head_dim_v=40" + rest);
    expect_truth("batch=2 seq_q=1 seq_kv=613 heads=16 kv_heads=4 head_dim=64" + rest);
    expect_truth("batch=2 seq_q=1 seq_kv=130 heads=16 kv_heads=16 head_dim=33" + rest);
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, FewRows, testing::ValuesIn(forward_kernels()),
                         [](const testing::TestParamInfo<KernelInfo>& info) {
                           return test_name(info.param.id);
                         });

}  // namespace
}  // namespace headwise::numerics
