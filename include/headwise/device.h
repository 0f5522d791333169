// Where tensors live and kernels run, and what the laboratory may ask of such a place: memory,
// time, caches, clocks. One implementation a backend; nothing above the backends knows which.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "headwise/status.h"

namespace [[gnu::visibility("default")]] headwise {

enum class DeviceKind : std::uint8_t { cpu, cuda };

struct DeviceId {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  friend bool operator==(const DeviceId&, const DeviceId&) = default;
};

// "cpu", "cuda:0". parse_device also takes "cuda" (index 0).
std::string to_string(DeviceId id);
Result<DeviceId> parse_device(std::string_view text);

// Bytes handed out by Device::allocate, and what the operating system or driver saw. A field that
// cannot be measured is 0 and its help text in the row table says so.
struct MemoryUse {
  std::size_t total = 0;           // installed (or granted to this process' container)
  std::size_t available = 0;       // that could be allocated now without swapping
  std::size_t allocated = 0;       // through allocate(), now
  std::size_t peak_allocated = 0;  // since reset_peak()
  std::size_t resident = 0;        // of this process, now
  std::size_t peak_resident = 0;   // since reset_peak(); 0 before it, or where the system does not reset it
};

struct ClockReading {
  double mhz = 0;          // measured or reported; 0: unknown
  double temperature = 0;  // Celsius; 0: unknown
  double power = 0;        // watts; 0: unknown
  bool throttled = false;
};

// Work to be timed: called `repeats` times back to back.
struct TimedWork {
  Status (*call)(void* context, void* stream) = nullptr;
  void* context = nullptr;
};

// How fast a device does one thing in a loop that does nothing else.
struct PeakSamples {
  std::string what;  // "flops" or "bytes" (read)
  std::string name;  // "avx512 f32"; "L1", "L2", "L3", "memory"
  std::string isa;
  std::string dtype;  // of the factors of a product; "" for bytes
  int threads = 1;
  std::size_t set_bytes = 0;       // bytes: what each thread reads over and over
  std::vector<double> per_second;  // FLOP or bytes of all threads together, a sample each
};

class Device {
 public:
  virtual ~Device() = default;
  [[nodiscard]] virtual DeviceId id() const = 0;
  [[nodiscard]] virtual std::string description() const = 0;  // the processor's own name
  // The highest instruction-set family in use: "scalar", "avx2", "avx512", "amx"; "sm80", "sm90".
  // HEADWISE_MAX_ISA lowers it.
  [[nodiscard]] virtual std::string_view isa() const = 0;
  // Whether a named feature may be used: "avx512", "avx512_bf16", "amx_bf16", "sm90". Obeys
  // HEADWISE_MAX_ISA.
  [[nodiscard]] virtual bool has(std::string_view feature) const = 0;
  [[nodiscard]] virtual int max_threads() const = 0;  // this process may use; 1 on a GPU
  [[nodiscard]] virtual std::size_t last_level_cache_bytes() const = 0;

  // Uninitialised, 64-byte aligned (256 on a GPU). Large blocks come straight from the operating
  // system and go back there, so that resident-memory readings are true.
  virtual Result<void*> allocate(std::size_t bytes) = 0;
  virtual void deallocate(void* data) noexcept = 0;
  virtual Status copy_from_host(void* target, const void* source, std::size_t bytes) = 0;
  virtual Status copy_to_host(void* target, const void* source, std::size_t bytes) = 0;
  virtual MemoryUse memory() = 0;
  virtual void reset_peak() = 0;

  virtual Status synchronize(void* stream) = 0;
  // How time_ms measures: "steady_clock", "events". Only equal timers are compared.
  [[nodiscard]] virtual std::string_view timer() const = 0;
  // Milliseconds of `repeats` calls in a row, all included.
  virtual Result<double> time_ms(const TimedWork& work, int repeats, void* stream) = 0;
  // Evicts caches by streaming through a buffer of twice the last-level cache.
  virtual Status flush_cache(void* stream) = 0;
  virtual ClockReading clocks() = 0;
  // The ceilings that kernels of this device work under: arithmetic of each kind they use and reading from
  // each level of memory, for each of the given numbers of threads, in about `seconds` altogether. Obeys
  // HEADWISE_MAX_ISA.
  virtual Result<std::vector<PeakSamples>> measure_peaks(const std::vector<int>& /*threads*/,
                                                         double /*seconds*/) {
    return Status::unsupported("peaks of " + to_string(id()) + " cannot be measured by this version");
  }
};

// The devices of this machine and build, the CPU first. device() fails with `unavailable` and the
// reason (built without CUDA, no driver, index out of range). The object lives as long as the program.
std::vector<DeviceId> devices();
Result<Device*> device(DeviceId id);

}  // namespace headwise
