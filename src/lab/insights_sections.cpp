// Which rows answer one question: those of a dtype in a setting, for a use.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "lab/insights_steps.h"
#include "lab/units.h"

namespace headwise::lab {

std::string_view use_of(const Row& row) {
  if (row.inputs.starts_with("captured")) return kUses[6];
  if (row.inputs.starts_with("structured")) return kUses[7];
  if (row.seq_q == 1 && row.seq_kv > 1) return kUses[5];
  if (row.seq_q != row.seq_kv) return kUses[4];
  if (row.kv_heads != row.heads) return kUses[3];
  if (row.window_left >= 0 || row.window_right >= 0) return kUses[2];
  return row.causal ? kUses[1] : kUses[0];
}

namespace {

// Qualities that are told where rows of the file differ in them, or where they are not the usual ones.
struct Settings {
  std::set<std::string> devices;
  std::set<std::int64_t> threads;                                // of devices that have any
  std::map<std::string, std::set<std::string>> timers, regimes;  // by device: another's always differ
  explicit Settings(const std::vector<ComparableRows>& groups) {
    for (const ComparableRows& group : groups) {
      const Row& row = *group.rows.front();
      devices.insert(row.device);
      if (row.threads > 0) threads.insert(row.threads);
      timers[row.device].insert(row.timer);
      regimes[row.device].insert(row.regime);
    }
  }
  [[nodiscard]] std::string of(const Row& row) const {
    std::vector<std::string> parts;
    if (row.direction != "forward") parts.push_back(row.direction);
    if (devices.size() > 1) parts.push_back(row.device);
    if (threads.size() > 1 && row.threads > 0)
      parts.push_back(counted(static_cast<std::size_t>(row.threads), "thread"));
    if (row.cache == "cold") parts.emplace_back("cold cache");
    if (timers.at(row.device).size() > 1) parts.push_back("timed by " + row.timer);
    if (regimes.at(row.device).size() > 1) parts.push_back(row.regime);
    return fmt::format("{}", fmt::join(parts, ", "));
  }
};

}  // namespace

std::vector<Section> sections_of(const std::vector<ComparableRows>& groups) {
  const Settings settings(groups);
  std::vector<Section> sections;
  for (const ComparableRows& group : groups) {
    const Row& row = *group.rows.front();
    const std::string dtype = dtype_text(row), setting = settings.of(row);
    auto found = std::find_if(sections.begin(), sections.end(),
                              [&](const Section& s) { return s.dtype == dtype && s.setting == setting; });
    if (found == sections.end()) found = sections.insert(sections.end(), {dtype, setting, {}, {}});
    found->by_use[use_of(row)].push_back(&group);
    found->all.push_back(&group);
  }
  return sections;
}

}  // namespace headwise::lab
