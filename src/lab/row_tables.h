// Rows as CSV and as Markdown, from the one table of fields.
#pragma once

#include <string>
#include <vector>

#include "lab/rows.h"

namespace headwise::lab {

// RFC 4180: a header line with every field's name, then one record a row; lines end in CRLF. Numbers read
// back to the same bits, samples are joined by ';', booleans are true and false, what was not measured is
// empty. Text that a spreadsheet would take for a formula (it begins with = + - @, a tab or a carriage
// return) has an apostrophe before it.
std::string rows_as_csv(const std::vector<Row>& rows);

// A table as GitHub shows it: command and environment, what is the same in all rows, then the columns of the
// console, and the summary.
std::string rows_as_markdown(const RunFile& file);

}  // namespace headwise::lab
