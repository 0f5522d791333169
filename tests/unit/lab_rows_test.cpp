#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <set>
#include <string>

#include "lab/row_files.h"
#include "lab/rows.h"

namespace headwise::lab {
namespace {

using testing::HasSubstr;

Run sample_run() {
  return {.run = "r1",
          .started = "2026-01-02T03:04:05+00:00",
          .command = "headwise bench --seq '64'",
          .environment = {{"cpu", "A \"fast\" one"}, {"zeta", "1"}, {"alpha", "\xc3\xa9"}},
          .options = {{"seconds", "2"}, {"max_seconds", "120"}},
          .continued = {{"2026-01-02T04:04:05+00:00", "headwise bench --resume"}},
          .peaks = {}};
}

// Every field holds something that is not its default.
Row full_row() {
  Row row;
  int n = 1;
  for (const Field& field : fields()) {
    ++n;
    if (const auto* text = std::get_if<std::string Row::*>(&field.member))
      row.*(*text) = "text " + std::to_string(n);
    if (const auto* whole = std::get_if<std::int64_t Row::*>(&field.member)) row.*(*whole) = -n;
    if (const auto* flag = std::get_if<bool Row::*>(&field.member)) row.*(*flag) = true;
    if (const auto* maybe = std::get_if<OptionalInteger Row::*>(&field.member))
      row.*(*maybe) = (std::int64_t{1} << 60) + n;
    if (const auto* number = std::get_if<OptionalNumber Row::*>(&field.member)) row.*(*number) = 1.0 / n;
    if (const auto* many = std::get_if<std::vector<double> Row::*>(&field.member))
      row.*(*many) = {0.1, 1e-300, 1.0 / 3};
  }
  row.schema = kRowSchema;
  return row;
}

Peak sample_peak() {
  return {.device = "cpu",
          .threads = 2,
          .what = "bytes",
          .name = "L3",
          .isa = "avx512",
          .dtype = "",
          .value = 1.0 / 3,
          .unit = "GB/s",
          .low = 0.1,
          .high = 0.7,
          .set_bytes = 1 << 24,
          .samples = 9};
}

class RowFile : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "headwise-rows-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  [[nodiscard]] std::string path(const char* name = "run.jsonl") const { return (folder_ / name).string(); }
  void write(const std::string& content) const { std::ofstream(path(), std::ios::binary) << content; }
  [[nodiscard]] std::string refusal(const std::string& content) const {
    write(content);
    return read_rows(path()).status().message();
  }
  [[nodiscard]] std::size_t files() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }
  std::filesystem::path folder_;
};

TEST(RowFields, NamesThatOtherToolsRelyOnAreThere) {
  for (const char* name :
       {"schema",      "run",          "case",      "contender",   "kind",          "status",
        "reason",      "device",       "isa",       "threads",     "dtype",         "kv_dtype",
        "direction",   "batch",        "heads",     "kv_heads",    "seq_q",         "seq_kv",
        "head_dim",    "head_dim_v",   "causal",    "align",       "window_left",   "window_right",
        "page_size",   "lengths",      "inputs",    "seed",        "ms_median",     "ms_mean",
        "ms_min",      "ms_p5",        "ms_p95",    "ms_p99",      "ms_stddev",     "samples_ms",
        "samples",     "tokens_per_s", "tflops",    "gb_per_s",    "peak_bytes",    "workspace_bytes",
        "least_bytes", "error_max",    "error_rms", "error_limit", "rows_verified", "speedup",
        "baseline",    "timer",        "regime",    "cache",       "clock_mhz",     "ran",
        "reproduce"}) {
    EXPECT_NE(find_field(name), nullptr) << name;
  }
  std::set<std::string_view> names;
  for (const Field& field : fields()) {
    EXPECT_TRUE(names.insert(field.name).second) << field.name;
    EXPECT_FALSE(field.help.empty()) << field.name;
  }
}

TEST(RowJson, EveryFieldGoesAndComesBackToTheBit) {
  const Row row = full_row();
  Result<Row> back = parse_row_line(to_json_line(row), "here");
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(*back, row);
  Row empty;
  empty.case_id = "c";
  empty.contender = "k";
  EXPECT_EQ(*parse_row_line(to_json_line(empty), "here"), empty);  // null stays not measured
}

TEST(RowJson, NumbersThatJsonLacksAreStrings) {
  Row row = full_row();
  row.ms_median = std::numeric_limits<double>::infinity();
  row.ms_mean = -std::numeric_limits<double>::infinity();
  row.samples_ms = {1, std::numeric_limits<double>::quiet_NaN()};
  const std::string line = to_json_line(row);
  EXPECT_THAT(line, HasSubstr("\"ms_median\":\"inf\""));
  EXPECT_THAT(line, HasSubstr("\"samples_ms\":[1.0,\"nan\"]"));
  Result<Row> back = parse_row_line(line, "here");
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(back->ms_mean, row.ms_mean);
  EXPECT_TRUE(std::isnan(back->samples_ms[1]));
}

