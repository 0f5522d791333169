// Arguments against the plan that shall run them.
#include <cstddef>
#include <memory>

#include "attention/validation.h"
#include "faults/allocations.h"
#include "faults/call.h"

namespace headwise::test {
namespace {

AttentionProblem planned_for(const Call& call) {
  const Result<AttentionProblem> problem = make_problem(call.args, call.options);
  EXPECT_TRUE(problem.ok()) << problem.status().message();
  return problem.ok() ? *problem : AttentionProblem{};
}

TEST(PlanArguments, TheSameCallIsThePlannedProblem) {
  Call call;
  call.options = {.softmax_scale = 0.5F, .causal = true, .align = Align::bottom_right};
  AttentionProblem planned = planned_for(call);
  planned.threads = 3;
  AttentionProblem actual;
  ASSERT_TRUE(check_arguments(call.args, planned, {}, actual).ok());
  EXPECT_EQ(actual, planned);
}

TEST(PlanArguments, GoodCallAllocatesNothing) {
  if (!allocations()) GTEST_SKIP() << "the sanitizer counts allocations itself";
  Call call;
  call.args.mask = contiguous(call.floats.data(), {2, 1, 4, 6});
  const AttentionProblem planned = planned_for(call);
  AttentionProblem actual;
  const std::optional<std::int64_t> before = allocations();
  const Status status = check_arguments(call.args, planned, {}, actual);
  EXPECT_EQ(allocations(), before);
  EXPECT_TRUE(status.ok());
  EXPECT_GT(*before, 0);  // the counter counts
}

TEST(PlanArguments, SizesMayShrink) {
  Call call;
  const AttentionProblem planned = planned_for(call);
  call.args.q.shape[0] = call.args.k.shape[0] = call.args.v.shape[0] = call.args.out.shape[0] = 1;
  call.args.lse.shape[0] = 1;
  call.args.k.shape[1] = call.args.v.shape[1] = 5;
  call.args.q.shape[1] = call.args.out.shape[1] = call.args.lse.shape[2] = 2;
  AttentionProblem actual;
  const Status status = check_arguments(call.args, planned, {}, actual);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(actual.batch, 1);
  EXPECT_EQ(actual.seq_q, 2);
  EXPECT_EQ(actual.seq_kv, 5);
}

TEST(PlanArguments, MaskAxisOfSizeOneStaysAsPlanned) {
  Call call;
  call.args.mask = contiguous(call.floats.data(), {2, 1, 4, 6});
  const AttentionProblem planned = planned_for(call);
  call.args.q.shape[0] = call.args.k.shape[0] = call.args.v.shape[0] = call.args.out.shape[0] = 1;
  call.args.lse.shape[0] = call.args.mask.shape[0] = 1;
  AttentionProblem actual;
  const Status status = check_arguments(call.args, planned, {}, actual);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(actual.mask_axes, planned.mask_axes);
}

class OffPlan : public ::testing::TestWithParam<Fault> {};

// The plan is made for the good call, which the fault then spoils.
TEST_P(OffPlan, IsRefusedByName) {
  Call call;
  Result<Plan> made = plan(planned_for(call));
  ASSERT_TRUE(made.ok()) << made.status().message();
  std::vector<std::max_align_t> memory(made->workspace_bytes() / sizeof(std::max_align_t) + 8);
  void* data = memory.data();
  std::size_t room = memory.size() * sizeof(std::max_align_t);
  ASSERT_NE(std::align(64, made->workspace_bytes(), data, room), nullptr);
  const Execution execution{.workspace = {data, room}};
  GetParam().spoil(call);
  const Status status = made->run(call.args, execution);
  EXPECT_EQ(status.code(), StatusCode::invalid_argument) << status.message();
  EXPECT_NE(status.message().find(GetParam().expected), std::string::npos)
      << "expected: " << GetParam().expected << "\n     got: " << status.message();
  EXPECT_TRUE(call.untouched());
  Call good;
  const Status next = made->run(good.args, execution);
  EXPECT_TRUE(next.ok()) << next.message();
}

const Fault kOffPlan[] = {
    {"LongerKeys", [](Call& c) { c.args.k.shape[1] = c.args.v.shape[1] = 7; },
     "seq_kv: the plan was made for at most 6, got 7"},
    {"OtherKvHeads",
     [](Call& c) {
       c.args.k = contiguous(c.k.data(), {2, 7, 1, 8});
       c.args.v = contiguous(c.v.data(), {2, 7, 1, 16});
     },
     "kv_heads: the plan was made for 2, got 1; make a plan for this problem"},
    {"LargerBatch",
     [](Call& c) {
       c.args.q = contiguous(c.q.data(), {4, 2, 4, 8});
       c.args.out = contiguous(c.out.data(), {4, 2, 4, 16});
       c.args.k = contiguous(c.k.data(), {4, 3, 2, 8});
       c.args.v = contiguous(c.v.data(), {4, 3, 2, 16});
       c.args.lse = contiguous(c.lse.data(), {4, 4, 2});
     },
     "batch: the plan was made for at most 2, got 4"},
    {"OtherHeadDim", [](Call& c) { c.args.q.shape[3] = c.args.k.shape[3] = 4; },
     "head_dim: the plan was made for 8, got 4"},
    {"OtherDType",
     [](Call& c) {
       for (TensorView* view : {&c.args.q, &c.args.k, &c.args.v, &c.args.out}) view->dtype = DType::bf16;
     },
     "dtype: the plan was made for f32, got bf16"},
    {"NoLse", [](Call& c) { c.args.lse = {}; }, "lse: the plan was made for 1, got 0"},
    {"MaskAdded", [](Call& c) { c.args.mask = contiguous(c.floats.data(), {1, 1, 4, 6}); },
     "mask: the plan was made for none, got additive"},
    {"LessAligned",
     [](Call& c) {
       c.args.q.data = reinterpret_cast<char*>(c.floats.data()) + 2;
       c.args.q.stride = {128, 32, 8, 1};
     },
     "pointer_alignment: the plan was made for at least 16, got 2"},
    {"BadShapeToo", [](Call& c) { c.args.v.shape[1] = 5; }, "v.shape[1]: expected 6 (as k), got 5"},
    {"OtherDevice",
     [](Call& c) {
       for (TensorView* view : {&c.args.q, &c.args.k, &c.args.v, &c.args.out}) {
         view->device = {DeviceKind::cuda, 0};
       }
     },
     "q.device: expected cpu, got cuda:0"},
    {"OverlappingOut", [](Call& c) { c.args.out.stride[0] = 1; },
     "out.stride[0]: expected at least 16, got 1"},
};
INSTANTIATE_TEST_SUITE_P(Arguments, OffPlan, ::testing::ValuesIn(kOffPlan), fault_name);

TEST(PlanArguments, AlignIsNeededOnceSizesDiffer) {
  Call call;
  call.args.k.shape[1] = call.args.v.shape[1] = 4;
  call.options.causal = true;  // seq_q equals seq_kv: no align needed
  const AttentionProblem planned = planned_for(call);
  call.args.k.shape[1] = call.args.v.shape[1] = 3;
  AttentionProblem actual;
  const Status status = check_arguments(call.args, planned, {}, actual);
  EXPECT_NE(status.message().find("align: required with causal"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace headwise::test
