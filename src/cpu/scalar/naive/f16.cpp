// cpu/scalar/naive/f16: the portable fallback in f16.
#include "cpu/kernels.h"
#include "cpu/scalar/naive/naive.h"

namespace headwise::cpu {

const Kernel kScalarNaiveF16 = scalar::naive_kernel<float16>("cpu/scalar/naive/f16");

}  // namespace headwise::cpu