TEST(RowJson, RunKeepsTheOrderOfItsEnvironment) {
  Result<lab::Run> back = parse_run_line(to_json_line(sample_run()), "here");
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(*back, sample_run());
}

TEST(RowDisplay, IsForPeople) {
  Row row;
  row.ms_median = 0.0123456;
  row.peak_bytes = 3 << 20;
  row.tokens_per_s = 1.25e6;
  row.speedup = 2;
  row.causal = true;
  EXPECT_EQ(display(row, *find_field("ms_median")), "0.01235");
  EXPECT_EQ(display(row, *find_field("peak_bytes")), "3 MiB");
  EXPECT_EQ(display(row, *find_field("tokens_per_s")), "1.25M");
  EXPECT_EQ(display(row, *find_field("speedup")), "2.00x");
  EXPECT_EQ(display(row, *find_field("causal")), "yes");
  EXPECT_EQ(display(row, *find_field("tflops")), "-");
  row.softcap = 30;
  row.dropout_p = static_cast<double>(0.2F);
  EXPECT_EQ(display(row, *find_field("softcap")), "30");
  EXPECT_EQ(display(row, *find_field("dropout_p")), "0.2");
  EXPECT_EQ(exact_text(row, *find_field("ms_median")), "0.0123456");
  EXPECT_EQ(exact_text(row, *find_field("tflops")), "");
}

TEST_F(RowFile, WrittenUnderATemporaryNameAndRenamed) {
  RowWriter writer;
  ASSERT_TRUE(writer.open(path(), sample_run()).ok());
  const Row rows[] = {full_row()};
  ASSERT_TRUE(writer.write(rows).ok());
  EXPECT_FALSE(std::filesystem::exists(path()));
  Result<RunFile> early = read_rows(writer.temporary_path());  // flushed: what a kill would leave
  ASSERT_TRUE(early.ok());
  EXPECT_EQ(early->rows.size(), 1U);
  ASSERT_TRUE(writer.finish().ok());
  Result<RunFile> file = read_rows(path());
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(file->run, sample_run());
  EXPECT_EQ(file->rows, std::vector<Row>{full_row()});
  EXPECT_TRUE(file->warnings.empty());
  EXPECT_EQ(files(), 1U);
}

TEST_F(RowFile, PeaksStandBetweenRunAndRows) {
  lab::Run run = sample_run();
  run.peaks = {sample_peak()};
  RowWriter writer;
  ASSERT_TRUE(writer.open(path(), run).ok());
  const Row rows[] = {full_row()};
  Peak second = sample_peak();
  second.what = "flops";
  second.dtype = "bf16";
  ASSERT_TRUE(writer.write(std::span<const Peak>(&second, 1)).ok());
  ASSERT_TRUE(writer.write(rows).ok());
  ASSERT_TRUE(writer.finish().ok());
  run.peaks.push_back(second);
  Result<RunFile> file = read_rows(path());
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(file->run, run);
  EXPECT_EQ(file->rows.size(), 1U);
  EXPECT_TRUE(file->warnings.empty());
}

TEST_F(RowFile, LinesOfALaterVersionAreLeftOutWithOneWarning) {
  const std::string line = R"({"schema":"headwise.rows/1","type":"trace","deep":[1]})"
                           "\n";
  write(to_json_line(sample_run()) + "\n" + line + to_json_line(full_row()) + "\n" + line);
  Result<RunFile> file = read_rows(path());
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(file->rows.size(), 1U);
  ASSERT_EQ(file->warnings.size(), 1U);
  EXPECT_THAT(file->warnings[0], HasSubstr("run.jsonl:2: lines of type 'trace' are not known"));
}

TEST_F(RowFile, CutLastLineKeepsTheRowsBefore) {
  const std::string whole = to_json_line(sample_run()) + "\n" + to_json_line(full_row()) + "\n";
  const std::string next = to_json_line(full_row());
  for (const std::size_t kept : {std::size_t{1}, next.size() / 2, next.size() - 1}) {
    write(whole + next.substr(0, kept));
    Result<RunFile> file = read_rows(path());
    ASSERT_TRUE(file.ok()) << file.status().message();
    EXPECT_EQ(file->rows.size(), 1U);
    ASSERT_EQ(file->warnings.size(), 1U);
    EXPECT_THAT(file->warnings[0], HasSubstr("run.jsonl:3: the last line was cut"));
  }
  write(whole + next);  // the newline alone is missing: nothing is lost
  EXPECT_EQ(read_rows(path())->rows.size(), 2U);
}

