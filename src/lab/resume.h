// What a run that was killed or interrupted left, so that only what is missing runs again.
//
// It may have left the result file (after Ctrl-C, or finished) and temporary files beside it (after a kill,
// one more for each time that a continuation was killed too). A case is kept where all its contenders have a
// row, whatever its status; a case of which only some have one runs again as a whole, since ratios hold
// within one interleaved measurement alone.
#pragma once

#include <string>
#include <vector>

#include "lab/axes.h"
#include "lab/row_files.h"
#include "lab/rows.h"

namespace headwise::lab {

struct Unfinished {
  Run run;                             // the line of the file, with its peaks
  std::vector<std::vector<Row>> kept;  // one a case that is asked for; empty: to be run
  std::size_t cut = 0;                 // cases of which only some contenders have rows: they run again
  std::vector<std::string> files;      // where the rows come from; none: there is nothing to continue
  std::vector<std::string> notes;      // what was left aside, and why
  std::vector<FileLock> locks;         // of the files: nobody else continues them meanwhile
  [[nodiscard]] std::size_t kept_cases() const;
  [[nodiscard]] bool complete() const { return kept_cases() == kept.size(); }
};

// What is there to continue for `path`. A file of another machine, build or
// setting than `now`, of cases or contenders that are not asked for, or in use by another run, is refused
// with what is wrong.
Result<Unfinished> find_unfinished(const std::string& path, const std::vector<Case>& cases, const Run& now);

// "isa was amx, is avx2": facts that rows of one file must share and these two do not.
std::vector<std::string> differences(const Run& then, const Run& now);

}  // namespace headwise::lab
