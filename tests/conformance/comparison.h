// Whether a tensor is what a node test expects.
#pragma once

#include <cstdint>
#include <string>

#include "conformance/node_case.h"

namespace headwise::conformance {

// one_step: beyond the tolerance, but each value there is the neighbour, in a 16-bit dtype, of the one expected:
// half a unit of rounding apart before both were rounded can look like that.
enum class Verdict : std::uint8_t { passed, one_step, failed };

struct Comparison {
  Verdict verdict = Verdict::passed;
  std::string worst;  // where it is not `passed`: the element furthest off, and how many are
};
// |actual - expected| <= atol + rtol * |expected|; a NaN or infinity must stand where one is expected.
Comparison compare(const Tensor& actual, const Tensor& expected, double rtol, double atol);

}  // namespace headwise::conformance
