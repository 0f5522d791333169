// cpu/scalar/naive/f32: the portable fallback in f32.
#include "cpu/kernels.h"
#include "cpu/scalar/naive/naive.h"

namespace headwise::cpu {

const Kernel kScalarNaiveF32 = scalar::naive_kernel<float>("cpu/scalar/naive/f32");

}  // namespace headwise::cpu
