// Rows as a table for the terminal, made from the field table.
#pragma once

#include <string>
#include <vector>

#include "lab/rows.h"
#include "lab/terminal.h"

namespace headwise::lab {

// Fields that are the same in every row stand in one line above; the least important columns are left out
// until the rest fits. The fastest of each case is marked, with those whose interval overlaps its own.
std::string render_table(const std::vector<Row>& rows, const Terminal& terminal);

// A few lines: who was fastest how often, speedup over the baseline, how much was verified, what did not run
// and why.
std::string render_summary(const std::vector<Row>& rows, const Terminal& terminal);

// Per row: the fastest ranked row of its case, or not to be told apart from it.
std::vector<bool> fastest_of_case(const std::vector<Row>& rows);

}  // namespace headwise::lab
