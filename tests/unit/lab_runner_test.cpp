// Cases through the whole laboratory, with the kernels of this build.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "headwise/kernels.h"
#include "lab/environment.h"
#include "lab/runner.h"
#include "lab/sampling.h"
#include "lab/session.h"
#include "lab/table.h"
#include "lab/terminal.h"

namespace headwise::lab {
namespace {

using testing::HasSubstr;

class Collector final : public Observer {
 public:
  void begin_case(std::size_t, std::size_t, const Case&, double estimated_seconds) override {
    ++begun;
    EXPECT_GE(estimated_seconds, 0);
  }
  void phase(std::string_view what, std::string_view) override { phases.emplace_back(what); }
  Status rows(std::span<const Row> of_case) override {
    all.insert(all.end(), of_case.begin(), of_case.end());
    return {};
  }
  void end_case() override { ++ended; }
  std::vector<Row> all;
  std::vector<std::string> phases;
  int begun = 0, ended = 0;
};

class Runner : public testing::Test {
 protected:
  void SetUp() override { setenv("HEADWISE_DATA", HEADWISE_DATA_DIR, 1); }

  static std::vector<Case> cases_of(const std::vector<Word>& flags) {
    Result<std::vector<Case>> cases = make_cases({Words{}}, flags);
    EXPECT_TRUE(cases.ok()) << cases.status().message();
    return *cases;
  }
  std::vector<Row> run(const std::vector<Word>& flags) {
    const Status status = run_cases(cases_of(flags), options_, collector_);
    EXPECT_TRUE(status.ok()) << status.message();
    return collector_.all;
  }
  RunOptions options_{.run = "test", .seconds = 0.02};
  Collector collector_;
};

TEST_F(Runner, MeasuresEveryKernelOfTheDtypeAgainstTheBaseline) {
  const std::vector<Row> rows = run({{"seq", "48"},
                                     {"heads", "2"},
                                     {"head-dim", "32"},
                                     {"baseline", "naive"},
                                     {"threads", "1"},
                                     {"lse", "1"}});
  std::size_t of_dtype = 0;
  for (const KernelInfo& kernel : kernels()) {
    const bool asked = kernel.traits.dtype == DType::f32 && kernel.traits.direction == Direction::forward;
    of_dtype += asked ? 1 : 0;
  }
  ASSERT_EQ(rows.size(), of_dtype);
  for (const Row& row : rows) {
    if (row.status == row_status::kUnsupported) continue;  // a processor without AVX-512
    ASSERT_EQ(row.status, row_status::kOk) << row.contender << ": " << row.reason;
    EXPECT_EQ(row.ran, row.contender);
    EXPECT_EQ(row.run, "test");
    EXPECT_TRUE(ranked(row));
    EXPECT_EQ(row.samples_ms.size(), static_cast<std::size_t>(*row.samples));
    EXPECT_GE(*row.samples, 10);
    EXPECT_LE(*row.ms_min, *row.ms_median);
    EXPECT_LE(*row.ms_low, *row.ms_median);
    EXPECT_LE(*row.ms_median, *row.ms_high);
    EXPECT_LE(*row.error_max, *row.error_limit);
    EXPECT_EQ(*row.rows_verified, 96);
    EXPECT_TRUE(row.lse_error.has_value());
    EXPECT_NEAR(*row.tokens_per_s, 48 / (*row.ms_median / 1000), 1e-6 * *row.tokens_per_s);
    EXPECT_NEAR(*row.tflops * 1e12 * *row.ms_median / 1000, 2.0 * 64 * 48 * 48 * 2, 1);
    EXPECT_EQ(*row.input_bytes, 3 * 48 * 2 * 32 * 4);
    EXPECT_EQ(*row.output_bytes, 48 * 2 * 32 * 4 + 48 * 2 * 4);
    EXPECT_EQ(*row.least_bytes, *row.input_bytes + *row.output_bytes);
    EXPECT_GE(*row.peak_bytes, *row.least_bytes + *row.workspace_bytes);
    EXPECT_EQ(row.baseline, "cpu/scalar/naive/f32");
    EXPECT_LE(*row.speedup_low, *row.speedup_high);
    if (row.contender == row.baseline) {
      EXPECT_EQ(*row.speedup, 1);
    }
    EXPECT_FALSE(row.timer.empty());
    EXPECT_EQ(row.cache, "hot");
  }
  EXPECT_EQ(collector_.begun, 1);
  EXPECT_EQ(collector_.ended, 1);
}

TEST_F(Runner, ColdCasesSayHow) {
  // A call of a microsecond: shorter than a sample on any machine, however busy.
  const std::vector<Row> rows = run({{"seq", "4"},
                                     {"heads", "1"},
                                     {"head-dim", "8"},
                                     {"kernels", "naive"},
                                     {"baseline", "none"},
                                     {"threads", "1"},
                                     {"cache", "hot,cold"}});
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].cache, "hot");
  EXPECT_EQ(rows[0].cache_method, "reused");
  EXPECT_THAT(rows[0].case_id, testing::Not(HasSubstr("cache")));
  EXPECT_GT(*rows[0].repeats, 1);
  EXPECT_EQ(rows[1].status, row_status::kOk) << rows[1].reason;
  EXPECT_EQ(rows[1].cache, "cold");
  EXPECT_EQ(rows[1].cache_method, "flushed");
  EXPECT_THAT(rows[1].case_id, HasSubstr("cache=cold"));
  EXPECT_THAT(rows[1].reproduce, HasSubstr("--cache cold"));
  EXPECT_EQ(*rows[1].repeats, 1);
  EXPECT_GE(*rows[1].samples, 3);
}

