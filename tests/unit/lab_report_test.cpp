// The report as text: complete in itself, and harmless whatever the rows say. What a browser makes of it is
// tests/report.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <regex>
#include <string>

#include "lab/report.h"

namespace headwise::lab {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kHostile =
    "</script><script>owned()</script><img src=x onerror=owned()><!-- {{script}} \"\\\x01";

Row good_row() {
  Row row;
  row.run = "r1";
  row.case_id = "batch=1";
  row.contender = "cpu/scalar/naive/f32";
  row.status = row_status::kOk;
  row.heads = row.kv_heads = 8;
  row.seq_q = row.seq_kv = 128;
  row.ms_median = 1.25;
  row.error_max = 1e-7;
  row.rows_verified = 64;
  row.error_limit = 4e-7;
  return row;
}

ReportInputs inputs_of(std::vector<Row> rows) {
  ReportInputs inputs;
  inputs.file.run = {
      .run = "r1", .started = "2026-01-02T03:04:05+00:00", .command = "headwise bench", .environment = {}};
  inputs.file.rows = std::move(rows);
  return inputs;
}

std::string render(const ReportInputs& inputs) {
  Result<std::string> page = render_report(inputs);
  EXPECT_TRUE(page.ok()) << page.status().message();
  return page.ok() ? *page : std::string();
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

// The rows and everything else that came from outside, as it stands in the page.
std::string data_of(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const std::size_t start = page.find(open) + open.size();
  return page.substr(start, page.find("</script>", start) - start);
}

TEST(Report, SaysWhenARunWasContinuedAndWhenTheMachineWasBusy) {
  ReportInputs inputs = inputs_of({good_row()});
  EXPECT_THAT(render(inputs), HasSubstr(R"("continued":[],"load_note":"")"));
  inputs.file.run.continued = {{"2026-01-02T04:00:00+00:00", "headwise bench --resume"}};
  inputs.file.run.environment = {{"processors_busy", "1.50"}, {"cpus_usable", "2"}};
  const std::string data = data_of(render(inputs));
  EXPECT_THAT(data, HasSubstr(R"("continued":["2026-01-02T04:00:00+00:00: headwise bench --resume"])"));
  EXPECT_THAT(data, HasSubstr("1.5 of 2 processors were busy when the run began"));
}

TEST(Report, HasItsSecurityPolicyAndRefersToNothingOutside) {
  const std::string page = render(inputs_of({good_row()}));
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
  const std::regex outside(R"re((src|href|action|data)\s*=\s*["']?(https?:|//|file:))re", std::regex::icase);
  EXPECT_FALSE(std::regex_search(page, outside));
  EXPECT_THAT(page, Not(HasSubstr("@import")));
  EXPECT_THAT(page, Not(HasSubstr("url(")));
  EXPECT_THAT(page, Not(HasSubstr("{{")));
  EXPECT_LT(page.size(), 200'000U);
}

TEST(Report, HostileTextStaysText) {
  Row row = good_row();
  row.contender = row.case_id = row.reason = row.inputs = row.status = row.reproduce = row.ran = kHostile;
  ReportInputs inputs = inputs_of({row});
  inputs.file.run.command = kHostile;
  inputs.file.run.environment = {{kHostile, kHostile}};
  inputs.file.warnings = {kHostile};
  inputs.charts = {{.file = kHostile, .text = kHostile}};
  inputs.source = inputs.title = kHostile;
  const std::string page = render(inputs);
  // The data, and the page's own script.
  EXPECT_EQ(count(page, "<script"), 2U);
  EXPECT_EQ(count(page, "</script"), 2U);
  EXPECT_EQ(count(page, "<img"), 0U);
  EXPECT_EQ(count(page, "<!--"), 0U);
  EXPECT_THAT(page, HasSubstr("&lt;img src=x onerror=owned()&gt;"));  // the title
  EXPECT_THAT(data_of(page), Not(HasSubstr("<")));
  EXPECT_THAT(data_of(page), HasSubstr("{{script}}"));  // not filled in a second time
  EXPECT_THAT(data_of(page), HasSubstr(R"(\"\\\u0001)"));
}

TEST(Report, BytesThatAreNotUtf8AreReplaced) {
  Row row = good_row();
  row.reason = "cut \xE2\x82, overlong \xC0\xAF, surrogate \xED\xA0\x80, good \xE2\x82\xAC";
  const std::string data = data_of(render(inputs_of({row})));
  EXPECT_THAT(data,
              HasSubstr(R"("cut \ufffd\ufffd, overlong \ufffd\ufffd, surrogate \ufffd\ufffd\ufffd, good )"
                        "\xE2\x82\xAC\""));
}

TEST(Report, ValuesThatAreNoNumbersBecomeWords) {
  Row row = good_row();
  row.error_max = std::nan("");
  row.error_rms = std::numeric_limits<double>::infinity();
  row.lse_error = -std::numeric_limits<double>::infinity();
  const std::string data = data_of(render(inputs_of({row})));
  EXPECT_THAT(data, HasSubstr(R"("values":["nan"])"));
  EXPECT_THAT(data, HasSubstr(R"("values":["inf"])"));
  EXPECT_THAT(data, HasSubstr(R"("values":["-inf"])"));
}

TEST(Report, RawSamplesStayInTheRunsFile) {
  Row row = good_row();
  row.samples_ms.assign(100'000, 1.2345678);
  const std::string page = render(inputs_of({row}));
  EXPECT_THAT(page, Not(HasSubstr("1.2345678")));
  EXPECT_LT(page.size(), 200'000U);
}

TEST(Report, TwoThousandRowsAndTheRendererFitInThreeMegabytes) {
  std::vector<Row> rows;
  for (int i = 0; i < 2000; ++i) {
    Row row = good_row();
    row.case_id = "batch=1 heads=8 kv_heads=8 seq=128 head_dim=64 case=" + std::to_string(i / 3);
    row.reproduce = "headwise bench --batch 1 --heads 8 --seq 128 --head-dim 64 --seed " + std::to_string(i);
    for (const Field& field : fields()) {
      if (const auto* number = std::get_if<OptionalNumber Row::*>(&field.member)) {
        row.*(*number) = 1.0 / (i + 3);
      }
    }
    rows.push_back(row);
  }
  ReportInputs inputs = inputs_of(rows);
  inputs.renderer_js = std::string(900'000, ' ');
  EXPECT_LT(render(inputs).size(), 3'000'000U);
}

TEST(Report, OnlyRankedRowsAreMarkedAsSuch) {
  Row unchecked = good_row();
  unchecked.error_max.reset();
  Row slow = good_row();
  slow.status = row_status::kTimeout;
  const std::string data = data_of(render(inputs_of({good_row(), unchecked, slow, good_row()})));
  const std::size_t ranked_column = data.find(R"("name":"ranked")");
  ASSERT_NE(ranked_column, std::string::npos);
  EXPECT_THAT(data.substr(ranked_column), HasSubstr(R"({"words":[true,false],"index":[0,1,1,0]})"));
}

TEST(Report, TellsTheDuelsOfKernelsAndPeersByTheirRows) {
  Row peer = good_row();
  peer.kind = "peer";
  peer.contender = "torch.<flash>";
  peer.ms_median = 2.5;
  Row costly = peer;
  costly.contender = "torch.flex";
  costly.ms_median = 0.01;
  costly.overhead_ms = 0.01;
  const std::string data = data_of(render(inputs_of({costly, peer, good_row()})));
  EXPECT_THAT(data, HasSubstr(R"("most_overhead":0.05,)"));
  EXPECT_THAT(data, HasSubstr(R"("duels":[{"label":"full prefill, batch=1","kernel":2,"peer":1,"ratio":2,)"));
  EXPECT_THAT(data, HasSubstr(R"("rows":[2,1]}])"));
  EXPECT_THAT(data, HasSubstr("Not ranked, though timed faster than every kernel: torch.flex in 1 case"));
  EXPECT_THAT(data, HasSubstr(R"(torch.\u003cflash\u003e)"));
}

TEST(Report, ARendererThatNamesAScriptElementDoesNotEndOne) {
  ReportInputs inputs = inputs_of({good_row()});
  inputs.renderer_js = "window.vegaEmbed = '</SCRIPT><!--' < /x/.exec('') ;";
  const std::string page = render(inputs);
  EXPECT_THAT(page, HasSubstr(R"(window.vegaEmbed = '<\/SCRIPT><\!--' < /x/.exec('') ;)"));
}

TEST(Report, TitleNamesTheProcessorUnlessOneIsGiven) {
  ReportInputs inputs = inputs_of({});
  EXPECT_THAT(render(inputs), HasSubstr("<title>Attention run r1</title>"));
  inputs.file.run.environment = {{"os", "Debian"}, {"cpu", "Some <Processor>"}};
  EXPECT_THAT(render(inputs), HasSubstr("<title>Attention on Some &lt;Processor&gt;</title>"));
  inputs.title = "My run";
  EXPECT_THAT(render(inputs), HasSubstr("<title>My run</title>"));
}

class ReportAssets : public ::testing::Test {
 protected:
  void SetUp() override {
    share_ =
        std::filesystem::path(::testing::TempDir()) /
        ("report_assets_" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
    std::filesystem::remove_all(share_);
  }
  void TearDown() override { std::filesystem::remove_all(share_); }
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((share_ / name).parent_path());
    std::ofstream(share_ / name) << text;
  }
  std::filesystem::path share_;
};

TEST_F(ReportAssets, AFolderThatIsNotThereLeavesThemEmpty) {
  ReportInputs inputs;
  EXPECT_TRUE(read_report_assets(share_.string(), inputs).ok());
  EXPECT_TRUE(inputs.charts.empty());
  EXPECT_TRUE(inputs.renderer_js.empty());
}

TEST_F(ReportAssets, ChartsComeByNameAndOtherFilesStay) {
  write("charts/b.json", "{\"b\":1}");
  write("charts/a.json", "{\"a\":1}");
  write("charts/notes.txt", "no chart");
  write("renderer/vega-bundle.js", "window.vegaEmbed = 1;");
  ReportInputs inputs;
  ASSERT_TRUE(read_report_assets(share_.string(), inputs).ok());
  ASSERT_EQ(inputs.charts.size(), 2U);
  EXPECT_EQ(inputs.charts[0].file, "a.json");
  EXPECT_EQ(inputs.charts[1].text, "{\"b\":1}");
  EXPECT_EQ(inputs.renderer_js, "window.vegaEmbed = 1;");
}

TEST_F(ReportAssets, AChartThatCannotBeReadIsNamed) {
  std::filesystem::create_directories(share_ / "charts" / "folder.json");
  ReportInputs inputs;
  const Status status = read_report_assets(share_.string(), inputs);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.code(), StatusCode::unavailable);
  EXPECT_THAT(status.message(), HasSubstr("folder.json"));
}

}  // namespace
}  // namespace headwise::lab
