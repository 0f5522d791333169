#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "attention/fields.h"
#include "core/text.h"
#include "core/try.h"
#include "headwise/attention.h"

namespace headwise {
namespace {

constexpr double kExtent = static_cast<double>(kLargestExtent);
constexpr double kFloat = std::numeric_limits<float>::max();
constexpr double kBelowOne = 0x1.fffffep-1;  // the largest float below 1
constexpr double kThreads = 65536;

using P = AttentionProblem;
constexpr std::array kFields = {
    Field{.name = "direction", .member = &P::direction},
    Field{.name = "dtype", .member = &P::dtype, .always_printed = true},
    Field{.name = "kv_dtype", .member = &P::kv_dtype},
    Field{.name = "batch",
          .member = &P::batch,
          .maximum = kExtent,
          .always_printed = true,
          .maximum_of_plan = true},
    Field{.name = "heads", .member = &P::heads, .maximum = kExtent, .always_printed = true},
    Field{.name = "kv_heads", .member = &P::kv_heads, .maximum = kExtent, .always_printed = true},
    Field{.name = "seq_q",
          .member = &P::seq_q,
          .maximum = kExtent,
          .always_printed = true,
          .maximum_of_plan = true},
    Field{.name = "seq_kv",
          .member = &P::seq_kv,
          .maximum = kExtent,
          .always_printed = true,
          .maximum_of_plan = true},
    Field{.name = "head_dim",
          .member = &P::head_dim,
          .minimum = 1,
          .maximum = kLargestHeadDim,
          .always_printed = true},
    Field{.name = "head_dim_v",
          .member = &P::head_dim_v,
          .minimum = 1,
          .maximum = kLargestHeadDim,
          .always_printed = true},
    Field{.name = "softmax_scale", .member = &P::softmax_scale, .minimum = -kFloat, .maximum = kFloat},
    Field{.name = "causal", .member = &P::causal},
    Field{.name = "align", .member = &P::align},
    Field{.name = "window_left", .member = &P::window_left, .minimum = -1, .maximum = kExtent},
    Field{.name = "window_right", .member = &P::window_right, .minimum = -1, .maximum = kExtent},
    Field{.name = "softcap", .member = &P::softcap, .maximum = kFloat},
    Field{.name = "alibi", .member = &P::alibi},
    Field{.name = "sinks", .member = &P::sinks},
    Field{.name = "bias", .member = &P::bias},
    Field{.name = "bias_axes", .member = &P::bias_axes, .maximum = 7},
    Field{.name = "mask", .member = &P::mask},
    Field{.name = "mask_axes", .member = &P::mask_axes, .maximum = 7},
    Field{.name = "dropout_p", .member = &P::dropout_p, .maximum = kBelowOne},
    Field{.name = "varlen", .member = &P::varlen},
    Field{.name = "total_q", .member = &P::total_q, .maximum = kExtent, .maximum_of_plan = true},
    Field{.name = "total_kv", .member = &P::total_kv, .maximum = kExtent, .maximum_of_plan = true},
    Field{.name = "lengths", .member = &P::lengths},
    Field{.name = "starts", .member = &P::starts},
    Field{.name = "pages", .member = &P::pages, .maximum = kExtent, .maximum_of_plan = true},
    Field{.name = "page_size", .member = &P::page_size, .maximum = kExtent},
    Field{.name = "lse", .member = &P::lse},
    Field{.name = "dbias", .member = &P::dbias},
    Field{.name = "dsinks", .member = &P::dsinks},
    Field{.name = "pointer_alignment", .member = &P::pointer_alignment, .minimum = 1, .maximum = 16},
    Field{.name = "threads", .member = &P::threads, .maximum = kThreads},
    Field{.name = "deterministic", .member = &P::deterministic},
    Field{.name = "batch_invariant", .member = &P::batch_invariant},
};

// The words of an enumeration; values count from 0.
template <class T>
inline constexpr std::array<std::string_view, 0> kWords{};
template <>
inline constexpr std::array<std::string_view, 2> kWords<Direction> = {"forward", "backward"};
template <>
inline constexpr std::array<std::string_view, 3> kWords<Align> = {"unspecified", "top_left", "bottom_right"};
template <>
inline constexpr std::array<std::string_view, 3> kWords<AlibiKind> = {"none", "per_head", "per_batch_head"};
template <>
inline constexpr std::array<std::string_view, 3> kWords<MaskKind> = {"none", "bool", "additive"};

constexpr std::string_view kAxisLetters = "bhq";  // bit 0, 1, 2 of BroadcastAxes

template <class T>
std::string text_of(const T& value) {
  if constexpr (std::is_same_v<T, DType>) {
    return std::string(name(value));
  } else if constexpr (std::is_enum_v<T>) {
    const auto index = static_cast<std::size_t>(value);
    return index < kWords<T>.size() ? std::string(kWords<T>[index]) : "unknown";
  } else if constexpr (std::is_same_v<T, std::uint8_t>) {
    std::string letters;
    for (std::size_t axis = 0; axis < kAxisLetters.size(); ++axis) {
      if (((value >> axis) & 1U) != 0) letters += kAxisLetters[axis];
    }
    return letters.empty() ? "none" : letters;
  } else if constexpr (std::is_same_v<T, bool>) {
    return value ? "1" : "0";
  } else if constexpr (std::is_same_v<T, float>) {
    return core::shortest(value);
  } else if constexpr (std::is_same_v<T, std::optional<float>>) {
    return value ? core::shortest(*value) : "default";
  } else {
    return std::to_string(value);
  }
}

// Each of the following reads a value, or says what it expected.
template <class T>
Status number_from(std::string_view text, T& value, const char* expected) {
  const std::optional<T> number = core::parse_number<T>(text);
  if (!number) return Status::invalid_argument(expected);
  value = *number;
  return {};
}
Status value_from(std::string_view text, DType& value) {
  const Result<DType> dtype = parse_dtype(text);
  if (!dtype) return dtype.status();
  value = *dtype;
  return {};
}
Status value_from(std::string_view text, std::int64_t& value) {
  return number_from(text, value, "expected an integer");
}
Status value_from(std::string_view text, int& value) {
  return number_from(text, value, "expected an integer");
}
Status value_from(std::string_view text, float& value) {
  return number_from(text, value, "expected a number");
}
Status value_from(std::string_view text, std::optional<float>& value) {
  return number_from(text, value.emplace(), "expected a number");
}
Status value_from(std::string_view text, bool& value) {
  if (text != "0" && text != "1") return Status::invalid_argument("expected 0 or 1");
  value = text == "1";
  return {};
}
Status value_from(std::string_view text, std::uint8_t& value) {
  value = 0;
  if (text == "none") return {};
  for (const char letter : text) {
    const std::size_t axis = kAxisLetters.find(letter);
    if (axis == std::string_view::npos) value = 0xff;
    if (value != 0xff) value = static_cast<std::uint8_t>(value | (1U << axis));
  }
  if (value == 0 || value == 0xff) {
    return Status::invalid_argument("expected none or letters of bhq (batch, heads, queries)");
  }
  return {};
}
template <class T>
  requires std::is_enum_v<T>
Status value_from(std::string_view text, T& value) {
  std::string expected;
  for (std::size_t i = 0; i < kWords<T>.size(); ++i) {
    if (kWords<T>[i] == text) {
      value = static_cast<T>(i);
      return {};
    }
    expected += (i == 0 ? "expected " : " or ") + std::string(kWords<T>[i]);
  }
  return Status::invalid_argument(expected + core::did_you_mean(text, kWords<T>));
}

template <class T>
std::uint64_t bits_of(const T& value) {
  if constexpr (std::is_same_v<T, float>) {
    return std::bit_cast<std::uint32_t>(value == 0 ? 0.0F : value);  // -0 equals 0
  } else if constexpr (std::is_same_v<T, std::optional<float>>) {
    return value ? bits_of(*value) : ~std::uint64_t{0};
  } else {
    return static_cast<std::uint64_t>(value);
  }
}

std::string range_text(const Field& field, bool integer) {
  if (!integer && field.maximum == kFloat)
    return field.minimum < 0 ? "a finite number" : "a finite number >= 0";
  if (integer) {
    return "an integer from " + std::to_string(static_cast<std::int64_t>(field.minimum)) + " to " +
           std::to_string(static_cast<std::int64_t>(field.maximum));
  }
  return "a number from " + core::shortest(field.minimum) + " up to, not including, 1";
}

// kv_dtype's default is dtype; all other fields have the default of the aggregate.
AttentionProblem defaults_for(const AttentionProblem& problem) {
  AttentionProblem defaults;
  defaults.kv_dtype = problem.dtype;
  return defaults;
}

const Field* find_field(std::string_view key) {
  for (const Field& field : kFields) {
    if (field.name == key) return &field;
  }
  return nullptr;
}

Status unknown_key(std::string_view word, std::string_view key) {
  std::vector<std::string_view> names;
  names.reserve(kFields.size());
  for (const Field& field : kFields) names.push_back(field.name);
  return Status::invalid_argument("problem word '" + std::string(word) + "': there is no field '" +
                                  std::string(key) + "'" + core::did_you_mean(key, names));
}

// Reads one "key=value" into the problem and returns its field.
Result<const Field*> read_word(std::string_view word, AttentionProblem& problem) {
  const std::size_t sign = word.find('=');
  const std::string_view key = word.substr(0, sign);
  const Field* const field = find_field(key);
  if (field == nullptr) return unknown_key(word, key);
  const std::string where = "problem word '" + std::string(word) + "': ";
  if (sign == std::string_view::npos) {
    return Status::invalid_argument(where + "expected " + std::string(key) + "=value");
  }
  const std::string_view text = word.substr(sign + 1);
  Status status = std::visit([&](auto member) { return value_from(text, problem.*member); }, field->member);
  if (status.ok()) status = check_range(*field, problem);
  if (!status.ok()) return Status::invalid_argument(where + status.message());
  return field;
}

}  // namespace

std::span<const Field> problem_fields() { return kFields; }

std::string value_text(const Field& field, const AttentionProblem& problem) {
  return std::visit([&](auto member) { return text_of(problem.*member); }, field.member);
}

bool equal_value(const Field& field, const AttentionProblem& a, const AttentionProblem& b) {
  return std::visit([&](auto member) { return a.*member == b.*member; }, field.member);
}

Status check_range(const Field& field, const AttentionProblem& problem) {
  const auto check = [&]<class T>(MemberOf<T> member) -> Status {
    if constexpr (std::is_same_v<T, std::optional<float>> ||
                  (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>)) {
      double number = 0;
      if constexpr (std::is_same_v<T, std::optional<float>>) {
        if (!(problem.*member).has_value()) return {};
        number = *(problem.*member);
      } else {
        number = static_cast<double>(problem.*member);
      }
      if (number >= field.minimum && number <= field.maximum) return {};  // false for NaN
      return Status::invalid_argument(std::string(field.name) + ": expected " +
                                      range_text(field, std::is_integral_v<T>) + ", got " +
                                      value_text(field, problem));
    }
    return {};
  };
  return std::visit(check, field.member);
}

float AttentionProblem::scale() const noexcept {
  return softmax_scale.value_or(static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim))));
}

