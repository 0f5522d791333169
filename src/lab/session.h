// A whole run as a user starts it: cases, progress, the result file, the table, an interruption, the verdict.
#pragma once

#include <string>
#include <vector>

#include "lab/axes.h"
#include "lab/environment.h"
#include "lab/rows.h"
#include "lab/runner.h"

namespace headwise::lab {

// What the program tells its caller.
namespace exit_code {
inline constexpr int kGood = 0;
inline constexpr int kBadRow = 1;  // a row is `inaccurate` or `error`, or a file could not be written
inline constexpr int kUsage = 3;
inline constexpr int kNothingRan = 4;     // nothing asked for could run: its device or peer is absent
inline constexpr int kInterrupted = 130;  // Ctrl-C; the rows so far are kept
}  // namespace exit_code

struct SessionOptions {
  RunOptions run;
  std::string command;  // as typed
  std::string out;      // result file; empty: none
  bool resume = false;  // go on with what a run before left of `out` (resume.h)
  bool quiet = false;   // no progress
  bool peaks = true;    // of the devices, measured before the first case; verify needs none
  EnvironmentOptions environment;
};

struct SessionResult {
  int exit = exit_code::kGood;
  RunFile file;    // what was written, or would have been
  Status written;  // why the result file is not there; the rows up to then are in `file`
};

// Runs the cases; stdout gets nothing, stderr the progress. A Status where nothing ran.
Result<SessionResult> run_session(const std::vector<Case>& cases, const SessionOptions& options);

// By the rows alone; see exit_code.
int exit_code_of(const std::vector<Row>& rows);

// The cells that would run, what they need and about how long they take: --dry-run.
Result<std::string> describe_session(const std::vector<Case>& cases, const SessionOptions& options);

}  // namespace headwise::lab
