#include "lab/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "lab/report_assets.h"

namespace headwise::lab {
namespace {

// Length of the well-formed UTF-8 sequence at the head of `text`, 0 where there is none (Unicode, table 3-7).
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) -> unsigned {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const auto continues = [&](std::size_t i, unsigned low = 0x80, unsigned high = 0xBF) {
    return byte(i) >= low && byte(i) <= high;
  };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const unsigned low = first == 0xE0 ? 0xA0 : 0x80;   // no overlong forms
    const unsigned high = first == 0xED ? 0x9F : 0xBF;  // no surrogates
    return continues(1, low, high) && continues(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const unsigned low = first == 0xF0 ? 0x90 : 0x80;
    const unsigned high = first == 0xF4 ? 0x8F : 0xBF;  // nothing beyond U+10FFFF
    return continues(1, low, high) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

// A JSON string that may stand inside a <script> element: no '<' is left for the HTML parser to find.
std::string json_string(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const char c = text.front();
    if (length == 0) {
      out += "\\ufffd";
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == '<' || c == '>' || c == '&') {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return out + '"';
}

// Nine digits: finer than any clock or error here, and half the size of the shortest exact form.
std::string json_number(double value) {
  if (std::isnan(value)) return "\"nan\"";
  if (std::isinf(value)) return value > 0 ? "\"inf\"" : "\"-inf\"";
  return fmt::format("{:.9g}", value);
}

struct JsonValue {
  const Row& row;
  std::string operator()(std::string Row::* m) const { return json_string(row.*m); }
  std::string operator()(std::int64_t Row::* m) const { return fmt::format("{}", row.*m); }
  std::string operator()(bool Row::* m) const { return row.*m ? "true" : "false"; }
  std::string operator()(OptionalInteger Row::* m) const {
    return row.*m ? fmt::format("{}", *(row.*m)) : std::string("null");
  }
  std::string operator()(OptionalNumber Row::* m) const { return row.*m ? json_number(*(row.*m)) : "null"; }
  std::string operator()(std::vector<double> Row::* m) const { return fmt::format("{}", (row.*m).size()); }
};

std::string joined(const std::vector<std::string>& items) {
  return fmt::format("[{}]", fmt::join(items, ","));
}

// An array of the values, or, where they repeat, of the different ones and each row's index into it.
std::string json_column_values(const std::vector<std::string>& values) {
  std::unordered_map<std::string_view, std::size_t> places;
  std::vector<std::string> words, index;
  for (const std::string& value : values) {
    const auto [place, is_new] = places.try_emplace(value, words.size());
    if (is_new) words.push_back(value);
    index.push_back(fmt::format("{}", place->second));
  }
  if (words.size() * 2 > values.size()) return joined(values);
  return fmt::format(R"({{"words":{},"index":{}}})", joined(words), joined(index));
}

std::string json_columns(const std::vector<Row>& rows) {
  std::vector<std::string> columns;
  for (const Field& field : fields()) {
    if (type_of(field) == FieldType::numbers) continue;  // raw samples stay in the run's file
    std::vector<std::string> values;
    values.reserve(rows.size());
    for (const Row& row : rows) values.push_back(std::visit(JsonValue{row}, field.member));
    columns.push_back(fmt::format(R"({{"name":{},"type":{},"unit":{},"help":{},"values":{}}})",
                                  json_string(field.name), json_string(name(type_of(field))),
                                  json_string(field.unit), json_string(field.help),
                                  json_column_values(values)));
  }
  std::vector<std::string> rank;
  rank.reserve(rows.size());
  for (const Row& row : rows) rank.emplace_back(ranked(row) ? "true" : "false");
  columns.push_back(fmt::format(
      R"({{"name":"ranked","type":"boolean","unit":"","help":"may be drawn and compared","values":{}}})",
      json_column_values(rank)));
  return fmt::format("[{}]", fmt::join(columns, ",\n"));
}

std::string json_run(const Run& run) {
  std::vector<std::string> environment;
  for (const auto& [name, value] : run.environment) {
    environment.push_back(fmt::format("[{},{}]", json_string(name), json_string(value)));
  }
  return fmt::format(R"({{"run":{},"started":{},"command":{},"environment":{}}})", json_string(run.run),
                     json_string(run.started), json_string(run.command), joined(environment));
}

std::string json_page(const ReportInputs& inputs) {
  std::vector<std::string> charts, warnings;
  for (const ChartSpec& chart : inputs.charts) {
    charts.push_back(
        fmt::format(R"({{"file":{},"text":{}}})", json_string(chart.file), json_string(chart.text)));
  }
  for (const std::string& warning : inputs.file.warnings) warnings.push_back(json_string(warning));
  return fmt::format(
      R"({{"schema":{},"source":{},"run":{},"warnings":{},"charts":{},"count":{},"columns":{}}})",
      json_string(kRowSchema), json_string(inputs.source), json_run(inputs.file.run), joined(warnings),
      joined(charts), inputs.file.rows.size(), json_columns(inputs.file.rows));
}

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

std::string page_script() {
  std::string out = "(function () {\n\"use strict\";\n";
  for (const std::string_view name : {"format.js", "data.js", "charts.js", "table.js", "page.js"}) {
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
                           {"data", json_page(inputs)},
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
