#include "lab/data_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/text.h"

namespace headwise::lab {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> files_in(const std::string& folder, std::string_view extension) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(fs::path(data_directory()) / folder, error)) {
    if (entry.path().extension() == extension) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// A path as given, or a name in captured/ with or without its extension.
Result<std::string> captured_file(std::string_view name) {
  std::error_code error;
  if (fs::is_regular_file(fs::path(name), error)) return std::string(name);
  const std::vector<fs::path> files = files_in("captured", ".safetensors");
  std::vector<std::string> stems;
  for (const fs::path& file : files) {
    stems.push_back(file.stem().string());
    if (file.stem() == name || file.filename() == name) return file.string();
  }
  const std::vector<std::string_view> known(stems.begin(), stems.end());
  return Status::invalid_argument(
      fmt::format("no captured file '{}'{}; known in {}/captured: {}", name, core::did_you_mean(name, known),
                  data_directory(), stems.empty() ? "none" : fmt::format("{}", fmt::join(stems, ", "))));
}

Result<std::string> default_captured_file() {
  const std::vector<fs::path> files = files_in("captured", ".safetensors");
  if (files.empty()) {
    return Status::unavailable(
        fmt::format("no *.safetensors in {}/captured; set HEADWISE_DATA to the data folder, or name a file: "
                    "captured:FILE:LAYER",
                    data_directory()));
  }
  return files.front().string();
}

}  // namespace

std::string data_directory() {
  if (const char* given = std::getenv("HEADWISE_DATA"); given != nullptr && *given != '\0') return given;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  const fs::path share = program.parent_path().parent_path() / "share" / "headwise";
  return share.string();
}

Result<std::vector<int>> default_captured_layers() {
  Result<std::string> file = default_captured_file();
  if (!file) return file.status();
  return captured_layers(*file);
}

Result<InputSpec> find_inputs(std::string_view text) {
  const std::vector<std::string_view> parts = core::split(text, ':');
  if (parts[0] == "normal" && parts.size() == 1) return InputSpec{.kind = InputKind::normal};
  if (parts[0] == "uniform" && parts.size() == 1) return InputSpec{.kind = InputKind::uniform};
  if (parts[0] == "structured" && parts.size() == 1) return InputSpec{.kind = InputKind::structured};
  if (parts[0] != "captured" || parts.size() < 2 || parts.size() > 3) {
    static constexpr std::string_view kKnown[] = {"normal", "uniform", "structured", "captured"};
    return Status::invalid_argument(fmt::format(
        "expected normal, uniform, structured, captured, captured:LAYER or captured:FILE:LAYER, got '{}'{}",
        text, core::did_you_mean(parts[0], kKnown)));
  }
  const auto layer = core::parse_number<int>(parts.back());
  if (!layer) {
    return Status::invalid_argument(
        fmt::format("expected a layer's number in '{}', got '{}' (captured:LAYER or captured:FILE:LAYER)",
                    text, parts.back()));
  }
  Result<std::string> file = parts.size() == 2 ? default_captured_file() : captured_file(parts[1]);
  if (!file) return file.status();
  Result<std::vector<int>> layers = captured_layers(*file);
  if (!layers) return layers.status();
  if (std::find(layers->begin(), layers->end(), *layer) == layers->end()) {
    return Status::invalid_argument(
        fmt::format("{} has no layer {}; it has {}", *file, *layer,
                    layers->empty() ? "none" : fmt::format("{}", fmt::join(*layers, ", "))));
  }
  return InputSpec{.kind = InputKind::captured, .file = *file, .layer = *layer};
}

std::vector<SuiteFile> suite_files() {
  std::vector<SuiteFile> suites;
  for (const fs::path& path : files_in("suites", ".txt")) {
    SuiteFile suite{path.stem().string(), path.string(), ""};
    std::ifstream stream(path);
    std::string line;
    if (std::getline(stream, line) && line.starts_with("#")) {
      suite.summary = line.substr(std::min(line.size(), line.find_first_not_of("# ")));
    }
    suites.push_back(std::move(suite));
  }
  return suites;
}

Result<SuiteFile> find_suite(std::string_view name) {
  const std::vector<SuiteFile> suites = suite_files();
  std::vector<std::string_view> names;
  for (const SuiteFile& suite : suites) {
    if (suite.name == name) return suite;
    names.push_back(suite.name);
  }
  std::error_code error;
  if (fs::is_regular_file(fs::path(name), error)) return SuiteFile{std::string(name), std::string(name), ""};
  return Status::invalid_argument(
      fmt::format("no suite or file '{}'{}; suites in {}/suites: {}", name, core::did_you_mean(name, names),
                  data_directory(), names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "))));
}

}  // namespace headwise::lab
