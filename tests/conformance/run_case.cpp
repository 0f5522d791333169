#include "conformance/run_case.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "conformance/comparison.h"
#include "conformance/mapping.h"
#include "conformance/scores.h"
#include "oracle/oracle.h"
#include "support/attention_case.h"

namespace headwise::conformance {
namespace {

CaseResult failed(const Status& status) { return {Outcome::failed, status.message()}; }

CaseResult judged(const char* what, const Comparison& comparison) {
  const std::string text = std::string(what) + ": " + comparison.worst;
  switch (comparison.verdict) {
    case Verdict::passed: return {Outcome::passed, {}};
    case Verdict::one_step: return {Outcome::one_step, text};
    case Verdict::bf16_tolerance: return {Outcome::bf16_tolerance, text};
    case Verdict::failed: break;
  }
  return {Outcome::failed, text};
}

// A copy must be the same bits.
bool is_copy(const NodeCase& node, const char* name, const Tensor& present) {
  const Tensor* expected = node.output(name);
  return expected == nullptr || (present.shape == expected->shape && present.bytes == expected->bytes);
}

// The mapped call's output in fp64, in the order of Y's elements.
Result<std::vector<double>> truth(const Call& call, const AttentionProblem& problem) {
  const std::vector<oracle::RowId> ids = test::all_rows(problem);
  const Result<oracle::Rows> rows = oracle::forward(call.args, problem, ids, 1);
  if (!rows.ok()) return rows.status();
  const TensorView& out = call.args.out;
  std::vector<double> values(rows->out.size());
  auto from = rows->out.begin();
  for (const oracle::RowId& id : ids) {
    const std::int64_t row = id.batch * out.stride[0] + id.query * out.stride[1] + id.head * out.stride[2];
    std::copy_n(from, out.shape[3], values.begin() + row);
    from += out.shape[3];
  }
  return values;
}

double distance(const Tensor& tensor, const std::vector<double>& values) {
  double largest = 0;
  for (std::size_t i = 0; i < values.size(); ++i)
    largest = std::max(largest, std::abs(tensor.at(static_cast<std::int64_t>(i)) - values[i]));
  return largest;
}

CaseResult check_outputs(const NodeCase& node, const Call& call, const AttentionProblem& problem) {
  if (!is_copy(node, "present_key", call.present_key)) return {Outcome::failed, "present_key: differs"};
  if (!is_copy(node, "present_value", call.present_value)) return {Outcome::failed, "present_value: differs"};
  const Tensor& expected = *node.output("Y");
  CaseResult result = judged("Y", compare(call.out, expected, node.rtol, node.atol));
  if (result.outcome == Outcome::passed) return result;
  const Result<std::vector<double>> exact = truth(call, problem);
  if (!exact.ok()) return failed(exact.status());
  const double here = distance(call.out, *exact);
  const double there = distance(expected, *exact);
  // Being far from what is expected is right only where that is further from the truth.
  if (result.outcome == Outcome::bf16_tolerance && here > there) result.outcome = Outcome::failed;
  char text[96];
  std::snprintf(text, sizeof text, "; furthest from fp64: here %.2e, what is expected %.2e", here, there);
  result.reason += text;
  return result;
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
  Result<Call> call = make_call(node);
  if (!call.ok()) return failed(call.status());
  const Result<AttentionProblem> problem = make_problem(call->args, call->options);
  if (!problem.ok()) return failed(problem.status());
  const Result<std::vector<double>> exact = truth(*call, *problem);
  if (!exact.ok()) return failed(exact.status());
  for (std::size_t i = 0; i < exact->size(); ++i)
    store_element(call->out.dtype, call->out.bytes.data(), static_cast<std::int64_t>(i), (*exact)[i]);
  return check_outputs(node, *call, *problem);
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
  // Of one thread for each of so many short calls: the bits do not depend on it.
  const Execution execution{.threads = kernel.empty() ? 0 : 1, .kernel = kernel};
  if (const Status status = attention(call->args, call->options, execution); !status.ok())
    return failed(status);
  return check_outputs(node, *call, *problem);
}

CaseResult run_qk_matmul_output(const NodeCase& node) {
  const Result<Tensor> scores = qk_matmul_output(node);
  if (!scores.ok()) return failed(scores.status());
  return judged("qk_matmul_output", compare(*scores, *node.output("qk_matmul_output"), node.rtol, node.atol));
}

}  // namespace headwise::conformance
