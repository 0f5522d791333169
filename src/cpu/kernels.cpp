#include "cpu/kernels.h"

namespace headwise::cpu {

std::span<const Kernel* const> kernels() {
  static constexpr const Kernel* kBestFirst[] = {
      &kAmxFlashBf16,
      &kAmxFlashF16,
      &kAvx512FlashF32,
      &kAvx512FlashF16,
      &kAvx512FlashBf16,
      &kAvx512UnfusedF32,
      &kAvx512UnfusedF16,
      &kAvx512UnfusedBf16,
      &kAvx512MemeffF32,
      &kAvx2FlashF32,
      &kAvx2FlashF16,
      &kAvx2FlashBf16,
      &kAvx2UnfusedF32,
      &kAvx2UnfusedF16,
      &kAvx2UnfusedBf16,
      &kScalarNaiveF32,
      &kScalarNaiveF16,
      &kScalarNaiveBf16,
      &kScalarNaiveBackwardF32,
      &kScalarNaiveBackwardF16,
      &kScalarNaiveBackwardBf16,
  };
  return kBestFirst;
}

}  // namespace headwise::cpu
