// Whether a tensor is what a node test expects.
#pragma once

#include <cstdint>
#include <string>

#include "conformance/node_case.h"

namespace headwise::conformance {

// one_step: beyond the case's tolerance, but each value there is the neighbour, in a 16-bit dtype, of the one
// expected, which the least difference before rounding can make it. bf16_tolerance: beyond that too, but
// within what onnx's own runner of these cases allows where the output is bf16.
enum class Verdict : std::uint8_t { passed, one_step, bf16_tolerance, failed };

inline constexpr double kBf16Rtol = 0x1p-6;

struct Comparison {
  Verdict verdict = Verdict::passed;
  std::string worst;  // where not `passed`: how many values are off, and the element furthest off
};
// |actual - expected| <= atol + rtol * |expected|; a NaN or infinity must stand where one is expected.
Comparison compare(const Tensor& actual, const Tensor& expected, double rtol, double atol);

}  // namespace headwise::conformance