TEST_F(Runner, ACallTheTimerCannotTellIsSaidToBeCoarse) {
  const std::vector<Row> rows =
      run({{"seq", "0"}, {"heads", "1"}, {"kernels", "naive"}, {"baseline", "none"}, {"cache", "cold"}});
  ASSERT_EQ(rows.size(), 1U);
  ASSERT_EQ(rows[0].status, row_status::kOk) << rows[0].reason;
  EXPECT_EQ(!rows[0].reason.empty(), is_coarse(*rows[0].ms_median, 1, timer_step_ns())) << rows[0].reason;
}

TEST_F(Runner, KeptCasesArePassedOnAndNotRun) {
  const std::vector<Case> cases =
      cases_of({{"seq", "8,16,32"}, {"heads", "1"}, {"kernels", "naive"}, {"baseline", "none"}});
  Row kept;
  kept.case_id = case_id(cases[1]);
  kept.contender = "cpu/scalar/naive/f32";
  kept.status = row_status::kTimeout;
  options_.measured = false;
  options_.kept.resize(3);
  options_.kept[1] = {kept};
  ASSERT_TRUE(run_cases(cases, options_, collector_).ok());
  ASSERT_EQ(collector_.all.size(), 3U);
  EXPECT_EQ(collector_.begun, 2);
  EXPECT_EQ(collector_.all[1], kept);
  EXPECT_EQ(collector_.all[2].case_id, case_id(cases[2]));
  // An interruption loses none of them.
  Collector after;
  options_.interrupted = [] { return true; };
  ASSERT_TRUE(run_cases(cases, options_, after).ok());
  EXPECT_EQ(after.all, std::vector<Row>{kept});
}

TEST_F(Runner, WithoutABaselineThereIsNoSpeedup) {
  for (const Row& row : run({{"seq", "16"}, {"heads", "1"}, {"kernels", "naive"}, {"baseline", "none"}})) {
    EXPECT_FALSE(row.speedup.has_value());
    EXPECT_EQ(row.baseline, "");
  }
}

TEST_F(Runner, VerifyTakesNoTime) {
  options_.measured = false;
  for (const Row& row :
       run({{"seq", "16"}, {"kernels", "naive"}, {"baseline", "none"}, {"dtype", "f32,f16,bf16"}})) {
    EXPECT_EQ(row.status, row_status::kOk) << row.reason;
    EXPECT_TRUE(row.error_max.has_value());
    EXPECT_FALSE(row.ms_median.has_value());
    EXPECT_FALSE(ranked(row));
  }
  EXPECT_EQ(collector_.all.size(), 3U);
}

TEST_F(Runner, WhatDoesNotFitIsARowBeforeItIsTried) {
  const std::vector<Row> rows = run({{"seq", "10000000"},
                                     {"heads", "64"},
                                     {"head-dim", "128"},
                                     {"kernels", "naive"},
                                     {"baseline", "none"}});
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].status, row_status::kOutOfMemory);
  EXPECT_THAT(rows[0].reason, HasSubstr("needs "));
  EXPECT_THAT(rows[0].reason, HasSubstr("are available"));
  EXPECT_TRUE(collector_.phases.empty());  // no input was made
}

