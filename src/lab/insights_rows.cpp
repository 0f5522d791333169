#include "lab/insights_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/text.h"

namespace headwise::lab {
namespace {

// Enough for a 95 % interval; a file may hold thousands of pairs of rows with thousands of samples.
constexpr int kResamples = 200;

std::string short_name(const Row& row) {
  const std::vector<std::string_view> parts = core::split(row.contender, '/');
  if (is_peer(row) || parts.size() != 4) return row.contender;
  return fmt::format("{} {}", parts[1], parts[2]);
}

double or_median(const OptionalNumber& end, const Row& row) { return end.value_or(*row.ms_median); }

}  // namespace

bool is_peer(const Row& row) { return row.kind == "peer"; }

bool unranked_by_overhead(const Row& row) {
  if (ranked(row) || !row.overhead_ms) return false;
  Row free = row;
  free.overhead_ms.reset();
  return ranked(free);
}

std::string timing_key(const Row& row) {
  return fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n{}", row.case_id, row.device, row.direction, row.threads,
                     row.timer, row.regime, row.cache);
}

const Row* ComparableRows::find(const std::string& contender) const {
  for (const Row* row : rows) {
    if (row->contender == contender) return row;
  }
  return nullptr;
}

RowReference ComparableRows::reference(const Row& row) const {
  return {case_id, row.contender, static_cast<std::size_t>(&row - first_of_file)};
}

const Row* ComparableRows::fastest(bool peer) const {
  const Row* best = nullptr;
  for (const Row* row : rows) {
    if (is_peer(*row) == peer && (best == nullptr || *row->ms_median < *best->ms_median)) best = row;
  }
  return best;
}

OptionalNumber ComparableRows::speedup(const Row& row) const {
  return find(row.baseline) == nullptr ? OptionalNumber{} : row.speedup;
}

std::vector<ComparableRows> comparable_rows(const std::vector<Row>& rows) {
  std::vector<ComparableRows> groups;
  std::map<std::string, std::size_t> places;
  for (const Row& row : rows) {
    if (!ranked(row) || !std::isfinite(*row.ms_median) || *row.ms_median <= 0) continue;
    const auto [place, is_new] = places.emplace(timing_key(row), groups.size());
    if (is_new) groups.push_back({row.case_id, {}, rows.data()});
    std::vector<const Row*>& group = groups[place->second].rows;
    const auto same = std::find_if(group.begin(), group.end(),
                                   [&](const Row* other) { return other->contender == row.contender; });
    if (same == group.end()) {
      group.push_back(&row);
    } else {
      *same = &row;
    }
  }
  return groups;
}

Ratio ratio_of(const Row& slower, const Row& faster) {
  if (faster.baseline == slower.contender && faster.speedup && faster.speedup_low && faster.speedup_high)
    return {*faster.speedup, {*faster.speedup_low, *faster.speedup_high}};
  if (!slower.samples_ms.empty() && !faster.samples_ms.empty()) {
    return bootstrap_ratio(slower.samples_ms, faster.samples_ms, static_cast<std::uint64_t>(faster.seed),
                           kResamples);
  }
  return {*slower.ms_median / *faster.ms_median,
          {or_median(slower.ms_low, slower) / or_median(faster.ms_high, faster),
           or_median(slower.ms_high, slower) / or_median(faster.ms_low, faster)}};
}

Ratio geometric_mean(const std::vector<Ratio>& ratios) {
  Ratio sum;
  for (const Ratio& ratio : ratios) {
    sum.value += std::log(ratio.value);
    sum.interval.low += std::log(ratio.interval.low);
    sum.interval.high += std::log(ratio.interval.high);
  }
  const auto count = static_cast<double>(ratios.size());
  return {std::exp(sum.value / count),
          {std::exp(sum.interval.low / count), std::exp(sum.interval.high / count)}};
}

ShortNames::ShortNames(const std::vector<ComparableRows>& groups) {
  std::set<std::string> ambiguous;
  for (const ComparableRows& group : groups) {
    std::map<std::string, std::string> owners;
    for (const Row* row : group.rows) {
      const std::string name = short_name(*row);
      names_[row->contender] = name;
      if (lab::is_peer(*row)) peers_.insert(row->contender);
      if (!owners.emplace(name, row->contender).second) ambiguous.insert(name);
    }
  }
  for (auto& [contender, name] : names_) {
    if (ambiguous.contains(name)) name = contender;
  }
}

std::string ShortNames::of(const Row& row) const { return of(row.contender); }

std::string ShortNames::of(const std::string& contender) const {
  const auto found = names_.find(contender);
  return found == names_.end() ? contender : found->second;
}

std::string dtype_text(const Row& row) {
  return row.kv_dtype == row.dtype ? row.dtype : fmt::format("{}, kv {}", row.dtype, row.kv_dtype);
}

std::string ratio_text(double ratio) {
  if (ratio < 0.0995) return fmt::format("{:.2g}x", ratio);
  return ratio < 9.95 ? fmt::format("{:.2f}x", ratio) : fmt::format("{:.0f}x", ratio);
}

std::string interval_text(const Ratio& r) {
  return fmt::format("{} ({} to {})", ratio_text(r.value), ratio_text(r.interval.low),
                     ratio_text(r.interval.high));
}

}  // namespace headwise::lab
