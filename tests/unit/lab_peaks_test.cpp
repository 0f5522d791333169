#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lab/peaks.h"

namespace headwise::lab {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class FakeDevice : public Device {
 public:
  DeviceId id() const override { return {DeviceKind::cuda, 3}; }
  std::string description() const override { return "fake"; }
  std::string_view isa() const override { return "fake"; }
  bool has(std::string_view) const override { return false; }
  int max_threads() const override { return 1; }
  std::size_t last_level_cache_bytes() const override { return 0; }
  Result<void*> allocate(std::size_t) override { return Status::out_of_memory("fake"); }
  void deallocate(void*) noexcept override {}
  Status copy_from_host(void*, const void*, std::size_t) override { return {}; }
  Status copy_to_host(void*, const void*, std::size_t) override { return {}; }
  MemoryUse memory() override { return {}; }
  void reset_peak() override {}
  Status synchronize(void*) override { return {}; }
  std::string_view timer() const override { return "fake"; }
  Result<double> time_ms(const TimedWork&, int, void*) override { return 1.0; }
  Status flush_cache(void*) override { return {}; }
  ClockReading clocks() override { return {}; }
};

class MeasuringDevice final : public FakeDevice {
 public:
  Result<std::vector<PeakSamples>> measure_peaks(const std::vector<int>& threads, double) override {
    asked = threads;
    std::vector<PeakSamples> all;
    all.push_back({"flops", "wide f32", "wide", "f32", 4, 0, {3e12, 1e12, 2e12, 5e12, 4e12, 7e12, 6e12}});
    all.push_back({"bytes", "L1", "wide", "", 1, 1024, {1e9, 2e9, 3e9}});
    all.push_back({"bytes", "L2", "wide", "", 1, 4096, {}});
    return all;
  }
  std::vector<int> asked;
};

TEST(Peaks, AreMediansWithIntervals) {
  MeasuringDevice device;
  Result<std::vector<Peak>> peaks = measure_peaks(device, {8, 4, 8});
  ASSERT_TRUE(peaks.ok());
  EXPECT_THAT(device.asked, ElementsAre(1, 4, 8));
  ASSERT_EQ(peaks->size(), 2U);  // what has no sample is no peak
  const Peak& flops = peaks->front();
  EXPECT_EQ(flops.device, "cuda:3");
  EXPECT_EQ(flops.threads, 4);
  EXPECT_EQ(flops.unit, "TFLOP/s");
  EXPECT_EQ(flops.value, 4);
  EXPECT_EQ(flops.samples, 7);
  EXPECT_LT(flops.low, flops.value);
  EXPECT_GT(flops.high, flops.value);
  EXPECT_EQ(peaks->back().unit, "GB/s");
  EXPECT_EQ(peaks->back().value, 2);
  EXPECT_EQ(peaks->back().set_bytes, 1024);
  EXPECT_THAT(render_peaks(*peaks), HasSubstr("1 KiB a thread"));
}

TEST(Peaks, ADeviceThatCannotSaysSo) {
  FakeDevice device;
  EXPECT_THAT(measure_peaks(device, {1}).status().message(), HasSubstr("cuda:3"));
  Case absent;
  absent.device = {DeviceKind::cuda, 0};
  const Peaks peaks = measure_peaks(std::vector<Case>{absent});
  EXPECT_TRUE(peaks.peaks.empty());
  ASSERT_EQ(peaks.notes.size(), 1U);
  EXPECT_THAT(peaks.notes[0], HasSubstr("peaks not measured: device cuda:0"));
}

TEST(Peaks, OfARunAreThoseOfItsThreadsAndOfOne) {
  Case one;
  one.problem.threads = 2;
  const Peaks measured = measure_peaks({one, one});
  EXPECT_TRUE(measured.notes.empty());
  std::vector<std::int64_t> threads;
  for (const Peak& peak : measured.peaks) {
    if (peak.name == "memory") threads.push_back(peak.threads);
    EXPECT_GT(peak.low, 0) << peak.name;
    EXPECT_LE(peak.low, peak.value) << peak.name;
    EXPECT_GE(peak.high, peak.value) << peak.name;
  }
  EXPECT_THAT(threads, ElementsAre(1, 2));
}

}  // namespace
}  // namespace headwise::lab