TEST_F(RowFile, HostileFilesAreRefusedByFileAndLine) {
  const std::string run = to_json_line(sample_run()) + "\n", row = to_json_line(full_row());
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = row;
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return run + text.replace(at, from.size(), to) + "\n";
  };
  EXPECT_THAT(refusal(""), HasSubstr("empty"));
  EXPECT_THAT(refusal("hello\n"), HasSubstr("run.jsonl:1: not a whole JSON object: 'hello'"));
  EXPECT_THAT(refusal("[1]\n"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(refusal("{\"a\":1}\n"), HasSubstr("no \"schema\""));
  EXPECT_THAT(refusal(run.substr(0, run.size() / 2)), HasSubstr("run.jsonl:1: "));
  EXPECT_THAT(refusal(row + "\n"), HasSubstr("expected \"type\":\"run\""));
  EXPECT_THAT(refusal(run + run), HasSubstr("run.jsonl:2: a second run begins here"));
  EXPECT_THAT(refusal(run + "{\"schema\n" + row + "\n"), HasSubstr("run.jsonl:2: not a whole JSON object"));
  EXPECT_THAT(refusal(changed("headwise.rows/1", "headwise.rows/9")),
              HasSubstr("schema 'headwise.rows/9' is not known"));
  EXPECT_THAT(refusal(changed("\"causal\":true", "\"causal\":1")),
              HasSubstr("run.jsonl:2: \"causal\" must be boolean, got '1'"));
  EXPECT_THAT(refusal(changed("\"samples_ms\":[0.1,", "\"samples_ms\":[{},")),
              HasSubstr("\"samples_ms\" must be array"));
  EXPECT_THAT(refusal(changed("\"batch\":", "\"batch\":1e99,\"was\":")),
              HasSubstr("\"batch\" must be integer"));
  EXPECT_THAT(refusal(changed("\"batch\":", "\"batch\":18446744073709551615,\"was\":")),
              HasSubstr("\"batch\" must be integer"));
  EXPECT_THAT(refusal(changed("\"contender\":", "\"was\":")), HasSubstr("\"contender\" is missing"));
  EXPECT_THAT(refusal(run + std::string(100'000, '[') + "\n"), HasSubstr("levels deep"));
  EXPECT_THAT(refusal(run + std::string("\0\xff\xfe", 3) + "\n"), HasSubstr("run.jsonl:2: "));
  const std::string peak = to_json_line(sample_peak());
  const auto wrong = [&](const std::string& from, const std::string& to) {
    std::string text = peak;
    return run + text.replace(text.find(from), from.size(), to) + "\n";
  };
  EXPECT_THAT(refusal(wrong("\"L3\"", "3")), HasSubstr("run.jsonl:2: \"name\" must be text"));
  EXPECT_THAT(refusal(wrong("\"threads\":2", "\"threads\":2.5")), HasSubstr("\"threads\" must be integer"));
  EXPECT_THAT(refusal(wrong("\"low\":", "\"was\":")), HasSubstr("\"low\" must be number"));
  EXPECT_THAT(refusal(wrong("\"type\":\"peak\"", "\"type\":[]")), HasSubstr("\"type\" must be text"));
  EXPECT_THAT(read_rows(path("absent.jsonl")).status().message(), HasSubstr("absent.jsonl"));
  EXPECT_THAT(read_rows(folder_.string()).status().message(), HasSubstr(folder_.string()));
}

TEST_F(RowFile, UnknownFieldsAreIgnored) {
  std::string row = to_json_line(full_row());
  row.insert(row.size() - 1, ",\"of_a_later_version\":{\"deep\":[1]}");
  write(to_json_line(sample_run()) + "\n" + row + "\n");
  Result<RunFile> file = read_rows(path());
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(file->rows[0], full_row());
}

TEST_F(RowFile, WhatCannotBeWrittenSaysWhy) {
  RowWriter writer;
  EXPECT_THAT(writer.open(path("no/such/folder.jsonl"), sample_run()).message(), HasSubstr("folder.jsonl"));
  EXPECT_THAT(writer.open(folder_.string(), sample_run()).message(), HasSubstr("no regular file"));
  EXPECT_THAT(write_file_atomically("/dev/null", "x").message(), HasSubstr("no regular file"));
  ASSERT_TRUE(write_file_atomically(path("page.html"), "one").ok());
  ASSERT_TRUE(write_file_atomically(path("page.html"), "two").ok());
  std::ifstream stream(path("page.html"));
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(stream), {}), "two");
  EXPECT_EQ(files(), 1U);
}

}  // namespace
}  // namespace headwise::lab
