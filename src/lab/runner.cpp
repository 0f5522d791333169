#include "lab/runner.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <exception>
#include <limits>
#include <memory>
#include <new>

#include "headwise/kernels.h"
#include "lab/environment.h"
#include "lab/kernel_work.h"
#include "lab/peers/peer_work.h"
#include "lab/sampling.h"
#include "lab/sequence_inputs.h"
#include "lab/statistics.h"
#include "lab/units.h"
#include "lab/verify.h"

namespace headwise::lab {
namespace {

using Clock = std::chrono::steady_clock;

// A lead-in lets a process that stood still, and its thread pool, get going again; on a GPU it is long enough
// for clocks and power to settle.
constexpr double kLeadInMs = 2;
constexpr double kGpuLeadInMs = 50;
constexpr double kGpuSampleMs = 5;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A contender on its way to a row.
struct Entry {
  Contender contender;
  Row row;
  bool alive = true;  // nothing has ended it yet
  double first_ms = 0;
  std::unique_ptr<Work> work{};

  void end(std::string_view status, std::string reason) {
    row.status = status;
    row.reason = std::move(reason);
    alive = false;
  }
  void end(const Status& status) {
    end(work != nullptr ? work->row_status_of(status) : row_status_of(status.code()), status.message());
  }
};

Row blank_row(const Case& one, const Contender& contender, const RunOptions& options) {
  const AttentionProblem& p = one.problem;
  Row row;
  row.run = options.run;
  row.case_id = case_id(one);
  row.contender = contender.id;
  if (contender.peer != nullptr) row.kind = "peer";
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
  if (p.softcap != 0) row.softcap = static_cast<double>(p.softcap);
  row.alibi_slopes = alibi_text(p);
  row.sinks = p.sinks;
  row.bias = bias_text(p);
  row.mask = mask_text(p);
  if (p.dropout_p != 0) row.dropout_p = static_cast<double>(p.dropout_p);
  row.varlen = p.varlen;
  row.page_size = p.page_size;
  row.lengths = lengths_text(p, one.inputs.seed);
  row.inputs = one.inputs_text;
  row.seed = static_cast<std::int64_t>(one.inputs.seed);
  row.preset = one.preset;
  row.cache = one.cold ? "cold" : "hot";
  AttentionProblem moved = p;
  if (contender.peer != nullptr) moved.lse = false;  // not asked of peers
  const Cost work = actual_cost(moved, one.inputs.seed);
  row.input_bytes = static_cast<std::int64_t>(work.bytes_read);
  row.output_bytes = static_cast<std::int64_t>(work.bytes_written);
  row.least_bytes = static_cast<std::int64_t>(work.least_bytes());
  row.reproduce = reproducer(one, contender.id, contender.peer != nullptr);
  if (contender.plan.ok()) {
    row.ran = contender.plan->kernel();
    row.workspace_bytes = static_cast<std::int64_t>(contender.plan->workspace_bytes());
  }
  return row;
}

class CaseRun {
 public:
  CaseRun(const Case& one, const RunOptions& options, Observer& observer, SpeedBook& speeds, Peers& peers)
      : case_(one), options_(options), observer_(observer), speeds_(speeds), peers_(peers) {}

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
      entries_.push_back({.contender = std::move(contender), .row = std::move(row), .work = nullptr});
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
    if (Status status = find_device(); !status.ok()) return end_all(row_status::kAbsent, status.message());
    for (Entry& entry : entries_) {
      if (entry.alive) foresee(entry);
    }
    if (!any_alive()) return;

    observer_.phase("inputs", case_.inputs_text);
    Result<Inputs> inputs = make_inputs(case_.problem, case_.inputs, *device_);
    if (!inputs) return end_all(row_status_of(inputs.status().code()), inputs.status().message());
    observer_.phase("truth", "");
    Result<Reference> reference = make_reference(*inputs, options_.verify_seconds);
    if (!reference) return end_all(row_status_of(reference.status().code()), reference.status().message());
    SharedTensors tensors;
    if (peers_asked()) {
      if (Status status = tensors.make(*inputs); !status.ok()) end_peers(status);
    }
    const PeerCase peer_case{.one = case_,
                             .inputs = *inputs,
                             .reference = *reference,
                             .tensors = tensors,
                             .last_level_cache_bytes = device_->last_level_cache_bytes(),
                             .seconds = options_.max_seconds};
    for (Entry& entry : entries_) {
      if (!entry.alive) continue;
      observer_.phase("verify", entry.row.contender);
      prepare_and_verify(entry, *inputs, peer_case);
    }
    if (options_.measured) {
      measure_alive();
    } else {
      for (Entry& entry : entries_) {
        if (entry.alive) entry.end(row_status::kOk, "verified, not timed");
      }
    }
    for (Entry& entry : entries_) entry.work.reset();  // they hold on to inputs and tensors
  }

