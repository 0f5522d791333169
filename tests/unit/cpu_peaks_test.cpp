// What is measured is this machine's and no business of a test; that it makes sense is.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>

#include "headwise/device.h"

namespace headwise {
namespace {

constexpr double kSeconds = 0.15;

// Other programs only ever slow a sample down.
double best(const PeakSamples& peak) {
  return *std::max_element(peak.per_second.begin(), peak.per_second.end());
}

TEST(CpuPeaks, AreThereForEachKindAndNumberOfThreads) {
  Device& cpu = **device({});
  Result<std::vector<PeakSamples>> peaks = cpu.measure_peaks({1, 2}, kSeconds);
  ASSERT_TRUE(peaks.ok()) << peaks.status().message();
  std::map<std::pair<std::string, int>, double> rates;
  for (const PeakSamples& peak : *peaks) {
    EXPECT_TRUE(peak.what == "flops" || peak.what == "bytes") << peak.what;
    EXPECT_TRUE(cpu.has(peak.isa)) << peak.isa;
    EXPECT_EQ(peak.set_bytes > 0, peak.what == "bytes") << peak.name;
    EXPECT_EQ(peak.dtype.empty(), peak.what == "bytes") << peak.name;
    ASSERT_GE(peak.per_second.size(), 6U) << peak.name;  // fewer have no 95 % interval
    // A loop that the compiler left out would run at any speed.
    EXPECT_GT(best(peak), 1e6) << peak.name;
    EXPECT_LT(best(peak), 1e16) << peak.name;
    EXPECT_TRUE(rates.emplace(std::pair(peak.name, peak.threads), best(peak)).second)
        << peak.name << " twice";
  }
  for (const int threads : {1, 2}) {
    EXPECT_TRUE(rates.contains({"scalar f32", threads}));
    EXPECT_TRUE(rates.contains({"memory", threads}));
    EXPECT_EQ(rates.contains({"amx bf16", threads}), cpu.has("amx_bf16"));
    for (const char* isa : {"avx2", "avx512"}) {
      const auto found = rates.find({std::string(isa) + " f32", threads});
      EXPECT_EQ(found != rates.end(), cpu.has(isa)) << isa;
      // Twice and four times the lanes, and a fused instruction. More threads wait for those that other
      // programs keep from running.
      if (found != rates.end() && threads == 1) {
        EXPECT_GT(found->second, (rates.at({"scalar f32", 1}))) << isa;
      }
    }
  }
}

TEST(CpuPeaks, OneThreadHasSetsThatGrowLevelByLevel) {
  Result<std::vector<PeakSamples>> peaks = (*device({}))->measure_peaks({1}, kSeconds);
  ASSERT_TRUE(peaks.ok());
  std::size_t before = 0;
  for (const PeakSamples& peak : *peaks) {
    if (peak.what != "bytes") continue;
    EXPECT_GT(peak.set_bytes, before) << peak.name;
    before = peak.set_bytes;
  }
}

TEST(CpuPeaks, RefuseWhatCannotBeMeasured) {
  Device& cpu = **device({});
  EXPECT_EQ(cpu.measure_peaks({0}, kSeconds).status().code(), StatusCode::invalid_argument);
  EXPECT_EQ(cpu.measure_peaks({1}, 0).status().code(), StatusCode::invalid_argument);
  EXPECT_EQ(cpu.measure_peaks({1}, std::nan("")).status().code(), StatusCode::invalid_argument);
  EXPECT_TRUE(cpu.measure_peaks({}, kSeconds)->empty());
}

TEST(CpuPeaks, GiveTheirMemoryBack) {
  Device& cpu = **device({});
  const std::size_t before = cpu.memory().allocated;
  ASSERT_TRUE(cpu.measure_peaks({1}, kSeconds).ok());
  EXPECT_EQ(cpu.memory().allocated, before);
}

}  // namespace
}  // namespace headwise
