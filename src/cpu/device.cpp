#include "cpu/device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <mutex>
#include <unordered_map>

#include "core/container.h"
#include "core/cpu_features.h"
#include "core/parallel_for.h"
#include "cpu/peaks.h"

namespace headwise::cpu {
namespace {

constexpr std::size_t kAlignment = 64;
// Blocks from here on are mapped afresh, so that they come without resident pages and leave none.
// Huge pages stay as the system has them: forcing them would change both speed and residency
// against what malloc gives others.
constexpr std::size_t kMappedFrom = std::size_t{64} << 10;
// Blocks from here on are first compared with the memory there is: Linux would grant more and kill later.
constexpr std::size_t kCheckedFrom = std::size_t{16} << 20;
constexpr std::size_t kLargestFlush = std::size_t{512} << 20;
constexpr std::size_t kAssumedCache = std::size_t{32} << 20;  // where the system reports no cache

// Bytes of a "Name:  123 kB" line; 0 when there is none.
std::size_t read_kilobytes(const char* path, std::string_view name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(name)) continue;
    return std::strtoull(line.c_str() + name.size(), nullptr, 10) << 10;
  }
  return 0;
}

// Installed and free memory of this machine or container, the smaller of both.
MemoryUse machine_memory() {
  MemoryUse use;
  use.total = read_kilobytes("/proc/meminfo", "MemTotal:");
  use.available = read_kilobytes("/proc/meminfo", "MemAvailable:");
  const core::ContainerMemory container = core::container_memory();
  if (container.limit != 0) {
    use.total = std::min<std::size_t>(use.total, container.limit);
    use.available = std::min<std::size_t>(use.available, container.available);
  }
  return use;
}

std::size_t page_rounded(std::size_t bytes) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

