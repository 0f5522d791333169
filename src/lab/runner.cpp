#include "lab/runner.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <exception>
#include <limits>
#include <new>

#include "headwise/kernels.h"
#include "lab/environment.h"
#include "lab/fingerprint.h"
#include "lab/sampling.h"
#include "lab/statistics.h"
#include "lab/units.h"
#include "lab/verify.h"

namespace headwise::lab {
namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::string_view row_status_of(StatusCode code) {
  switch (code) {
    case StatusCode::ok: return row_status::kOk;
    case StatusCode::unsupported: return row_status::kUnsupported;
    case StatusCode::out_of_memory: return row_status::kOutOfMemory;
    case StatusCode::unavailable: return row_status::kAbsent;
    case StatusCode::invalid_argument:
    case StatusCode::internal: break;
  }
  return row_status::kError;
}

// Device memory that goes back when the scope ends.
class Scratch {
 public:
  explicit Scratch(Device& device) : device_(device) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    if (workspace_.data != nullptr) device_.deallocate(workspace_.data);
  }
  Status allocate(std::size_t bytes) {
    if (bytes == 0) return {};
    Result<void*> data = device_.allocate(bytes);
    if (!data) return data.status();
    workspace_ = {*data, bytes};
    return {};
  }
  [[nodiscard]] Workspace workspace() const { return workspace_; }

 private:
  Device& device_;
  Workspace workspace_{};
};

// A contender on its way to a row.
struct Entry {
  Contender contender;
  Row row;
  bool alive = true;  // nothing has ended it yet
  double first_ms = 0;
  std::uint64_t outputs = 0;  // fingerprint of those that were verified
  bool changed = false;       // a later call gave others
  const AttentionArgs* args = nullptr;
  Workspace workspace{};

  void end(std::string_view status, std::string reason) {
    row.status = status;
    row.reason = std::move(reason);
    alive = false;
  }
  void end(const Status& status) { end(row_status_of(status.code()), status.message()); }
  // TimedWork::call
  static Status call(void* context, void* stream) {
    const auto& self = *static_cast<const Entry*>(context);
    return self.contender.plan->run(*self.args, {.stream = stream, .workspace = self.workspace});
  }
};

Row blank_row(const Case& one, const Contender& contender, const RunOptions& options) {
  const AttentionProblem& p = one.problem;
  Row row;
  row.run = options.run;
  row.case_id = case_id(one);
  row.contender = contender.id;
  row.device = to_string(one.device);
  row.isa = contender.isa;
  row.algorithm = contender.algorithm;
  row.threads = p.threads;
  row.dtype = name(p.dtype);
  row.kv_dtype = name(p.kv_dtype);
  row.direction = name(p.direction);
  row.batch = p.batch;
  row.heads = p.heads;
  row.kv_heads = p.kv_heads;
  row.seq_q = p.seq_q;
  row.seq_kv = p.seq_kv;
  row.head_dim = p.head_dim;
  row.head_dim_v = p.head_dim_v;
  row.causal = p.causal;
  row.align = name(p.align);
  row.window_left = p.window_left;
  row.window_right = p.window_right;
  row.softmax_scale = static_cast<double>(p.scale());
  row.page_size = p.page_size;
  row.inputs = one.inputs_text;
  row.seed = static_cast<std::int64_t>(one.inputs.seed);
  row.preset = one.preset;
  row.cache = one.cold ? "cold" : "hot";
  row.least_bytes = static_cast<std::int64_t>(cost(p).least_bytes());
  row.reproduce = reproducer(one, contender.id);
  if (contender.plan.ok()) {
    row.ran = contender.plan->kernel();
    row.workspace_bytes = static_cast<std::int64_t>(contender.plan->workspace_bytes());
  }
  return row;
}

class CaseRun {
 public:
  CaseRun(const Case& one, const RunOptions& options, Observer& observer, SpeedBook& speeds)
      : case_(one), options_(options), observer_(observer), speeds_(speeds) {}

  // Ends every entry one way or the other.
  void run() {
    try {
      run_guarded();
    } catch (const std::bad_alloc&) {
      end_all(row_status::kOutOfMemory,
              "the program ran out of memory while it prepared or checked the case");
    } catch (const std::exception& error) {
      end_all(row_status::kError, fmt::format("unexpected: {}", error.what()));
    }
  }

  Status write_rows() {
    std::vector<Row> rows;
    rows.reserve(entries_.size());
    for (Entry& entry : entries_) rows.push_back(std::move(entry.row));
    return observer_.rows(rows);
  }

