// cpu/scalar/naive_backward/f32: the portable fallback for gradients in f32.
#include "cpu/kernels.h"
#include "cpu/scalar/naive_backward/naive_backward.h"

namespace headwise::cpu {

const Kernel kScalarNaiveBackwardF32 = scalar::naive_backward_kernel<float>("cpu/scalar/naive_backward/f32");

}  // namespace headwise::cpu
