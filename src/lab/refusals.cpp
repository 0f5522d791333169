#include "lab/refusals.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "lab/insights_rows.h"
#include "lab/units.h"

namespace headwise::lab {
namespace {

struct Refusal {
  std::string key;
  std::string status, reason;
  bool peers = false;
  std::vector<std::string> contenders;
  std::size_t rows = 0;
  double least_share = 0, most_share = 0;  // of its time, that calling a peer takes; 0: not the reason
};

// Workers begin a reason with their peer's name, which the line tells.
std::string reason_of(const Row& row) {
  std::string_view reason = row.reason;
  if (is_peer(row) && reason.starts_with(row.contender + ": "))
    reason.remove_prefix(row.contender.size() + 2);
  return std::string(reason);
}

Refusal refusal_of(const Row& row) {
  Refusal refusal;
  refusal.status = row.status;
  refusal.reason = reason_of(row);
  refusal.peers = is_peer(row);
  refusal.contenders = {row.contender};
  refusal.rows = 1;
  if (unranked_by_overhead(row)) {
    refusal.least_share = refusal.most_share = *row.overhead_ms / *row.ms_median;
    refusal.key = "overhead\n" + row.contender;
  } else {
    const std::string who = !refusal.peers ? row.contender
                            : row.status == row_status::kAbsent
                                ? row.contender.substr(0, row.contender.find('.'))
                                : "";
    refusal.key = fmt::format("{}\n{}\n{}", row.status, who, refusal.reason);
  }
  return refusal;
}

void merge(Refusal& refusal, const Refusal& other) {
  refusal.rows += other.rows;
  refusal.least_share = std::min(refusal.least_share, other.least_share);
  refusal.most_share = std::max(refusal.most_share, other.most_share);
  const std::string& who = other.contenders.front();
  if (std::find(refusal.contenders.begin(), refusal.contenders.end(), who) == refusal.contenders.end())
    refusal.contenders.push_back(who);
}

// "5.4", "29": near the limit the first decimal tells on which side of it.
std::string percent_text(double share) {
  return share < 0.0995 ? fmt::format("{:.1f}", 100 * share) : fmt::format("{:.0f}", 100 * share);
}

std::string line_of(const Refusal& refusal) {
  const std::string& first = refusal.contenders.front();
  const std::string rows = refusal.rows == 1 ? "" : fmt::format(" ({})", counted(refusal.rows, "row"));
  if (refusal.most_share > 0) {
    const std::string low = percent_text(refusal.least_share), high = percent_text(refusal.most_share);
    const std::string range = low == high ? high : fmt::format("{} to {}", low, high);
    return fmt::format("not ranked: {}: calling it takes {} % of its time{}", first, range, rows);
  }
  if (refusal.status == row_status::kAbsent && refusal.contenders.size() > 1) {
    return fmt::format("{}: {}.* ({}, {}): {}", refusal.status, first.substr(0, first.find('.')),
                       counted(refusal.contenders.size(), "peer"), counted(refusal.rows, "row"),
                       refusal.reason);
  }
  return fmt::format("{}: {}: {}{}", refusal.status, fmt::join(refusal.contenders, ", "), refusal.reason,
                     rows);
}

}  // namespace

std::vector<std::string> refusal_lines(const std::vector<Row>& rows) {
  std::vector<Refusal> refusals;
  for (const Row& row : rows) {
    if (row.status == row_status::kOk && !unranked_by_overhead(row) && (row.reason.empty() || !row.ms_median))
      continue;
    const Refusal one = refusal_of(row);
    const auto found =
        std::find_if(refusals.begin(), refusals.end(), [&](const Refusal& r) { return r.key == one.key; });
    if (found == refusals.end()) {
      refusals.push_back(one);
    } else {
      merge(*found, one);
    }
  }
  std::vector<std::string> lines;
  lines.reserve(refusals.size());
  for (const Refusal& refusal : refusals) lines.push_back(line_of(refusal));
  return lines;
}

}  // namespace headwise::lab
