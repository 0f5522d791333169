// Every feature, alone and with others, in every forward kernel of the registry that has it, against the fp64
// oracle.
#include <gtest/gtest.h>

#include <string>

#include "headwise/headwise.h"
#include "lab/inputs.h"
#include "lab/verify.h"
#include "support/run_kernel.h"

namespace headwise::numerics {
namespace {

class FeaturesOfKernels : public testing::TestWithParam<KernelInfo> {
 protected:
  void SetUp() override {
    if (const std::string why = cannot_run_here(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }

  // Whether the kernel could run it.
  static bool expect_agrees(const std::string& sizes, const std::string& features,
                            const lab::InputSpec& spec) {
    AttentionProblem problem = check(parse_problem(sizes + " lse=1 " + features));
    problem.dtype = problem.kv_dtype = GetParam().traits.dtype;
    if (const Result<Plan> able = plan(problem, {}, GetParam().id);
        able.status().code() == StatusCode::unsupported)
      return false;
    SCOPED_TRACE(sizes + " " + features + ", mask short by " + std::to_string(spec.mask_short));
    lab::Inputs inputs = check(lab::make_inputs(problem, spec, cpu()));
    const lab::Reference reference = check(lab::make_reference(inputs, 0.2));
    EXPECT_TRUE(lab::poison(inputs).ok());
    const Status status = run(check(plan(inputs.problem(), {}, GetParam().id)), inputs.args());
    EXPECT_TRUE(status.ok()) << status.message();
    const lab::Verdict verdict = lab::verify(inputs, reference);
    EXPECT_TRUE(verdict.passed()) << verdict.reason << "\n  error_max " << verdict.error_max << " limit "
                                  << verdict.limit_max << ", lse " << verdict.lse_error;
    return true;
  }
};

TEST_P(FeaturesOfKernels, AgreeWithTruth) {
  int ran = 0;
  for (const char* sizes :
       {"batch=3 seq_q=37 seq_kv=70 heads=4 kv_heads=2 head_dim=24 head_dim_v=16 threads=2",
        "batch=6 seq_q=1 seq_kv=600 heads=16 kv_heads=4 head_dim=64 threads=2"}) {
    for (const char* features :
         {"softcap=5 causal=1 align=bottom_right",
          "sinks=1",
          "alibi=per_head align=bottom_right",
          "alibi=per_batch_head align=top_left causal=1",
          "bias=1",
          "bias=1 bias_axes=bhq",
          "mask=bool mask_axes=b",
          "mask=bool mask_axes=hq causal=1 align=bottom_right",
          "mask=additive mask_axes=bhq",
          "mask=additive bias=1 bias_axes=q",
          "dropout_p=0.3",
          "varlen=1",
          "varlen=1 causal=1 align=bottom_right",
          "lengths=1 causal=1 align=bottom_right",
          "starts=1 window_left=20 window_right=3 align=bottom_right",
          "lengths=1 page_size=10",
          "varlen=1 lengths=1 page_size=10 causal=1 align=bottom_right dropout_p=0.1",
          "lengths=1 starts=1 page_size=10 alibi=per_head align=bottom_right sinks=1",
          "softcap=3 alibi=per_head bias=1 bias_axes=h mask=bool mask_axes=bq sinks=1 dropout_p=0.2 varlen=1 "
          "window_left=30 window_right=5 align=bottom_right",
          "softcap=3 alibi=per_batch_head bias=1 bias_axes=bq mask=additive mask_axes=b sinks=1 "
          "dropout_p=0.2 "
          "lengths=1 causal=1 align=bottom_right"}) {
      const bool masked = std::string(features).find("mask=") != std::string::npos;
      for (const std::int64_t mask_short : {0, 7}) {
        if (mask_short > 0 && !masked) continue;
        ran += expect_agrees(sizes, features, {.mask_short = mask_short}) ? 1 : 0;
      }
    }
  }
  RecordProperty("cases", ran);
}

INSTANTIATE_TEST_SUITE_P(Registry, FeaturesOfKernels, testing::ValuesIn(forward_kernels()),
                         [](const testing::TestParamInfo<KernelInfo>& info) {
                           return test_name(info.param.id);
                         });

}  // namespace
}  // namespace headwise::numerics
