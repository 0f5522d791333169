// What each feature of attention costs: calls that differ in one option, interleaved in one run, on one
// thread. Prints a table in Markdown; docs/performance.md keeps one. Not a test: times are for people.
//
//   cmake --build build/release --target headwise_feature_costs && build/release/bin/headwise_feature_costs
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "headwise/headwise.h"
#include "lab/inputs.h"
#include "lab/sampling.h"
#include "lab/statistics.h"
#include "lab/verify.h"

namespace headwise {
namespace {

// A call with the feature, and the one it is compared with.
struct Feature {
  const char* name;
  const char* words;
  const char* without;
};
constexpr const char* kFull = "seq_q=2048 seq_kv=2048";
constexpr const char* kCausal = "seq_q=2048 seq_kv=2048 causal=1";
constexpr const char* kLongCausal = "seq_q=8192 seq_kv=8192 causal=1";
constexpr Feature kFeatures[] = {
    {"nothing (noise)", "seq_q=2048 seq_kv=2048", kFull},
    {"sinks", "seq_q=2048 seq_kv=2048 sinks=1", kFull},
    {"ALiBi", "seq_q=2048 seq_kv=2048 alibi=per_head", kFull},
    {"ALiBi, causal", "seq_q=2048 seq_kv=2048 causal=1 alibi=per_head", kCausal},
    {"softcap", "seq_q=2048 seq_kv=2048 softcap=30", kFull},
    {"softcap, causal", "seq_q=2048 seq_kv=2048 causal=1 softcap=30", kCausal},
    {"softcap and ALiBi", "seq_q=2048 seq_kv=2048 softcap=30 alibi=per_head", kFull},
    {"bias [queries, keys]", "seq_q=2048 seq_kv=2048 bias=1 bias_axes=q", kFull},
    {"dropout", "seq_q=2048 seq_kv=2048 dropout_p=0.1", kFull},
    {"pages of 16 keys", "seq_q=2048 seq_kv=2048 page_size=16", kFull},
    {"window of 1,024 keys of 8,192", "seq_q=8192 seq_kv=8192 causal=1 window_left=1023", kLongCausal},
};

struct Call {
  lab::Inputs inputs;
  Plan plan;
  Workspace workspace;
};

std::optional<Call> prepare(std::string_view kernel, const std::string& words, DType dtype, int head_dim) {
  Device& cpu = *check(device({}));
  AttentionProblem problem = check(parse_problem(words));
  problem.dtype = problem.kv_dtype = dtype;
  problem.head_dim = problem.head_dim_v = head_dim;
  problem.threads = 1;
  lab::Inputs inputs = check(lab::make_inputs(problem, {}, cpu));
  const Result<Plan> planned = plan(inputs.problem(), {}, kernel);
  if (!planned.ok()) {
    std::fprintf(stderr, "%s\n", planned.status().message().c_str());
    return std::nullopt;
  }
  Call call{std::move(inputs), *planned, {}};
  call.workspace = {check(cpu.allocate(planned->workspace_bytes() + 1)), planned->workspace_bytes()};
  check(call.plan.run(call.inputs.args(), {.workspace = call.workspace}));
  const lab::Verdict verdict = lab::verify(call.inputs, check(lab::make_reference(call.inputs, 0.2)));
  if (verdict.passed()) return call;
  std::fprintf(stderr, "%s: %s\n", words.c_str(), verdict.reason.c_str());
  return std::nullopt;
}

lab::Contestant contestant(Call& call) {
  const TimedWork work{[](void* context, void*) {
                         auto& own = *static_cast<Call*>(context);
                         return own.plan.run(own.inputs.args(), {.workspace = own.workspace});
                       },
                       &call};
  return {.time = lab::timed_on(*check(device({})), work)};
}

void measure(std::string_view kernel, DType dtype, int head_dim) {
  for (const Feature& feature : kFeatures) {
    std::optional<Call> with = prepare(kernel, feature.words, dtype, head_dim);
    std::optional<Call> without = prepare(kernel, feature.without, dtype, head_dim);
    if (!with || !without) continue;
    const std::vector<lab::Samples> samples = lab::measure({contestant(*with), contestant(*without)},
                                                           {.relative_interval = 0.005, .seconds = 1}, 1);
    const lab::Ratio ratio = lab::bootstrap_ratio(samples[0].ms, samples[1].ms, 1);
    const double pairs = cost(with->inputs.problem()).pairs / cost(without->inputs.problem()).pairs;
    std::printf("| `%s` | %d | %s | %.3f | %.3f to %.3f | %.3f |\n", std::string(kernel).c_str(), head_dim,
                feature.name, ratio.value, ratio.interval.low, ratio.interval.high, ratio.value / pairs);
    std::fflush(stdout);
    check(device({}))->deallocate(with->workspace.data);
    check(device({}))->deallocate(without->workspace.data);
  }
}

}  // namespace
}  // namespace headwise

int main() {
  using headwise::DType;
  std::puts("| kernel | head_dim | feature | time with it / without | 95 % interval | a pair |");
  std::puts("| --- | --- | --- | --- | --- | --- |");
  for (const auto& [kernel, dtype] :
       {std::pair{"cpu/avx512/flash/f32", DType::f32}, std::pair{"cpu/avx2/flash/f32", DType::f32},
        std::pair{"cpu/avx512/flash/bf16", DType::bf16}, std::pair{"cpu/amx/flash/bf16", DType::bf16}}) {
    for (const int head_dim : {64, 128}) headwise::measure(kernel, dtype, head_dim);
  }
  return EXIT_SUCCESS;
}
