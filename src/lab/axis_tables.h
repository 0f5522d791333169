// The parts of the table of axes (axes.h), and what their entries are written with.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <vector>

#include "core/text.h"
#include "lab/axes.h"

namespace headwise::lab {

std::vector<Axis> place_axes();
std::vector<Axis> size_axes();
std::vector<Axis> mask_axes();
std::vector<Axis> sequence_axes();
std::vector<Axis> feature_axes();
std::vector<Axis> pruning_axes();
std::vector<Axis> contender_axes();

// What an axis's type has let through.
inline std::int64_t to_integer(const std::string& value) {
  return core::parse_number<std::int64_t>(value).value_or(0);
}
inline bool to_boolean(std::string_view value) { return value == "1" || value == "true"; }
inline std::string shown(std::int64_t value) { return fmt::format("{}", value); }
inline std::string unshown(const Case&) { return ""; }

inline Status wrong_value(std::string_view value, std::string_view expected) {
  return Status::invalid_argument(fmt::format("expected {}, got '{}'", expected, value));
}

}  // namespace headwise::lab
