#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "commands.h"
#include "core/text.h"
#include "lab/catalog.h"
#include "lab/data_files.h"
#include "lab/peers/peer.h"
#include "lab/presets.h"
#include "lab/rows.h"

namespace headwise::cli {
namespace {

void list_kernels() { fmt::print("Kernels, best first:\n{}", lab::kernel_list()); }

void list_matrix() { fmt::print("{}", lab::support_matrix()); }

void list_suites() {
  fmt::print("Suites in {}/suites:\n", lab::data_directory());
  const std::vector<lab::SuiteFile> suites = lab::suite_files();
  std::size_t width = 0;
  for (const lab::SuiteFile& suite : suites) width = std::max(width, suite.name.size() + 2);
  for (const lab::SuiteFile& suite : suites) fmt::print("  {:<{}}{}\n", suite.name, width, suite.summary);
}

void list_axes() {
  fmt::print("Axes, as flags (--seq 1,4) and as words of suites (seq=1,4); [standard value]:\n");
  for (const lab::Axis& axis : lab::axes()) {
    fmt::print("  {:<16}{} [{}]\n", axis.name, axis.help, axis.standard);
    if (!axis.choices.empty()) fmt::print("  {:<16}one or more of {}\n", "", fmt::join(axis.choices, ", "));
  }
}

void list_inputs() {
  fmt::print("Inputs:\n  normal\n  uniform\n  structured\n");
  if (Result<std::vector<int>> layers = lab::default_captured_layers(); layers) {
    for (const int layer : *layers) fmt::print("  captured:{}\n", layer);
  } else {
    fmt::print("  captured: {}\n", layers.status().message());
  }
}

void list_presets() {
  fmt::print("Presets (--preset NAME, preset=NAME):\n");
  const Result<std::vector<lab::Preset>>& presets = lab::presets();
  if (!presets) return fmt::print("  {}\n", presets.status().message());
  for (const lab::Preset& preset : *presets) {
    std::string words;
    for (const auto* part : {&preset.words, &preset.typical}) {
      for (const auto& [axis, value] : *part) words += fmt::format(" {}={}", axis, value);
    }
    fmt::print("  {:<24}{}\n  {:<24}{}\n", preset.name, preset.title, "", words.substr(1));
  }
}

void list_charts() {
  fmt::print("Charts in {}/charts:\n", lab::data_directory());
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(lab::data_directory() + "/charts", error)) {
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) fmt::print("  {}\n", name);
}

void list_fields() {
  fmt::print("Fields of a row ({}):\n", lab::kRowSchema);
  for (const lab::Field& field : lab::fields()) {
    fmt::print("  {:<22}{:<18}{:<9}{}\n", field.name, name(lab::type_of(field)), field.unit, field.help);
  }
}

// Starts the libraries to ask them, so it is not among what `list` alone prints.
void list_peers(const std::string& python) { fmt::print("{}", lab::peer_list(python)); }

constexpr std::string_view kPeers = "peers";

struct Section {
  std::string_view name;
  void (*print)();
};
constexpr Section kSections[] = {{"kernels", list_kernels}, {"suites", list_suites}, {"axes", list_axes},
                                 {"presets", list_presets}, {"inputs", list_inputs}, {"charts", list_charts},
                                 {"fields", list_fields},   {"matrix", list_matrix}};

}  // namespace

int run_list(const Invocation& invocation) {
  std::vector<const Section*> chosen;
  bool peers = invocation.list_peers;
  for (const std::string& word : invocation.positionals) {
    if (word == kPeers) {
      peers = true;
      continue;
    }
    const auto* found = std::find_if(std::begin(kSections), std::end(kSections),
                                     [&](const Section& s) { return s.name == word; });
    if (found == std::end(kSections)) {
      std::vector<std::string_view> names{kPeers};
      for (const Section& section : kSections) names.push_back(section.name);
      return fail(Status::invalid_argument(fmt::format(
          "list: expected {}, got '{}'{}", fmt::join(names, ", "), word, core::did_you_mean(word, names))));
    }
    chosen.push_back(found);
  }
  if (chosen.empty() && !peers) {  // fields are many, and for readers of files; the matrix is a page
    for (const Section& section : kSections) {
      if (section.name != "fields" && section.name != "matrix") chosen.push_back(&section);
    }
  }
  for (const Section* section : chosen) {
    if (section != chosen.front()) fmt::print("\n");
    section->print();
  }
  if (peers) {
    if (!chosen.empty()) fmt::print("\n");
    list_peers(invocation.peer_python);
  }
  return lab::exit_code::kGood;
}

}  // namespace headwise::cli
