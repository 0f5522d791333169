// What a killed run left, and what is made of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "lab/estimate.h"
#include "lab/resume.h"

namespace headwise::lab {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class Resume : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "headwise-resume-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    now_ = {.run = "now",
            .started = "2026-01-02T03:04:05+00:00",
            .command = "headwise bench --out run.jsonl --resume",
            .environment = {{"cpu", "one"},
                            {"isa", "avx2"},
                            {"HEADWISE_MAX_ISA", "not set"},
                            {"load_average", "1"}},
            .options = {{"seconds", "2"}},
            .continued = {},
            .peaks = {}};
    Result<std::vector<Case>> cases =
        make_cases({Words{}}, {{"seq", "8,16,32"},
                               {"heads", "1"},
                               {"threads", "1"},
                               {"dtype", "f16"},
                               {"kernels", "cpu/scalar/naive/f16,cpu/scalar/naive/f32"},
                               {"baseline", "none"}});
    ASSERT_TRUE(cases.ok());
    cases_ = *cases;
    Result<std::vector<Contender>> contenders = contenders_of(cases_[0]);
    ASSERT_TRUE(contenders.ok());
    for (const Contender& contender : *contenders) contenders_.push_back(contender.id);
    ASSERT_EQ(contenders_.size(), 2U);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  [[nodiscard]] std::string path(const std::string& name = "run.jsonl") const {
    return (folder_ / name).string();
  }
  [[nodiscard]] lab::Run then() const {
    lab::Run run = now_;
    run.run = "then";
    run.environment[3].second = "7";  // load comes and goes
    return run;
  }
  [[nodiscard]] Row row(std::size_t of_case, std::size_t contender, std::string_view status = "ok") const {
    Row row;
    row.run = "then";
    row.case_id = case_id(cases_[of_case]);
    row.contender = contenders_[contender];
    row.status = status;
    row.ms_median = 1.0 / 3;
    return row;
  }
  void write(const std::string& name, const lab::Run& run, const std::vector<Row>& rows,
             std::string_view tail = "") const {
    std::ofstream file(path(name), std::ios::binary);
    file << to_json_line(run) << "\n";
    for (const Row& one : rows) file << to_json_line(one) << "\n";
    file << tail;
  }
  [[nodiscard]] Unfinished found() const {
    Result<Unfinished> left = find_unfinished(path(), cases_, now_);
    EXPECT_TRUE(left.ok()) << left.status().message();
    return left ? *std::move(left) : Unfinished{};
  }
  [[nodiscard]] std::string refusal() const {
    return find_unfinished(path(), cases_, now_).status().message();
  }

  std::filesystem::path folder_;
  lab::Run now_;
  std::vector<Case> cases_;
  std::vector<std::string> contenders_;
};

TEST_F(Resume, WithoutAFileThereIsNothing) {
  write("other.jsonl.1.partial", then(), {row(0, 0)});
  write("run.jsonl.old.partial", then(), {row(0, 0)});  // nobody's temporary name
  const Unfinished left = found();
  EXPECT_THAT(left.files, IsEmpty());
  EXPECT_EQ(left.kept_cases(), 0U);
  EXPECT_EQ(left.run, now_);
}

TEST_F(Resume, WholeCasesAreKeptWhateverTheirStatus) {
  write("run.jsonl.17.partial", then(),
        {row(0, 0), row(0, 1, "timeout"), row(1, 0, "error"), row(1, 1, "out_of_memory"), row(2, 1)});
  const Unfinished left = found();
  EXPECT_THAT(left.files, ElementsAre(path("run.jsonl.17.partial")));
  EXPECT_EQ(left.run, then());
  EXPECT_EQ(left.kept[0], (std::vector<Row>{row(0, 0), row(0, 1, "timeout")}));
  EXPECT_EQ(left.kept[1], (std::vector<Row>{row(1, 0, "error"), row(1, 1, "out_of_memory")}));
  EXPECT_THAT(left.kept[2], IsEmpty());  // of which one contender alone is there
  EXPECT_EQ(left.cut, 1U);
  EXPECT_FALSE(left.complete());
}