  Status begin() {
    Result<std::vector<Contender>> contenders = contenders_of(case_);
    if (!contenders) return contenders.status();
    for (Contender& contender : *contenders) {
      Row row = blank_row(case_, contender, options_);
      entries_.push_back({.contender = std::move(contender), .row = std::move(row)});
    }
    return {};
  }

  [[nodiscard]] double estimated_seconds() const {
    std::vector<Contender> contenders;
    contenders.reserve(entries_.size());
    for (const Entry& entry : entries_) contenders.push_back(entry.contender);
    return estimate_seconds(case_, contenders, speeds_, options_.seconds, options_.measured);
  }

 private:
  void end_all(std::string_view status, const std::string& reason) {
    for (Entry& entry : entries_) {
      if (entry.alive) entry.end(status, reason);
    }
  }
  [[nodiscard]] bool any_alive() const {
    for (const Entry& entry : entries_) {
      if (entry.alive) return true;
    }
    return false;
  }

  void run_guarded() {
    deadline_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                   std::chrono::duration<double>(std::min(options_.max_seconds, 1e6)));
    Result<Device*> device = headwise::device(case_.device);
    if (!device) return end_all(row_status::kAbsent, device.status().message());
    device_ = *device;
    for (Entry& entry : entries_) foresee(entry);
    if (!any_alive()) return;

