// The CPU backend's kernels.
#pragma once

#include <span>

#include "attention/kernel.h"

namespace headwise::cpu {

inline constexpr FeatureSet kEveryFeature{.window = true,
                                          .softcap = true,
                                          .alibi = true,
                                          .sinks = true,
                                          .bias = true,
                                          .mask = true,
                                          .dropout = true,
                                          .varlen = true,
                                          .lengths = true,
                                          .paged = true};

// Best first: plan() takes the first that supports a problem.
std::span<const Kernel* const> kernels();

extern const Kernel kAmxFlashF16;
extern const Kernel kAmxFlashBf16;
extern const Kernel kAvx512FlashF32;
extern const Kernel kAvx512FlashF16;
extern const Kernel kAvx512FlashBf16;
extern const Kernel kAvx512UnfusedF32;
extern const Kernel kAvx512UnfusedF16;
extern const Kernel kAvx512UnfusedBf16;
extern const Kernel kAvx512MemeffF32;
extern const Kernel kAvx2FlashF32;
extern const Kernel kAvx2FlashF16;
extern const Kernel kAvx2FlashBf16;
extern const Kernel kAvx2UnfusedF32;
extern const Kernel kAvx2UnfusedF16;
extern const Kernel kAvx2UnfusedBf16;
extern const Kernel kScalarNaiveF32;
extern const Kernel kScalarNaiveF16;
extern const Kernel kScalarNaiveBf16;
extern const Kernel kScalarNaiveBackwardF32;
extern const Kernel kScalarNaiveBackwardF16;
extern const Kernel kScalarNaiveBackwardBf16;

}  // namespace headwise::cpu
