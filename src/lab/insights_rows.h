// What crossovers and recommendations share: which rows may speak, how two of them compare, how things are
// named.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "lab/insights.h"

namespace headwise::lab {

bool is_peer(const Row& row);
// Ran and passed, but calling it takes too much of its time (kMostOverhead) for a rank.
bool unranked_by_overhead(const Row& row);

// The case and all that must be equal for two times to be compared: device, direction, threads, timer,
// regime, cache.
std::string timing_key(const Row& row);

// The ranked rows of one case that were timed alike, so that they may be compared; in the file's order.
struct ComparableRows {
  std::string case_id;
  std::vector<const Row*> rows;
  const Row* first_of_file = nullptr;
  [[nodiscard]] const Row* find(const std::string& contender) const;  // nullptr: not ranked here
  [[nodiscard]] RowReference reference(const Row& row) const;
  // The fastest kernel, or the fastest peer; nullptr: none was ranked here.
  [[nodiscard]] const Row* fastest(bool peer) const;
  // The row's speedup, where its baseline was timed alike.
  [[nodiscard]] OptionalNumber speedup(const Row& row) const;
};
// In the file's order. Of a cell that was measured twice the later row counts.
std::vector<ComparableRows> comparable_rows(const std::vector<Row>& rows);

// time(slower) / time(faster) with its interval: above 1 where `faster` is what its name says. The row's own
// speedup where `slower` is its baseline; else a bootstrap over the samples of both, round by round; else,
// without samples, the medians and the far ends of their intervals.
Ratio ratio_of(const Row& slower, const Row& faster);

// Geometric mean of the values, of the low and of the high ends. That interval holds for noise that all cases
// share; where each has its own it is wider than need be.
Ratio geometric_mean(const std::vector<Ratio>& ratios);

// "avx512 flash" for cpu/avx512/flash/f32, whose dtype the sentence tells; the whole name where two
// contenders of a case would have the same, and of a peer.
class ShortNames {
 public:
  explicit ShortNames(const std::vector<ComparableRows>& groups);
  [[nodiscard]] std::string of(const Row& row) const;
  [[nodiscard]] std::string of(const std::string& contender) const;
  [[nodiscard]] bool is_peer(const std::string& contender) const { return peers_.contains(contender); }

 private:
  std::map<std::string, std::string> names_;  // by contender
  std::set<std::string> peers_;
};

std::string dtype_text(const Row& row);     // "bf16"; "bf16, kv int8"
std::string ratio_text(double ratio);       // "1.52x"
std::string interval_text(const Ratio& r);  // "1.52x (1.49x to 1.55x)"

}  // namespace headwise::lab
