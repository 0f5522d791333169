#include <fmt/format.h>

#include <algorithm>

#include "commands.h"
#include "lab/estimate.h"
#include "lab/sequence_inputs.h"
#include "lab/units.h"

namespace headwise::cli {

int run_explain(const Invocation& invocation) {
  if (invocation.words.empty() && invocation.positionals.empty()) {
    return fail(Status::invalid_argument("explain needs a problem: headwise explain --seq 4096 --causal"));
  }
  Result<std::vector<lab::Case>> cases = cases_of(invocation);
  if (!cases) return fail(cases.status());
  for (const lab::Case& one : *cases) {
    const Cost work = lab::actual_cost(one.problem, one.inputs.seed);
    fmt::print("{}{}\n", &one == cases->data() ? "" : "\n", lab::case_id(one));
    fmt::print("  problem  {}\n", to_string(one.problem));
    fmt::print("  work     {:.4g} GFLOP; inputs and outputs at least {}\n", work.flops / 1e9,
               lab::bytes_for_people(work.least_bytes()));
    if (Result<Device*> place = device(one.device); !place) {
      fmt::print("  {}\n", place.status().message());
      continue;
    }
    if (Status status = lab::check_case(one); !status.ok()) {
      fmt::print("  cannot   all kernels: {}\n", status.message());
      continue;
    }
    // A name in HEADWISE_KERNEL that no kernel has: nothing to explain before that is put right.
    if (const Result<Plan> planned = plan(one.problem, one.device);
        !planned && planned.status().code() == StatusCode::invalid_argument) {
      return fail(planned.status());
    }
    const std::vector<Candidate> candidates = explain(one.problem, one.device);
    std::size_t width = 0;
    for (const Candidate& candidate : candidates) width = std::max(width, candidate.kernel.size());
    for (const Candidate& candidate : candidates) {
      const char* verdict = candidate.chosen ? "chosen" : candidate.supported ? "can" : "cannot";
      if (candidate.reason.empty()) {
        fmt::print("  {:<7}  {}\n", verdict, candidate.kernel);
      } else {
        fmt::print("  {:<7}  {:<{}}  {}\n", verdict, candidate.kernel, width, candidate.reason);
      }
    }
  }
  return lab::exit_code::kGood;
}

}  // namespace headwise::cli
