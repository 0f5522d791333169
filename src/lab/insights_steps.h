// The steps of insights_of, each in a file of its own.
#pragma once

#include <string_view>
#include <vector>

#include "lab/insights_rows.h"

namespace headwise::lab {

inline constexpr std::string_view kLeastMemory = "least memory";  // Recommendation::use

std::vector<Crossover> crossovers_of(const std::vector<ComparableRows>& groups, const ShortNames& names);
std::vector<Recommendation> recommendations_of(const std::vector<ComparableRows>& groups,
                                               const ShortNames& names);

}  // namespace headwise::lab
