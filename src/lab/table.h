// Rows as a table for the terminal, made from the field table.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "lab/rows.h"
#include "lab/terminal.h"

namespace headwise::lab {

// Fields that are the same in every row stand in one line above; the least important columns are left out
// until the rest fits. The fastest of each case is marked, with those whose interval overlaps its own.
std::string render_table(const std::vector<Row>& rows, const Terminal& terminal);

// A few lines: who was fastest how often, speedup over the baseline, how the kernels stand to other people's
// attention, how much was verified, what did not run and why.
std::string render_summary(const std::vector<Row>& rows, const Terminal& terminal);
// The same without the table of peers, for those who show it in their own way.
std::string render_summary_without_peers(const std::vector<Row>& rows, const Terminal& terminal);

// What became of each peer that was ranked somewhere; the fastest over the baseline first.
struct PeerSummary {
  std::string peer, version;
  std::size_t rows = 0, ranked = 0, overhead = 0, others = 0;  // overhead: not ranked because of it
  std::vector<double> speedups;                                // over the baseline, ascending
  [[nodiscard]] std::string speedup_text() const;              // "1.35x (0.90x to 2.07x)"; "-": none
  [[nodiscard]] std::string ranked_text() const;               // "3 of 4"
};
std::vector<PeerSummary> peer_summaries(const std::vector<Row>& rows);

// The fastest ranked row of those of a case that were timed alike, by timing_key; none for a row that stands
// alone while others of its case were timed in another way.
std::map<std::string, const Row*> leaders_of(const std::vector<Row>& rows);

// Per row: the fastest of those (leaders_of), or not to be told apart from it.
std::vector<bool> fastest_of_case(const std::vector<Row>& rows);

}  // namespace headwise::lab
