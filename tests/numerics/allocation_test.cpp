// Plan::run allocates nothing: a program that embeds Headwise may count on it in real time.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "headwise/headwise.h"
#include "lab/forward_results.h"
#include "lab/inputs.h"
#include "support/run_kernel.h"

namespace {
std::atomic<long> allocations{0};
}  // namespace

// Not inlined: g++ 12 takes malloc and free for strangers to new and delete where it sees through one of
// them.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* data = std::malloc(bytes == 0 ? 1 : bytes)) return data;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* data) noexcept { std::free(data); }
[[gnu::noinline]] void operator delete(void* data, std::size_t /*bytes*/) noexcept { std::free(data); }

namespace headwise::numerics {
namespace {

TEST(Allocation, TheCounterCounts) {
  const long before = allocations.load();
  auto* value = new int(1);
  EXPECT_EQ(allocations.load(), before + 1);
  delete value;
}

TEST(Allocation, PlanRunAllocatesNothing) {
  int ran = 0;
  for (const KernelInfo& kernel : forward_kernels()) {
    if (!cannot_run_here(kernel).empty()) continue;
    for (const char* text : {"seq_q=1 seq_kv=2000 heads=4 kv_heads=2 head_dim=32 lse=1 threads=2",
                             "batch=2 seq_q=150 seq_kv=150 heads=2 head_dim=40 causal=1 threads=2"}) {
      AttentionProblem problem = check(parse_problem(text));
      problem.dtype = problem.kv_dtype = kernel.traits.dtype;
      const lab::Inputs inputs = check(lab::make_inputs(problem, {}, cpu()));
      const Plan planned = check(plan(problem, {}, kernel.id));
      const OwnedWorkspace memory(planned.workspace_bytes());
      const AttentionArgs args = inputs.args();
      const Execution execution{.workspace = memory.get()};
      const long before = allocations.load();
      const Status status = planned.run(args, execution);
      const long after = allocations.load();
      EXPECT_TRUE(status.ok()) << status.message();
      EXPECT_EQ(after, before) << kernel.id << " on " << text;
      ++ran;
    }
  }
  EXPECT_GT(ran, 0);
}

TEST(Allocation, PlanRunAllocatesNothingForGradients) {
  int ran = 0;
  for (const KernelInfo& kernel : backward_kernels()) {
    if (!cannot_run_here(kernel).empty()) continue;
    AttentionProblem problem = check(parse_problem(
        "direction=backward batch=2 seq_q=30 seq_kv=40 heads=4 kv_heads=2 head_dim=32 sinks=1 dsinks=1 "
        "lengths=1 page_size=8 threads=2"));
    problem.dtype = problem.kv_dtype = kernel.traits.dtype;
    const lab::Inputs inputs = check(lab::make_inputs(problem, {}, cpu()));
    lab::ForwardResults forward(cpu());
    ASSERT_TRUE(forward.make(inputs).ok());
    const Plan planned = check(plan(inputs.problem(), {}, kernel.id));
    const OwnedWorkspace memory(planned.workspace_bytes());
    const AttentionArgs args = forward.beside(inputs);
    const Execution execution{.workspace = memory.get()};
    const long before = allocations.load();
    const Status status = planned.run(args, execution);
    const long after = allocations.load();
    EXPECT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(after, before) << kernel.id;
    ++ran;
  }
  EXPECT_GT(ran, 0);
}

}  // namespace
}  // namespace headwise::numerics
