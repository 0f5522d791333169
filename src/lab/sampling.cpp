#include "lab/sampling.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "lab/statistics.h"

namespace headwise::lab {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct State {
  const Contestant* contestant = nullptr;
  Samples samples;
  double spent_seconds = 0;
  double lead_in_ms = 0;
  std::size_t least = 0;
  std::size_t next_check = 0;  // the interval is looked at when the number of samples grew by a tenth
  bool settled = false;        // it was narrow enough then
};

void ask(State& state, const std::function<Status()>& question) {
  if (!state.samples.status.ok() || !question) return;
  if (Status status = question(); !status.ok()) state.samples.status = std::move(status);
}

// Runs until two blocks in a row take the same time within 2 %, or the time is up; then sets repeats.
void warm_up(State& state, const SamplingRule& rule) {
  Samples& samples = state.samples;
  double call_ms = state.contestant->first_ms;
  state.least = static_cast<std::size_t>(rule.least);
  if (ask(state, state.contestant->before); !samples.status.ok()) return;
  if (call_ms > rule.slow_ms) {  // the calls made before were warm-up enough
    state.least = static_cast<std::size_t>(rule.least_slow);
    return;
  }
  const Clock::time_point start = Clock::now();
  double previous = 0;
  double best_ms =
      call_ms;  // repeats follow the undisturbed call: a stall in one block must not shorten samples
  std::int64_t block = 1;  // doubled until it takes 5 ms: shorter ones tell a settled clock from nothing
  for (;;) {
    Result<Timed> timed = state.contestant->time(block, 0);
    if (!timed) {
      samples.status = timed.status();
      return;
    }
    samples.warmups += timed->calls;
    call_ms = timed->ms / static_cast<double>(timed->calls);
    best_ms = std::min(best_ms, call_ms);
    const bool settled = previous > 0 && std::abs(call_ms - previous) < 0.02 * previous && timed->ms >= 5;
    if (settled || seconds_since(start) > rule.warmup_seconds) break;
    previous = call_ms;
    if (timed->ms < 5 && block < (1 << 20)) block *= 2;
  }
  state.lead_in_ms = call_ms <= 10 * rule.lead_in_ms ? rule.lead_in_ms : 0;
  if (!rule.flush && best_ms > 0 && best_ms < rule.sample_ms) {
    samples.repeats = static_cast<std::int64_t>(std::ceil(rule.sample_ms / best_ms));
  }
  ask(state, state.contestant->check);
}

void take_sample(State& state, const SamplingRule& rule) {
  Samples& samples = state.samples;
  if (rule.flush) {
    const Clock::time_point start = Clock::now();
    if (Status status = rule.flush(); !status.ok()) {
      samples.status = std::move(status);
      return;
    }
    state.spent_seconds += seconds_since(start);
  }
  Result<Timed> timed = state.contestant->time(samples.repeats, rule.flush ? 0 : state.lead_in_ms);
  if (!timed) {
    samples.status = timed.status();
    return;
  }
  samples.ms.push_back(timed->ms / static_cast<double>(timed->calls));
  samples.repeats = timed->calls;
  state.spent_seconds += (timed->ms + timed->beside_ms) / 1000;
}

// Sets samples.stop where this contestant must leave whatever the others do, and settled.
void consider_stop(State& state, const SamplingRule& rule) {
  Samples& samples = state.samples;
  const std::size_t count = samples.ms.size();
  const auto exactly = static_cast<std::size_t>(std::max(rule.exactly, 0));
  samples.enough = count >= (exactly > 0 ? std::min(exactly, state.least) : state.least);
  if (rule.out_of_time()) {
    samples.stop = "max_seconds";
  } else if (!samples.enough) {
    return;
  } else if (exactly > 0 && count >= exactly) {
    samples.stop = "samples";
  } else if (rule.interrupted()) {
    samples.stop = "interrupted";
  } else if (exactly == 0 && count >= state.next_check) {
    state.next_check = count + std::max<std::size_t>(1, count / 10);
    state.settled = relative_interval(samples.ms) <= rule.relative_interval;
  }
  if (!samples.stop.empty() || exactly > 0) return;
  if (state.spent_seconds >= rule.seconds) {
    samples.stop = state.settled ? "interval" : "seconds";
  } else if (count >= static_cast<std::size_t>(rule.most)) {
    samples.stop = state.settled ? "interval" : "samples";
  }
}

// Others have run since its last sample and written the same outputs: it runs once more to be checked.
void finish_settled(State& state) {
  state.samples.stop = "interval";
  if (!state.contestant->check) return;
  if (Result<Timed> timed = state.contestant->time(1, 0); !timed) state.samples.status = timed.status();
  ask(state, state.contestant->check);
}

}  // namespace

TimeCalls timed_on(Device& device, TimedWork work) {
  return [&device, work](std::int64_t calls, double lead_in_ms) -> Result<Timed> {
    Timed timed{.calls = calls};
    while (timed.beside_ms < lead_in_ms) {
      Result<double> ms = device.time_ms(work, 1, nullptr);
      if (!ms) return ms.status();
      timed.beside_ms += std::max(*ms, 1e-4);
    }
    Result<double> ms = device.time_ms(work, static_cast<int>(calls), nullptr);
    if (!ms) return ms.status();
    timed.ms = *ms;
    return timed;
  };
}

std::vector<Samples> measure(const std::vector<Contestant>& contestants, const SamplingRule& rule,
                             std::uint64_t seed) {
  std::vector<State> states(contestants.size());
  std::vector<std::size_t> active;
  for (std::size_t i = 0; i < states.size(); ++i) {
    states[i].contestant = &contestants[i];
    warm_up(states[i], rule);
    if (states[i].samples.status.ok()) active.push_back(i);
  }
  Generator generator(seed);
  while (!active.empty()) {
    shuffle(active, generator);
    for (const std::size_t i : active) {
      take_sample(states[i], rule);
      if (!states[i].samples.status.ok()) continue;
      consider_stop(states[i], rule);
      if (!states[i].samples.stop.empty()) ask(states[i], contestants[i].check);
    }
    std::erase_if(active, [&](std::size_t i) {
      return !states[i].samples.status.ok() || !states[i].samples.stop.empty();
    });
    if (!std::all_of(active.begin(), active.end(), [&](std::size_t i) { return states[i].settled; }))
      continue;
    for (const std::size_t i : active) finish_settled(states[i]);
    active.clear();
  }
  std::vector<Samples> all;
  all.reserve(states.size());
  for (State& state : states) {
    if (!state.samples.status.ok()) state.samples.enough = false;  // nothing may be held against them
    all.push_back(std::move(state.samples));
  }
  return all;
}

}  // namespace headwise::lab