TEST_F(Resume, ACutLastLineIsNoRow) {
  const std::string last = to_json_line(row(1, 1));
  for (const std::size_t length : {std::size_t{1}, last.size() / 2, last.size() - 1}) {
    write("run.jsonl.17.partial", then(), {row(0, 0), row(0, 1), row(1, 0)}, last.substr(0, length));
    const Unfinished left = found();
    EXPECT_EQ(left.kept_cases(), 1U);
    EXPECT_EQ(left.cut, 1U);
    ASSERT_EQ(left.notes.size(), 1U);
    EXPECT_THAT(left.notes[0], HasSubstr("the last line was cut"));
  }
  // After a power cut the tail may be zeros.
  write("run.jsonl.17.partial", then(), {row(0, 0), row(0, 1)}, std::string(5000, '\0'));
  EXPECT_EQ(found().kept_cases(), 1U);
}

TEST_F(Resume, AFinishedFileIsComplete) {
  std::vector<Row> rows;
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t k = 0; k < 2; ++k) rows.push_back(row(i, k));
  write("run.jsonl", then(), rows);
  const Unfinished left = found();
  EXPECT_TRUE(left.complete());
  EXPECT_THAT(left.files, ElementsAre(path()));
}

TEST_F(Resume, FilesOfOneRunAreJoined) {
  write("run.jsonl.17.partial", then(), {row(0, 0), row(0, 1), row(2, 0), row(2, 1)});
  write("run.jsonl.17-2.partial", then(), {row(0, 0), row(0, 1), row(1, 0), row(1, 1)});
  const Unfinished left = found();
  EXPECT_TRUE(left.complete());
  EXPECT_EQ(left.files.size(), 2U);
}

TEST_F(Resume, OfSeveralRunsTheOneThatWroteLastGoesOn) {
  lab::Run later = then();
  later.run = "later";
  write("run.jsonl", then(), {row(0, 0), row(0, 1)});
  write("run.jsonl.17.partial", later, {row(1, 0), row(1, 1)});
  write("run.jsonl.18.partial", now_, {});  // killed before its first case
  const auto at = [&](const char* name, int seconds) {
    std::filesystem::last_write_time(
        path(name), std::filesystem::file_time_type::clock::now() + std::chrono::seconds(seconds));
  };
  at("run.jsonl", -20), at("run.jsonl.17.partial", -10), at("run.jsonl.18.partial", 0);
  Unfinished left = found();
  EXPECT_EQ(left.run.run, "later");
  EXPECT_THAT(left.files, ElementsAre(path("run.jsonl.17.partial")));
  EXPECT_EQ(left.notes.size(), 2U);
  left = Unfinished{};
  at("run.jsonl", -5);
  EXPECT_EQ(found().run.run, "then");
}

TEST_F(Resume, AFileKilledBeforeItsFirstLineIsLeftAside) {
  write("run.jsonl.17.partial", then(), {row(0, 0), row(0, 1)});
  std::ofstream(path("run.jsonl.18.partial")) << "{\"schema\":\"headwise.ro";
  std::ofstream(path("run.jsonl.19.partial"));
  const Unfinished left = found();
  EXPECT_EQ(left.kept_cases(), 1U);
  EXPECT_EQ(left.notes.size(), 2U);
  EXPECT_THAT(left.files, ElementsAre(path("run.jsonl.17.partial")));
}

TEST_F(Resume, WhatIsBrokenIsRefused) {
  write("run.jsonl.17.partial", then(), {row(0, 0)}, "nonsense\n" + to_json_line(row(0, 1)) + "\n");
  EXPECT_THAT(refusal(), HasSubstr("run.jsonl.17.partial:3: not a whole JSON object"));
  EXPECT_THAT(refusal(), HasSubstr("mend or remove the file"));
}

