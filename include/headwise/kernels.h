// What is known of each kernel: the registry, read only.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "headwise/attention.h"

namespace [[gnu::visibility("default")]] headwise {

// Promises of a kernel that its users, the laboratory and the tests may rely on.
struct Traits {
  Direction direction = Direction::forward;
  std::string_view algorithm;  // "naive", "unfused", "flash", "memeff"; "naive_backward"
  std::string_view isa;        // what the device must have: "scalar", "avx512", "sm90"
  DType dtype = DType::f32;    // of q and out
  DType kv_dtype = DType::f32;
  DType accumulation = DType::f32;
  bool exact = true;           // false: approximates attention by design, and is checked as such
  bool nan_isolating = false;  // a non-finite V reaches no row that may not see it, even inside a tile
  std::int64_t kv_chunk = 0;   // KV is cut at multiples of this many keys; 0: never cut
};

// Parts of attention (see AttentionOptions) that a kernel may have or not. All have MHA, GQA and MQA, causal
// masks with both alignments, any strides, LSE and head_dims up to 576. `lengths` is lengths_kv and
// starts_kv; of a backward kernel, `bias` and `sinks` are dbias and dsinks too.
struct FeatureSet {
  bool window = false, softcap = false, alibi = false, sinks = false, bias = false, mask = false;
  bool dropout = false, varlen = false, lengths = false, paged = false;
};

struct KernelInfo {
  std::string_view id;  // its path: "cpu/avx512/flash/f32" is src/cpu/avx512/flash/f32.cpp
  DeviceKind device = DeviceKind::cpu;
  Traits traits;
  FeatureSet features;
};

// All kernels of this build, by backend, best first.
std::vector<KernelInfo> kernels();

// Why each backend that this build lacks is absent; empty where all are there.
struct AbsentBackend {
  std::string_view name;
  std::string_view reason;
};
std::vector<AbsentBackend> absent_backends();

std::string_view version();  // "0.1.0"

}  // namespace headwise
