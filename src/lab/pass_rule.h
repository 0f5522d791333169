// The pass rule of docs/design.md section 4 for one tensor of results: limits from plain's errors, and rows
// judged by them. verify.h is what others use.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lab/verify.h"

namespace headwise::lab {

// `factor` times the largest error of plain, 1.5 times its root mean square, and the floor of the dtype. Of
// several plains (orders of summation) the worst counts. All are [rows, channels].
Limits limits_of(std::span<const double> truth, std::span<const std::vector<double>> plains, DType dtype,
                 double factor);

// Rows of one tensor of rank 4 beside their truth. Rows of keys come as {batch, kv head, key}.
struct VerifiedTensor {
  const char* name;
  const TensorView& view;
  std::span<const oracle::RowId> rows;
  std::span<const std::int64_t> offsets;  // of the rows, in elements from the tensor's start
  std::span<const double> truth;          // [rows, channels]
  const Limits& limits;
  bool of_keys = false;
};

struct TensorVerdict {
  double error_max = 0, error_rms = 0;  // against truth, over finite elements
  oracle::RowId worst{};                // row of error_max, or of the first element that is wrong in kind
  std::string reason;                   // empty on a pass
};
TensorVerdict judge_tensor(const VerifiedTensor& tensor);

// Why a row cannot be whole, or empty: an element of it still holds what poison() wrote.
std::string unwritten(const char* name, const TensorView& view, const oracle::RowId& row, std::int64_t offset,
                      bool of_keys = false);

// "batch 0, query 3, head 1"; of keys "batch 0, key 3, kv head 1".
std::string place(const oracle::RowId& row, bool of_keys = false);
std::string error_text(double value);
// Both finite, both NaN, or the same infinity.
bool same_kind(double a, double b);

}  // namespace headwise::lab