TEST_F(Runner, WhatWouldTakeForEverIsARowBeforeItIsTried) {
  const std::vector<Row> rows = run(
      {{"seq", "1000000"}, {"heads", "1"}, {"head-dim", "64"}, {"kernels", "naive"}, {"baseline", "none"}});
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].status, row_status::kTimeout) << rows[0].reason;
  EXPECT_THAT(rows[0].reason, HasSubstr("not tried"));
  EXPECT_TRUE(collector_.phases.empty());
}

TEST_F(Runner, ASweepSurvivesWhatCannotRun) {
  const std::vector<Row> rows = run({{"seq", "16"},
                                     {"kernels", "naive"},
                                     {"baseline", "none"},
                                     {"direction", "forward,backward"},
                                     {"device", "cpu,cuda:0"}});
  ASSERT_EQ(rows.size(), 4U);
  EXPECT_EQ(rows[0].status, row_status::kOk) << rows[0].reason;
  EXPECT_EQ(rows[1].status, row_status::kUnsupported);
  EXPECT_FALSE(rows[1].reason.empty());
  EXPECT_EQ(rows[2].status, row_status::kAbsent);
  EXPECT_THAT(rows[2].reason, HasSubstr("cuda"));
  EXPECT_EQ(exit_code_of(rows), exit_code::kGood);
  EXPECT_EQ(exit_code_of({rows[2]}), exit_code::kNothingRan);
}

TEST_F(Runner, AKernelNamedInFullTellsWhyItCannot) {
  const std::vector<Row> rows = run(
      {{"seq", "16"}, {"dtype", "f16"}, {"kernels", "cpu/scalar/naive/f32,memeff"}, {"baseline", "none"}});
  ASSERT_EQ(rows.size(), 2U);
  for (const Row& row : rows) {
    EXPECT_EQ(row.status, row_status::kUnsupported);
    EXPECT_FALSE(row.reason.empty());
  }
  EXPECT_EQ(rows[1].contender, "memeff");
}

TEST_F(Runner, UnknownKernelsAreToldBeforeAnythingRuns) {
  EXPECT_THAT(check_contenders(cases_of({{"kernels", "flsh"}})).message(), HasSubstr("did you mean 'flash'"));
  EXPECT_THAT(check_contenders(cases_of({{"baseline", "unfusd"}})).message(),
              HasSubstr("no kernel 'unfusd'"));
  EXPECT_TRUE(check_contenders(cases_of({{"kernels", "cpu/*/naive/*"}})).ok());
}

TEST_F(Runner, InterruptionLetsNoFurtherCaseBegin) {
  int asked = 0;
  options_.interrupted = [&] { return asked++ > 0; };
  const std::vector<Row> rows =
      run({{"seq", "8,16,32"}, {"heads", "1"}, {"kernels", "naive"}, {"baseline", "none"}});
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].status, row_status::kOk);
  EXPECT_EQ(rows[0].stop, "interrupted");
  EXPECT_GE(*rows[0].samples, 10);
}

TEST_F(Runner, CapturedInputsRun) {
  options_.measured = false;
  for (const Row& row :
       run({{"inputs", "captured"}, {"seq", "64"}, {"kernels", "naive"}, {"baseline", "none"}})) {
    EXPECT_EQ(row.status, row_status::kOk) << row.reason;
    EXPECT_EQ(row.heads, 12);
    EXPECT_THAT(row.inputs, HasSubstr("captured:"));
  }
  EXPECT_EQ(collector_.all.size(), 3U);
}

TEST_F(Runner, ZeroSizesAreGood) {
  options_.measured = true;
  for (const Row& row :
       run({{"seq-q", "0,3"}, {"seq-kv", "0,3"}, {"kernels", "naive"}, {"baseline", "none"}})) {
    EXPECT_EQ(row.status, row_status::kOk) << row.case_id << ": " << row.reason;
  }
}

