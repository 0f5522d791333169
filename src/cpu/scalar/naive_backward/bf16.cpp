// cpu/scalar/naive_backward/bf16: the portable fallback for gradients in bf16.
#include "cpu/kernels.h"
#include "cpu/scalar/naive_backward/naive_backward.h"

namespace headwise::cpu {

const Kernel kScalarNaiveBackwardBf16 =
    scalar::naive_backward_kernel<bfloat16>("cpu/scalar/naive_backward/bf16");

}  // namespace headwise::cpu
