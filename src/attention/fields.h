// The fields of an AttentionProblem as a table: printing, parsing, hashing, range checks and the
// comparison of a call with its plan all walk it, so a new field is one line.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "headwise/attention.h"

namespace headwise {

template <class T>
using MemberOf = T AttentionProblem::*;
using Member = std::variant<MemberOf<DType>, MemberOf<Direction>, MemberOf<Align>, MemberOf<AlibiKind>,
                            MemberOf<MaskKind>, MemberOf<std::int64_t>, MemberOf<int>, MemberOf<std::uint8_t>,
                            MemberOf<bool>, MemberOf<float>, MemberOf<std::optional<float>>>;

struct Field {
  std::string_view name;
  Member member;
  double minimum = 0;  // of numbers, both ends allowed
  double maximum = 0;
  bool always_printed = false;
  bool maximum_of_plan = false;  // a call may have less than its plan
};

std::span<const Field> problem_fields();

// The field's value as in to_string: "64", "bf16", "bq", "0.125".
std::string value_text(const Field& field, const AttentionProblem& problem);
bool equal_value(const Field& field, const AttentionProblem& a, const AttentionProblem& b);
// Its number lies between minimum and maximum; fields that are no numbers always pass.
Status check_range(const Field& field, const AttentionProblem& problem);

// Largest extent of any axis: products of two and sums of four stay within 64 bits.
inline constexpr std::int64_t kLargestExtent = std::int64_t{1} << 48;
inline constexpr std::int64_t kLargestHeadDim = 576;

}  // namespace headwise