std::string_view name(Align align) { return kWords<Align>[static_cast<std::size_t>(align)]; }
std::string_view name(Direction direction) { return kWords<Direction>[static_cast<std::size_t>(direction)]; }

std::string to_string(const AttentionProblem& problem) {
  const AttentionProblem defaults = defaults_for(problem);
  std::string line;
  for (const Field& field : kFields) {
    if (!field.always_printed && equal_value(field, problem, defaults)) continue;
    if (!line.empty()) line += ' ';
    line += std::string(field.name) + '=' + value_text(field, problem);
  }
  return line;
}

Result<AttentionProblem> parse_problem(std::string_view text) {
  AttentionProblem problem;
  std::array<bool, kFields.size()> given{};
  for (const std::string_view word : core::split_words(text)) {
    const Result<const Field*> field = read_word(word, problem);
    if (!field) return field.status();
    bool& seen = given[static_cast<std::size_t>(*field - kFields.data())];
    if (seen) {
      return Status::invalid_argument("problem word '" + std::string(word) +
                                      "': " + std::string((*field)->name) + " is given twice; keep one");
    }
    seen = true;
  }
  const auto absent = [&](std::string_view key) {
    return !given[static_cast<std::size_t>(find_field(key) - kFields.data())];
  };
  if (absent("kv_dtype")) problem.kv_dtype = problem.dtype;
  if (absent("kv_heads")) problem.kv_heads = problem.heads;
  if (absent("head_dim_v")) problem.head_dim_v = problem.head_dim;
  return problem;
}

std::size_t hash(const AttentionProblem& problem) noexcept {
  std::uint64_t state = 0x9e3779b97f4a7c15U;
  for (const Field& field : kFields) {
    state ^= std::visit([&](auto member) { return bits_of(problem.*member); }, field.member);
    state *= 0xff51afd7ed558ccdU;  // odd, so each step is a bijection: no field's bits get lost
    state ^= state >> 32;
  }
  return static_cast<std::size_t>(state);
}

}  // namespace headwise
