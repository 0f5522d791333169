// The laboratory's main job. For each case: inputs, truth, and for each contender plan, prepare, verify,
// measure against the others, row. A cell that cannot run is a row that says why, and the next one runs.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lab/axes.h"
#include "lab/estimate.h"
#include "lab/rows.h"

namespace headwise::lab {

struct RunOptions {
  std::string run;              // id for the rows
  bool measured = true;         // false: verify alone
  double seconds = 2;           // of samples, a contender in a case
  int samples = 0;              // exactly so many, whatever the interval and the seconds; 0: by those
  double max_seconds = 120;     // of a case; then the rest of its contenders is `timeout`
  double verify_seconds = 0.5;  // for truth and plain of a case
  std::string peer_python{};    // runs all peers; empty: each set's own environment
  // Rows of cases that a run before this one finished, one vector a case: they are passed on as they are, and
  // their case is not run. Empty: none.
  std::vector<std::vector<Row>> kept{};
  std::function<bool()> interrupted = [] { return false; };
};

// Hears what happens. Called from the running thread, between the measurements.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void begin_case(std::size_t index, std::size_t count, const Case& one,
                          double estimated_seconds) = 0;
  // "inputs", "truth", "verify", "measure"; `who` is the contender or how many there are.
  virtual void phase(std::string_view what, std::string_view who) = 0;
  virtual Status rows(std::span<const Row> rows) = 0;  // of the case in hand, all at once
  virtual void end_case() = 0;
};

// Every kernel name of every case exists; to be asked before anything runs.
Status check_contenders(const std::vector<Case>& cases);

// Fails only where a row could not be written. After an interruption the case in hand is finished with as few
// samples as the rules allow, and no further case begins.
Status run_cases(const std::vector<Case>& cases, const RunOptions& options, Observer& observer);

}  // namespace headwise::lab
