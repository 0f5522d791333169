// One case run by the oracle, by the planned kernel or by a forced one.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "conformance/node_case.h"

namespace headwise::conformance {

// The first three pass; comparison.h says what they mean. bf16_tolerance besides means: no further from fp64
// than what the case expects.
enum class Outcome : std::uint8_t { passed, one_step, bf16_tolerance, refused, failed };
inline constexpr std::array<std::string_view, 5> kOutcomeNames{
    "passed", "one step off", "within onnx's tolerance for bf16", "refused", "failed"};
struct CaseResult {
  Outcome outcome = Outcome::failed;
  std::string reason;  // of a refusal: what the kernel lacks; else what was off, empty where nothing was
};

// The mapped call computed in fp64 and rounded to the output's dtype.
CaseResult run_oracle(const NodeCase& node);
// `kernel` empty: the planned one. Y must be written whole; present_key and present_value are compared bit
// for bit.
CaseResult run_kernel(const NodeCase& node, std::string_view kernel);
// The fourth output, in fp64 by scores.h.
CaseResult run_qk_matmul_output(const NodeCase& node);

}  // namespace headwise::conformance
