// What this processor, operating system and process permission allow, found once at run time.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace headwise::core {

struct CpuFeatures {
  std::string brand;    // "AMD EPYC 9B45", as the processor says
  bool avx2 = false;    // AVX2, FMA and F16C, with the operating system saving ymm
  bool avx512 = false;  // F, BW, DQ, VL, CD, with the operating system saving zmm
  bool avx512_bf16 = false;
  bool avx512_fp16 = false;
  bool avx512_vnni = false;
  bool amx_bf16 = false;  // tiles too, and the kernel granted their state to this process
  bool amx_int8 = false;
  std::size_t l1d_bytes = 0, l2_bytes = 0, l3_bytes = 0;
  int family = 0, model = 0;
};

// Lowered by HEADWISE_MAX_ISA=scalar|avx2|avx512|amx, which is read once.
const CpuFeatures& cpu_features();
// The features that remain under a limit. Any other word means scalar: a typing error costs speed
// at once, where ignoring it would let a test of a lower instruction set run on the highest.
CpuFeatures limit_isa(CpuFeatures features, std::string_view max_isa);
// "amx", "avx512", "avx2" or "scalar".
std::string_view best_isa(const CpuFeatures& features);
// By the names above, and "scalar" (always) and "amx" (either kind).
bool has_feature(const CpuFeatures& features, std::string_view name);
std::vector<std::string_view> feature_names(const CpuFeatures& features);  // those present

}  // namespace headwise::core
