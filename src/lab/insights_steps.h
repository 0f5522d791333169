// The steps of insights_of, each in a file of its own.
#pragma once

#include <array>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lab/insights_rows.h"

namespace headwise::lab {

inline constexpr std::string_view kLeastMemory = "least memory";  // Recommendation::use

// What attention is wanted for, in the order of reports; each case belongs to one.
inline constexpr std::array<std::string_view, 8> kUses = {
    "full prefill",         "causal prefill", "windowed prefill",       "grouped-query prefill",
    "prefill into a cache", "decoding",       "a real model's tensors", "structured inputs"};

std::string_view use_of(const Row& row);

using Groups = std::vector<const ComparableRows*>;

// One dtype in one setting (direction, and what else the file's rows differ in): what a user has chosen
// before asking. Rows of two sections are never compared.
struct Section {
  std::string dtype, setting;
  std::map<std::string_view, Groups> by_use;
  Groups all;
};
std::vector<Section> sections_of(const std::vector<ComparableRows>& groups);

std::vector<Crossover> crossovers_of(const std::vector<ComparableRows>& groups, const ShortNames& names);
std::vector<Recommendation> recommendations_of(const std::vector<ComparableRows>& groups,
                                               const ShortNames& names);
AgainstPeers against_peers(const std::vector<Row>& rows, const std::vector<ComparableRows>& groups,
                           const ShortNames& names);

}  // namespace headwise::lab
