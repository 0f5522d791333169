#include "lab/insights.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/text.h"

#include "lab/insights_steps.h"
#include "lab/terminal.h"

namespace headwise::lab {
namespace {

constexpr std::size_t kPairs = 2;     // of contenders whose crossovers are shown
constexpr std::size_t kFamilies = 2;  // of a kind that are named; more are counted

// "full prefill (1.52x over avx512 unfused)"; the rival is named where it is not the one named before.
std::string use_text(const Recommendation& r, std::string& rival) {
  std::string text = r.use;
  if (!r.over_next) return text;
  // Who may only take what Headwise has is told that, too.
  const std::string own =
      r.own_over_peer && r.own != r.next
          ? fmt::format("; of Headwise's own, {} at {}", r.own_name, ratio_text(r.own_over_peer->value))
          : "";
  if (r.within_noise) return text + fmt::format(" (within noise of {}{})", r.next_name, own);
  const std::string whom = rival == r.next_name ? "" : " over " + r.next_name;
  rival = r.next_name;
  return text + fmt::format(" ({}{}{})", ratio_text(r.over_next->value), whom, own);
}

// A line a dtype and setting: "Best for f32: avx512 flash for ...; scalar naive for ...".
std::string best_lines(const std::vector<Recommendation>& all, int columns) {
  std::vector<std::pair<std::string, std::vector<const Recommendation*>>> sections;
  for (const Recommendation& r : all) {
    if (r.use == kLeastMemory) continue;
    const std::string head = r.setting.empty() ? r.dtype : fmt::format("{}, {}", r.dtype, r.setting);
    if (sections.empty() || sections.back().first != head) sections.push_back({head, {}});
    sections.back().second.push_back(&r);
  }
  std::string text;
  for (const auto& [head, uses] : sections) {
    std::string line = fmt::format("Best for {}:", head);
    std::string contender, rival;
    for (const Recommendation* r : uses) {
      const bool same = r->contender == contender;
      if (!same) rival.clear();
      line += same ? ","
                   : fmt::format("{} {}{} for", contender.empty() ? "" : ";", r->peer ? "the peer " : "",
                                 r->contender_name);
      contender = r->contender;
      line += " " + use_text(*r, rival);
    }
    text += wrapped(line, " ", columns, 4) + "\n";
  }
  return text;
}

// Joined where dtypes and settings have the same answer.
std::string memory_line(const std::vector<Recommendation>& all, int columns) {
  std::vector<std::pair<std::string, std::vector<std::string>>> answers;
  for (const Recommendation& r : all) {
    if (r.use != kLeastMemory) continue;
    const std::string who =
        fmt::format("{}{}{}", r.peer ? "the peer " : "", r.contender_name,
                    r.own.empty() ? "" : fmt::format(", of Headwise's own {}", r.own_name));
    auto found =
        std::find_if(answers.begin(), answers.end(), [&](const auto& answer) { return answer.first == who; });
    if (found == answers.end()) found = answers.insert(answers.end(), {who, {}});
    if (std::find(found->second.begin(), found->second.end(), r.dtype) == found->second.end())
      found->second.push_back(r.dtype);
  }
  std::string line;
  for (const auto& [who, dtypes] : answers)
    line += fmt::format("{} {} ({})", line.empty() ? "Least memory:" : ";", who, fmt::join(dtypes, ", "));
  return line.empty() ? "" : wrapped(line, " ", columns, 4) + "\n";
}

// "at every length" in 4 families, "from 256 on" in 1: what a crossover says, without its figures.
std::string kind_text(const Crossover& c) {
  switch (c.kind) {
    case CrossoverKind::everywhere: return "at every length";
    case CrossoverKind::nowhere: return "at no length";
    case CrossoverKind::from: return fmt::format("from {} on", *c.at);
    case CrossoverKind::until: return fmt::format("up to {}", *c.at);
    case CrossoverKind::mixed: break;
  }
  return "at some lengths";
}

std::string pair_line(const std::vector<const Crossover*>& pair, int columns) {
  std::vector<std::pair<std::string, std::vector<std::string>>> kinds;
  for (const Crossover* c : pair) {
    const std::string kind = kind_text(*c);
    auto found =
        std::find_if(kinds.begin(), kinds.end(), [&](const auto& entry) { return entry.first == kind; });
    if (found == kinds.end()) found = kinds.insert(kinds.end(), {kind, {}});
    found->second.push_back(c->family);
  }
  std::string line =
      fmt::format("{} is faster than {}", pair.front()->contender_name, pair.front()->baseline_name);
  for (const auto& [kind, families] : kinds) {
    const bool first = &kind == &kinds.front().first;
    line += fmt::format("{} {} in ", first ? "" : ";", kind);
    line += families.size() > kFamilies || kinds.size() == 1
                ? fmt::format("{} series of lengths", families.size())
                : fmt::format("[{}]", fmt::join(families, "], ["));
  }
  return wrapped(line, " ", columns, 4) + "\n";
}

}  // namespace

std::string_view name(CrossoverKind kind) {
  switch (kind) {
    case CrossoverKind::everywhere: return "everywhere";
    case CrossoverKind::nowhere: return "nowhere";
    case CrossoverKind::from: return "from";
    case CrossoverKind::until: return "until";
    case CrossoverKind::mixed: return "mixed";
  }
  return "unknown";
}

Insights insights_of(const RunFile& file) {
  const std::vector<ComparableRows> groups = comparable_rows(file.rows);
  const ShortNames names(groups);
  return {.crossovers = crossovers_of(groups, names),
          .recommendations = recommendations_of(groups, names),
          .peers = against_peers(file.rows, groups, names)};
}

std::string render_insights(const Insights& insights, int columns) {
  std::vector<std::vector<const Crossover*>> pairs;
  for (const Crossover& c : insights.crossovers) {
    const auto same = [&](const std::vector<const Crossover*>& pair) {
      return pair.front()->contender_name == c.contender_name &&
             pair.front()->baseline_name == c.baseline_name;
    };
    const auto found = std::find_if(pairs.begin(), pairs.end(), same);
    if (found == pairs.end()) {
      pairs.push_back({&c});
    } else {
      found->push_back(&c);
    }
  }
  std::stable_sort(pairs.begin(), pairs.end(),
                   [](const auto& a, const auto& b) { return a.size() > b.size(); });
  std::string text =
      best_lines(insights.recommendations, columns) + memory_line(insights.recommendations, columns);
  for (std::size_t i = 0; i < std::min(pairs.size(), kPairs); ++i) text += pair_line(pairs[i], columns);
  return text;
}

}  // namespace headwise::lab