  [[nodiscard]] bool peers_asked() const {
    for (const Entry& entry : entries_) {
      if (entry.alive && entry.contender.peer != nullptr) return true;
    }
    return false;
  }
  void end_peers(const Status& status) {
    for (Entry& entry : entries_) {
      if (entry.alive && entry.contender.peer != nullptr) entry.end(status);
    }
  }

  // Peers bring a GPU's tensors there themselves: where this build cannot reach the device, the inputs stay
  // in host memory, and kernels alone cannot run.
  Status find_device() {
    Result<Device*> device = headwise::device(case_.device);
    if (device) {
      device_ = *device;
      return {};
    }
    if (!peers_asked()) return device.status();
    for (Entry& entry : entries_) {
      if (entry.contender.peer == nullptr) entry.end(row_status::kUnsupported, device.status().message());
    }
    Result<Device*> host = headwise::device({});
    if (!host) return host.status();
    device_ = *host;
    return {};
  }

  // Ends what cannot run, or would take memory or time that is not there, before it is tried.
  void foresee(Entry& entry) {
    if (entry.contender.peer == nullptr && !entry.contender.plan.ok())
      return entry.end(entry.contender.plan.status());
    Need need = need_of(case_.problem, entry.contender.workspace_bytes());
    if (entry.contender.peer != nullptr) {
      if (pruned(case_)) return entry.end(check_case(case_));
      if (Status status = check_carried(case_.problem); !status.ok()) return entry.end(status);
      if (Result<Peer*> peer = peers_.find(*entry.contender.peer); !peer) return entry.end(peer.status());
      need.workspace_bytes = need.input_bytes;  // what its process shares with this one
    }
    const auto available = static_cast<double>(device_->memory().available);
    if (need.total() > available) {
      return entry.end(row_status::kOutOfMemory,
                       fmt::format("needs {} (inputs and outputs {}, {} {}, fp64 truth {}); {} are available",
                                   bytes_for_people(need.total()),
                                   need.input_bytes == std::numeric_limits<std::size_t>::max()
                                       ? "beyond 64 bits"
                                       : bytes_for_people(static_cast<double>(need.input_bytes)),
                                   entry.contender.peer != nullptr ? "shared with the peer" : "workspace",
                                   bytes_for_people(static_cast<double>(need.workspace_bytes)),
                                   bytes_for_people(static_cast<double>(need.reference_bytes)),
                                   bytes_for_people(available)));
    }
    // A speed that was never seen is a guess; only one far beyond the limit counts.
    const double slack = speeds_.knows(entry.row.contender) ? 1 : 10;
    const double call_seconds = speeds_.call_ms(entry.contender, case_) / 1000;
    if (call_seconds > 0.2 && 4 * call_seconds > slack * options_.max_seconds) {
      entry.end(row_status::kTimeout,
                fmt::format("not tried: one call would take about {}, and --max-seconds is {}",
                            seconds_for_people(call_seconds), options_.max_seconds));
    }
  }

  void prepare_and_verify(Entry& entry, Inputs& inputs, const PeerCase& peer_case) {
    if (Clock::now() >= deadline_)
      return entry.end(row_status::kTimeout, "--max-seconds was over before its turn");
    const Clock::time_point start = Clock::now();
    if (entry.contender.peer != nullptr) {
      Result<Peer*> peer = peers_.find(*entry.contender.peer);
      if (!peer) return entry.end(peer.status());
      entry.work = std::make_unique<PeerWork>(**peer, peer_case);
    } else {
      entry.work = std::make_unique<KernelWork>(*device_, *entry.contender.plan, entry.contender.plan_ms,
                                                case_.cold, inputs);
    }
    call_and_judge(entry, peer_case.reference);
    // A peer has --max-seconds of its own to start and to prepare: others must not lack them.
    if (entry.contender.peer != nullptr) deadline_ += Clock::now() - start;
    if (!entry.alive) entry.work.reset();  // nothing more is asked of it
    entry.row.verify_ms = seconds_since(start) * 1000;
  }

  static void call_and_judge(Entry& entry, const Reference& reference) {
    Result<double> ms = entry.work->first_call(entry.row);
    if (!ms) return entry.end(ms.status());
    entry.first_ms = *ms;
    record_verdict(entry, entry.work->verdict(reference));
    if (!entry.alive) return;
    if (Status status = entry.work->accept(); !status.ok()) entry.end(status);
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
    if (entry.contender.plan.ok() && entry.contender.plan->problem().lse) row.lse_error = verdict.lse_error;
    if (!verdict.passed()) entry.end(row_status::kInaccurate, verdict.reason);
  }

  [[nodiscard]] bool out_of_time() const {
    double lost = 0;
    for (const Entry& entry : entries_) lost += entry.work != nullptr ? entry.work->lost_seconds() : 0;
    return Clock::now() - std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(lost)) >=
           deadline_;
  }

