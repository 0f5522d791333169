#include "attention/kernel.h"

#include <algorithm>
#include <array>

namespace headwise {
namespace {

struct FeatureCheck {
  std::string_view name;
  bool wanted;
  bool built;
};

struct IsaName {
  std::string_view isa;
  std::string_view feature;
  std::string_view name;
};
constexpr std::array kIsaNames = {
    IsaName{"scalar", "scalar", "nothing"},
    IsaName{"avx2", "avx2", "AVX2 with FMA and F16C"},
    IsaName{"avx512", "avx512", "AVX-512 (F, BW, DQ, VL)"},
    IsaName{"amx", "amx_bf16", "AMX-BF16 (and AVX-512)"},
};

std::string mismatch(std::string_view field, std::string_view wanted, std::string_view built) {
  return std::string(field) + " " + std::string(wanted) + ": this kernel is " + std::string(built);
}

}  // namespace

Support supports_features(const AttentionProblem& problem, const Traits& traits, const FeatureSet& features) {
  const AttentionProblem& p = problem;
  if (p.dtype != traits.dtype) return Support::no(mismatch("dtype", name(p.dtype), name(traits.dtype)));
  if (p.kv_dtype != traits.kv_dtype) {
    return Support::no(mismatch("kv_dtype", name(p.kv_dtype), name(traits.kv_dtype)));
  }
  if (p.direction != traits.direction) {
    return Support::no(mismatch("direction", name(p.direction), name(traits.direction)));
  }
  const std::array checks = {
      FeatureCheck{"window", p.window_left >= 0 || p.window_right >= 0, features.window},
      FeatureCheck{"softcap", p.softcap != 0, features.softcap},
      FeatureCheck{"alibi_slopes", p.alibi != AlibiKind::none, features.alibi},
      FeatureCheck{"sinks", p.sinks, features.sinks},
      FeatureCheck{"bias", p.bias, features.bias},
      FeatureCheck{"mask", p.mask != MaskKind::none, features.mask},
      FeatureCheck{"dropout_p", p.dropout_p != 0, features.dropout},
      FeatureCheck{"cu_seqlens", p.varlen, features.varlen},
      FeatureCheck{"lengths_kv", p.lengths, features.lengths},
      FeatureCheck{"starts_kv", p.starts, features.lengths},
      FeatureCheck{"block_table", p.page_size > 0, features.paged},
  };
  for (const FeatureCheck& check : checks) {
    if (check.wanted && !check.built) return Support::no(std::string(check.name) + ": this kernel has none");
  }
  return Support::yes();
}

Support supports(const Kernel& kernel, const AttentionProblem& problem, const Device& device) {
  if (Support made = supports_features(problem, kernel.traits, kernel.features); !made.ok()) return made;
  const auto* const isa = std::find_if(kIsaNames.begin(), kIsaNames.end(),
                                       [&](const IsaName& entry) { return entry.isa == kernel.traits.isa; });
  const bool known = isa != kIsaNames.end();
  if (device.has(known ? isa->feature : kernel.traits.isa)) return Support::yes();
  return Support::no("needs " + std::string(known ? isa->name : kernel.traits.isa) +
                     ", which this device does not offer");
}

}  // namespace headwise
