#include "core/text.h"

#include <algorithm>
#include <array>
#include <cstddef>

namespace headwise::core {
namespace {

// Edit distance in which a swap of two neighbours counts once ("optimal string alignment").
std::size_t edit_distance(std::string_view a, std::string_view b) {
  const std::size_t width = b.size() + 1;
  std::vector<std::size_t> cell((a.size() + 1) * width);
  for (std::size_t i = 0; i <= a.size(); ++i) cell[i * width] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) cell[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replace = cell[(i - 1) * width + j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      std::size_t best = std::min({replace, cell[(i - 1) * width + j] + 1, cell[i * width + j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        best = std::min(best, cell[(i - 2) * width + j - 2] + 1);
      }
      cell[i * width + j] = best;
    }
  }
  return cell.back();
}

template <class T>
std::string to_text(T value) {
  std::array<char, 64> buffer{};
  const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  return {buffer.data(), result.ptr};
}

}  // namespace

std::string_view nearest_match(std::string_view word, std::span<const std::string_view> candidates) {
  // A long word is cut: the table is quadratic, and no candidate is that long.
  constexpr std::size_t kLongest = 64;
  const std::string_view head = word.substr(0, kLongest);
  std::string_view best;
  std::size_t best_distance = std::max<std::size_t>(2, head.size() / 3) + 1;
  for (const std::string_view candidate : candidates) {
    std::size_t distance = edit_distance(head, candidate.substr(0, kLongest));
    if (head.size() >= 3 && candidate.starts_with(head)) distance = std::min<std::size_t>(distance, 2);
    // A distance as long as the word itself means that nothing of it was kept.
    if (distance < best_distance && distance < std::max(head.size(), candidate.size())) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view word, std::span<const std::string_view> candidates) {
  const std::string_view match = nearest_match(word, candidates);
  return match.empty() ? std::string() : "; did you mean '" + std::string(match) + "'?";
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  std::size_t begin = 0;
  for (std::size_t end = text.find(separator); end != std::string_view::npos;
       end = text.find(separator, begin)) {
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  parts.push_back(text.substr(begin));
  return parts;
}

std::vector<std::string_view> split_words(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n\v\f";
  std::vector<std::string_view> words;
  std::size_t begin = text.find_first_not_of(kBlanks);
  while (begin != std::string_view::npos) {
    const std::size_t end = std::min(text.find_first_of(kBlanks, begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    begin = text.find_first_not_of(kBlanks, end);
  }
  return words;
}

std::string shortest(float value) { return to_text(value); }
std::string shortest(double value) { return to_text(value); }

}  // namespace headwise::core
