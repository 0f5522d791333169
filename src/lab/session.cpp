#include "lab/session.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <optional>

#include "core/text.h"
#include "lab/peaks.h"
#include "lab/progress.h"
#include "lab/resume.h"
#include "lab/terminal.h"
#include "lab/units.h"

namespace headwise::lab {
namespace {

volatile std::sig_atomic_t g_interrupted = 0;

// The first Ctrl-C asks; the second ends the program at once (the default action is back). A request to
// terminate and a lost terminal ask too. What the parent had ignored (nohup) stays ignored.
class InterruptGuard {
 public:
  InterruptGuard() {
    g_interrupted = 0;
    struct sigaction action{};
    action.sa_handler = [](int) {
      g_interrupted = 1;
      static constexpr std::string_view kText =
          "\ninterrupted: finishing the case in hand; Ctrl-C again ends at once\n";
      if (write(2, kText.data(), kText.size()) < 0) return;  // the only way to speak inside a handler
    };
    action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
    sigemptyset(&action.sa_mask);
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
      sigaction(kSignals[i], &action, &old_[i]);
      if (old_[i].sa_handler == SIG_IGN) sigaction(kSignals[i], &old_[i], nullptr);
    }
  }
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  ~InterruptGuard() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &old_[i], nullptr);
  }

 private:
  static constexpr std::array<int, 3> kSignals{SIGINT, SIGTERM, SIGHUP};
  std::array<struct sigaction, kSignals.size()> old_{};
};

class SessionObserver final : public Observer {
 public:
  SessionObserver(Progress* progress, RowWriter* writer, std::vector<Row>& rows)
      : progress_(progress), writer_(writer), rows_(rows) {}

  void begin_case(std::size_t index, std::size_t, const Case&, double) override {
    first_row_ = rows_.size();
    if (progress_ != nullptr) progress_->begin_case(index);
  }
  void phase(std::string_view what, std::string_view who) override {
    if (progress_ != nullptr) progress_->phase(what, who);
  }
  Status rows(std::span<const Row> rows) override {
    rows_.insert(rows_.end(), rows.begin(), rows.end());
    return writer_ == nullptr ? Status() : writer_->write(rows);
  }
  void end_case() override {
    if (progress_ == nullptr) return;
    progress_->end_case({rows_.begin() + static_cast<std::ptrdiff_t>(first_row_), rows_.end()});
  }

 private:
  Progress* progress_;
  RowWriter* writer_;
  std::vector<Row>& rows_;
  std::size_t first_row_ = 0;
};

struct Estimates {
  std::vector<double> seconds;
  double total = 0;
  std::size_t rows = 0;
};

// Of what is not kept.
Result<Estimates> estimate_all(const std::vector<Case>& cases, const RunOptions& options) {
  Estimates estimates;
  const SpeedBook speeds;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    if (i < options.kept.size() && !options.kept[i].empty()) {
      estimates.seconds.push_back(0);
      continue;
    }
    const Case& one = cases[i];
    Result<std::vector<Contender>> contenders = contenders_of(one);
    if (!contenders) return contenders.status();
    const double seconds = std::min(
        options.max_seconds, estimate_seconds(one, *contenders, speeds, options.seconds, options.measured));
    estimates.seconds.push_back(seconds);
    estimates.total += seconds;
    estimates.rows += contenders->size();
  }
  return estimates;
}

std::string machine_line() {
  Result<Device*> cpu = device({});
  if (!cpu) return cpu.status().message();
  return fmt::format("{} ({}, {})", (*cpu)->description(), (*cpu)->isa(),
                     counted(static_cast<std::size_t>((*cpu)->max_threads()), "thread"));
}

std::string why_nobody(const Case& one, const std::vector<Contender>& contenders) {
  const Status able = check_case(one);
  return able.ok() ? contenders.front().plan.status().message() : able.message();
}

Environment measuring_options(const RunOptions& options) {
  return {{"command", options.measured ? "bench" : "verify"},
          {"seconds", core::shortest(options.seconds)},
          {"samples", options.samples == 0 ? "by interval and seconds" : fmt::format("{}", options.samples)},
          {"max_seconds", core::shortest(options.max_seconds)},
          {"verify_seconds", core::shortest(options.verify_seconds)}};
}

struct Start {
  Run run;
  Environment now;    // of this part, where a run is resumed
  Unfinished left;    // nothing kept unless a run is resumed
  bool done = false;  // the result file is there and complete
};

// What a resumed run says of what it found, on stderr whatever else is quiet.
void say_resumed(const Start& start, const std::string& out) {
  const auto say = [](const std::string& text) { fmt::print(stderr, "headwise: --resume: {}\n", text); };
  const Unfinished& left = start.left;
  for (const std::string& note : left.notes) say(note);
  if (left.files.empty())
    return say(fmt::format(
        "nothing to resume: no '{}' and nothing that a killed run left beside it; starting anew", out));
  if (start.done) return say(fmt::format("'{}' is complete: nothing to run", out));
  say(fmt::format("{} of {} cases are kept from {}{}", left.kept_cases(), left.kept.size(),
                  fmt::join(left.files, ", "),
                  left.cut == 0 ? ""
                                : fmt::format("; {} of which only some contenders have rows {} again",
                                              left.cut, left.cut == 1 ? "runs" : "run")));
}

