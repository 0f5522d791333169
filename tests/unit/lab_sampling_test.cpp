// The stopping rule, on a device whose clock the test sets.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <set>
#include <vector>

#include "lab/sampling.h"
#include "lab/statistics.h"

namespace headwise::lab {
namespace {

// A contender that takes the times it is told to; `calls` counts calls, `order` who was called when.
struct Fake {
  int id = 0;
  std::function<double(std::int64_t)> ms;  // of call n
  std::int64_t calls = 0;
  Status fail_with{};
  std::int64_t fail_at = -1;
};

class FakeDevice final : public Device {
 public:
  DeviceId id() const override { return {}; }
  std::string description() const override { return "fake"; }
  std::string_view isa() const override { return "scalar"; }
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
  Result<double> time_ms(const TimedWork& work, int repeats, void*) override {
    auto& fake = *static_cast<Fake*>(work.context);
    order.push_back(fake.id);
    double total = 0;
    for (int i = 0; i < repeats; ++i) {
      if (fake.calls == fake.fail_at) return fake.fail_with;
      total += fake.ms(fake.calls++);
    }
    return total;
  }
  Status flush_cache(void*) override {
    order.push_back(kFlush);
    return flush;
  }
  ClockReading clocks() override { return {}; }
  static constexpr int kFlush = -1;
  std::vector<int> order;
  Status flush;
};

Contestant contestant(FakeDevice& device, Fake& fake, double first_ms) {
  return {timed_on(device, {.call = nullptr, .context = &fake}), first_ms};
}

SamplingRule rule() {
  SamplingRule r;
  r.warmup_seconds = 0.02;
  return r;
}

TEST(Sampling, SteadyContenderStopsAtTheLeastNumberOfSamples) {
  FakeDevice device;
  Fake steady{.id = 0, .ms = [](std::int64_t) { return 10.0; }};
  const std::vector<Samples> all = measure({contestant(device, steady, 10)}, rule(), 1);
  EXPECT_EQ(all[0].ms.size(), 10U);
  EXPECT_EQ(all[0].stop, "interval");
  EXPECT_EQ(all[0].repeats, 1);
  EXPECT_TRUE(all[0].enough);
  EXPECT_GE(all[0].warmups, 2);  // settled means that two blocks agreed
}

TEST(Sampling, SlowContenderTakesThree) {
  FakeDevice device;
  Fake slow{.id = 0, .ms = [](std::int64_t n) { return 900.0 + static_cast<double>(n); }};
  const std::vector<Samples> all = measure({contestant(device, slow, 900)}, rule(), 1);
  EXPECT_EQ(all[0].ms.size(), 3U);  // 2.7 s: beyond the 2 s of a contender
  EXPECT_EQ(all[0].stop, "seconds");
  EXPECT_EQ(all[0].warmups, 0);
}

TEST(Sampling, NoisyContenderStopsBySeconds) {
  FakeDevice device;
  Generator generator(1);
  Fake noisy{.id = 0, .ms = [&](std::int64_t) { return 10.0 + static_cast<double>(generator.below(20)); }};
  const std::vector<Samples> all = measure({contestant(device, noisy, 10)}, rule(), 1);
  EXPECT_EQ(all[0].stop, "seconds");
  double total = 0;
  for (const double ms : all[0].ms) total += ms;
  EXPECT_GE(total, 2000);
  EXPECT_LT(total, 2030);
}

TEST(Sampling, AsManySamplesAsAskedFor) {
  for (const int samples : {1, 3, 25}) {
    FakeDevice device;
    Generator generator(1);
    Fake steady{.id = 0, .ms = [](std::int64_t) { return 10.0; }};
    Fake slow{.id = 1, .ms = [&](std::int64_t) { return 900.0 + static_cast<double>(generator.below(900)); }};
    SamplingRule exact = rule();
    exact.exactly = samples;
    const std::vector<Samples> all =
        measure({contestant(device, steady, 10), contestant(device, slow, 900)}, exact, 1);
    for (const Samples& one : all) {
      EXPECT_EQ(one.ms.size(), static_cast<std::size_t>(samples));
      EXPECT_EQ(one.stop, "samples");
      EXPECT_TRUE(one.enough);
    }
  }
}

TEST(Sampling, ShortCallsAreRepeatedWithinASample) {
  FakeDevice device;
  Fake quick{.id = 0, .ms = [](std::int64_t) { return 0.001; }};
  const std::vector<Samples> all = measure({contestant(device, quick, 0.5)}, rule(), 1);
  EXPECT_GE(all[0].repeats, 50);
  EXPECT_LE(all[0].repeats, 51);
  EXPECT_NEAR(all[0].ms.front(), 0.001, 1e-9);  // of one call
}

TEST(Sampling, ColdSamplesAreOneCallEachBehindAFlush) {
  FakeDevice device;
  Fake quick{.id = 0, .ms = [](std::int64_t) { return 0.001; }}, other{.id = 1, .ms = quick.ms};
  SamplingRule r = rule();
  r.flush = [&] { return device.flush_cache(nullptr); };
  const std::vector<Samples> all =
      measure({contestant(device, quick, 0.5), contestant(device, other, 0.5)}, r, 1);
  std::size_t calls = 0;
  for (const Samples& samples : all) {
    EXPECT_EQ(samples.repeats, 1);
    EXPECT_EQ(samples.ms.size(), 10U);
    calls += samples.ms.size() + static_cast<std::size_t>(samples.warmups);
  }
  EXPECT_EQ(static_cast<std::size_t>(quick.calls + other.calls), calls);
  // From the first flush on, calls and flushes take turns.
  const auto first = std::find(device.order.begin(), device.order.end(), FakeDevice::kFlush);
  ASSERT_EQ(device.order.end() - first, 40);
  for (auto at = first; at != device.order.end(); at += 2) {
    EXPECT_EQ(*at, FakeDevice::kFlush);
    EXPECT_NE(*(at + 1), FakeDevice::kFlush);
  }
}

TEST(Sampling, ShortSamplesAreCoarse) {
  EXPECT_TRUE(is_coarse(0.0019, 1, 20));  // 1.9 us of 20 ns
  EXPECT_FALSE(is_coarse(0.0021, 1, 20));
  EXPECT_FALSE(is_coarse(0.0019, 2, 20));  // a sample of two calls
}

TEST(Sampling, HotSamplesHaveNoFlush) {
  FakeDevice device;
  Fake steady{.id = 0, .ms = [](std::int64_t) { return 1.0; }};
  measure({contestant(device, steady, 1)}, rule(), 1);
  EXPECT_EQ(std::count(device.order.begin(), device.order.end(), FakeDevice::kFlush), 0);
}

TEST(Sampling, AFlushThatFailsEndsTheContestant) {
  FakeDevice device;
  device.flush = Status::out_of_memory("no buffer");
  Fake steady{.id = 0, .ms = [](std::int64_t) { return 1.0; }};
  SamplingRule r = rule();
  r.flush = [&] { return device.flush_cache(nullptr); };
  const std::vector<Samples> all = measure({contestant(device, steady, 1)}, r, 1);
  EXPECT_EQ(all[0].status.message(), "no buffer");
  EXPECT_TRUE(all[0].ms.empty());
}

// Whoever runs, writes; whoever is asked must find what he wrote himself.
TEST(Sampling, EachIsCheckedRightBehindItsOwnCalls) {
  FakeDevice device;
  Generator generator(2);
  Fake steady{.id = 0, .ms = [](std::int64_t) { return 1.0; }};
  Fake noisy{.id = 1, .ms = [&](std::int64_t) { return 10.0 + static_cast<double>(generator.below(20)); }};
  Fake slow{.id = 2, .ms = [](std::int64_t) { return 900.0; }};
  std::vector<Contestant> contestants{contestant(device, steady, 1), contestant(device, noisy, 20),
                                      contestant(device, slow, 900)};
  std::vector<int> begun, checks(3, 0);
  for (int id = 0; id < 3; ++id) {
    Contestant& one = contestants[static_cast<std::size_t>(id)];
    one.before = [&begun, id] {
      begun.push_back(id);
      return Status();
    };
    one.check = [&, id] {
      EXPECT_EQ(device.order.back(), id);
      ++checks[static_cast<std::size_t>(id)];
      return Status();
    };
  }
  const std::vector<Samples> all = measure(contestants, rule(), 1);
  EXPECT_EQ(begun, (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(checks, (std::vector<int>{2, 2, 1}));  // the slow one has no warm-up
  EXPECT_EQ(all[0].stop, "interval");
  EXPECT_EQ(all[1].stop, "seconds");
  // The call that is checked at the end is no sample of the settled.
  EXPECT_EQ(static_cast<std::size_t>(steady.calls),
            all[0].ms.size() + static_cast<std::size_t>(all[0].warmups) + 1);
}

TEST(Sampling, WhoFailsItsCheckIsOut) {
  FakeDevice device;
  Fake first{.id = 0, .ms = [](std::int64_t) { return 10.0; }}, second{.id = 1, .ms = first.ms};
  std::vector<Contestant> contestants{contestant(device, first, 10), contestant(device, second, 10)};
  int asked = 0;
  contestants[0].check = [] { return Status::internal("changed while warming up"); };
  contestants[1].check = [&] { return ++asked == 1 ? Status() : Status::internal("changed at the end"); };
  const std::vector<Samples> all = measure(contestants, rule(), 1);
  EXPECT_EQ(all[0].status.message(), "changed while warming up");
  EXPECT_TRUE(all[0].ms.empty());
  EXPECT_EQ(all[1].status.message(), "changed at the end");
  EXPECT_EQ(all[1].ms.size(), 10U);
  EXPECT_FALSE(all[1].enough);  // it may not be a baseline
}

TEST(Sampling, AStallWhileWarmingUpDoesNotShortenSamples) {
  FakeDevice device;
  Fake stalled{.id = 0, .ms = [](std::int64_t n) { return n > 2 && n < 500 ? 0.2 : 0.001; }};
  EXPECT_GE(measure({contestant(device, stalled, 0.001)}, rule(), 1)[0].repeats, 50);
}

TEST(Sampling, RoundsAreInterleavedInRandomOrder) {
  FakeDevice device;
  std::vector<Fake> fakes(3);
  std::vector<Contestant> contestants;
  for (int i = 0; i < 3; ++i) {
    fakes[static_cast<std::size_t>(i)] = {.id = i, .ms = [](std::int64_t) { return 300.0; }};
    contestants.push_back(contestant(device, fakes[static_cast<std::size_t>(i)], 300));
  }
  SamplingRule r = rule();
  r.seconds = 3;
  measure(contestants, r, 4);
  ASSERT_EQ(device.order.size() % 3, 0U);
  std::set<std::vector<int>> orders;
  for (std::size_t at = 0; at < device.order.size(); at += 3) {
    const std::vector<int> round(device.order.begin() + static_cast<std::ptrdiff_t>(at),
                                 device.order.begin() + static_cast<std::ptrdiff_t>(at) + 3);
    EXPECT_EQ(std::set<int>(round.begin(), round.end()).size(), 3U);  // each once a round
    orders.insert(round);
  }
  EXPECT_GT(orders.size(), 1U);
}

TEST(Sampling, TheSettledGoOnWhileOthersAreNot) {
  FakeDevice device;
  Generator generator(2);
  Fake steady{.id = 0, .ms = [](std::int64_t) { return 1.0; }};
  Fake noisy{.id = 1, .ms = [&](std::int64_t) { return 10.0 + static_cast<double>(generator.below(20)); }};
  const std::vector<Samples> all =
      measure({contestant(device, steady, 1), contestant(device, noisy, 20)}, rule(), 1);
  EXPECT_EQ(all[1].stop, "seconds");
  EXPECT_GE(all[0].ms.size(), all[1].ms.size());
  EXPECT_EQ(all[0].stop, "interval");
}

TEST(Sampling, AFailingCallEndsOneContenderAlone) {
  FakeDevice device;
  Fake good{.id = 0, .ms = [](std::int64_t) { return 300.0; }};
  Fake bad{.id = 1,
           .ms = [](std::int64_t) { return 300.0; },
           .fail_with = Status::internal("broke"),
           .fail_at = 1};
  const std::vector<Samples> all =
      measure({contestant(device, good, 300), contestant(device, bad, 300)}, rule(), 1);
  EXPECT_TRUE(all[0].status.ok());
  EXPECT_TRUE(all[0].enough);
  EXPECT_EQ(all[1].status.message(), "broke");
  EXPECT_EQ(all[1].ms.size(), 1U);
}

TEST(Sampling, DeadlineAndInterruption) {
  FakeDevice device;
  Generator generator(3);
  const auto noise = [&](std::int64_t) { return 250.0 + static_cast<double>(generator.below(200)); };
  Fake late{.id = 0, .ms = noise}, stopped{.id = 1, .ms = noise};
  SamplingRule r = rule();
  r.out_of_time = [] { return true; };
  const Samples first = measure({contestant(device, late, 300)}, r, 1)[0];
  EXPECT_EQ(first.stop, "max_seconds");
  EXPECT_FALSE(first.enough);
  SamplingRule interrupted = rule();
  interrupted.interrupted = [] { return true; };
  const Samples second = measure({contestant(device, stopped, 300)}, interrupted, 1)[0];
  EXPECT_EQ(second.stop, "interrupted");
  EXPECT_EQ(second.ms.size(), 3U);
}

}  // namespace
}  // namespace headwise::lab
