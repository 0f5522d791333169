// Rows as CSV and as Markdown.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/text.h"
#include "lab/row_tables.h"

namespace headwise::lab {
namespace {

using testing::HasSubstr;
using testing::Not;

// RFC 4180, read by its grammar: records of fields, a quoted field holds anything, "" stands for ".
std::vector<std::vector<std::string>> parse_csv(const std::string& text) {
  std::vector<std::vector<std::string>> records(1, std::vector<std::string>(1));
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::string& field = records.back().back();
    if (quoted && text[i] == '"' && i + 1 < text.size() && text[i + 1] == '"') {
      field += text[++i];
    } else if (text[i] == '"') {
      quoted = !quoted;
    } else if (quoted) {
      field += text[i];
    } else if (text[i] == ',') {
      records.back().emplace_back();
    } else if (text[i] == '\r' && text.substr(i, 2) == "\r\n") {
      ++i;
      records.emplace_back(1);
    } else {
      field += text[i];
    }
  }
  EXPECT_EQ(records.back(), std::vector<std::string>(1));  // the last record ends in CRLF too
  records.pop_back();
  return records;
}

std::string cell(const Row& row, std::string_view name) {
  const auto records = parse_csv(rows_as_csv({row}));
  EXPECT_EQ(records.size(), 2U);
  EXPECT_EQ(records[0].size(), records[1].size());
  for (std::size_t i = 0; i < records[0].size(); ++i)
    if (records[0][i] == name) return records[1][i];
  ADD_FAILURE() << "no column " << name;
  return "";
}

TEST(Csv, HasEveryFieldOnceInTheOrderOfTheTable) {
  const auto records = parse_csv(rows_as_csv(std::vector<Row>(3)));
  ASSERT_EQ(records.size(), 4U);
  ASSERT_EQ(records[0].size(), fields().size());
  for (std::size_t i = 0; i < fields().size(); ++i) EXPECT_EQ(records[0][i], fields()[i].name);
  for (const auto& record : records) EXPECT_EQ(record.size(), fields().size());
}

TEST(Csv, NumbersReadBackToTheSameBits) {
  Row row;
  std::uint64_t state = 7;
  for (int i = 0; i < 1000; ++i) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    const auto value = std::bit_cast<double>(state);
    if (std::isfinite(value)) row.samples_ms.push_back(value);
  }
  row.samples_ms.insert(row.samples_ms.end(), {0.1, -0.0, 5e-324, 1.7976931348623157e308, 1e22});
  row.ms_median = 1.0 / 3;
  row.peak_bytes = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(core::parse_number<double>(cell(row, "ms_median")), 1.0 / 3);
  EXPECT_EQ(cell(row, "peak_bytes"), "9223372036854775807");
  const std::string samples = cell(row, "samples_ms");
  const std::vector<std::string_view> parts = core::split(samples, ';');
  ASSERT_EQ(parts.size(), row.samples_ms.size());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::optional<double> back = core::parse_number<double>(parts[i]);
    ASSERT_TRUE(back.has_value()) << parts[i];
    EXPECT_EQ(std::bit_cast<std::uint64_t>(*back), std::bit_cast<std::uint64_t>(row.samples_ms[i]))
        << parts[i];
  }
  row.samples_ms = {1, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()};
  EXPECT_EQ(cell(row, "samples_ms"), "1;inf;nan");
}

TEST(Csv, WhatWasNotMeasuredIsEmpty) {
  const Row row;
  EXPECT_EQ(cell(row, "ms_median"), "");
  EXPECT_EQ(cell(row, "samples_ms"), "");
  EXPECT_EQ(cell(row, "rows_verified"), "");
  EXPECT_EQ(cell(row, "causal"), "false");
  EXPECT_EQ(cell(row, "window_left"), "-1");  // a number is no formula
}

TEST(Csv, TextSurvives) {
  Row row;
  for (const char* text :
       {"a,b", "say \"hi\"", "two\nlines", "two\r\nlines", "\"", "", "\xc3\xa9", "plain"}) {
    row.reason = text;
    EXPECT_EQ(cell(row, "reason"), text);
  }
}

