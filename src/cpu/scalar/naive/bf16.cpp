// cpu/scalar/naive/bf16: the portable fallback in bf16.
#include "cpu/kernels.h"
#include "cpu/scalar/naive/naive.h"

namespace headwise::cpu {

const Kernel kScalarNaiveBf16 = scalar::naive_kernel<bfloat16>("cpu/scalar/naive/bf16");

}  // namespace headwise::cpu
