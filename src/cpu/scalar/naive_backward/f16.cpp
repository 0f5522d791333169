// cpu/scalar/naive_backward/f16: the portable fallback for gradients in f16.
#include "cpu/kernels.h"
#include "cpu/scalar/naive_backward/naive_backward.h"

namespace headwise::cpu {

const Kernel kScalarNaiveBackwardF16 =
    scalar::naive_backward_kernel<float16>("cpu/scalar/naive_backward/f16");

}  // namespace headwise::cpu
