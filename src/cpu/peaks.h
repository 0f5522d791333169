// What a processor can do at most: loops that only multiply and add, and loops that only read. Each
// instruction set's are in its folder's peaks.cpp.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "headwise/device.h"

namespace headwise::cpu {

struct ArithmeticLoop {
  std::string_view isa;      // "avx512"
  std::string_view feature;  // what Device::has must say yes to: "amx_bf16"
  std::string_view dtype;    // of the factors
  double flops = 0;          // of one round
  void (*run)(std::int64_t rounds) = nullptr;
};

struct ReadingLoop {
  std::string_view isa;
  // `bytes` is a multiple of kReadBlock.
  void (*run)(const void* data, std::int64_t bytes) = nullptr;
};
inline constexpr std::int64_t kReadBlock = 1024;

extern const ArithmeticLoop kScalarPeakF32, kAvx2PeakF32, kAvx512PeakF32, kAmxPeakBf16;
extern const ReadingLoop kScalarRead, kAvx2Read, kAvx512Read;

// Device::measure_peaks of the CPU.
Result<std::vector<PeakSamples>> measure_peaks(Device& device, const std::vector<int>& threads,
                                               double seconds);

}  // namespace headwise::cpu
