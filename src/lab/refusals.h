// Why rows did not run, or were not ranked: each reason once, with who and how often.
#pragma once

#include <string>
#include <vector>

#include "lab/rows.h"

namespace headwise::lab {

// In the file's order of first appearance. Kernels have a line each; peers share a line where they share a
// reason, absent ones of a set ("absent: torch.* (7 peers, 28 rows): ..."); rows of a peer that were not
// ranked because of the cost of calling it are one line with the range.
std::vector<std::string> refusal_lines(const std::vector<Row>& rows);

}  // namespace headwise::lab
