// Rows as columns for people's eyes, from the field table: what the console and Markdown show.
#pragma once

#include <string>
#include <vector>

#include "lab/rows.h"

namespace headwise::lab {

struct Column {
  const Field* field = nullptr;
  std::string title;
  std::vector<std::string> cells;  // one a row, as display() has them; of rows without a rank, no speeds
  std::size_t width = 0;           // of title and cells
  int order = 0;                   // 0: the case; 1: who; 2: what was measured; 3: how it ended
  [[nodiscard]] bool numeric() const;
};

// Every field that may be a column, the case first. seq_q and seq_kv, and their like, are one column where
// they are the same everywhere.
std::vector<Column> make_columns(const std::vector<Row>& rows);

// Takes columns that never change out of the table; returns the words that tell them. The contender and its
// time stay: a table without them is none.
std::string take_constants(std::vector<Column>& columns);

// Whether the columns of the case show every case differently, be it without one of them.
bool tell_cases_apart(const std::vector<Row>& rows, const std::vector<Column>& columns,
                      const Column* without = nullptr);

// A row's case in the words that differ between the rows' cases ("seq=512 causal=1"); its whole name where
// none does.
std::vector<std::string> case_labels(const std::vector<Row>& rows);

}  // namespace headwise::lab
