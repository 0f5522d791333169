// The fastest kernel against the fastest peer, case by case.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "core/text.h"
#include "lab/columns.h"
#include "lab/insights_steps.h"
#include "lab/terminal.h"
#include "lab/units.h"

namespace headwise::lab {
namespace {

constexpr std::size_t kNamed = 6;  // cases that a verdict names

struct Count {
  std::size_t ahead = 0, behind = 0, unclear = 0;
  explicit Count(const std::vector<PeerDuel>& duels) {
    for (const PeerDuel& duel : duels) ++(duel.ahead() ? ahead : duel.behind() ? behind : unclear);
  }
};

// "ahead in 3 of 4, behind in 1"
std::string count_text(const std::vector<PeerDuel>& duels) {
  const Count count(duels);
  std::string text;
  for (const auto& [how, cases] :
       {std::pair{"ahead", count.ahead}, {"within noise", count.unclear}, {"behind", count.behind}}) {
    if (cases == 0) continue;
    text += text.empty() ? fmt::format("{} in {} of {}", how, cases, duels.size())
                         : fmt::format(", {} in {}", how, cases);
  }
  return text;
}

double median_of(const std::vector<PeerDuel>& duels) {
  std::vector<double> values;
  values.reserve(duels.size());
  for (const PeerDuel& duel : duels) values.push_back(duel.ratio.value);
  return median(std::move(values));
}

// "full prefill, seq=256 (0.62x of torch.flash, 0.60x to 0.65x)", the worst first.
std::string behind_text(const std::vector<PeerDuel>& duels) {
  std::vector<const PeerDuel*> lost;
  for (const PeerDuel& duel : duels) {
    if (duel.behind()) lost.push_back(&duel);
  }
  std::stable_sort(lost.begin(), lost.end(),
                   [](const PeerDuel* a, const PeerDuel* b) { return a->ratio.value < b->ratio.value; });
  std::string text;
  for (std::size_t i = 0; i < std::min(lost.size(), kNamed); ++i) {
    const PeerDuel& duel = *lost[i];
    const std::string value = ratio_text(duel.ratio.value), low = ratio_text(duel.ratio.interval.low),
                      high = ratio_text(duel.ratio.interval.high);
    text += fmt::format("{}{} ({} of {}{})", i == 0 ? "" : "; ", duel.label, value, duel.peer_name,
                        low == high ? "" : fmt::format(", {} to {}", low, high));
  }
  if (lost.size() > kNamed) text += fmt::format("; and {} more", lost.size() - kNamed);
  return text;
}

std::string verdict_of(const std::vector<PeerDuel>& duels) {
  const auto [low, high] = std::minmax_element(
      duels.begin(), duels.end(), [](const auto& a, const auto& b) { return a.ratio.value < b.ratio.value; });
  if (duels.size() == 1) {
    const PeerDuel& duel = duels.front();
    const std::string how = duel.ahead() ? "ahead" : duel.behind() ? "behind" : "within noise";
    return fmt::format(
        "the best kernel is {} as fast as the best peer in the one case compared: {}, {} against {}",
        interval_text(duel.ratio), how, duel.kernel_name, duel.peer_name);
  }
  const Count count(duels);
  std::string text = fmt::format(
      "the best kernel is {} as fast as the best peer in the median case ({} to {}), ahead in {} of {}",
      ratio_text(median_of(duels)), ratio_text(low->ratio.value), ratio_text(high->ratio.value), count.ahead,
      counted(duels.size(), "case"));
  if (count.unclear > 0) text += fmt::format(", within noise in {}", count.unclear);
  if (count.behind == 0) return text + ", behind in none";
  return text + fmt::format(", behind in {}: {}", count.behind, behind_text(duels));
}

// The case's words that its section and use do not tell: "seq=256"; all where nothing would be left.
std::string without_section(const std::string& label, std::string_view use) {
  std::string text;
  for (const std::string_view word : core::split_words(std::string_view(label).substr(use.size() + 1))) {
    std::string name(word.substr(0, word.find('=')));
    std::replace(name.begin(), name.end(), '_', '-');
    if (name != "dtype" && name != "kv-dtype" && name != "causal" && name != "direction" && name != "device")
      text += fmt::format("{}{}", text.empty() ? "" : " ", word);
  }
  return text.empty() ? label : text;
}

PeerDuel duel_of(const ComparableRows& group, const Row& kernel, const Row& peer, const std::string& label,
                 const ShortNames& names) {
  return {.label = label,
          .kernel = group.reference(kernel),
          .peer = group.reference(peer),
          .kernel_name = names.of(kernel),
          .peer_name = names.of(peer),
          .ratio = ratio_of(peer, kernel)};
}

// "torch.flex in 3 cases, jax.jit in 1", in the order of the names.
std::string tally_text(const std::map<std::string, std::size_t>& tally) {
  std::string text;
  for (const auto& [who, count] : tally)
    text += fmt::format("{}{} in {}", text.empty() ? "" : ", ", who, counted(count, "case"));
  return text;
}

// Ranked peers of a case whose kernels were timed in another way.
void remark_timers(const std::vector<ComparableRows>& groups, std::vector<std::string>& remarks) {
  std::map<std::string, const ComparableRows*> kernels;  // by case
  for (const ComparableRows& group : groups) {
    if (group.fastest(false) != nullptr) kernels.emplace(group.case_id, &group);
  }
  std::map<std::string, std::map<std::string, std::size_t>> others;
  for (const ComparableRows& group : groups) {
    const auto found = kernels.find(group.case_id);
    if (group.fastest(false) != nullptr || found == kernels.end()) continue;
    const Row& kernel = *found->second->rows.front();
    for (const Row* row : group.rows)
      ++others[row->timer == kernel.timer
                   ? fmt::format("{}, the kernels {}", row->regime, kernel.regime)
                   : fmt::format("timed by {}, the kernels by {}", row->timer, kernel.timer)][row->contender];
  }
  for (const auto& [how, tally] : others)
    remarks.push_back(fmt::format("Not compared: {} ({})", tally_text(tally), how));
}

// Who lost its rank to the cost of calling it, and was timed faster than every kernel all the same.
void remark_overhead(const std::vector<Row>& rows, const std::vector<ComparableRows>& groups,
                     std::vector<std::string>& remarks) {
  std::map<std::string, double> kernels;  // by timing_key: the least time
  for (const ComparableRows& group : groups) {
    if (const Row* best = group.fastest(false)) kernels.emplace(timing_key(*best), *best->ms_median);
  }
  std::map<std::string, std::size_t> faster;
  for (const Row& row : rows) {
    const auto found = kernels.find(timing_key(row));
    if (is_peer(row) && unranked_by_overhead(row) && found != kernels.end() && *row.ms_median < found->second)
      ++faster[row.contender];
  }
  if (!faster.empty()) {
    remarks.push_back(
        fmt::format("Not ranked, though timed faster than every kernel: {} (calling takes over "
                    "{:.0f} % of the time)",
                    tally_text(faster), 100 * kMostOverhead));
  }
}

// Cases in which peers ran, and none is compared.
void remark_missing(const std::vector<Row>& rows, const std::vector<ComparableRows>& groups,
                    std::vector<std::string>& remarks) {
  std::set<std::string> ran, compared;
  for (const Row& row : rows) {
    if (is_peer(row) && row.status == row_status::kOk && row.ms_median) ran.insert(row.case_id);
  }
  for (const ComparableRows& group : groups) {
    if (group.fastest(true) != nullptr && group.fastest(false) != nullptr) compared.insert(group.case_id);
  }
  if (compared.size() == ran.size()) return;
  remarks.push_back(
      fmt::format("In {} of {} in which peers ran, no kernel and peer are both ranked and timed alike",
                  ran.size() - compared.size(), counted(ran.size(), "case")));
}

}  // namespace

AgainstPeers against_peers(const std::vector<Row>& rows, const std::vector<ComparableRows>& groups,
                           const ShortNames& names) {
  AgainstPeers result;
  if (std::none_of(rows.begin(), rows.end(), is_peer)) return result;
  const std::vector<std::string> labels = case_labels(rows);
  const auto add = [&](const ComparableRows& group, std::vector<PeerDuel>& duels) {
    const Row* kernel = group.fastest(false);
    const Row* peer = group.fastest(true);
    if (kernel == nullptr || peer == nullptr) return;
    const std::string label =
        fmt::format("{}, {}", use_of(*kernel), labels[group.reference(*kernel).position]);
    duels.push_back(duel_of(group, *kernel, *peer, label, names));
  };
  for (const ComparableRows& group : groups) add(group, result.duels);
  for (const Section& section : sections_of(groups)) {
    for (const std::string_view use : kUses) {
      const auto found = section.by_use.find(use);
      if (found == section.by_use.end()) continue;
      PeerStanding standing{.dtype = section.dtype,
                            .setting = section.setting,
                            .use = std::string(use),
                            .duels = {},
                            .verdict = {},
                            .sentence = {}};
      for (const ComparableRows* group : found->second) add(*group, standing.duels);
      if (standing.duels.empty()) continue;
      for (PeerDuel& duel : standing.duels) duel.label = without_section(duel.label, use);
      standing.verdict = verdict_of(standing.duels);
      standing.sentence =
          fmt::format("{}, {}{}{}: {}.", use, standing.dtype, standing.setting.empty() ? "" : ", ",
                      standing.setting, standing.verdict);
      result.standings.push_back(std::move(standing));
    }
  }
  if (!result.duels.empty()) result.verdict = verdict_of(result.duels);
  remark_overhead(rows, groups, result.remarks);
  remark_timers(groups, result.remarks);
  remark_missing(rows, groups, result.remarks);
  return result;
}

std::string render_peers(const AgainstPeers& peers, int columns) {
  std::string text;
  const auto add = [&](const std::string& line) { text += wrapped(line, " ", columns, 4) + "\n"; };
  if (!peers.verdict.empty()) add("Against peers: " + peers.verdict);
  // A line a dtype and setting; where there is but one use, the answer has told it.
  for (std::size_t i = 0; peers.standings.size() > 1 && i < peers.standings.size();) {
    const PeerStanding& first = peers.standings[i];
    std::string line =
        fmt::format("  {}{}{}:", first.dtype, first.setting.empty() ? "" : ", ", first.setting);
    const std::size_t begin = i;
    for (; i < peers.standings.size() && peers.standings[i].dtype == first.dtype &&
           peers.standings[i].setting == first.setting;
         ++i) {
      const PeerStanding& one = peers.standings[i];
      line += fmt::format("{} {} {} ({})", i == begin ? "" : ",", one.use, ratio_text(median_of(one.duels)),
                          count_text(one.duels));
    }
    add(line);
  }
  for (const std::string& remark : peers.remarks) add("  " + remark);
  return text;
}

}  // namespace headwise::lab