TEST(ExitCode, FollowsTheRows) {
  const auto with = [](std::string_view status) {
    Row row;
    row.status = status;
    return row;
  };
  EXPECT_EQ(exit_code_of({}), exit_code::kGood);
  for (const std::string_view fine :
       {row_status::kOk, row_status::kUnsupported, row_status::kOutOfMemory, row_status::kTimeout}) {
    EXPECT_EQ(exit_code_of({with(fine)}), exit_code::kGood) << fine;
    EXPECT_EQ(exit_code_of({with(fine), with(row_status::kAbsent)}), exit_code::kGood) << fine;
    EXPECT_EQ(exit_code_of({with(fine), with(row_status::kInaccurate)}), exit_code::kBadRow) << fine;
  }
  EXPECT_EQ(exit_code_of({with(row_status::kError)}), exit_code::kBadRow);
}

std::string_view find(const Environment& environment, std::string_view name) {
  for (const auto& [key, value] : environment) {
    if (key == name) return value;
  }
  return "unknown";
}

TEST(EnvironmentRecord, HoldsThirtyFieldsReadFromTheMachine) {
  const Environment environment = read_environment();
  EXPECT_GE(environment.size(), 30U);
  std::set<std::string> names;
  for (const auto& [name, value] : environment) {
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_FALSE(value.empty()) << name;
  }
  EXPECT_EQ(find(environment, "host"), "unknown");  // opt-in
  EXPECT_NE(find(read_environment({.host_name = true}), "host"), "unknown");
  for (const char* name :
       {"cpu", "kernel", "libc", "compiler", "headwise_version", "isa", "memory_total", "cpu_affinity"}) {
    EXPECT_NE(find(environment, name), "unknown") << name;
  }
  EXPECT_EQ(
      load_note(
          {{"processors_busy", "0.49"}, {"load_average", "9.00 9.00 9.00 1/90 77"}, {"cpus_usable", "2"}}),
      "");
  EXPECT_EQ(load_note({{"processors_busy", "unknown"}, {"cpus_usable", "2"}}), "");
  EXPECT_EQ(load_note({}), "");
  EXPECT_THAT(load_note({{"processors_busy", "1.00"}, {"cpus_usable", "1"}}),
              HasSubstr("1.0 of 1 processor was busy when"));
  const lab::Run a = start_run("a"), b = start_run("b");
  EXPECT_NE(a.run, b.run);
  const double busy = std::stod(std::string(find(a.environment, "processors_busy")));
  EXPECT_GE(busy, 0);
  EXPECT_LE(busy, 1.5 * std::stod(std::string(find(a.environment, "cpus_usable"))));
}

TEST(Terminal, LinesAreBrokenBehindSeparatorsAndIndented) {
  EXPECT_EQ(wrapped("", " ", 40, 4), "");
  EXPECT_EQ(wrapped("one line that fits", " ", 20, 4), "one line that fits");
  EXPECT_EQ(wrapped("a word, and then another", ", ", 20, 2), "a word,\n  and then another");
  EXPECT_EQ(wrapped("Speedup: one over another: 1.00x", " ", 20, 4), "Speedup: one over\n    another: 1.00x");
  EXPECT_EQ(wrapped("x a_word_longer_than_any_line", " ", 20, 2), "x\n  a_word_longer_than_any_line");
}

TEST(Table, DropsTheLeastImportantColumnsUntilItFits) {
  std::vector<Row> rows(2);
  for (std::size_t i = 0; i < 2; ++i) {
    rows[i].case_id = "c";
    rows[i].contender = i == 0 ? "cpu/a" : "cpu/b";
    rows[i].status = row_status::kOk;
    rows[i].seq_q = rows[i].seq_kv = 128;
    rows[i].ms_median = 2.0 - static_cast<double>(i);
    rows[i].ms_p95 = 3.0 - static_cast<double>(i);
    rows[i].error_max = 1e-6 * static_cast<double>(i + 1);
    rows[i].rows_verified = 64;
    rows[i].error_limit = 1e-5;
    rows[i].tflops = 0.5 + static_cast<double>(i);
  }
  Terminal terminal;
  for (const int columns : {200, 80, 60, 40, 30}) {
    terminal.columns = columns;
    const std::string text = render_table(rows, terminal);
    std::size_t begin = text.find("\n\n") + 2;
    while (begin < text.size()) {
      const std::size_t end = text.find('\n', begin);
      EXPECT_LE(end - begin, static_cast<std::size_t>(columns)) << text;
      begin = end + 1;
    }
    EXPECT_THAT(text, HasSubstr("cpu/b"));
    EXPECT_THAT(text, HasSubstr("median ms"));
    EXPECT_THAT(text, testing::Not(HasSubstr("\x1b")));
  }
  terminal.columns = 200;
  EXPECT_THAT(render_table(rows, terminal), HasSubstr("*   128  cpu/b"));
  EXPECT_EQ(fastest_of_case(rows), (std::vector<bool>{false, true}));
  EXPECT_THAT(render_summary(rows, terminal), HasSubstr("Fastest (*): cpu/b in 1 of 1 case"));
  terminal.color = true;
  EXPECT_THAT(render_table(rows, terminal), HasSubstr("\x1b[32m"));
}

