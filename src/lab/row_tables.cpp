#include "lab/row_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/text.h"
#include "lab/columns.h"
#include "lab/table.h"

namespace headwise::lab {
namespace {

// A cell of CSV. Formulas are tamed in text alone: a number may well begin with a minus.
std::string csv_cell(const Row& row, const Field& field) {
  std::string text = exact_text(row, field);
  const FieldType type = type_of(field);
  if (type == FieldType::numbers) std::replace(text.begin(), text.end(), ' ', ';');
  if (type == FieldType::text && !text.empty() &&
      std::string_view("=+-@\t\r").find(text[0]) != std::string::npos)
    text.insert(0, "'");
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

// As text in a cell of a Markdown table: nothing in it is markup, and it stays in its cell.
std::string markdown_cell(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x20 || code == 0x7f) {
      result += ' ';
      continue;
    }
    if (std::string_view("\\`*_[]<>|~&#!$").find(c) != std::string_view::npos) result += '\\';
    result += c;
  }
  return result;
}

std::string markdown_line(const std::vector<std::string>& cells) {
  return fmt::format("| {} |\n", fmt::join(cells, " | "));
}

// A fence longer than any run of backticks within.
std::string code_block(const std::string& text) {
  std::size_t longest = 0, run = 0;
  for (const char c : text) {
    run = c == '`' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  const std::string fence(std::max<std::size_t>(3, longest + 1), '`');
  return fmt::format("{}\n{}\n{}\n", fence, text, fence);
}

// What a reader asks first; everything else is folded away below it.
std::string environment_lines(const Run& run) {
  constexpr std::array kFirst{"cpu", "isa",      "cpus_usable",     "memory_total",
                              "os",  "compiler", "headwise_version"};
  std::string facts;
  for (const std::string_view name : kFirst) {
    for (const auto& [key, value] : run.environment) {
      if (key == name)
        facts += fmt::format("{}{} {}", facts.empty() ? "" : ", ", markdown_cell(key), markdown_cell(value));
    }
  }
  std::string text =
      fmt::format("Run {} of {}: {}.\n\n", markdown_cell(run.run), markdown_cell(run.started), facts);
  text += code_block(run.command);
  for (const Continuation& one : run.continued)
    text += fmt::format("\nContinued {}:\n\n{}", markdown_cell(one.started), code_block(one.command));
  text += "\n<details><summary>Environment</summary>\n\n| name | value |\n| :-- | :-- |\n";
  for (const auto* facts_of : {&run.environment, &run.options}) {
    for (const auto& [key, value] : *facts_of)
      text += markdown_line({markdown_cell(key), markdown_cell(value)});
  }
  return text + "\n</details>\n\n";
}

std::string peers_table(const std::vector<Row>& rows) {
  const std::vector<PeerSummary> peers = peer_summaries(rows);
  if (peers.empty()) return "";
  std::string text = markdown_line({"peer", "version", "median speedup over the baseline", "ranked",
                                    "not ranked: overhead", "did not run"}) +
                     markdown_line({":--", ":--", "--:", "--:", "--:", "--:"});
  for (const PeerSummary& peer : peers) {
    text +=
        markdown_line({markdown_cell(peer.peer), markdown_cell(peer.version), peer.speedup_text(),
                       peer.ranked_text(), fmt::format("{}", peer.overhead), fmt::format("{}", peer.others)});
  }
  return text + "\n";
}

}  // namespace

std::string rows_as_csv(const std::vector<Row>& rows) {
  std::string text;
  for (const Field& field : fields()) text += fmt::format("{}{}", text.empty() ? "" : ",", field.name);
  text += "\r\n";
  for (const Row& row : rows) {
    for (const Field& field : fields()) {
      if (&field != &fields().front()) text += ',';
      text += csv_cell(row, field);
    }
    text += "\r\n";
  }
  return text;
}

std::string rows_as_markdown(const RunFile& file) {
  std::string text = environment_lines(file.run);
  const std::vector<Row>& rows = file.rows;
  if (rows.empty()) return text + "No rows.\n";
  std::vector<Column> columns = make_columns(rows);
  const std::string caption = take_constants(columns);
  if (!caption.empty()) text += fmt::format("All rows: {}.\n\n", markdown_cell(caption));
  const bool by_label = !tell_cases_apart(rows, columns);
  std::vector<std::string> head, rule;
  if (by_label) {
    head.emplace_back("case");
    rule.emplace_back(":--");
  }
  for (const Column& column : columns) {
    head.push_back(markdown_cell(column.title));
    rule.emplace_back(column.numeric() ? "--:" : ":--");
  }
  text += markdown_line(head) + markdown_line(rule);
  const std::vector<std::string> labels = by_label ? case_labels(rows) : std::vector<std::string>{};
  const std::vector<bool> fastest = fastest_of_case(rows);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::vector<std::string> cells;
    if (by_label) cells.push_back(markdown_cell(labels[i]));
    for (const Column& column : columns) {
      const std::string cell = markdown_cell(column.cells[i]);
      cells.push_back(fastest[i] && column.field->name == "ms_median" ? "**" + cell + "**" : cell);
    }
    text += markdown_line(cells);
  }
  text += "\nBold: the fastest of its case, or not to be told apart from it.\n\n";
  text += peers_table(rows);
  Terminal terminal;
  terminal.columns = 100'000;  // Markdown breaks lines itself
  const std::string summary = render_summary_without_peers(rows, terminal);
  for (const std::string_view line : core::split(summary, '\n')) {
    const std::size_t begin = line.find_first_not_of(' ');
    if (begin == std::string_view::npos) continue;
    text += fmt::format("{}- {}\n", begin > 0 ? "  " : "", markdown_cell(line.substr(begin)));
  }
  return text;
}

}  // namespace headwise::lab
