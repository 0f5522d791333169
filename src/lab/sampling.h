// Timing of contenders against each other: interleaved in random rounds, so that what disturbs the machine
// disturbs all of them, and stopped when every median is known well enough. Who is settled goes on while
// others are not, as far as its own time allows, so that all medians come from the same rounds.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "headwise/device.h"

namespace headwise::lab {

struct SamplingRule {
  double relative_interval = 0.01;  // of the median: narrow enough
  double seconds = 2;               // of samples, a contender
  int least = 10;                   // samples before either may stop a contender
  int least_slow = 3;               // where one call takes longer than slow_ms
  double slow_ms = 200;
  double sample_ms = 0.05;       // shorter calls are repeated within a sample
  int most = 2000;               // samples; a 1 % interval needs fewer unless half the time is noise
  int exactly = 0;               // samples, whatever interval and seconds say; 0: by those
  double warmup_seconds = 0.15;  // at most, a contender
  // Empties the caches before each sample, which is then one call; counts as seconds. Empty: not cold.
  std::function<Status()> flush{};
  // Untimed calls right before each sample, where one call is not longer than ten times this: what ran in
  // between was another process, or the device was idle. 0: none.
  double lead_in_ms = 0;
  std::function<bool()> out_of_time = [] { return false; };  // of the whole case
  std::function<bool()> interrupted = [] { return false; };  // then the least number of samples will do
};

struct Timed {
  double ms = 0;           // of all calls together
  std::int64_t calls = 1;  // at least those asked for; more where they come in batches
  double beside_ms = 0;    // the lead-in took
};

// Takes the time of calls made back to back, after a lead-in that is not timed.
using TimeCalls = std::function<Result<Timed>(std::int64_t calls, double lead_in_ms)>;
TimeCalls timed_on(Device& device, TimedWork work);

struct Contestant {
  TimeCalls time;
  double first_ms = 0;  // of a call already made; decides how to warm up
  // Asked before its first call, and after its last warm-up call and its very last call, when the outputs are
  // its own. What they return ends the contestant.
  std::function<Status()> before{}, check{};
};

struct Samples {
  Status status;           // a call that failed; then the rest is as far as it came
  std::vector<double> ms;  // of one call, in the order taken
  std::int64_t repeats = 1;
  std::int64_t warmups = 0;
  std::string_view stop;  // "interval", "seconds", "samples" (the most, or as many as asked for),
                          // "max_seconds", "interrupted"
  bool enough = false;    // the least number of samples was reached
};

// A sample is as exact as the steps of its clock are small against it. Cold samples are one call, however
// short.
inline constexpr int kFineSteps = 100;  // 1 %
inline bool is_coarse(double call_ms, std::int64_t repeats, double step_ns) {
  return call_ms * 1e6 * static_cast<double>(repeats) < kFineSteps * step_ns;
}

// One Samples a contestant, in the same order. Sample r of each comes from round r.
std::vector<Samples> measure(const std::vector<Contestant>& contestants, const SamplingRule& rule,
                             std::uint64_t seed);

}  // namespace headwise::lab