TEST(Table, NarrowTerminalsTellCasesApart) {
  std::vector<Row> rows;
  for (const std::int64_t seq : {128, 256}) {
    for (const bool causal : {false, true}) {
      for (const char* contender : {"cpu/avx512/unfused/f32", "cpu/scalar/naive/f32"}) {
        Row& row = rows.emplace_back();
        row.case_id = "seq=" + std::to_string(seq) + (causal ? " causal=1" : "");
        row.contender = contender;
        row.status = row_status::kOk;
        row.seq_q = row.seq_kv = seq;
        row.causal = causal;
        row.ms_median = static_cast<double>(seq) / 100;
        row.speedup = 1.5;
        row.ms_p95 = 3;
      }
    }
  }
  Terminal terminal;
  terminal.columns = 40;
  const std::string narrow = render_table(rows, terminal);
  EXPECT_THAT(narrow, HasSubstr("\nseq=128\n"));
  EXPECT_THAT(narrow, HasSubstr("\nseq=256 causal=1\n"));
  EXPECT_THAT(narrow, HasSubstr("median ms"));
  std::size_t begin = 0;
  for (std::size_t end = 0; (end = narrow.find('\n', begin)) != std::string::npos; begin = end + 1)
    EXPECT_LE(end - begin, 40U) << narrow;
  terminal.columns = 160;
  EXPECT_THAT(render_table(rows, terminal), testing::Not(HasSubstr("seq=256")));
  // What no column shows (here the seed) is told all the same.
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].seq_q = rows[i].seq_kv = 128;
    rows[i].causal = false;
    rows[i].case_id = i < 4 ? "seq=128" : "seq=128 seed=2";
  }
  EXPECT_THAT(render_table(rows, terminal), HasSubstr("\nseed=2\n"));
}

TEST(Table, WhatIsWorthKnowingOfGoodRowsIsSaid) {
  std::vector<Row> rows(1);
  rows[0].case_id = "c";
  rows[0].contender = "cpu/b";
  rows[0].status = row_status::kOk;
  rows[0].reason = "its time is coarse";
  EXPECT_THAT(render_summary(rows, Terminal{}), testing::Not(HasSubstr("coarse")));  // not timed at all
  rows[0].ms_median = 1e-4;
  EXPECT_THAT(render_summary(rows, Terminal{}), HasSubstr("ok: cpu/b: its time is coarse"));
}

TEST(Table, RowsThatAreNotVerifiedAreNeverTheFastest) {
  std::vector<Row> rows(2);
  for (Row& row : rows) {
    row.case_id = "c";
    row.ms_median = 5;
    row.error_max = 0;
    row.rows_verified = 64;
    row.status = row_status::kOk;
  }
  rows[0].ms_median = 1;
  rows[0].status = row_status::kInaccurate;
  EXPECT_EQ(fastest_of_case(rows), (std::vector<bool>{false, true}));
  rows[0].status = row_status::kOk;
  rows[0].error_max.reset();
  EXPECT_EQ(fastest_of_case(rows), (std::vector<bool>{false, true}));
  rows[0].error_max = 0;
  rows[0].rows_verified = 0;  // a case without rows
  EXPECT_EQ(fastest_of_case(rows), (std::vector<bool>{false, true}));
  // Not to be told apart: intervals overlap.
  rows[0].rows_verified = 64;
  rows[0].ms_high = 5.5;
  rows[1].ms_low = 4.5;
  EXPECT_EQ(fastest_of_case(rows), (std::vector<bool>{true, true}));
}

}  // namespace
}  // namespace headwise::lab