TEST_F(Resume, AnotherSettingIsRefusedByName) {
  const auto with = [&](const char* name, const char* value) {
    lab::Run run = then();
    for (Environment* facts : {&run.environment, &run.options})
      for (auto& [key, is] : *facts)
        if (key == name) is = value;
    write("run.jsonl", run, {row(0, 0), row(0, 1)});
    return refusal();
  };
  EXPECT_THAT(with("cpu", "two"),
              HasSubstr("'" + path() + "' was measured otherwise: cpu was 'two', is 'one'; "));
  EXPECT_THAT(with("isa", "amx"), HasSubstr("isa was 'amx', is 'avx2'"));
  EXPECT_THAT(with("HEADWISE_MAX_ISA", "scalar"), HasSubstr("HEADWISE_MAX_ISA was 'scalar', is 'not set'"));
  EXPECT_THAT(with("seconds", "1"), HasSubstr("seconds was '1', is '2'"));
  EXPECT_EQ(with("load_average", "0"), "");
  lab::Run without = then();
  without.options.clear();  // a file of an older build
  write("run.jsonl", without, {row(0, 0)});
  EXPECT_THAT(refusal(), HasSubstr("seconds was 'not recorded', is '2'"));
}

TEST_F(Resume, AnotherSweepIsRefused) {
  Row other = row(0, 0);
  other.case_id = "seq=7";
  write("run.jsonl", then(), {row(0, 0), row(0, 1), other});
  EXPECT_THAT(refusal(), HasSubstr("has a case that this command does not ask for: 'seq=7'"));
  EXPECT_THAT(refusal(), HasSubstr(now_.command));
  other = row(0, 0);
  other.contender = "cpu/none";
  write("run.jsonl", then(), {row(0, 0), row(0, 1), other});
  EXPECT_THAT(refusal(), HasSubstr("has a contender that this command does not ask for: 'cpu/none' in '"));
}

TEST_F(Resume, FilesInUseAreRefused) {
  RowWriter writer;
  ASSERT_TRUE(writer.open(path(), then()).ok());
  EXPECT_THAT(refusal(), HasSubstr("is in use by another run; wait for its end"));
  EXPECT_THAT(refusal(), HasSubstr(writer.temporary_path()));
  ASSERT_TRUE(writer.finish().ok());
  const Unfinished left = found();  // and holds it
  EXPECT_THAT(refusal(), HasSubstr("in use"));
}

TEST_F(Resume, WritersNeverShareATemporaryFile) {
  RowWriter first, second;
  ASSERT_TRUE(first.open(path(), then()).ok());
  ASSERT_TRUE(second.open(path(), now_).ok());  // same process id: as two containers have it
  EXPECT_NE(first.temporary_path(), second.temporary_path());
  EXPECT_EQ(partial_files(path()).size(), 2U);
  const Row rows[] = {row(0, 0)};
  ASSERT_TRUE(first.write(rows).ok());
  EXPECT_EQ(read_rows(first.temporary_path())->rows.size(), 1U);
  EXPECT_EQ(read_rows(second.temporary_path())->rows.size(), 0U);
  ASSERT_TRUE(second.finish().ok());
  ASSERT_TRUE(first.finish().ok());
  EXPECT_EQ(read_rows(path())->run.run, "then");  // whoever ends last
  EXPECT_THAT(partial_files(path()), IsEmpty());
}

TEST_F(Resume, RowsOfTheSameCaseUnderTwoLinesOfASuiteGoToTheirOwn) {
  std::vector<Case> twice{cases_[0], cases_[0]};
  twice[0].kernels = {contenders_[0]};
  write("run.jsonl", then(), {row(0, 0), row(0, 0), row(0, 1)});
  Result<Unfinished> left = find_unfinished(path(), twice, now_);
  ASSERT_TRUE(left.ok()) << left.status().message();
  EXPECT_EQ(left->kept[0].size(), 1U);
  EXPECT_EQ(left->kept[1].size(), 2U);
}

}  // namespace
}  // namespace headwise::lab
