// The node tests of ONNX's operator Attention. Their files are made by tools/setup.sh conformance; without
// them every test here is skipped, or fails where HEADWISE_REQUIRE_CONFORMANCE is set.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <numeric>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "conformance/run_case.h"
#include "headwise/kernels.h"
#include "support/run_kernel.h"

namespace headwise::conformance {
namespace {

const std::string kVersion = "1.23.2";
constexpr std::size_t kCases = 93;            // of that version of onnx
constexpr std::size_t kCasesWithScores = 18;  // that ask for qk_matmul_output
const std::string kFolder = HEADWISE_CONFORMANCE_DIR "/onnx";
const std::string kSource = HEADWISE_SOURCE_DIR;

std::string text_of(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

const Result<std::vector<NodeCase>>& loaded() {
  static const Result<std::vector<NodeCase>> nodes = read_cases(kFolder);
  return nodes;
}
const std::vector<NodeCase>& cases() { return *loaded(); }

struct Known {
  std::string who, node, why;
};
std::vector<Known> known_failures() {
  std::istringstream lines(text_of(kSource + "/tests/conformance/known_failures.txt"));
  std::vector<Known> found;
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    Known known;
    words >> known.who >> known.node >> std::ws;
    std::getline(words, known.why);
    found.push_back(known);
  }
  return found;
}

// How a contender fared; one line of the page's table.
struct Tally {
  std::string who;
  std::array<int, kOutcomeNames.size()> counts{};
  std::map<std::string, int> notes;  // what was off, or which refusal -> cases

  void add(const std::string& node, const CaseResult& result) {
    const auto outcome = static_cast<std::size_t>(result.outcome);
    ++counts[outcome];
    if (result.outcome == Outcome::passed) return;
    const std::string of = result.outcome == Outcome::refused ? ": " : ": " + node + ": ";
    ++notes[std::string(kOutcomeNames[outcome]) + of + result.reason];
  }
  [[nodiscard]] int all() const { return std::accumulate(counts.begin(), counts.end(), 0); }
};

std::string row(const Tally& tally) {
  std::string line = "| `" + tally.who + "` | " + std::to_string(tally.all());
  for (const int count : tally.counts) line += " | " + std::to_string(count);
  return line + " |";
}

void print(const Tally& tally) {
  std::printf("%s\n", row(tally).c_str());
  for (const auto& [note, count] : tally.notes) std::printf("    %d %s\n", count, note.c_str());
}

// Runs the cases that `wanted` takes. What is not expected to fail must pass, and the other way round.
Tally run_all(const std::string& who, const std::function<bool(const NodeCase&)>& wanted,
              const std::function<CaseResult(const NodeCase&)>& run, bool may_refuse) {
  std::set<std::string> expected;
  for (const Known& known : known_failures()) {
    if (known.who == who) expected.insert(known.node);
  }
  Tally tally{.who = who, .notes = {}};
  for (const NodeCase& node : cases()) {
    if (!wanted(node)) continue;
    const CaseResult result = run(node);
    tally.add(node.name, result);
    const bool good = result.outcome < Outcome::refused || (may_refuse && result.outcome == Outcome::refused);
    const bool listed = expected.erase(node.name) > 0;
    EXPECT_FALSE(!good && !listed) << who << ": " << node.name << ": " << result.reason;
    EXPECT_FALSE(good && listed) << who << ": " << node.name
                                 << " passes: take it out of tests/conformance/known_failures.txt";
  }
  for (const std::string& name : expected)
    ADD_FAILURE() << "tests/conformance/known_failures.txt: " << who << " runs no case " << name;
  return tally;
}

bool every(const NodeCase& /*node*/) { return true; }

// The page has this line, so that what it claims is what was seen.
void expect_on_page(const Tally& tally) {
  const std::string path = kSource + "/docs/conformance.md";
  EXPECT_NE(text_of(path).find(row(tally) + "\n"), std::string::npos)
      << path << " lacks the line that this run gives; it must read\n"
      << row(tally);
}

class Onnx : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(loaded().ok()) << loaded().status().message();
    if (!cases().empty()) {
      ASSERT_EQ(cases().size(), kCases) << kFolder;
      for (const NodeCase& node : cases()) ASSERT_EQ(node.onnx, kVersion) << node.name;
      return;
    }
    const std::string what = std::to_string(kCases) + " cases not run: no files in " + kFolder +
                             "; tools/setup.sh conformance makes them";
    if (std::getenv("HEADWISE_REQUIRE_CONFORMANCE") != nullptr) FAIL() << what;
    GTEST_SKIP() << what;
  }
};

TEST_F(Onnx, TheOracleAgreesWithEveryCase) {
  const Tally tally = run_all("oracle", every, run_oracle, false);
  print(tally);
  EXPECT_EQ(tally.all(), static_cast<int>(kCases));
  expect_on_page(tally);
}

TEST_F(Onnx, ThePlannedKernelPassesEveryCase) {
  const Tally tally =
      run_all("planned", every, [](const NodeCase& node) { return run_kernel(node, {}); }, false);
  print(tally);
  EXPECT_EQ(tally.all(), static_cast<int>(kCases));
  const std::vector<KernelInfo> kernels = numerics::forward_kernels();
  // Other processors plan other kernels, whose 16-bit outputs may be a step away from these.
  if (std::all_of(kernels.begin(), kernels.end(),
                  [](const KernelInfo& kernel) { return numerics::cannot_run_here(kernel).empty(); }))
    expect_on_page(tally);
}

TEST_F(Onnx, EachKernelPassesWhatItDoesNotRefuse) {
  for (const KernelInfo& kernel : numerics::forward_kernels()) {
    const auto of_its_dtype = [&](const NodeCase& node) {
      return node.input("Q")->dtype == kernel.traits.dtype &&
             node.input("K")->dtype == kernel.traits.kv_dtype;
    };
    const Tally tally = run_all(
        std::string(kernel.id), of_its_dtype,
        [&](const NodeCase& node) { return run_kernel(node, kernel.id); }, true);
    print(tally);
    if (tally.all() > 0 && numerics::cannot_run_here(kernel).empty()) expect_on_page(tally);
  }
}

TEST_F(Onnx, QkMatmulOutputIsWhatTheDefinitionSays) {
  const auto asked = [](const NodeCase& node) { return node.output("qk_matmul_output") != nullptr; };
  const Tally tally = run_all("scores", asked, run_qk_matmul_output, false);
  print(tally);
  EXPECT_EQ(tally.all(), static_cast<int>(kCasesWithScores));
  expect_on_page(tally);
}

TEST(OnnxPage, NamesEachKnownFailure) {
  const std::string page = text_of(kSource + "/docs/conformance.md");
  EXPECT_NE(page.find("onnx " + kVersion), std::string::npos);
  for (const Known& known : known_failures()) {
    EXPECT_FALSE(known.why.empty()) << known.who << " " << known.node;
    EXPECT_NE(page.find(known.node), std::string::npos) << known.node;
  }
}

}  // namespace
}  // namespace headwise::conformance