void* map_pages(std::size_t bytes) {
  void* const data =
      mmap(nullptr, page_rounded(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return data == MAP_FAILED ? nullptr : data;
}

Status out_of_memory(std::size_t bytes, const char* why) {
  return Status::out_of_memory("cpu: " + std::to_string(bytes) + " bytes could not be allocated: " + why);
}

// Cache lines read and written, so that both clean and modified old lines leave.
struct FlushBuffer {
  std::uint64_t* words = nullptr;
  std::size_t bytes = 0;
};
constexpr std::size_t kFlushSlice = std::size_t{1} << 20;

void flush_slice(void* context, std::int64_t index, int /*worker*/) {
  const auto& buffer = *static_cast<const FlushBuffer*>(context);
  constexpr std::size_t kLine = 64 / sizeof(std::uint64_t);
  constexpr std::size_t kWords = kFlushSlice / sizeof(std::uint64_t);
  const std::size_t begin = static_cast<std::size_t>(index) * kWords;
  const std::size_t end = std::min(begin + kWords, buffer.bytes / sizeof(std::uint64_t));
  // A store that nothing reads later could be dropped; a volatile one may not.
  volatile std::uint64_t* const words = buffer.words;
  for (std::size_t i = begin; i < end; i += kLine) words[i] = words[i] + 1;
}

#if defined(__x86_64__)
// Megahertz from a chain of 64-bit multiplies, each waiting for the one before: 3 cycles apiece
// on every x86-64 processor since 2008 (Nehalem) and 2017 (Zen). The shortest of three runs of
// about 50 us, since an interruption only ever makes one longer.
double measure_megahertz() {
  constexpr int kRounds = 6400;
  constexpr int kMultiplies = 8;
  constexpr double kCycles = 3.0 * kRounds * kMultiplies;
  double best = std::numeric_limits<double>::infinity();
  for (int attempt = 0; attempt < 3; ++attempt) {
    std::uint64_t value = 3;
    const auto begin = std::chrono::steady_clock::now();
    for (int round = 0; round < kRounds; ++round) {
      __asm__ volatile(
          "imulq %0, %0\n\timulq %0, %0\n\timulq %0, %0\n\timulq %0, %0\n\t"
          "imulq %0, %0\n\timulq %0, %0\n\timulq %0, %0\n\timulq %0, %0"
          : "+r"(value)
          :
          : "cc");
    }
    const std::chrono::duration<double, std::micro> elapsed = std::chrono::steady_clock::now() - begin;
    best = std::min(best, elapsed.count());
  }
  return best > 0 ? kCycles / best : 0;
}
#else
double measure_megahertz() { return 0; }
#endif

class CpuDevice final : public Device {
 public:
  [[nodiscard]] DeviceId id() const override { return {}; }
  [[nodiscard]] std::string description() const override { return core::cpu_features().brand; }
  [[nodiscard]] std::string_view isa() const override { return core::best_isa(core::cpu_features()); }
  [[nodiscard]] bool has(std::string_view feature) const override {
    return core::has_feature(core::cpu_features(), feature);
  }
  [[nodiscard]] int max_threads() const override { return core::available_threads(); }
  [[nodiscard]] std::size_t last_level_cache_bytes() const override {
    const core::CpuFeatures& features = core::cpu_features();
    return std::max({features.l1d_bytes, features.l2_bytes, features.l3_bytes});
  }

  Result<void*> allocate(std::size_t bytes) override;
  void deallocate(void* data) noexcept override;
  Status copy_from_host(void* target, const void* source, std::size_t bytes) override {
    return copy(target, source, bytes);
  }
  Status copy_to_host(void* target, const void* source, std::size_t bytes) override {
    return copy(target, source, bytes);
  }
  MemoryUse memory() override;
  void reset_peak() override;

  Status synchronize(void* /*stream*/) override { return {}; }  // a call returns when it is done
  [[nodiscard]] std::string_view timer() const override { return "steady_clock"; }
  Result<double> time_ms(const TimedWork& work, int repeats, void* stream) override;
  Status flush_cache(void* stream) override;
  ClockReading clocks() override { return {.mhz = measure_megahertz()}; }
  Result<std::vector<PeakSamples>> measure_peaks(const std::vector<int>& threads, double seconds) override {
    return cpu::measure_peaks(*this, threads, seconds);
  }

 private:
  static Status copy(void* target, const void* source, std::size_t bytes) {
    if (bytes == 0) return {};
    if (target == nullptr || source == nullptr) {
      return Status::invalid_argument(std::string("copy: the ") + (target == nullptr ? "target" : "source") +
                                      " of " + std::to_string(bytes) + " bytes is null");
    }
    std::memmove(target, source, bytes);
    return {};
  }

  std::mutex mutex_;  // of all below
  std::unordered_map<void*, std::size_t> blocks_;
  std::size_t allocated_ = 0;
  std::size_t peak_allocated_ = 0;
  bool peak_resident_known_ = false;
  FlushBuffer flush_;
};

Result<void*> CpuDevice::allocate(std::size_t bytes) {
  const std::size_t wanted = std::max(bytes, kAlignment);
  if (wanted > std::numeric_limits<std::size_t>::max() / 2)
    return out_of_memory(bytes, "more than an address can reach");
  if (wanted >= kCheckedFrom) {
    const std::size_t available = machine_memory().available;
    if (wanted > available) {
      return out_of_memory(bytes, ("only " + std::to_string(available) + " are available").c_str());
    }
  }
  const std::size_t rounded = (wanted + kAlignment - 1) / kAlignment * kAlignment;
  void* const data = wanted >= kMappedFrom ? map_pages(wanted) : std::aligned_alloc(kAlignment, rounded);
  if (data == nullptr) return out_of_memory(bytes, "the operating system refused");
  const std::lock_guard lock(mutex_);
  blocks_.emplace(data, wanted);
  allocated_ += wanted;
  peak_allocated_ = std::max(peak_allocated_, allocated_);
  return data;
}

void CpuDevice::deallocate(void* data) noexcept {
  if (data == nullptr) return;
  std::size_t bytes = 0;
  {
    const std::lock_guard lock(mutex_);
    const auto block = blocks_.find(data);
    if (block == blocks_.end()) return;  // not from allocate(), or given back already
    bytes = block->second;
    blocks_.erase(block);
    allocated_ -= bytes;
  }
  if (bytes >= kMappedFrom) {
    munmap(data, page_rounded(bytes));
  } else {
    std::free(data);  // NOLINT(cppcoreguidelines-no-malloc)
  }
}

MemoryUse CpuDevice::memory() {
  MemoryUse use = machine_memory();
  use.resident = read_kilobytes("/proc/self/status", "VmRSS:");
  use.peak_resident = std::max(use.resident, read_kilobytes("/proc/self/status", "VmHWM:"));
  const std::lock_guard lock(mutex_);
  use.allocated = allocated_;
  use.peak_allocated = peak_allocated_;
  if (!peak_resident_known_) use.peak_resident = 0;
  return use;
}

void CpuDevice::reset_peak() {
  // "5" sets VmHWM to VmRSS. Where that is not permitted, VmHWM is the peak since the process
  // started, which says nothing of what came after: then peak_resident is 0, not measured.
  std::ofstream file("/proc/self/clear_refs");
  file << "5\n" << std::flush;
  const std::lock_guard lock(mutex_);
  peak_resident_known_ = file.good();
  peak_allocated_ = allocated_;
}

Result<double> CpuDevice::time_ms(const TimedWork& work, int repeats, void* stream) {
  if (work.call == nullptr) return Status::invalid_argument("time_ms: work.call is null");
  if (repeats < 1) {
    return Status::invalid_argument("time_ms: repeats: expected at least 1, got " + std::to_string(repeats));
  }
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < repeats; ++i) {
    if (Status status = work.call(work.context, stream); !status.ok()) return status;
  }
  const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - begin;
  return elapsed.count();
}

Status CpuDevice::flush_cache(void* /*stream*/) {
  const std::lock_guard lock(mutex_);
  if (flush_.words == nullptr) {
    const std::size_t cache = last_level_cache_bytes();
    const std::size_t bytes = std::min(kLargestFlush, 2 * (cache == 0 ? kAssumedCache : cache));
    void* const data = map_pages(bytes);
    if (data == nullptr) return out_of_memory(bytes, "buffer to flush caches with");
    flush_ = {static_cast<std::uint64_t*>(data), bytes};
  }
  const auto slices = static_cast<std::int64_t>((flush_.bytes + kFlushSlice - 1) / kFlushSlice);
  core::parallel_for(slices, core::available_threads(), flush_slice, &flush_);
  return {};
}

}  // namespace

Device& cpu_device() {
  static CpuDevice& device = *new CpuDevice;  // never destroyed: callers may free memory at exit
  return device;
}

}  // namespace headwise::cpu