  [[nodiscard]] SamplingRule sampling_rule(bool with_peers) const {
    SamplingRule rule{.seconds = options_.seconds,
                      .exactly = options_.samples,
                      .out_of_time = [this] { return out_of_time(); },
                      .interrupted = options_.interrupted};
    const bool gpu = case_.device.kind == DeviceKind::cuda;
    if (with_peers) rule.lead_in_ms = gpu ? kGpuLeadInMs : kLeadInMs;
    if (gpu) rule.sample_ms = kGpuSampleMs;
    // On a GPU, cold calls rotate over buffers that the caches cannot hold.
    if (case_.cold && !gpu) rule.flush = [this] { return device_->flush_cache(nullptr); };
    return rule;
  }

  void measure_alive() {
    std::size_t most = 0;
    std::vector<Entry*> running;
    for (Entry& entry : entries_) {
      if (!entry.alive) continue;
      most = std::max(most, entry.work->workspace_bytes());
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
      Work* work = entry->work.get();
      work->use(scratch.workspace());
      contestants.push_back(
          {.time = [work](std::int64_t calls, double lead_in_ms) { return work->time(calls, lead_in_ms); },
           .first_ms = entry->first_ms,
           .before = [work] { return work->before_timing(); },
           .check = [work] { return work->check_outputs(); }});
    }
    const std::vector<Samples> all = measure(contestants, sampling_rule(peers_asked()), case_.inputs.seed);
    const Entry* baseline = nullptr;
    const Samples* baseline_samples = nullptr;
    for (std::size_t i = 0; i < running.size(); ++i) {
      record_samples(*running[i], all[i]);
      if (!running[i]->contender.baseline || !all[i].enough || !ranked(running[i]->row)) continue;
      baseline = running[i];
      baseline_samples = &all[i];
    }
    if (baseline == nullptr) return;
    for (std::size_t i = 0; i < running.size(); ++i) {
      const Row& row = running[i]->row;
      if (ranked(row) && row.timer == baseline->row.timer)
        record_speedup(running[i]->row, all[i], *baseline_samples, baseline->row.contender);
    }
  }

  void record_samples(Entry& entry, const Samples& samples) {
    Row& row = entry.row;
    entry.work->describe_timing(row);
    row.samples_ms = samples.ms;
    row.samples = static_cast<std::int64_t>(samples.ms.size());
    row.repeats = samples.repeats;
    row.warmups = samples.warmups;
    row.stop = samples.stop;
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
    const AttentionProblem& p = case_.problem;
    const Cost work = actual_cost(p, case_.inputs.seed);
    if (summary.median > 0) {
      const double seconds = summary.median / 1000;
      const double tokens = p.varlen ? static_cast<double>(p.total_q)
                                     : static_cast<double>(p.batch) * static_cast<double>(p.seq_q);
      row.tokens_per_s = tokens / seconds;
      row.tflops = work.flops / seconds / 1e12;
      row.gb_per_s = work.least_bytes() / seconds / 1e9;
    }
    if (!case_.cold) speeds_.saw(entry.contender, case_, summary.median);
    entry.end(row_status::kOk, remark(row, summary.median, samples.repeats));
  }

  // What is worth knowing of a good row.
  static std::string remark(const Row& row, double median_ms, std::int64_t repeats) {
    if (overhead_decides(row)) {
      return fmt::format(
          "not ranked: calling it takes {:.3g} ms with next to nothing to do, {:.0f} % of its time",
          *row.overhead_ms, 100 * *row.overhead_ms / median_ms);
    }
    if (row.timer == "steady_clock" && is_coarse(median_ms, repeats, timer_step_ns())) {
      return fmt::format("a sample is less than {} steps of the timer ({:.0f} ns each): its time is coarse",
                         kFineSteps, timer_step_ns());
    }
    return "";
  }

  void record_speedup(Row& row, const Samples& samples, const Samples& baseline,
                      const std::string& baseline_name) const {
    const Ratio ratio = bootstrap_ratio(baseline.ms, samples.ms, case_.inputs.seed);
    row.speedup = ratio.value;
    row.speedup_low = ratio.interval.low;
    row.speedup_high = ratio.interval.high;
    row.baseline = baseline_name;
  }

  const Case& case_;
  const RunOptions& options_;
  Observer& observer_;
  SpeedBook& speeds_;
  Peers& peers_;
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
      if (row.contender == contender.id && ranked(row)) speeds.saw(contender, one, *row.ms_median);
  }
}

}  // namespace

Status run_cases(const std::vector<Case>& cases, const RunOptions& options, Observer& observer) {
  SpeedBook speeds;
  Peers peers(options.peer_python);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    if (i < options.kept.size() && !options.kept[i].empty()) {
      learn(cases[i], options.kept[i], speeds);
      if (Status status = observer.rows(options.kept[i]); !status.ok()) return status;
      continue;
    }
    if (options.interrupted()) continue;  // what is kept of later cases is passed on all the same
    CaseRun run(cases[i], options, observer, speeds, peers);
    if (Status status = run.begin(); !status.ok()) return status;
    observer.begin_case(i, cases.size(), cases[i], run.estimated_seconds());
    run.run();
    if (Status status = run.write_rows(); !status.ok()) return status;
    observer.end_case();
  }
  return {};
}

}  // namespace headwise::lab
