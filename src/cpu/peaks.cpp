#include "cpu/peaks.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "core/cpu_features.h"
#include "core/parallel_for.h"

namespace headwise::cpu {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Enough for a 95 % interval of the median that leaves the extremes out; fewer where other programs take the
// time.
constexpr int kSamples = 9;
constexpr int kLeastSamples = 6;  // for an interval at all
// Tasks a thread in a sample: who is held up by another program hands its share to the others.
constexpr int kTasks = 4;
constexpr std::size_t kLargestSet = std::size_t{1} << 30;

// Processors that share the last-level cache of processor 0; 1 where the system does not tell.
int cache_sharers() {
  std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index3/shared_cpu_map");
  int count = 0;
  for (char c = 0; file.get(c);) {  // hexadecimal digits, 32 processors between commas
    const std::size_t digit = std::string_view("0123456789abcdef").find(c);
    for (std::size_t bits = digit == std::string_view::npos ? 0 : digit; bits != 0; bits >>= 1)
      count += static_cast<int>(bits & 1U);
  }
  return std::max(1, count);
}

struct Probe {
  PeakSamples result;
  const ArithmeticLoop* arithmetic = nullptr;
  const ReadingLoop* reading = nullptr;
  std::int64_t units = 1;  // of a task: rounds, or blocks of kReadBlock
};

// What the tasks of one sample share.
struct Pass {
  const Probe& probe;
  const std::byte* memory;  // one slice of set_bytes a worker
  std::int64_t* places;     // a worker's next block within its slice
  std::int64_t units;
};

void arithmetic_task(void* context, std::int64_t /*index*/, int /*worker*/) {
  const auto& pass = *static_cast<const Pass*>(context);
  pass.probe.arithmetic->run(pass.units);
}

// Goes on where the worker's last task ended, and round and round.
void reading_task(void* context, std::int64_t /*index*/, int worker) {
  const auto& pass = *static_cast<const Pass*>(context);
  const auto blocks = static_cast<std::int64_t>(pass.probe.result.set_bytes) / kReadBlock;
  const std::byte* const slice = pass.memory + static_cast<std::size_t>(worker) * pass.probe.result.set_bytes;
  std::int64_t& place = pass.places[static_cast<std::ptrdiff_t>(worker) * 8];  // a cache line each
  for (std::int64_t left = pass.units; left > 0;) {
    const std::int64_t now = std::min(left, blocks - place);
    pass.probe.reading->run(slice + place * kReadBlock, now * kReadBlock);
    place = (place + now) % blocks;
    left -= now;
  }
}

struct Fill {
  std::byte* memory;
  std::size_t bytes;
  static constexpr std::size_t kSlice = std::size_t{1} << 20;
};

// Pages are there before they are timed, and hold something.
void fill_task(void* context, std::int64_t index, int /*worker*/) {
  const auto& fill = *static_cast<const Fill*>(context);
  const std::size_t begin = static_cast<std::size_t>(index) * Fill::kSlice;
  std::memset(fill.memory + begin, 0x3f, std::min(Fill::kSlice, fill.bytes - begin));
}

struct Level {
  std::string name;
  std::size_t set_bytes;  // of each thread
};

// Half of an L1 or L2, so that what else is in it does not matter. An L3 by four times the L2, which hardly
// any of comes from there, and no more than half of the thread's share: where a machine is let to several,
// its L3 is too, and the rest of what the system reports may not be ours. Where not even two L2s fit into the
// share, L3 could not be told from L2 and is left out. Memory by a set that is four times the last cache, and
// 1 GiB or a quarter of what is free at most.
std::vector<Level> levels_of(const core::CpuFeatures& features, int threads, int sharers,
                             std::size_t available) {
  std::vector<Level> levels;
  if (features.l1d_bytes != 0) levels.push_back({"L1", features.l1d_bytes / 2});
  if (features.l2_bytes != 0) levels.push_back({"L2", features.l2_bytes / 2});
  const auto sharing = static_cast<std::size_t>(std::min(threads, sharers));
  const std::size_t share = features.l3_bytes / 2 / sharing;
  const std::size_t below = std::max(features.l1d_bytes, features.l2_bytes);
  if (share > 0 && share >= 2 * below)
    levels.push_back({"L3", below == 0 ? share : std::min(share, 4 * below)});
  const std::size_t cache = std::max(below, features.l3_bytes);
  const std::size_t groups = (static_cast<std::size_t>(threads) + sharing - 1) / sharing;
  const std::size_t most = std::min(kLargestSet, available / 4);
  const std::size_t set = std::min(most, std::max(4 * cache * groups, std::size_t{64} << 20));
  levels.push_back({"memory", set / static_cast<std::size_t>(threads)});
  for (Level& level : levels) level.set_bytes -= level.set_bytes % kReadBlock;
  std::erase_if(levels, [](const Level& level) { return level.set_bytes == 0; });
  return levels;
}

class PeakRun {
 public:
  PeakRun(Device& device, const std::vector<int>& threads) : device_(device) {
    static constexpr std::array kArithmetic = {&kScalarPeakF32, &kAvx2PeakF32, &kAvx512PeakF32,
                                               &kAmxPeakBf16};
    static constexpr std::array kReading = {&kAvx512Read, &kAvx2Read, &kScalarRead};
    const ReadingLoop* const widest =
        *std::find_if(kReading.begin(), kReading.end(), [&](auto* loop) { return device.has(loop->isa); });
    const int sharers = cache_sharers();
    const std::size_t available = device.memory().available;
    for (const int count : threads) {
      for (const ArithmeticLoop* loop : kArithmetic) {
        if (device.has(loop->feature)) add_arithmetic(*loop, count);
      }
      for (const Level& level : levels_of(core::cpu_features(), count, sharers, available))
        add_reading(*widest, level, count);
    }
  }
  PeakRun(const PeakRun&) = delete;
  PeakRun& operator=(const PeakRun&) = delete;
  ~PeakRun() { device_.deallocate(memory_); }

