#include "lab/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "core/text.h"
#include "lab/columns.h"
#include "lab/statistics.h"
#include "lab/units.h"

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
  if (row.status != row_status::kOk) return Color::yellow;
  return fastest ? Color::green : Color::none;
}

// The fastest ranked row of each case.
std::map<std::string, const Row*> leaders_of(const std::vector<Row>& rows) {
  std::map<std::string, const Row*> best;
  for (const Row& row : rows) {
    if (!ranked(row)) continue;
    const Row*& leader = best[row.case_id];
    if (leader == nullptr || *row.ms_median < *leader->ms_median) leader = &row;
  }
  return best;
}

}  // namespace

std::vector<bool> fastest_of_case(const std::vector<Row>& rows) {
  const std::map<std::string, const Row*> best = leaders_of(rows);
  std::vector<bool> marks;
  for (const Row& row : rows) {
    const auto found = best.find(row.case_id);
    const bool rival = ranked(row) && found != best.end();
    marks.push_back(
        rival && (&row == found->second || row.ms_low.value_or(*row.ms_median) <=
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

namespace {

std::string fastest_line(const std::vector<Row>& rows) {
  const std::map<std::string, const Row*> best = leaders_of(rows);
  if (best.empty()) return "";
  std::map<std::string, int> wins;
  for (const auto& [ignored, row] : best) ++wins[row->contender];
  std::vector<std::pair<std::string, int>> order(wins.begin(), wins.end());
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string text = "Fastest (*): ";
  for (std::size_t i = 0; i < order.size(); ++i) {
    text += fmt::format("{}{} in {}{}", i == 0 ? "" : ", ", order[i].first, order[i].second,
                        i == 0 ? " of " + counted(best.size(), "case") : "");
  }
  return text + "\n";
}

std::string speedup_lines(const std::vector<Row>& rows) {
  std::map<std::string, std::vector<double>> speedups;
  for (const Row& row : rows) {
    if (ranked(row) && row.speedup && row.contender != row.baseline) {
      speedups[row.contender + " over " + row.baseline].push_back(*row.speedup);
    }
  }
  std::string text;
  for (const auto& [who, values] : speedups) {
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    text += fmt::format("Speedup: {}: median {:.2f}x ({:.2f}x to {:.2f}x in {})\n", who, median(values), *low,
                        *high, counted(values.size(), "case"));
  }
  return text;
}

std::string verified_line(const std::vector<Row>& rows) {
  std::size_t verified = 0;
  std::map<std::string, int> statuses;
  const Row* worst = nullptr;
  const auto share = [](const Row& row) { return *row.error_max / *row.error_limit; };
  for (const Row& row : rows) {
    ++statuses[row.status];
    if (row.status != row_status::kOk || !row.error_max) continue;
    ++verified;
    if (row.error_limit && *row.error_limit > 0 && (worst == nullptr || share(row) > share(*worst)))
      worst = &row;
  }
  std::string text = fmt::format("Verified against fp64: {} of {} rows", verified, rows.size());
  if (worst != nullptr) text += fmt::format("; the largest error is {:.2f} of its limit", share(*worst));
  std::string others;
  for (const auto& [status, count] : statuses) {
    if (status != row_status::kOk)
      others += fmt::format("{}{} {}", others.empty() ? "" : ", ", count, status);
  }
  return text + (others.empty() ? "" : "; " + others) + "\n";
}

std::string noise_line(const std::vector<Row>& rows) {
  constexpr double kNoisy = 0.05;
  std::size_t timed = 0, noisy = 0;
  for (const Row& row : rows) {
    if (!ranked(row) || !row.ms_low || !row.ms_high) continue;
    ++timed;
    if (*row.ms_high - *row.ms_low > kNoisy * *row.ms_median) ++noisy;
  }
  if (noisy == 0) return "";
  return fmt::format(
      "Noise: the median of {} of {} rows is known no better than to {:.0f} % (95 % interval)\n", noisy,
      timed, 100 * kNoisy);
}

}  // namespace

std::string render_summary(const std::vector<Row>& rows, const Terminal& terminal) {
  std::string text;
  const std::string lines = fastest_line(rows) + speedup_lines(rows) + noise_line(rows) + verified_line(rows);
  for (const std::string_view line : core::split(std::string_view(lines).substr(0, lines.size() - 1), '\n'))
    text += wrapped(line, " ", terminal.columns, 4) + "\n";
  // Each reason once, with how many rows share it.
  std::vector<std::pair<std::string, int>> reasons;
  for (const Row& row : rows) {
    if (row.status == row_status::kOk && (row.reason.empty() || !row.ms_median)) continue;
    const std::string line = fmt::format("{}: {}: {}", row.status, row.contender, row.reason);
    const auto found =
        std::find_if(reasons.begin(), reasons.end(), [&](const auto& r) { return r.first == line; });
    if (found == reasons.end()) {
      reasons.emplace_back(line, 1);
    } else {
      ++found->second;
    }
  }
  constexpr std::size_t kShown = 12;
  for (std::size_t i = 0; i < std::min(reasons.size(), kShown); ++i) {
    const auto& [line, count] = reasons[i];
    const std::string counted = count == 1 ? line : fmt::format("{} ({} rows)", line, count);
    text += "  " + colored(terminal, Color::yellow, counted) + "\n";
  }
  if (reasons.size() > kShown)
    text += fmt::format("  and {} more reasons, in the rows\n", reasons.size() - kShown);
  return text;
}

}  // namespace headwise::lab
