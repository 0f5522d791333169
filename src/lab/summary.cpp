#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "core/text.h"
#include "lab/insights_steps.h"
#include "lab/refusals.h"
#include "lab/statistics.h"
#include "lab/table.h"
#include "lab/units.h"

namespace headwise::lab {
namespace {

std::string fastest_line(const std::vector<Row>& rows) {
  constexpr std::size_t kNamed = 6;
  const std::map<std::string, const Row*> best = leaders_of(rows);
  if (best.empty()) return "";
  std::map<std::string, std::size_t> wins;
  for (const auto& [ignored, row] : best) ++wins[row->contender];
  std::vector<std::pair<std::string, std::size_t>> order(wins.begin(), wins.end());
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string text = "Fastest (*): ";
  for (std::size_t i = 0; i < std::min(order.size(), kNamed); ++i) {
    text += fmt::format("{}{} in {}{}", i == 0 ? "" : ", ", order[i].first, order[i].second,
                        i == 0 ? " of " + counted(best.size(), "case") : "");
  }
  if (order.size() > kNamed) {
    const auto rest = std::accumulate(order.begin() + kNamed, order.end(), std::size_t{0},
                                      [](std::size_t sum, const auto& entry) { return sum + entry.second; });
    text += fmt::format(", {} more in {}", order.size() - kNamed, rest);
  }
  return text + "\n";
}

// Of kernels alone: peers have a table.
std::string speedup_lines(const std::vector<ComparableRows>& groups) {
  std::map<std::string, std::vector<double>> speedups;
  for (const ComparableRows& group : groups) {
    for (const Row* row : group.rows) {
      const OptionalNumber speedup = group.speedup(*row);
      if (speedup && !is_peer(*row) && row->contender != row->baseline)
        speedups[row->contender + " over " + row->baseline].push_back(*speedup);
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

std::string peers_table(const std::vector<PeerSummary>& peers, int columns) {
  if (peers.empty()) return "";
  const auto any = [&](std::size_t PeerSummary::* member) {
    return std::any_of(peers.begin(), peers.end(), [&](const PeerSummary& peer) { return peer.*member > 0; });
  };
  std::vector<std::vector<std::string>> lines{{"Peers", "median speedup", "ranked"}};
  if (any(&PeerSummary::overhead)) lines[0].emplace_back("overhead");
  if (any(&PeerSummary::others)) lines[0].emplace_back("did not run");
  const auto number = [](std::size_t count) {
    return count == 0 ? std::string("-") : fmt::format("{}", count);
  };
  for (const PeerSummary& peer : peers) {
    std::vector<std::string>& line = lines.emplace_back();
    line = {"  " + peer.peer, peer.speedup_text(), peer.ranked_text()};
    if (any(&PeerSummary::overhead)) line.push_back(number(peer.overhead));
    if (any(&PeerSummary::others)) line.push_back(number(peer.others));
  }
  std::vector<std::size_t> widths(lines[0].size());
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string text;
  for (const auto& line : lines) {
    std::string shown;
    for (std::size_t i = 0; i < line.size(); ++i)
      shown +=
          i == 0 ? fmt::format("{:<{}}", line[i], widths[i]) : fmt::format("  {:>{}}", line[i], widths[i]);
    text += cut_to(shown, columns) + "\n";
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

// Without the lines of what did not run.
std::string render_figures(const std::vector<Row>& rows, const Terminal& terminal, bool with_table) {
  const std::vector<ComparableRows> groups = comparable_rows(rows);
  const auto lines = [&](const std::string& text) {
    std::string shown;
    for (const std::string_view line : core::split(text, '\n')) {
      if (!line.empty()) shown += wrapped(line, " ", terminal.columns, 4) + "\n";
    }
    return shown;
  };
  return lines(fastest_line(rows) + speedup_lines(groups)) +
         (with_table ? peers_table(peer_summaries(rows), terminal.columns) : "") +
         render_peers(against_peers(rows, groups, ShortNames(groups)), terminal.columns) +
         lines(noise_line(rows) + verified_line(rows));
}

std::string render_refusals(const std::vector<Row>& rows, const Terminal& terminal) {
  constexpr std::size_t kShown = 12;
  const std::vector<std::string> reasons = refusal_lines(rows);
  std::string text;
  for (std::size_t i = 0; i < std::min(reasons.size(), kShown); ++i)
    text += colored(terminal, Color::yellow, wrapped("  " + reasons[i], " ", terminal.columns, 4)) + "\n";
  if (reasons.size() > kShown)
    text += fmt::format("  and {} more reasons, in the rows\n", reasons.size() - kShown);
  return text;
}

}  // namespace

std::string PeerSummary::speedup_text() const {
  if (speedups.empty()) return "-";
  const std::string middle = ratio_text(median(speedups));
  return speedups.size() == 1 ? middle
                              : fmt::format("{} ({} to {})", middle, ratio_text(speedups.front()),
                                            ratio_text(speedups.back()));
}

std::string PeerSummary::ranked_text() const { return fmt::format("{} of {}", ranked, rows); }

std::vector<PeerSummary> peer_summaries(const std::vector<Row>& rows) {
  std::map<std::string, PeerSummary> by_name;
  for (const Row& row : rows) {
    if (!is_peer(row)) continue;
    PeerSummary& peer = by_name[row.contender];
    peer.peer = row.contender;
    if (!row.version.empty()) peer.version = row.version;
    ++peer.rows;
    ++(ranked(row) ? peer.ranked : unranked_by_overhead(row) ? peer.overhead : peer.others);
  }
  for (const ComparableRows& group : comparable_rows(rows)) {
    for (const Row* row : group.rows) {
      if (const OptionalNumber speedup = group.speedup(*row); speedup && is_peer(*row))
        by_name[row->contender].speedups.push_back(*speedup);
    }
  }
  std::vector<PeerSummary> peers;
  for (auto& [ignored, peer] : by_name) {
    std::sort(peer.speedups.begin(), peer.speedups.end());
    if (peer.ranked + peer.overhead > 0) peers.push_back(std::move(peer));
  }
  const auto middle = [](const PeerSummary& peer) {
    return peer.speedups.empty() ? 0 : median(peer.speedups);
  };
  std::stable_sort(peers.begin(), peers.end(),
                   [&](const PeerSummary& a, const PeerSummary& b) { return middle(a) > middle(b); });
  return peers;
}

std::string render_summary(const std::vector<Row>& rows, const Terminal& terminal) {
  return render_figures(rows, terminal, true) + render_refusals(rows, terminal);
}

std::string render_summary_without_peers(const std::vector<Row>& rows, const Terminal& terminal) {
  return render_figures(rows, terminal, false) + render_refusals(rows, terminal);
}

}  // namespace headwise::lab