  Status run(double seconds) {
    const Clock::time_point start = Clock::now();
    if (Status status = allocate(); !status.ok()) return status;
    // A fifth of the time is for the untimed passes.
    const double samples = kSamples * static_cast<double>(probes_.size());
    const double left = 0.8 * (seconds - seconds_since(start));
    const double aim = std::clamp(left / samples, 0.0005, 0.02);
    // Numbers of threads one after the other: the threads of a larger one spin for a while when it is done,
    // and would take their share of the processors from the first sample after it, in each round.
    for (auto begin = probes_.begin(); begin != probes_.end();) {
      const int threads = begin->result.threads;
      const auto end = std::find_if(begin, probes_.end(),
                                    [&](const Probe& probe) { return probe.result.threads != threads; });
      const double share = static_cast<double>(end - begin) / static_cast<double>(probes_.size());
      sample({begin, end}, aim, share * seconds);
      begin = end;
    }
    return {};
  }

  std::vector<PeakSamples> results() {
    std::vector<PeakSamples> all;
    all.reserve(probes_.size());
    for (Probe& probe : probes_) all.push_back(std::move(probe.result));
    return all;
  }

 private:
  // Interleaved, so that a disturbance costs each a sample and none its median.
  void sample(std::span<Probe> probes, double aim, double seconds) {
    const Clock::time_point start = Clock::now();
    for (Probe& probe : probes) calibrate(probe, aim);
    for (int round = 0; round < kSamples; ++round) {
      if (round >= kLeastSamples && seconds_since(start) > seconds) break;
      for (Probe& probe : probes) {
        warm(probe);
        probe.result.per_second.push_back(amount_of(probe) / timed(probe));
      }
    }
  }

  void add_arithmetic(const ArithmeticLoop& loop, int threads) {
    probes_.push_back({.result = {.what = "flops",
                                  .name = std::string(loop.isa) + " " + std::string(loop.dtype),
                                  .isa = std::string(loop.isa),
                                  .dtype = std::string(loop.dtype),
                                  .threads = threads,
                                  .set_bytes = 0,
                                  .per_second = {}},
                       .arithmetic = &loop});
  }
  void add_reading(const ReadingLoop& loop, const Level& level, int threads) {
    probes_.push_back({.result = {.what = "bytes",
                                  .name = level.name,
                                  .isa = std::string(loop.isa),
                                  .dtype = "",
                                  .threads = threads,
                                  .set_bytes = level.set_bytes,
                                  .per_second = {}},
                       .reading = &loop});
  }

