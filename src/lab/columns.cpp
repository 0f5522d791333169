#include "lab/columns.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "core/text.h"
#include "lab/axes.h"
#include "lab/insights_rows.h"

namespace headwise::lab {
namespace {

// The case first, then who, then what was measured, then how it ended.
int order_of(const Field& field) {
  if (field.name == "contender") return 1;
  if (field.name == "status") return 3;
  if (field.name == "isa") return 2;  // of the contender
  static const Field* const first = find_field("device");
  static const Field* const last = find_field("cache");
  return &field >= first && &field <= last ? 0 : 2;
}

// A row without a rank for the cost of calling it has a time, of which no speed is made.
std::string cell_of(const Row& row, const Field& field) {
  if (unranked_by_overhead(row)) {
    if (field.name == "status") return "not ranked";
    if (field.name == "tokens_per_s" || field.name == "tflops" || field.name == "gb_per_s") return "-";
  }
  return display(row, field);
}

bool constant(const Column& column) {
  return std::all_of(column.cells.begin(), column.cells.end(),
                     [&](const std::string& cell) { return cell == column.cells.front(); });
}

}  // namespace

bool Column::numeric() const {
  const FieldType type = type_of(*field);
  return type == FieldType::integer || type == FieldType::number;
}

std::vector<Column> make_columns(const std::vector<Row>& rows) {
  std::vector<Column> columns;
  for (const Field& field : fields()) {
    if (field.importance == 0) continue;
    Column column{.field = &field,
                  .title = std::string(field.title),
                  .cells = {},
                  .width = 0,
                  .order = order_of(field)};
    column.width = column.title.size();
    for (const Row& row : rows) {
      column.cells.push_back(cell_of(row, field));
      column.width = std::max(column.width, column.cells.back().size());
    }
    columns.push_back(std::move(column));
  }
  // One column where the second is the same everywhere.
  const auto named = [&](std::string_view name) {
    return std::find_if(columns.begin(), columns.end(),
                        [&](const Column& c) { return c.field->name == name; });
  };
  for (const auto& [first, second, title] : {std::tuple{"seq_q", "seq_kv", "seq"},
                                             {"head_dim", "head_dim_v", "dim"},
                                             {"dtype", "kv_dtype", "dtype"}}) {
    if (named(first)->cells != named(second)->cells) continue;
    named(first)->title = title;
    columns.erase(named(second));
  }
  std::stable_sort(columns.begin(), columns.end(),
                   [](const Column& a, const Column& b) { return a.order < b.order; });
  return columns;
}

std::string take_constants(std::vector<Column>& columns) {
  std::string caption;
  std::erase_if(columns, [&](const Column& column) {
    if (!constant(column) || column.field->importance >= 90) return false;
    const std::string& value = column.cells.front();
    // Columns that say nothing are not worth a word: not measured, or the usual "all keys".
    const bool silent = value == "-" || value == "unspecified" ||
                        (column.field->name.starts_with("window") && value == "-1") ||
                        (column.field->name == "page_size" && value == "0") ||
                        (value == "no" && (column.field->name == "sinks" || column.field->name == "varlen"));
    if (!silent) caption += fmt::format("{}{} {}", caption.empty() ? "" : ", ", column.title, value);
    return true;
  });
  return caption;
}

bool tell_cases_apart(const std::vector<Row>& rows, const std::vector<Column>& columns,
                      const Column* without) {
  std::map<std::vector<std::string_view>, std::string_view> seen;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::vector<std::string_view> shown;
    for (const Column& column : columns) {
      if (column.order == 0 && &column != without) shown.push_back(column.cells[i]);
    }
    const auto [found, is_new] = seen.emplace(std::move(shown), rows[i].case_id);
    if (!is_new && found->second != rows[i].case_id) return false;
  }
  return true;
}

std::vector<std::string> case_labels(const std::vector<Row>& rows) {
  std::map<std::string_view, std::vector<std::string_view>> words;  // of each case
  for (const Row& row : rows) words.try_emplace(row.case_id, core::split(row.case_id, ' '));
  std::map<std::string_view, std::size_t> cases_with;
  for (const auto& [ignored, of_case] : words) {
    for (const std::string_view word : std::set(of_case.begin(), of_case.end())) ++cases_with[word];
  }
  std::vector<std::string> labels;
  for (const Row& row : rows) {
    std::string label;
    for (const std::string_view word : words[row.case_id]) {
      if (cases_with[word] < words.size()) label += fmt::format("{}{}", label.empty() ? "" : " ", word);
    }
    // What is left of a case that another has in full, with words besides.
    labels.push_back(label.empty() ? row.case_id : label);
  }
  return labels;
}

}  // namespace headwise::lab
