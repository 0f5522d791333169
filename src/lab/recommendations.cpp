// Who to take for a use, and who needs the least memory.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "lab/insights_steps.h"
#include "lab/units.h"

namespace headwise::lab {
namespace {

constexpr double kMemoryMatters = 1.1;  // times less: worth telling

std::string cases_text(std::size_t count) { return counted(count, "case"); }

// What one contender did in the cases of a use.
struct Entrant {
  std::string contender;
  std::size_t cases = 0, wins = 0;
  double cost = 0;  // mean of the logarithm of what it needed over the least that anybody needed
};

// By number of cases, then by cost: who ran in few cases may have run where it is easy.
template <class Need>
std::vector<Entrant> entrants(const Groups& groups, Need need) {
  std::vector<Entrant> all;
  for (const ComparableRows* group : groups) {
    double least = 0;
    const Row* winner = nullptr;
    for (const Row* row : group->rows) {
      if (need(*row) > 0 && (winner == nullptr || need(*row) < least)) {
        least = need(*row);
        winner = row;
      }
    }
    for (const Row* row : group->rows) {
      if (!(need(*row) > 0)) continue;
      auto found = std::find_if(all.begin(), all.end(),
                                [&](const Entrant& e) { return e.contender == row->contender; });
      if (found == all.end()) found = all.insert(all.end(), {row->contender});
      ++found->cases;
      found->wins += row == winner ? 1 : 0;
      found->cost += std::log(need(*row) / least);
    }
  }
  for (Entrant& entrant : all) entrant.cost /= static_cast<double>(entrant.cases);
  std::stable_sort(all.begin(), all.end(), [](const Entrant& a, const Entrant& b) {
    return a.cases != b.cases ? a.cases > b.cases : a.cost < b.cost;
  });
  return all;
}

struct Comparison {
  std::size_t cases = 0;  // that both ran
  Ratio ratio;            // time of the other over time of the first
};

Comparison compare(const Groups& groups, const std::string& first, const std::string& other) {
  std::vector<Ratio> ratios;
  for (const ComparableRows* group : groups) {
    const Row* mine = group->find(first);
    const Row* theirs = group->find(other);
    if (mine != nullptr && theirs != nullptr) ratios.push_back(ratio_of(*theirs, *mine));
  }
  if (ratios.empty()) return {};
  return {ratios.size(), geometric_mean(ratios)};
}

double memory_of(const Row& row) { return row.peak_bytes ? static_cast<double>(*row.peak_bytes) : 0; }

// Geometric mean of peak(other) / peak(first) over the cases that both ran; 0 where it was not measured.
double memory_ratio(const Groups& groups, const std::string& first, const std::string& other) {
  double sum = 0;
  int count = 0;
  for (const ComparableRows* group : groups) {
    const Row* mine = group->find(first);
    const Row* theirs = group->find(other);
    if (mine == nullptr || theirs == nullptr || memory_of(*mine) <= 0 || memory_of(*theirs) <= 0) continue;
    sum += std::log(memory_of(*theirs) / memory_of(*mine));
    ++count;
  }
  return count == 0 ? 0 : std::exp(sum / count);
}

// The baseline that most rows name.
std::string baseline_of(const Groups& groups) {
  std::map<std::string, int> counts;
  std::string most;
  for (const ComparableRows* group : groups) {
    for (const Row* row : group->rows) {
      if (!row->baseline.empty() && ++counts[row->baseline] > counts[most]) most = row->baseline;
    }
  }
  return most;
}

void add_rows(Recommendation& r, const Groups& groups, const std::set<std::string>& contenders) {
  for (const ComparableRows* group : groups) {
    for (const Row* row : group->rows) {
      if (contenders.contains(row->contender)) r.rows.push_back(group->reference(*row));
    }
  }
}

void put_sentence(Recommendation& r) {
  r.sentence =
      fmt::format("{}, {}{}{}: {}.", r.use, r.dtype, r.setting.empty() ? "" : ", ", r.setting, r.verdict);
}

class TimeAdvice {
 public:
  TimeAdvice(const Groups& groups, const ShortNames& names) : groups_(groups), names_(names) {}

  Recommendation make() {
    const std::vector<Entrant> all = entrants(groups_, [](const Row& row) { return *row.ms_median; });
    Recommendation r;
    r.contender = all.front().contender;
    r.cases = static_cast<std::int64_t>(all.front().cases);
    find_next(r, all);
    if (r.next.empty()) {
      r.verdict = fmt::format("{}; nothing else was ranked ({})", names_.of(r.contender),
                              cases_text(all.front().cases));
      add_rows(r, groups_, {r.contender});
      return r;
    }
    if (r.within_noise) prefer_less_memory(r);
    find_baseline(r);
    find_own(r, all);
    r.verdict = (r.within_noise ? tie_text(r) : lead_text(r, all)) + own_text(r);
    add_rows(r, groups_, {r.contender, r.next, r.over_baseline ? baseline_ : r.next, r.own});
    return r;
  }

