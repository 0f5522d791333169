#include "lab/axes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/text.h"
#include "lab/axis_tables.h"
#include "lab/data_files.h"

namespace headwise::lab {
namespace {

constexpr std::size_t kMaxValues = 10'000;  // of one axis: more is a typing error

std::vector<Axis> make_axes() {
  std::vector<Axis> table;
  for (const auto& part : {place_axes(), size_axes(), mask_axes(), sequence_axes(), feature_axes(),
                           pruning_axes(), contender_axes()}) {
    table.insert(table.end(), part.begin(), part.end());
  }
  return table;
}

// "a", "a..b", "a..b+step", "a..b*factor".
Status expand_integers(const Axis& axis, std::string_view part, std::vector<std::string>& values) {
  constexpr std::string_view kForms = "a whole number, a list 1,4 or a range 512..8192*2 or 128..1024+128";
  const std::size_t dots = part.find("..");
  const auto first = core::parse_number<std::int64_t>(part.substr(0, dots));
  if (!first) return wrong_value(part, kForms);
  if (*first < axis.least) return wrong_value(part, fmt::format("at least {}", axis.least));
  if (dots == std::string_view::npos) {
    values.push_back(shown(*first));
    return {};
  }
  std::string_view rest = part.substr(dots + 2);
  const std::size_t sign = rest.find_first_of("+*");
  const bool times = sign != std::string_view::npos && rest[sign] == '*';
  const auto last = core::parse_number<std::int64_t>(rest.substr(0, sign));
  const auto step = sign == std::string_view::npos ? std::optional<std::int64_t>(1)
                                                   : core::parse_number<std::int64_t>(rest.substr(sign + 1));
  if (!last || !step) return wrong_value(part, kForms);
  if (*step < (times ? 2 : 1))
    return wrong_value(part, times ? "a factor of at least 2" : "a step of at least 1");
  if (*last < *first) return wrong_value(part, "a range that goes up");
  if (times && *first < 1) return wrong_value(part, "a start of at least 1 where the range multiplies");
  for (std::int64_t value = *first;;) {
    values.push_back(shown(value));
    if (values.size() > kMaxValues) return wrong_value(part, fmt::format("at most {} values", kMaxValues));
    // Compared before stepping, so that nothing overflows.
    if (times ? value > *last / *step : value > *last - *step) return {};
    value = times ? value * *step : value + *step;
  }
}

Status expand_one(const Axis& axis, std::string_view part, std::vector<std::string>& values) {
  if (part.empty()) return wrong_value(part, "a value");
  switch (axis.type) {
    case AxisType::integer: return expand_integers(axis, part, values);
    case AxisType::boolean:
      if (part != "0" && part != "1" && part != "true" && part != "false") return wrong_value(part, "0 or 1");
      values.emplace_back(to_boolean(part) ? "1" : "0");
      return {};
    case AxisType::number: {
      const auto number = core::parse_number<float>(part);
      if (!number || !std::isfinite(*number)) return wrong_value(part, "a finite number");
      break;
    }
    case AxisType::choice: {
      if (axis.name == "dtype" || axis.name == "kv-dtype") {  // long names too: "float32"
        if (Result<DType> dtype = parse_dtype(part); dtype) {
          part = name(*dtype);
        }
      }
      if (std::find(axis.choices.begin(), axis.choices.end(), part) == axis.choices.end()) {
        return Status::invalid_argument(fmt::format("expected {}, got '{}'{}", fmt::join(axis.choices, ", "),
                                                    part, core::did_you_mean(part, axis.choices)));
      }
      break;
    }
    case AxisType::text:
    case AxisType::names: break;
  }
  values.emplace_back(part);
  return {};
}

}  // namespace

const std::vector<Axis>& axes() {
  static const std::vector<Axis> table = make_axes();
  return table;
}

const Axis* find_axis(std::string_view name) {
  std::string with_dashes(name);
  std::replace(with_dashes.begin(), with_dashes.end(), '_', '-');
  for (const Axis& axis : axes()) {
    if (axis.name == with_dashes) return &axis;
  }
  return nullptr;
}

std::vector<std::string_view> axis_names() {
  std::vector<std::string_view> names;
  for (const Axis& axis : axes()) names.push_back(axis.name);
  return names;
}

Result<std::vector<std::string>> expand_values(const Axis& axis, std::string_view text) {
  std::vector<std::string> values;
  if (axis.type == AxisType::names) {
    if (text.empty()) return wrong_value(text, "a name");
    return std::vector<std::string>{std::string(text)};
  }
  for (const std::string_view part : core::split(text, ',')) {
    if (axis.name == "inputs" && part == "captured") {
      Result<std::vector<int>> layers = default_captured_layers();
      if (!layers) return layers.status();
      for (const int layer : *layers) values.push_back(fmt::format("captured:{}", layer));
      continue;
    }
    if (Status status = expand_one(axis, part, values); !status.ok()) return status;
    if (values.size() > kMaxValues) return wrong_value(text, fmt::format("at most {} values", kMaxValues));
  }
  return values;
}

}  // namespace headwise::lab