Result<Start> start_session(const std::vector<Case>& cases, const SessionOptions& options) {
  Start start;
  start.run = start_run(options.command, options.environment);
  start.run.options = measuring_options(options.run);
  start.now = start.run.environment;
  if (!options.resume) return start;
  Result<Unfinished> left = find_unfinished(options.out, cases, start.run);
  if (!left) return left.status();
  start.left = *std::move(left);
  if (!start.left.files.empty()) {
    start.done = start.left.complete() && start.left.files == std::vector<std::string>{options.out};
    const Continuation continuation{.started = start.run.started, .command = start.run.command};
    start.run = start.left.run;
    if (!start.done) start.run.continued.push_back(continuation);
  }
  say_resumed(start, options.out);
  return start;
}

// Their rows are in the result file now.
void remove_continued(const Unfinished& left, const std::string& out) {
  for (const std::string& file : left.files) {
    if (file != out) std::remove(file.c_str());
  }
}

Status add_peaks(const std::vector<Case>& cases, RowWriter& writer, bool write,
                 std::optional<Progress>& progress, Run& run) {
  if (progress)
    progress->line("Measuring the peaks of this machine, for the roofline (--no-peaks leaves them out)");
  Peaks measured = measure_peaks(cases);
  for (const std::string& note : measured.notes) {
    if (progress) progress->line("note: " + note);
  }
  run.peaks = std::move(measured.peaks);
  return write && !run.peaks.empty() ? writer.write(run.peaks) : Status();
}

}  // namespace

int exit_code_of(const std::vector<Row>& rows) {
  const auto has = [&](std::string_view status) {
    return std::any_of(rows.begin(), rows.end(), [&](const Row& row) { return row.status == status; });
  };
  if (has(row_status::kInaccurate) || has(row_status::kError)) return exit_code::kBadRow;
  const bool all_absent = !rows.empty() && std::all_of(rows.begin(), rows.end(), [](const Row& row) {
    return row.status == row_status::kAbsent;
  });
  return all_absent ? exit_code::kNothingRan : exit_code::kGood;
}

Result<SessionResult> run_session(const std::vector<Case>& cases, const SessionOptions& options) {
  Result<Start> start = start_session(cases, options);
  if (!start) return start.status();
  SessionResult result;
  result.file.run = start->run;
  if (start->done) {
    for (const std::vector<Row>& rows : start->left.kept)
      result.file.rows.insert(result.file.rows.end(), rows.begin(), rows.end());
    result.exit = exit_code_of(result.file.rows);
    return result;
  }
  RunOptions run = options.run;
  run.kept = start->left.kept;
  Result<Estimates> estimates = estimate_all(cases, run);
  if (!estimates) return estimates.status();
  RowWriter writer;
  if (!options.out.empty()) {
    if (Status status = writer.open(options.out, result.file.run); !status.ok()) return status;
  }
  run.run = result.file.run.run;
  run.interrupted = [] { return g_interrupted != 0; };
  std::optional<Progress> progress;
  if (!options.quiet) {
    progress.emplace(stderr, terminal_of(2), short_labels(cases), estimates->seconds);
    const std::size_t count = cases.size() - start->left.kept_cases();
    progress->line(fmt::format("{}: {}, {}, about {}; Ctrl-C keeps what is done", machine_line(),
                               counted(count, "case"), counted(estimates->rows, "row"),
                               seconds_for_people(estimates->total)));
    if (const std::string note = load_note(start->now); run.measured && !note.empty())
      progress->line("note: " + note);
  }
  const InterruptGuard guard;
  if (run.measured && options.peaks && result.file.run.peaks.empty()) {
    result.written = add_peaks(cases, writer, !options.out.empty(), progress, result.file.run);
  }
  SessionObserver observer(progress ? &*progress : nullptr, options.out.empty() ? nullptr : &writer,
                           result.file.rows);
  if (result.written.ok()) result.written = run_cases(cases, run, observer);
  if (result.written.ok() && !options.out.empty()) result.written = writer.finish();
  if (result.written.ok()) remove_continued(start->left, options.out);
  if (!result.written.ok()) {
    result.exit = exit_code::kBadRow;
    return result;
  }
  result.exit = g_interrupted != 0 ? exit_code::kInterrupted : exit_code_of(result.file.rows);
  return result;
}

Result<std::string> describe_session(const std::vector<Case>& cases, const SessionOptions& options) {
  Result<Start> start = start_session(cases, options);
  if (!start) return start.status();
  RunOptions run = options.run;
  run.kept = start->left.kept;
  Result<Estimates> estimates = estimate_all(cases, run);
  if (!estimates) return estimates.status();
  std::string text;
  double most = 0;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    if (i < run.kept.size() && !run.kept[i].empty()) continue;
    Result<std::vector<Contender>> contenders = contenders_of(cases[i]);
    if (!contenders) return contenders.status();
    std::size_t workspace = 0;
    std::string who;
    for (const Contender& contender : *contenders) {
      workspace = std::max(workspace, contender.workspace_bytes());
      who += fmt::format("{}{}{}", who.empty() ? "" : ", ", contender.id,
                         contender.may_run() ? "" : " (cannot)");
    }
    if (!anybody_runs(*contenders)) {
      text += fmt::format("{}\n    nobody can run it: {}\n", case_id(cases[i]),
                          why_nobody(cases[i], *contenders));
      continue;
    }
    const double bytes = need_of(cases[i].problem, workspace).total();
    most = std::max(most, bytes);
    text += fmt::format("{}\n    {}, about {}: {}\n", case_id(cases[i]), bytes_for_people(bytes),
                        seconds_for_people(estimates->seconds[i]), who);
  }
  const std::size_t count = cases.size() - start->left.kept_cases();
  return text + fmt::format("{}, {}, at most {} of memory, about {}\n", counted(count, "case"),
                            counted(estimates->rows, "row"), bytes_for_people(most),
                            seconds_for_people(estimates->total));
}

}  // namespace headwise::lab
