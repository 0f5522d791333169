// Small text helpers: splitting, strict number parsing, and the nearest match for messages that
// end in "did you mean".
#pragma once

#include <charconv>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace headwise::core {

// The candidate with the smallest edit distance (insert, delete, replace, swap of neighbours; a
// prefix of a candidate counts as near); empty when none is near enough to be a typing error.
std::string_view nearest_match(std::string_view word, std::span<const std::string_view> candidates);

// "; did you mean 'window_left'?", or "" when nothing is near: appended to a message.
std::string did_you_mean(std::string_view word, std::span<const std::string_view> candidates);

// Parts between separators, empty ones kept: "a,,b" has three, "" has one.
std::vector<std::string_view> split(std::string_view text, char separator);
// Words between white space, empty ones dropped.
std::vector<std::string_view> split_words(std::string_view text);

// A number only if the whole text is one: no blanks, no trailing letters, no overflow.
template <class T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stop != end) return std::nullopt;
  return value;
}

// The shortest decimal text that parses back to the same bits.
std::string shortest(float value);
std::string shortest(double value);

}  // namespace headwise::core