  Status allocate() {
    std::size_t bytes = 0;
    int workers = 1;
    for (const Probe& probe : probes_) {
      bytes = std::max(bytes, probe.result.set_bytes * static_cast<std::size_t>(probe.result.threads));
      workers = std::max(workers, probe.result.threads);
    }
    places_.assign(static_cast<std::size_t>(workers) * 8, 0);
    Result<void*> data = device_.allocate(bytes);
    if (!data) return data.status();
    memory_ = static_cast<std::byte*>(*data);
    Fill fill{memory_, bytes};
    core::parallel_for(static_cast<std::int64_t>((bytes + Fill::kSlice - 1) / Fill::kSlice), workers,
                       fill_task, &fill);
    return {};
  }

  static double amount_of(const Probe& probe) {
    const double tasks = static_cast<double>(probe.result.threads) * kTasks;
    const double unit = probe.arithmetic != nullptr ? probe.arithmetic->flops : kReadBlock;
    return tasks * unit * static_cast<double>(probe.units);
  }

  void pass(const Probe& probe, int tasks, std::int64_t units) {
    Pass one{probe, memory_, places_.data(), units};
    core::parallel_for(tasks, probe.result.threads,
                       probe.arithmetic != nullptr ? arithmetic_task : reading_task, &one);
  }
  double timed(const Probe& probe) {
    const Clock::time_point start = Clock::now();
    pass(probe, probe.result.threads * kTasks, probe.units);
    return std::max(seconds_since(start), 1e-9);
  }
  // Brings each worker's slice back into its cache, or a bit of arithmetic; memory needs none.
  void warm(const Probe& probe) {
    std::fill(places_.begin(), places_.end(), 0);
    if (probe.result.name == "memory") return;
    const auto blocks = static_cast<std::int64_t>(probe.result.set_bytes) / kReadBlock;
    pass(probe, probe.result.threads, probe.arithmetic != nullptr ? probe.units / 8 : 2 * blocks);
  }

  // Units that one thread on its own does in `aim` seconds: doubled until it takes long enough to tell, then
  // scaled. Other programs only ever make a timing longer, so the shortest of three counts.
  std::int64_t alone(const Probe& probe, double aim) {
    constexpr double kTelling = 0.0005;
    const auto taken = [&](std::int64_t units) {
      double best = std::numeric_limits<double>::infinity();
      for (int attempt = 0; attempt < 3; ++attempt) {
        const Clock::time_point start = Clock::now();
        Pass one{probe, memory_, places_.data(), units};
        (probe.arithmetic != nullptr ? arithmetic_task : reading_task)(&one, 0, 0);
        best = std::min(best, seconds_since(start));
      }
      return std::max(best, 1e-9);
    };
    std::int64_t units = 1;
    while (taken(units) < std::min(aim, kTelling)) units *= 2;
    return std::max<std::int64_t>(1,
                                  static_cast<std::int64_t>(static_cast<double>(units) * aim / taken(units)));
  }

  // Threads slow each other down where they share something, at most to a thread's worth of work altogether:
  // a timing that says more is a disturbance.
  void calibrate(Probe& probe, double aim) {
    probe.units = std::max<std::int64_t>(1, alone(probe, aim) / kTasks);
    if (probe.result.threads == 1) return;
    warm(probe);
    const double taken = std::max(aim, std::min(timed(probe), timed(probe)));
    const double scale = std::max(aim / taken, 1.0 / probe.result.threads);
    probe.units =
        std::max<std::int64_t>(1, static_cast<std::int64_t>(static_cast<double>(probe.units) * scale));
  }

  Device& device_;
  std::vector<Probe> probes_;
  std::vector<std::int64_t> places_;
  std::byte* memory_ = nullptr;
};

}  // namespace

Result<std::vector<PeakSamples>> measure_peaks(Device& device, const std::vector<int>& threads,
                                               double seconds) {
  for (const int count : threads) {
    if (count < 1) {
      return Status::invalid_argument("measure_peaks: threads: expected at least 1, got " +
                                      std::to_string(count));
    }
  }
  if (!(seconds > 0)) {
    return Status::invalid_argument("measure_peaks: seconds: expected more than 0, got " +
                                    std::to_string(seconds));
  }
  if (threads.empty()) return std::vector<PeakSamples>{};
  PeakRun run(device, threads);
  if (Status status = run.run(seconds); !status.ok()) return status;
  return run.results();
}

}  // namespace headwise::cpu
