// plan(), explain(), forced kernels and attention(): choice without a quiet fallback.
#include <gtest/gtest.h>

#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "headwise/headwise.h"
#include "support/parsed.h"

namespace headwise {
namespace {

class Environment {
 public:
  explicit Environment(const char* value) { setenv("HEADWISE_KERNEL", value, 1); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
  ~Environment() { unsetenv("HEADWISE_KERNEL"); }
};

TEST(Plan, TakesTheFirstThatSupportsTheProblem) {
  const AttentionProblem problem = parsed("heads=2 seq_q=16 seq_kv=16 head_dim=8 dtype=f32");
  const std::vector<Candidate> candidates = explain(problem);
  ASSERT_FALSE(candidates.empty());
  const Plan planned = check(plan(problem));
  int chosen = 0;
  for (const Candidate& candidate : candidates) {
    if (candidate.chosen) {
      ++chosen;
      EXPECT_EQ(candidate.kernel, planned.kernel());
    }
    EXPECT_FALSE(candidate.reason.empty()) << candidate.kernel;
  }
  EXPECT_EQ(chosen, 1);
  for (const Candidate& candidate : candidates) {
    if (candidate.chosen) break;
    EXPECT_TRUE(!candidate.supported || candidate.reason.find("slower here") != std::string::npos)
        << candidate.kernel << " stands before the chosen one and was passed over";
  }
}

// Tiles of 32 keys are half empty where there are 16.
TEST(Plan, PassesOverAKernelThatYields) {
  AttentionProblem problem = parsed("heads=2 seq_q=16 seq_kv=16 head_dim=64 dtype=bf16");
  if (!plan(problem, {}, "cpu/amx/flash/bf16").ok()) GTEST_SKIP() << "this device has no AMX-BF16";
  EXPECT_EQ(check(plan(problem)).kernel(), "cpu/avx512/flash/bf16");
  const std::vector<Candidate> candidates = explain(problem);
  EXPECT_EQ(candidates.front().kernel, "cpu/amx/flash/bf16");
  EXPECT_TRUE(candidates.front().supported);
  EXPECT_NE(candidates.front().reason.find("slower here: tiles multiply 32 keys"), std::string::npos)
      << candidates.front().reason;
  problem.seq_kv = 32;
  EXPECT_EQ(check(plan(problem)).kernel(), "cpu/amx/flash/bf16");
}

TEST(Plan, ForcedKernelRunsOrSaysWhyNot) {
  AttentionProblem problem = parsed("heads=2 seq_q=16 seq_kv=16 head_dim=8 dtype=f32");
  EXPECT_EQ(check(plan(problem, {}, "cpu/scalar/naive/f32")).kernel(), "cpu/scalar/naive/f32");
  const Result<Plan> wrong = plan(problem, {}, "cpu/scalar/naive/bf16");
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.status().code(), StatusCode::unsupported);
  EXPECT_NE(wrong.status().message().find("dtype"), std::string::npos) << wrong.status().message();
  problem.direction = Direction::backward;
  const Result<Plan> gradients = plan(problem, {}, "cpu/scalar/naive/f32");
  ASSERT_FALSE(gradients.ok());
  EXPECT_EQ(gradients.status().code(), StatusCode::unsupported);
  EXPECT_NE(gradients.status().message().find("direction"), std::string::npos)
      << gradients.status().message();
  EXPECT_EQ(check(plan(problem)).kernel(), "cpu/scalar/naive_backward/f32");
}

TEST(Plan, UnknownKernelSuggestsTheNearest) {
  const Result<Plan> planned = plan(parsed("seq_q=4 seq_kv=4"), {}, "cpu/scalar/naive/f23");
  ASSERT_FALSE(planned.ok());
  EXPECT_EQ(planned.status().code(), StatusCode::invalid_argument);
  EXPECT_NE(planned.status().message().find("cpu/scalar/naive/f32"), std::string::npos)
      << planned.status().message();
}

TEST(Plan, EnvironmentForcesOneKernelADirection) {
  const AttentionProblem problem = parsed("heads=2 seq_q=16 seq_kv=16 head_dim=8 dtype=f32");
  {
    const Environment environment("cpu/scalar/naive/f32");
    EXPECT_EQ(check(plan(problem)).kernel(), "cpu/scalar/naive/f32");
    for (const Candidate& candidate : explain(problem)) {
      EXPECT_EQ(candidate.chosen, candidate.kernel == "cpu/scalar/naive/f32");
    }
  }
  {
    const Environment environment("cpu/scalar/naive/f16");
    const Result<Plan> planned = plan(problem);
    ASSERT_FALSE(planned.ok());
    EXPECT_EQ(planned.status().code(), StatusCode::unsupported);
    EXPECT_NE(planned.status().message().find("HEADWISE_KERNEL"), std::string::npos);
  }
  {
    const Environment environment("cpu/scalar/naive/f32,cpu/scalar/naive/f16");
    EXPECT_EQ(plan(problem).status().code(), StatusCode::invalid_argument);
  }
  {
    const Environment environment("cpu/nothing/here");
    EXPECT_EQ(plan(problem).status().code(), StatusCode::invalid_argument);
  }
  {
    const Environment environment("cuda/sm90/prefill/bf16_d128");  // another backend's affair
    EXPECT_TRUE(plan(problem).ok());
  }
}

TEST(Plan, NothingSupportsNamesEveryReason) {
  const Result<Plan> planned = plan(parsed("heads=2 seq_q=16 seq_kv=16 head_dim=8 dtype=f64"));
  ASSERT_FALSE(planned.ok());
  EXPECT_EQ(planned.status().code(), StatusCode::unsupported);
  for (const KernelInfo& kernel : kernels()) {
    EXPECT_NE(planned.status().message().find(kernel.id), std::string::npos) << kernel.id;
  }
}

TEST(Plan, AbsentDeviceSaysWhy) {
  const Result<Plan> planned = plan(parsed("seq_q=4 seq_kv=4"), {DeviceKind::cuda, 0});
  ASSERT_FALSE(planned.ok());
  EXPECT_EQ(planned.status().code(), StatusCode::unavailable);
  EXPECT_EQ(device({DeviceKind::cpu, 1}).status().code(), StatusCode::unavailable);
}

TEST(Plan, EmptyPlanRefusesToRun) {
  const Plan empty;
  EXPECT_EQ(empty.run({}).code(), StatusCode::invalid_argument);
}

// uniform scores: the output is the mean of the values seen.
struct Mean {
  std::vector<float> q = std::vector<float>(6, 0.0F), k = std::vector<float>(8, 1.0F),
                     out = std::vector<float>(6, -1.0F);
  std::vector<float> v{1, 2, 3, 4, 5, 6, 7, 8}, lse = std::vector<float>(3, -1.0F);
  AttentionArgs args{.q = contiguous(q.data(), {1, 3, 1, 2}),
                     .k = contiguous(k.data(), {1, 4, 1, 2}),
                     .v = contiguous(v.data(), {1, 4, 1, 2}),
                     .out = contiguous(out.data(), {1, 3, 1, 2}),
                     .lse = contiguous(lse.data(), {1, 1, 3})};
};

TEST(Attention, OneCall) {
  Mean mean;
  const Status status = attention(mean.args, {.causal = true, .align = Align::bottom_right});
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_FLOAT_EQ(mean.out[0], 2);  // two keys
  EXPECT_FLOAT_EQ(mean.out[2], 3);  // three
  EXPECT_FLOAT_EQ(mean.out[5], 5);  // four
  EXPECT_NEAR(mean.lse[1], 1.0986123, 1e-6);
}

// Keys that take no memory (stride 0) can be as many as extents allow: the workspace for all their
// scores must not wrap round to a size that somebody has.
TEST(Plan, WorkspaceOfAbsurdSizesDoesNotWrapRound) {
  const AttentionProblem problem =
      parsed("batch=1048576 heads=1 seq_q=1 seq_kv=549755813888 head_dim=1 threads=2");
  ASSERT_TRUE(validate(problem).ok());
  const double scores = static_cast<double>(problem.batch) * static_cast<double>(problem.seq_kv);
  for (const KernelInfo& kernel : kernels()) {
    const Result<Plan> planned = plan(problem, {}, kernel.id);
    if (!planned.ok() || kernel.traits.algorithm != "unfused") continue;
    EXPECT_GE(static_cast<double>(planned->workspace_bytes()), 4 * scores) << kernel.id;
  }
}

// Nothing to compute, so no volume counts: none may overflow where kernels are weighed (UBSan).
TEST(Plan, EmptyProblemOfAbsurdSizesHasAPlan) {
  for (const char* dtype : {"f32", "f16", "bf16"}) {
    AttentionProblem problem =
        parsed(std::string("batch=0 heads=64 seq_q=1 seq_kv=281474976710656 head_dim=576 dtype=") + dtype);
    EXPECT_TRUE(plan(problem).ok());
    EXPECT_EQ(explain(problem).size(), kernels().size());
    problem.direction = Direction::backward;
    EXPECT_TRUE(plan(problem).ok());
    problem = parsed(std::string("direction=backward batch=281474976710656 heads=0 seq_q=281474976710656 "
                                 "seq_kv=281474976710656 page_size=1 pages=5 head_dim=8 dtype=") +
                     dtype);
    EXPECT_TRUE(plan(problem).ok());
  }
}

TEST(Attention, BringYourOwnWorkspaceAndThreads) {
  Mean mean;
  for (const int threads : {1, 2}) {
    AttentionProblem problem = check(make_problem(mean.args));
    problem.threads = threads;
    const Plan planned = check(plan(problem));
    std::vector<std::byte> memory(planned.workspace_bytes() + 64);
    void* data = memory.data();
    std::size_t room = memory.size();
    ASSERT_NE(std::align(64, planned.workspace_bytes(), data, room), nullptr);
    const Status status =
        attention(mean.args, {}, {.workspace = {data, planned.workspace_bytes()}, .threads = threads});
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_FLOAT_EQ(mean.out[0], 4);
  }
}

TEST(Attention, ForcedKernelOfTheCall) {
  Mean mean;
  EXPECT_TRUE(attention(mean.args, {}, {.kernel = "cpu/scalar/naive/f32"}).ok());
  const Status status = attention(mean.args, {}, {.kernel = "cpu/scalar/naive/f16"});
  EXPECT_EQ(status.code(), StatusCode::unsupported);
}

// A thread remembers the plan of its last call: another problem, kernel or environment must not get it.
TEST(Attention, EveryCallHasThePlanOfItsOwnWords) {
  Mean mean;
  const auto first = [&](const AttentionOptions& options) {
    const Status status = attention(mean.args, options);
    EXPECT_TRUE(status.ok()) << status.message();
    return mean.out[0];
  };
  const AttentionOptions causal{.causal = true, .align = Align::bottom_right};
  for (int repeat = 0; repeat < 2; ++repeat) {
    EXPECT_FLOAT_EQ(first({}), 4);
    EXPECT_FLOAT_EQ(first(causal), 2);
  }
  {
    const Environment environment("cpu/scalar/naive/f16");
    EXPECT_EQ(attention(mean.args, causal).code(), StatusCode::unsupported);
  }
  EXPECT_FLOAT_EQ(first(causal), 2);
  EXPECT_EQ(attention(mean.args, causal, {.kernel = "cpu/scalar/naive/f16"}).code(), StatusCode::unsupported);
  {
    const Environment environment("cpu/scalar/naive/f32");
    EXPECT_FLOAT_EQ(first(causal), 2);
  }
  for (const AttentionOptions& bad :
       {AttentionOptions{.softcap = -1}, {.softcap = std::numeric_limits<float>::quiet_NaN()}})
    EXPECT_EQ(attention(mean.args, bad).code(), StatusCode::invalid_argument);
  EXPECT_EQ(attention(mean.args, {}, {.threads = -1}).code(), StatusCode::invalid_argument);
  EXPECT_FLOAT_EQ(first({}), 4);
}

TEST(Attention, RefusalWritesNothingAndTheNextCallWorks) {
  Mean mean;
  AttentionArgs bad = mean.args;
  bad.k.shape[1] = 3;
  EXPECT_FALSE(attention(bad).ok());
  EXPECT_FALSE(attention(mean.args, {.causal = true}).ok()) << "align is required when lengths differ";
  for (const float x : mean.out) EXPECT_EQ(x, -1);
  EXPECT_TRUE(attention(mean.args).ok());
}

// A caller's own pool: every index once, workers below the number promised.
struct Pool {
  int calls = 0;
  static void run(void* context, std::int64_t count, void (*task)(void*, std::int64_t, int),
                  void* task_context) {
    ++static_cast<Pool*>(context)->calls;
    for (std::int64_t i = 0; i < count; ++i) task(task_context, i, 0);
  }
};
TEST(Attention, CallersExecutor) {
  std::vector<float> q(64 * 4 * 8, 0.5F), out(q.size());
  const AttentionArgs args{.q = contiguous(q.data(), {1, 64, 4, 8}),
                           .k = contiguous(q.data(), {1, 64, 4, 8}),
                           .v = contiguous(q.data(), {1, 64, 4, 8}),
                           .out = contiguous(out.data(), {1, 64, 4, 8})};
  Pool pool;
  const Executor executor{&pool, 2, Pool::run};
  ASSERT_TRUE(attention(args, {}, {.threads = 2, .executor = &executor}).ok());
  EXPECT_GT(pool.calls, 0);
  for (const float x : out) EXPECT_NEAR(x, 0.5F, 1e-6);
}

// A pool whose waiting threads take other work, which may be another attention call.
struct StealingPool {
  const AttentionArgs* other = nullptr;
  static void run(void* context, std::int64_t count, void (*task)(void*, std::int64_t, int),
                  void* task_context) {
    EXPECT_TRUE(attention(*static_cast<StealingPool*>(context)->other, {}, {.threads = 2}).ok());
    for (std::int64_t i = 0; i < count; ++i) task(task_context, i, 0);
  }
};
TEST(Attention, CallWithinAnExecutorLeavesTheOuterWorkspaceAlone) {
  std::vector<float> q(2 * 8, 0.0F), k(2048 * 2 * 8, 0.5F), ones(k.size(), 1.0F), twos(k.size(), 2.0F);
  std::vector<float> outer(q.size()), inner(q.size());
  AttentionArgs args{.q = contiguous(q.data(), {1, 1, 2, 8}),
                     .k = contiguous(k.data(), {1, 2048, 2, 8}),
                     .v = contiguous(ones.data(), {1, 2048, 2, 8}),
                     .out = contiguous(outer.data(), {1, 1, 2, 8})};
  AttentionArgs other = args;
  other.v.data = twos.data();
  other.out.data = inner.data();
  StealingPool pool{&other};
  const Executor executor{&pool, 2, StealingPool::run};
  for (const KernelInfo& kernel : kernels()) {
    if (!plan(check(make_problem(args)), {}, kernel.id).ok()) continue;
    ASSERT_TRUE(attention(args, {}, {.threads = 2, .kernel = kernel.id, .executor = &executor}).ok());
    for (const float x : outer) EXPECT_FLOAT_EQ(x, 1) << kernel.id;
    for (const float x : inner) EXPECT_FLOAT_EQ(x, 2) << kernel.id;
  }
}

}  // namespace
}  // namespace headwise
