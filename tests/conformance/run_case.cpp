#include "conformance/run_case.h"

#include <vector>

#include "conformance/comparison.h"
#include "conformance/mapping.h"
#include "conformance/scores.h"
#include "oracle/oracle.h"
#include "support/attention_case.h"

namespace headwise::conformance {
namespace {

CaseResult failed(const Status& status) { return {Outcome::failed, status.message()}; }

CaseResult judged(const std::string& what, const Comparison& comparison) {
  switch (comparison.verdict) {
    case Verdict::passed: return {Outcome::passed, {}};
    case Verdict::one_step: return {Outcome::one_step, what + ": " + comparison.worst};
    case Verdict::failed: break;
  }
  return {Outcome::failed, what + ": " + comparison.worst};
}

// A copy must be the same bits.
CaseResult check_present(const NodeCase& node, const char* name, const Tensor& present) {
  const Tensor* expected = node.output(name);
  if (expected == nullptr) return {Outcome::passed, {}};
  const bool same = present.shape == expected->shape && present.bytes == expected->bytes;
  return {same ? Outcome::passed : Outcome::failed, same ? "" : std::string(name) + ": differs"};
}

CaseResult check_outputs(const NodeCase& node, const Call& call) {
  CaseResult result = check_present(node, "present_key", call.present_key);
  if (result.outcome == Outcome::passed) result = check_present(node, "present_value", call.present_value);
  if (result.outcome != Outcome::passed) return result;
  return judged("Y", compare(call.out, *node.output("Y"), node.rtol, node.atol));
}

// What explain() says of the kernel, or of the last resort where none is named.
std::string refusal(const AttentionProblem& problem, std::string_view kernel) {
  std::string reason = "not a kernel of this build";
  for (const Candidate& candidate : explain(problem)) {
    if (kernel.empty() || candidate.kernel == kernel) reason = candidate.reason;
  }
  return reason;
}

}  // namespace

CaseResult run_oracle(const NodeCase& node) {
  const Result<Call> call = make_call(node);
  if (!call.ok()) return failed(call.status());
  const Result<AttentionProblem> problem = make_problem(call->args, call->options);
  if (!problem.ok()) return failed(problem.status());
  const std::vector<oracle::RowId> ids = test::all_rows(*problem);
  const Result<oracle::Rows> rows = oracle::forward(call->args, *problem, ids, 1);
  if (!rows.ok()) return failed(rows.status());
  const TensorView& out = call->args.out;
  for (std::size_t r = 0; r < ids.size(); ++r) {
    const std::int64_t row =
        ids[r].batch * out.stride[0] + ids[r].query * out.stride[1] + ids[r].head * out.stride[2];
    for (std::int64_t c = 0; c < out.shape[3]; ++c) {
      const std::size_t index = r * static_cast<std::size_t>(out.shape[3]) + static_cast<std::size_t>(c);
      store_element(out.dtype, out.data, row + c, rows->out[index]);
    }
  }
  return check_outputs(node, *call);
}

CaseResult run_kernel(const NodeCase& node, std::string_view kernel) {
  const Result<Call> call = make_call(node);
  if (!call.ok()) return failed(call.status());
  const Result<AttentionProblem> problem = make_problem(call->args, call->options);
  if (!problem.ok()) return failed(problem.status());
  if (const Result<Plan> planned = plan(*problem, {}, kernel); !planned.ok()) {
    if (planned.status().code() != StatusCode::unsupported) return failed(planned.status());
    return {Outcome::refused, refusal(*problem, kernel)};
  }
  if (const Status status = attention(call->args, call->options, {.kernel = kernel}); !status.ok())
    return failed(status);
  return check_outputs(node, *call);
}

CaseResult run_qk_matmul_output(const NodeCase& node) {
  const Result<Tensor> scores = qk_matmul_output(node);
  if (!scores.ok()) return failed(scores.status());
  return judged("qk_matmul_output",
                compare(*scores, *node.output("qk_matmul_output"), node.rtol, node.atol));
}

}  // namespace headwise::conformance