TEST(Csv, FormulasAreTamed) {
  Row row;
  for (const char* text : {"=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "=cmd|' /C calc'!A0"}) {
    row.contender = text;
    EXPECT_EQ(cell(row, "contender"), std::string("'") + text);
  }
  row.contender = "a=b";
  EXPECT_EQ(cell(row, "contender"), "a=b");
}

RunFile two_rows() {
  RunFile file;
  file.run = {.run = "r1",
              .started = "2026-01-02T03:04:05+00:00",
              .command = "headwise bench --seq '64'",
              .environment = {{"cpu", "A|B <b>"}, {"isa", "avx2"}},
              .options = {{"seconds", "2"}},
              .continued = {{"2026-01-02T04:04:05+00:00", "headwise bench ```` --resume"}},
              .peaks = {}};
  for (const double ms : {1.0, 2.0}) {
    Row& row = file.rows.emplace_back();
    row.case_id = "seq=64";
    row.contender = ms == 1 ? "cpu/a_b" : "cpu/c|d";
    row.status = row_status::kOk;
    row.seq_q = row.seq_kv = 64;
    row.ms_median = ms;
    row.error_max = 0.25 * ms;
    row.rows_verified = 9;
  }
  return file;
}

TEST(Markdown, IsATableWithWhatItDependsOnAbove) {
  const std::string text = rows_as_markdown(two_rows());
  EXPECT_THAT(text, HasSubstr("```\nheadwise bench --seq '64'\n```\n"));
  EXPECT_THAT(text, HasSubstr("`````\nheadwise bench ```` --resume\n`````\n"));  // the fence is longer
  EXPECT_THAT(text, HasSubstr("| cpu | A\\|B \\<b\\> |"));
  EXPECT_THAT(text, HasSubstr("| seconds | 2 |"));
  EXPECT_THAT(text, HasSubstr("All rows: device cpu"));
  EXPECT_THAT(text, HasSubstr("| 64 | cpu/a\\_b | **1.000** |"));
  EXPECT_THAT(text, HasSubstr("| 64 | cpu/c\\|d | 2.000 |"));
  EXPECT_THAT(text, HasSubstr("- Fastest (\\*): cpu/a\\_b in 1 of 1 case\n"));
  EXPECT_LT(text.find("| cpu | A"), text.find("| 64 |"));
}

TEST(Markdown, EveryLineOfATableHasAsManyCells) {
  RunFile file = two_rows();
  file.rows[0].reason = "a\nb|c";
  file.rows[0].contender = "x\n| y | z";
  file.rows[1].status = "time|out";
  const std::string text = rows_as_markdown(file);
  int cells = -1, lines = 0;
  const std::size_t table = text.rfind("\n\n|");
  for (const std::string_view line : core::split(std::string_view(text).substr(table + 2), '\n')) {
    if (!line.starts_with("|")) break;
    int count = 0;
    for (std::size_t i = 0; i < line.size(); ++i)
      count += line[i] == '|' && (i == 0 || line[i - 1] != '\\') ? 1 : 0;
    if (cells < 0) cells = count;
    EXPECT_EQ(count, cells) << line;
    ++lines;
  }
  EXPECT_EQ(lines, 4);
}

TEST(Markdown, CasesThatNoColumnTellsApartHaveTheirOwn) {
  RunFile file = two_rows();
  file.rows[1].case_id = "seq=64 seed=2";
  const std::string text = rows_as_markdown(file);
  EXPECT_THAT(text, HasSubstr("| case | "));
  EXPECT_THAT(text, HasSubstr("| seed=2 | "));
  EXPECT_THAT(rows_as_markdown(two_rows()), Not(HasSubstr("| case | ")));
}

TEST(Markdown, WithoutRowsItSaysSo) {
  RunFile file = two_rows();
  file.rows.clear();
  EXPECT_THAT(rows_as_markdown(file), HasSubstr("No rows."));
}

}  // namespace
}  // namespace headwise::lab
