// A contender in one case, from its first call to its last: what the runner asks of kernels and of peers
// alike.
#pragma once

#include <cstddef>
#include <string_view>

#include "headwise/attention.h"
#include "lab/rows.h"
#include "lab/sampling.h"
#include "lab/verify.h"

namespace headwise::lab {

class Work {
 public:
  Work() = default;
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;
  virtual ~Work() = default;

  // Gets ready and calls once; the outputs are then in the case's Inputs, where nobody wrote them before.
  // Tells the row what it knows by then: preparation, memory, what ran. Milliseconds of the call.
  virtual Result<double> first_call(Row& row) = 0;
  // Of the outputs in the case's Inputs.
  [[nodiscard]] virtual Verdict verdict(const Reference& reference) = 0;
  // Outputs of the first call were judged good: later ones are held against them.
  virtual Status accept() = 0;

  // Scratch memory that the timed calls need; `use` gives it, before any of them.
  [[nodiscard]] virtual std::size_t workspace_bytes() const { return 0; }
  virtual void use(Workspace /*workspace*/) {}
  // Right before the first timed call; the timed calls; whether the outputs of the last one are still right.
  virtual Status before_timing() { return {}; }
  virtual Result<Timed> time(std::int64_t calls, double lead_in_ms) = 0;
  virtual Status check_outputs() = 0;
  // How the timed calls were measured: timer, regime, cache_method, clock_mhz.
  virtual void describe_timing(Row& row) const = 0;

  // The row's status for a failure of this work.
  [[nodiscard]] virtual std::string_view row_status_of(const Status& status) const = 0;
  // Seconds that failed requests took: others must not lack them.
  [[nodiscard]] virtual double lost_seconds() const { return 0; }
};

// What a status of the library means in a row.
std::string_view row_status_of(StatusCode code);

}  // namespace headwise::lab
