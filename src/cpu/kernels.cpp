#include "cpu/kernels.h"

namespace headwise::cpu {

std::span<const Kernel* const> kernels() {
  static constexpr const Kernel* kBestFirst[] = {
      &kAvx512FlashF32, &kAvx512UnfusedF32, &kScalarNaiveF32, &kScalarNaiveF16, &kScalarNaiveBf16,
  };
  return kBestFirst;
}

}  // namespace headwise::cpu
