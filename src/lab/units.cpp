#include "lab/units.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

namespace headwise::lab {

std::string bytes_for_people(double bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  std::size_t unit = 0;
  // 1023.5 would be shown as 1.02e+03 of the smaller unit.
  for (; bytes >= 999.5 && unit + 1 < std::size(kUnits); ++unit) bytes /= 1024;
  return bytes < 999.5 ? fmt::format("{:.3g} {}", bytes, kUnits[unit])
                       : fmt::format("{:.0f} {}", bytes, kUnits[unit]);
}

std::string seconds_for_people(double seconds) {
  if (seconds < 10) return fmt::format("{:.1f} s", seconds);
  if (seconds < 90) return fmt::format("{:.0f} s", seconds);
  if (seconds < 90.0 * 60) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

std::string rate_for_people(double per_second) {
  if (per_second >= 1e6) return fmt::format("{:.4g}M", per_second / 1e6);
  if (per_second >= 1e3) return fmt::format("{:.4g}k", per_second / 1e3);
  return fmt::format("{:.4g}", per_second);
}

std::string four_digits(double value) {
  if (value == 0 || !std::isfinite(value)) return fmt::format("{}", value);
  const int decimals = 3 - static_cast<int>(std::floor(std::log10(std::abs(value))));
  return fmt::format("{:.{}f}", value, std::clamp(decimals, 0, 6));
}

std::string counted(std::size_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

std::string shell_word(std::string_view word) {
  if (!word.empty() && word.find_first_of(" \t\n'\"$`*?[]{}~#!&;<>()|\\") == std::string_view::npos)
    return std::string(word);
  std::string text = "'";
  for (const char c : word) {
    if (c == '\'') {
      text += "'\\''";
    } else {
      text += c;
    }
  }
  return text + "'";
}

}  // namespace headwise::lab