    observer_.phase("inputs", case_.inputs_text);
    Result<Inputs> inputs = make_inputs(case_.problem, case_.inputs, *device_);
    if (!inputs) return end_all(row_status_of(inputs.status().code()), inputs.status().message());
    observer_.phase("truth", "");
    Result<Reference> reference = make_reference(*inputs, options_.verify_seconds);
    if (!reference) return end_all(row_status_of(reference.status().code()), reference.status().message());
    for (Entry& entry : entries_) {
      if (!entry.alive) continue;
      observer_.phase("verify", entry.row.contender);
      prepare_and_verify(entry, *inputs, *reference);
    }
    if (options_.measured) {
      measure_alive(*inputs);
    } else {
      for (Entry& entry : entries_) {
        if (entry.alive) entry.end(row_status::kOk, "verified, not timed");
      }
    }
  }

  // Ends what cannot run, or would take memory or time that is not there, before it is tried.
  void foresee(Entry& entry) {
    if (!entry.contender.plan.ok()) return entry.end(entry.contender.plan.status());
    const Need need = need_of(case_.problem, entry.contender.plan->workspace_bytes());
    const auto available = static_cast<double>(device_->memory().available);
    if (need.total() > available) {
      return entry.end(
          row_status::kOutOfMemory,
          fmt::format("needs {} (inputs and outputs {}, workspace {}, fp64 truth {}); {} are available",
                      bytes_for_people(need.total()),
                      need.input_bytes == std::numeric_limits<std::size_t>::max()
                          ? "beyond 64 bits"
                          : bytes_for_people(static_cast<double>(need.input_bytes)),
                      bytes_for_people(static_cast<double>(need.workspace_bytes)),
                      bytes_for_people(static_cast<double>(need.reference_bytes)),
                      bytes_for_people(available)));
    }
    // A speed that was never seen is a guess; only one far beyond the limit counts.
    const double slack = speeds_.knows(entry.row.contender) ? 1 : 10;
    const double call_seconds = speeds_.call_ms(entry.contender, case_.problem) / 1000;
    if (call_seconds > 0.2 && 4 * call_seconds > slack * options_.max_seconds) {
      entry.end(row_status::kTimeout,
                fmt::format("not tried: one call would take about {}, and --max-seconds is {}",
                            seconds_for_people(call_seconds), options_.max_seconds));
    }
  }

  void prepare_and_verify(Entry& entry, Inputs& inputs, const Reference& reference) {
    if (Clock::now() >= deadline_)
      return entry.end(row_status::kTimeout, "--max-seconds was over before its turn");
    const Clock::time_point start = Clock::now();
    if (Status status = poison(inputs); !status.ok()) return entry.end(status);
    const MemoryUse before = device_->memory();
    device_->reset_peak();
    const Clock::time_point prepare = Clock::now();
    Scratch scratch(*device_);
    if (Status status = scratch.allocate(entry.contender.plan->workspace_bytes()); !status.ok())
      return entry.end(status);
    entry.row.prepare_ms = entry.contender.plan_ms + milliseconds_since(prepare);
    entry.args = &inputs.args();
    entry.workspace = scratch.workspace();
    const Clock::time_point call = Clock::now();
    Status status = Entry::call(&entry, nullptr);
    if (status.ok()) status = device_->synchronize(nullptr);
    entry.first_ms = milliseconds_since(call);
    if (!status.ok()) return entry.end(status);
    record_memory(entry, before, device_->memory());
    record_verdict(entry, verify(inputs, reference));
    if (entry.alive) {
      Result<std::uint64_t> outputs = output_fingerprint(inputs);
      if (!outputs) return entry.end(outputs.status());
      entry.outputs = *outputs;
    }
    entry.row.verify_ms = milliseconds_since(start);
  }

  // Outputs are filled before the call, so they are resident in `before`; what the call adds is workspace and
  // whatever it allocates on its own.
  void record_memory(Entry& entry, const MemoryUse& before, const MemoryUse& after) const {
    const AttentionProblem& p = case_.problem;
    const auto output = static_cast<std::int64_t>(cost(p).bytes_written);
    const auto input = static_cast<std::int64_t>(cost(p).bytes_read);
    entry.row.input_bytes = input;
    entry.row.output_bytes = output;
    const auto grown = [](std::size_t from, std::size_t to) {
      return to > from ? static_cast<std::int64_t>(to - from) : std::int64_t{0};
    };
    entry.row.peak_allocated_bytes = input + output + grown(before.allocated, after.peak_allocated);
    if (after.peak_resident > 0) {
      entry.row.peak_resident_bytes = input + output + grown(before.resident, after.peak_resident);
    }
    entry.row.peak_bytes =
        std::max(*entry.row.peak_allocated_bytes, entry.row.peak_resident_bytes.value_or(0));
  }

  static void record_verdict(Entry& entry, const Verdict& verdict) {
    Row& row = entry.row;
    row.error_max = verdict.error_max;
    row.error_rms = verdict.error_rms;
    row.error_limit = verdict.limit_max;
    row.error_rms_limit = verdict.limit_rms;
    row.plain_max = verdict.plain_max;
    row.plain_rms = verdict.plain_rms;
    row.rows_verified = verdict.rows_verified;
    if (entry.contender.plan->problem().lse) row.lse_error = verdict.lse_error;
    if (!verdict.passed()) entry.end(row_status::kInaccurate, verdict.reason);
  }

  // Whether the outputs are still the ones that were verified, bit by bit.
  static Status check_outputs(Entry& entry, Inputs& inputs) {
    Result<std::uint64_t> outputs = output_fingerprint(inputs);
    if (!outputs) return outputs.status();
    if (*outputs == entry.outputs) return {};
    entry.changed = true;
    return Status::internal(
        "outputs of a timed call differ from those of the verified one: a kernel gives the same bits each "
        "time");
  }

  void measure_alive(Inputs& inputs) {
    SamplingRule rule{.seconds = options_.seconds,
                      .exactly = options_.samples,
                      .cold = case_.cold,
                      .deadline = deadline_,
                      .interrupted = options_.interrupted};
    std::size_t most = 0;
    std::vector<Entry*> running;
    for (Entry& entry : entries_) {
      if (!entry.alive) continue;
      most = std::max(most, entry.contender.plan->workspace_bytes());
      running.push_back(&entry);
    }
    if (running.empty()) return;
    observer_.phase("measure", fmt::format("{} contenders", running.size()));
    Scratch scratch(*device_);  // one for all: they never run at the same time
    if (Status status = scratch.allocate(most); !status.ok()) {
      return end_all(row_status_of(status.code()), status.message());
    }
    std::vector<Contestant> contestants;
    for (Entry* entry : running) {
      entry->args = &inputs.args();
      entry->workspace = scratch.workspace();
      contestants.push_back({.work = {.call = &Entry::call, .context = entry},
                             .first_ms = entry->first_ms,
                             .before = [&inputs] { return poison(inputs); },
                             .check = [entry, &inputs] { return check_outputs(*entry, inputs); }});
    }
    const std::vector<Samples> all = measure(*device_, contestants, rule, case_.inputs.seed);
    const double mhz = device_->clocks().mhz;
    const Samples* baseline = nullptr;
    for (std::size_t i = 0; i < running.size(); ++i) {
      if (running[i]->contender.baseline && all[i].enough) baseline = &all[i];
    }
    for (std::size_t i = 0; i < running.size(); ++i) {
      record_samples(*running[i], all[i], mhz);
      if (running[i]->row.status == row_status::kOk && baseline != nullptr)
        record_speedup(running[i]->row, all[i], *baseline);
    }
  }

  void record_samples(Entry& entry, const Samples& samples, double mhz) {
    Row& row = entry.row;
    row.timer = device_->timer();
    row.regime = "sustained";
    row.cache_method = case_.cold ? "flushed" : "reused";
    if (mhz > 0) row.clock_mhz = mhz;
    row.samples_ms = samples.ms;
    row.samples = static_cast<std::int64_t>(samples.ms.size());
    row.repeats = samples.repeats;
    row.warmups = samples.warmups;
    row.stop = samples.stop;
    if (entry.changed) return entry.end(row_status::kInaccurate, samples.status.message());
    if (!samples.status.ok()) return entry.end(samples.status);
    if (!samples.enough) {
      return entry.end(row_status::kTimeout, fmt::format("--max-seconds {} was over after {} samples",
                                                         options_.max_seconds, samples.ms.size()));
    }
    const Summary summary = summarize(samples.ms);
    row.ms_median = summary.median;
    row.ms_mean = summary.mean;
    row.ms_min = summary.minimum;
    row.ms_p5 = summary.p5;
    row.ms_p95 = summary.p95;
    row.ms_p99 = summary.p99;
    row.ms_stddev = summary.stddev;
    const Interval interval = median_interval(samples.ms);
    row.ms_low = interval.low;
    row.ms_high = interval.high;
    const Cost work = cost(case_.problem);
    if (summary.median > 0) {
      const double seconds = summary.median / 1000;
      row.tokens_per_s =
          static_cast<double>(case_.problem.batch) * static_cast<double>(case_.problem.seq_q) / seconds;
      row.tflops = work.flops / seconds / 1e12;
      row.gb_per_s = work.least_bytes() / seconds / 1e9;
    }
    if (!case_.cold) speeds_.saw(entry.contender, case_.problem, summary.median);
    const bool coarse =
        device_->timer() == "steady_clock" && is_coarse(summary.median, samples.repeats, timer_step_ns());
    entry.end(row_status::kOk,
              coarse ? fmt::format(
                           "a sample is less than {} steps of the timer ({:.0f} ns each): its time is coarse",
                           kFineSteps, timer_step_ns())
                     : "");
  }

  void record_speedup(Row& row, const Samples& samples, const Samples& baseline) const {
    const Ratio ratio = bootstrap_ratio(baseline.ms, samples.ms, case_.inputs.seed);
    row.speedup = ratio.value;
    row.speedup_low = ratio.interval.low;
    row.speedup_high = ratio.interval.high;
    for (const Entry& entry : entries_) {
      if (entry.contender.baseline) row.baseline = entry.row.contender;
    }
  }

  const Case& case_;
  const RunOptions& options_;
  Observer& observer_;
  SpeedBook& speeds_;
  Device* device_ = nullptr;
  Clock::time_point deadline_;
  std::vector<Entry> entries_;
};

}  // namespace