 private:
  // The nearest rival is the one that the smallest ratio is to; one that ran as many cases comes before one
  // that did not.
  void find_next(Recommendation& r, const std::vector<Entrant>& all) {
    for (const bool complete : {true, false}) {
      for (const Entrant& other : all) {
        if (other.contender == r.contender || (complete && other.cases < all.front().cases)) continue;
        const Comparison comparison = compare(groups_, r.contender, other.contender);
        if (comparison.cases == 0) continue;
        if (r.over_next && r.over_next->value <= comparison.ratio.value) continue;
        r.next = other.contender;
        r.over_next = comparison.ratio;
        next_cases_ = comparison.cases;
      }
      if (r.over_next) break;
    }
    r.within_noise = r.over_next && r.over_next->interval.low <= 1 && r.over_next->interval.high >= 1;
  }

  // Of two that take the same time, the one that needs clearly less memory is recommended, if it ran the same
  // cases.
  void prefer_less_memory(Recommendation& r) const {
    const double ratio = memory_ratio(groups_, r.next, r.contender);
    if (ratio < kMemoryMatters || next_cases_ < static_cast<std::size_t>(r.cases)) return;
    std::swap(r.contender, r.next);
    r.over_next = compare(groups_, r.contender, r.next).ratio;
  }

  void find_baseline(Recommendation& r) {
    baseline_ = baseline_of(groups_);
    if (baseline_.empty() || baseline_ == r.contender) return;
    const Comparison comparison = compare(groups_, r.contender, baseline_);
    if (comparison.cases == 0) return;
    r.over_baseline = comparison.ratio;
    baseline_cases_ = comparison.cases;
  }

  // The best kernel of those that met the recommended peer.
  void find_own(Recommendation& r, const std::vector<Entrant>& all) const {
    if (!names_.is_peer(r.contender)) return;
    for (const Entrant& entrant : all) {
      if (names_.is_peer(entrant.contender)) continue;
      const Comparison comparison = compare(groups_, entrant.contender, r.contender);
      if (comparison.cases == 0) continue;
      r.own = entrant.contender;
      r.own_over_peer = comparison.ratio;
      return;
    }
  }

  [[nodiscard]] std::string own_text(const Recommendation& r) const {
    if (!r.own_over_peer) return "";
    return fmt::format("; of Headwise's own, {} at {} of its speed", names_.of(r.own),
                       interval_text(*r.own_over_peer));
  }

  [[nodiscard]] std::string tie_text(const Recommendation& r) const {
    std::string text =
        fmt::format("{} and {} are within noise of each other, {} in {}", names_.of(r.contender),
                    names_.of(r.next), interval_text(*r.over_next), cases_text(next_cases_));
    const double memory = memory_ratio(groups_, r.contender, r.next);
    if (memory >= kMemoryMatters)
      text += fmt::format("; {} needs {} less memory", names_.of(r.contender), ratio_text(memory));
    return text + baseline_text(r);
  }

  [[nodiscard]] std::string lead_text(const Recommendation& r, const std::vector<Entrant>& all) const {
    const Entrant& first = all.front();
    const bool ahead = r.over_next->value > 1;
    // A rival that ran fewer cases may have been faster in those.
    const Ratio shown = ahead ? *r.over_next
                              : Ratio{1 / r.over_next->value,
                                      {1 / r.over_next->interval.high, 1 / r.over_next->interval.low}};
    std::string text = (names_.is_peer(r.contender) ? "the peer " : "") + names_.of(r.contender);
    if (first.cases > 1) text += fmt::format(", fastest in {} of {}", first.wins, cases_text(first.cases));
    text += ahead ? fmt::format(", {} over {}", interval_text(shown), names_.of(r.next))
                  : fmt::format(", though {} is {} faster", names_.of(r.next), interval_text(shown));
    if (next_cases_ != first.cases || first.cases == 1)
      text += fmt::format(" in {}", cases_text(next_cases_));
    return text + baseline_text(r);
  }

  [[nodiscard]] std::string baseline_text(const Recommendation& r) const {
    if (!r.over_baseline || r.next == baseline_) return "";
    return fmt::format(", {} over the baseline {}{}", interval_text(*r.over_baseline), names_.of(baseline_),
                       baseline_cases_ == static_cast<std::size_t>(r.cases)
                           ? ""
                           : fmt::format(" in {}", cases_text(baseline_cases_)));
  }

