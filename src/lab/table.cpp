#include "lab/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "lab/columns.h"
#include "lab/insights_rows.h"

namespace headwise::lab {
namespace {

std::size_t total_width(const std::vector<Column>& columns) {
  std::size_t width = 2;  // the mark of the fastest
  for (const Column& column : columns) width += column.width + 2;
  return width - 2;
}

// Least important first; false where it does not fit with what must stay: who and how fast, the columns that
// tell the cases apart, and those of importance `keep` and more.
bool drop_to_fit(const std::vector<Row>& rows, std::vector<Column>& columns, std::size_t width, int keep) {
  const auto may_go = [&](std::size_t at) {
    const Field& field = *columns[at].field;
    if (field.name == "contender" || field.name == "ms_median" ||
        (columns[at].order > 0 && field.importance >= keep))
      return false;
    return columns[at].order > 0 || tell_cases_apart(rows, columns, &columns[at]);
  };
  while (total_width(columns) > width) {
    std::size_t least = columns.size();
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const bool lesser =
          least == columns.size() || columns[i].field->importance < columns[least].field->importance;
      if (lesser && may_go(i)) least = i;
    }
    if (least == columns.size()) return false;
    columns.erase(columns.begin() + static_cast<std::ptrdiff_t>(least));
  }
  return true;
}

// The columns that fit. Where they cannot hold the case beside what is measured, the case goes to lines of
// its own (one a row, for the first row of each case), and its columns leave.
std::vector<std::string> arrange(const std::vector<Row>& rows, std::vector<Column>& columns,
                                 std::size_t width) {
  constexpr int kMeasured = 80;  // max error, speedup, time, status
  std::vector<Column> flat = columns;
  if (tell_cases_apart(rows, flat) && drop_to_fit(rows, flat, width, kMeasured)) {
    columns = std::move(flat);
    return {};
  }
  const bool one_case = std::all_of(rows.begin(), rows.end(),
                                    [&](const Row& row) { return row.case_id == rows.front().case_id; });
  if (!one_case) std::erase_if(columns, [](const Column& column) { return column.order == 0; });
  constexpr int kNothing = 1000;
  drop_to_fit(rows, columns, width, kNothing);
  return one_case ? std::vector<std::string>{} : case_labels(rows);
}

std::string pad(const std::string& text, std::size_t width, bool right) {
  const std::string blanks(width > text.size() ? width - text.size() : 0, ' ');
  return right ? blanks + text : text + blanks;
}

Color color_of(const Row& row, bool fastest) {
  if (row.status == row_status::kInaccurate || row.status == row_status::kError) return Color::red;
  if (row.status != row_status::kOk || unranked_by_overhead(row)) return Color::yellow;
  return fastest ? Color::green : Color::none;
}

}  // namespace

std::map<std::string, const Row*> leaders_of(const std::vector<Row>& rows) {
  std::map<std::string, std::vector<const Row*>> alike;
  std::map<std::string, std::set<std::string>> timings;  // of each case
  for (const Row& row : rows) {
    if (!ranked(row)) continue;
    alike[timing_key(row)].push_back(&row);
    timings[row.case_id].insert(timing_key(row));
  }
  std::map<std::string, const Row*> best;
  for (const auto& [key, rivals] : alike) {
    if (rivals.size() < 2 && timings[rivals.front()->case_id].size() > 1) continue;
    best[key] = *std::min_element(rivals.begin(), rivals.end(),
                                  [](const Row* a, const Row* b) { return *a->ms_median < *b->ms_median; });
  }
  return best;
}

std::vector<bool> fastest_of_case(const std::vector<Row>& rows) {
  const std::map<std::string, const Row*> best = leaders_of(rows);
  std::vector<bool> marks;
  for (const Row& row : rows) {
    const auto found = ranked(row) ? best.find(timing_key(row)) : best.end();
    marks.push_back(found != best.end() && (&row == found->second ||
                                            row.ms_low.value_or(*row.ms_median) <=
                                                found->second->ms_high.value_or(*found->second->ms_median)));
  }
  return marks;
}

std::string render_table(const std::vector<Row>& rows, const Terminal& terminal) {
  if (rows.empty()) return "no rows\n";
  std::vector<Column> columns = make_columns(rows);
  const std::string caption = take_constants(columns);
  const std::vector<std::string> headings =
      arrange(rows, columns, static_cast<std::size_t>(terminal.columns));
  std::string text;
  if (!caption.empty()) text += wrapped("All rows: " + caption, ", ", terminal.columns, 2) + "\n\n";

  std::string head = " ", rule = " ";
  for (const Column& column : columns) {
    head += " " + pad(column.title, column.width, column.numeric()) + " ";
    rule += " ";
    for (std::size_t i = 0; i < column.width; ++i) rule += terminal.unicode ? "\u2500" : "-";
    rule += " ";
  }
  const auto trimmed = [](std::string line) {
    line.erase(line.find_last_not_of(' ') + 1);
    return line;
  };
  text += colored(terminal, Color::bold, trimmed(head)) + "\n" + trimmed(rule) + "\n";
  const std::vector<bool> fastest = fastest_of_case(rows);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (!headings.empty() && (i == 0 || rows[i].case_id != rows[i - 1].case_id))
      text += wrapped(headings[i], " ", terminal.columns, 2) + "\n";
    std::string line(fastest[i] ? "*" : " ");
    for (const Column& column : columns)
      line += " " + pad(column.cells[i], column.width, column.numeric()) + " ";
    text += colored(terminal, color_of(rows[i], fastest[i]), trimmed(line)) + "\n";
  }
  return text;
}

}  // namespace headwise::lab