Status check_contenders(const std::vector<Case>& cases) {
  for (const Case& one : cases) {
    if (Result<std::vector<Contender>> contenders = contenders_of(one); !contenders)
      return contenders.status();
  }
  return {};
}

namespace {

// Speeds of a case that ran before, as if it had run now.
void learn(const Case& one, const std::vector<Row>& rows, SpeedBook& speeds) {
  Result<std::vector<Contender>> contenders = contenders_of(one);
  if (!contenders || one.cold) return;
  for (const Contender& contender : *contenders) {
    for (const Row& row : rows)
      if (row.contender == contender.id && ranked(row)) speeds.saw(contender, one.problem, *row.ms_median);
  }
}

}  // namespace

Status run_cases(const std::vector<Case>& cases, const RunOptions& options, Observer& observer) {
  SpeedBook speeds;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    if (i < options.kept.size() && !options.kept[i].empty()) {
      learn(cases[i], options.kept[i], speeds);
      if (Status status = observer.rows(options.kept[i]); !status.ok()) return status;
      continue;
    }
    if (options.interrupted()) continue;  // what is kept of later cases is passed on all the same
    CaseRun run(cases[i], options, observer, speeds);
    if (Status status = run.begin(); !status.ok()) return status;
    observer.begin_case(i, cases.size(), cases[i], run.estimated_seconds());
    run.run();
    if (Status status = run.write_rows(); !status.ok()) return status;
    observer.end_case();
  }
  return {};
}

}  // namespace headwise::lab
