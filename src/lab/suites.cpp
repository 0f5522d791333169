#include "lab/suites.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/text.h"
#include "lab/data_files.h"

namespace headwise::lab {

Result<std::vector<Words>> parse_suite(std::string_view text, std::string_view name) {
  std::vector<Words> lines;
  int number = 0;
  for (std::string_view line : core::split(text, '\n')) {
    ++number;
    line = line.substr(0, line.find('#'));
    Words words;
    words.where = fmt::format("{}:{}", name, number);
    for (const std::string_view word : core::split_words(line)) {
      const std::size_t equals = word.find('=');
      const std::string_view key = word.substr(0, equals);
      const Axis* axis = find_axis(key);
      if (axis == nullptr) {
        return Status::invalid_argument(
            fmt::format("{}: unknown word '{}'{}", words.where, key, core::did_you_mean(key, axis_names())));
      }
      if (equals == std::string_view::npos && axis->type != AxisType::boolean) {
        return Status::invalid_argument(fmt::format("{}: '{}' needs a value: {}=...", words.where, key, key));
      }
      const auto same = [&](const Word& other) { return other.first == axis->name; };
      if (std::any_of(words.words.begin(), words.words.end(), same)) {
        return Status::invalid_argument(fmt::format("{}: '{}' is given twice; use a list", words.where, key));
      }
      words.words.emplace_back(axis->name, equals == std::string_view::npos ? "1" : word.substr(equals + 1));
    }
    if (!words.words.empty()) lines.push_back(std::move(words));
  }
  if (lines.empty()) return Status::invalid_argument(fmt::format("{}: the suite has no line", name));
  return lines;
}

Result<std::vector<Words>> read_suite(std::string_view name_or_path) {
  Result<SuiteFile> suite = find_suite(name_or_path);
  if (!suite) return suite.status();
  std::ifstream stream(suite->path, std::ios::binary);
  if (!stream) return Status::unavailable(fmt::format("cannot open suite '{}'", suite->path));
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  return parse_suite(text, std::filesystem::path(suite->path).filename().string());
}

}  // namespace headwise::lab