  const Groups& groups_;
  const ShortNames& names_;
  std::string baseline_;
  std::size_t next_cases_ = 0, baseline_cases_ = 0;
};

// Peak memory over the least possible, geometric mean.
double memory_share(const Groups& groups, const std::string& contender) {
  double sum = 0;
  int count = 0;
  for (const ComparableRows* group : groups) {
    const Row* row = group->find(contender);
    if (row == nullptr || memory_of(*row) <= 0 || row->least_bytes.value_or(0) <= 0) continue;
    sum += std::log(memory_of(*row) / static_cast<double>(*row->least_bytes));
    ++count;
  }
  return count == 0 ? 0 : std::exp(sum / count);
}

constexpr std::size_t kOthers = 3;  // whose memory is told beside the least

// "; of Headwise's own, avx512 flash takes 1.20x as much": where a peer needs least, and none of the others
// told is a kernel.
void add_own_memory(Recommendation& r, const Groups& groups, const ShortNames& names,
                    const std::vector<Entrant>& order) {
  if (!names.is_peer(r.contender)) return;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (names.is_peer(order[i].contender)) continue;
    const double ratio = memory_ratio(groups, r.contender, order[i].contender);
    if (ratio <= 0) continue;
    r.own = order[i].contender;
    if (i <= kOthers) return;
    r.verdict += fmt::format("; of Headwise's own, {} takes {} as much", names.of(r.own), ratio_text(ratio));
    return;
  }
}

// Nothing where fewer than two contenders have the figure. Who needs ten times the time of the fastest is no
// advice. Two are compared in the cases that both ran,
// so who ran in few may still be the least.
std::optional<Recommendation> memory_advice(const Groups& groups, const ShortNames& names) {
  constexpr double kTooSlow = 10;
  const std::vector<Entrant> fast = entrants(groups, [](const Row& row) { return *row.ms_median; });
  std::vector<Entrant> all = entrants(groups, memory_of);
  std::erase_if(all, [&](const Entrant& e) {
    const Comparison time = compare(groups, fast.front().contender, e.contender);
    return memory_share(groups, e.contender) <= 0 || (time.cases > 0 && time.ratio.value >= kTooSlow);
  });
  if (all.size() < 2) return {};
  // How many need less than this one in the cases that both ran.
  const auto beaten_by = [&](const Entrant& entrant) {
    return std::count_if(all.begin(), all.end(), [&](const Entrant& other) {
      const double ratio = memory_ratio(groups, entrant.contender, other.contender);
      return ratio > 0 && ratio < 1;
    });
  };
  std::vector<std::pair<std::ptrdiff_t, Entrant>> order;
  order.reserve(all.size());
  for (const Entrant& entrant : all) order.emplace_back(beaten_by(entrant), entrant);
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::transform(order.begin(), order.end(), all.begin(), [](const auto& entry) { return entry.second; });
  const Entrant& first = all.front();
  Recommendation r;
  r.use = kLeastMemory;
  r.contender = first.contender;
  r.cases = static_cast<std::int64_t>(first.cases);
  r.next = all[1].contender;
  r.verdict = fmt::format("{}{}, {} of the least possible", names.is_peer(first.contender) ? "the peer " : "",
                          names.of(first.contender), ratio_text(memory_share(groups, first.contender)));
  if (first.cases > 1) r.verdict += fmt::format(" (geometric mean of {})", cases_text(first.cases));
  std::string_view separator = ";";
  for (std::size_t i = 1; i < std::min(all.size(), kOthers + 1); ++i) {
    const double ratio = memory_ratio(groups, first.contender, all[i].contender);
    if (ratio <= 0) continue;
    const std::size_t both = compare(groups, first.contender, all[i].contender).cases;
    r.verdict +=
        fmt::format("{} {} takes {} as much", separator, names.of(all[i].contender), ratio_text(ratio));
    if (both != first.cases) r.verdict += fmt::format(" in the {} that both ran", cases_text(both));
    separator = ",";
  }
  if (fast.front().contender != first.contender) {
    const Comparison time = compare(groups, fast.front().contender, first.contender);
    if (time.cases > 0) {
      r.verdict += fmt::format("; its time is {} that of the fastest, {}", ratio_text(time.ratio.value),
                               names.of(fast.front().contender));
    }
  }
  add_own_memory(r, groups, names, all);
  std::set<std::string> told{r.own};
  for (std::size_t i = 0; i < std::min(all.size(), kOthers + 1); ++i) told.insert(all[i].contender);
  add_rows(r, groups, told);
  return r;
}

}  // namespace

std::vector<Recommendation> recommendations_of(const std::vector<ComparableRows>& groups,
                                               const ShortNames& names) {
  std::vector<Recommendation> all;
  for (const Section& section : sections_of(groups)) {
    const auto add = [&](Recommendation r) {
      r.dtype = section.dtype;
      r.setting = section.setting;
      r.contender_name = names.of(r.contender);
      r.peer = names.is_peer(r.contender);
      r.next_name = names.of(r.next);
      r.own_name = names.of(r.own);
      put_sentence(r);
      all.push_back(std::move(r));
    };
    for (const std::string_view use : kUses) {
      const auto found = section.by_use.find(use);
      if (found == section.by_use.end()) continue;
      Recommendation r = TimeAdvice(found->second, names).make();
      r.use = use;
      add(std::move(r));
    }
    if (std::optional<Recommendation> r = memory_advice(section.all, names)) add(*std::move(r));
  }
  return all;
}

}  // namespace headwise::lab
