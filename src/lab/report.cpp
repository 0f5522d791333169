#include "lab/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "lab/report_assets.h"
#include "lab/report_data.h"

namespace headwise::lab {
namespace {

std::string html_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

// Whether `text` starts with `word`, given in lower case, in any mixture of cases.
bool starts_with_word(std::string_view text, std::string_view word) {
  return text.size() >= word.size() && std::equal(word.begin(), word.end(), text.begin(), [](char a, char b) {
           return a == (b >= 'A' && b <= 'Z' ? static_cast<char>(b - 'A' + 'a') : b);
         });
}

// A script that may stand inside a <script> element. The two sequences that end it or change how it is read
// stand in its strings and expressions only, where the backslash means nothing.
std::string script_element(std::string_view script) {
  std::string out = "<script>(function () {\n";
  for (std::size_t i = 0; i < script.size(); ++i) {
    const std::string_view rest = script.substr(i);
    out += script[i];
    if (script[i] == '<' && (starts_with_word(rest, "</script") || starts_with_word(rest, "<!--")))
      out += '\\';
  }
  return out + "\n}).call(window);</script>";
}

// The page's scripts in the order in which they name each other.
std::string page_script() {
  std::string out =
      "(function () {\n\"use strict\";\n"
      "const page = JSON.parse(document.getElementById(\"data\").textContent);\n";
  for (const std::string_view name : {"format.js", "data.js", "view.js", "drawing.js", "charts.js",
                                      "table.js", "filters.js", "insights.js", "page.js"}) {
    out += report_asset(name);
  }
  return out + "})();";
}

using Replacements = std::unordered_map<std::string_view, std::string>;

// Replaces each {{name}} once: what stands in a replacement is never looked at again.
Result<std::string> fill_in(std::string_view page, const Replacements& replacements) {
  std::string out;
  while (!page.empty()) {
    const std::size_t open = page.find("{{");
    out += page.substr(0, open);
    if (open == std::string_view::npos) break;
    const std::size_t close = page.find("}}", open);
    if (close == std::string_view::npos) return Status::internal("report page: '{{' without '}}'");
    const std::string_view name = page.substr(open + 2, close - open - 2);
    const auto found = replacements.find(name);
    if (found == replacements.end()) {
      return Status::internal(fmt::format("report page: nothing is known as '{}'", name));
    }
    out += found->second;
    page.remove_prefix(close + 2);
  }
  return out;
}

Status read_text(const std::filesystem::path& path, std::string& text) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream copy;
  // An empty file sets the copy's failbit, which is no error; a folder opens and fails at the first read.
  if (stream.is_open() && stream.peek() != std::ifstream::traits_type::eof()) copy << stream.rdbuf();
  if (!stream.is_open() || stream.bad() || copy.fail()) {
    return Status::unavailable(
        fmt::format("{}: cannot be read; check that it is a readable file", path.string()));
  }
  text = copy.str();
  return {};
}

std::string default_title(const Run& run) {
  for (const auto& [name, value] : run.environment) {
    if (name == "cpu" && !value.empty()) return "Attention on " + value;
  }
  return "Attention run " + run.run;
}

}  // namespace

Result<std::string> render_report(const ReportInputs& inputs) {
  const std::string_view page = report_asset("page.html");
  if (page.empty()) return Status::internal("the report's page was not built into this program");
  const std::string title = inputs.title.empty() ? default_title(inputs.file.run) : inputs.title;
  return fill_in(page, {
                           {"title", html_text(title)},
                           {"style", std::string(report_asset("style.css"))},
                           {"data", report_data(inputs)},
                           {"renderer", inputs.renderer_js.empty() ? "" : script_element(inputs.renderer_js)},
                           {"script", page_script()},
                       });
}

Status read_report_assets(const std::string& share_dir, ReportInputs& inputs) {
  namespace fs = std::filesystem;
  std::error_code none;
  std::vector<fs::path> files;
  for (fs::directory_iterator entry(fs::path(share_dir) / "charts", none), end; !none && entry != end;
       entry.increment(none)) {
    if (entry->path().extension() == ".json") files.push_back(entry->path());
  }
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    ChartSpec chart{.file = file.filename().string(), .text = {}};
    if (Status status = read_text(file, chart.text); !status.ok()) return status;
    inputs.charts.push_back(std::move(chart));
  }
  const fs::path renderer = fs::path(share_dir) / "renderer" / "vega-bundle.js";
  if (fs::exists(renderer, none)) return read_text(renderer, inputs.renderer_js);
  return {};
}

}  // namespace headwise::lab
