// The operator's fourth output, qk_matmul_output, in fp64 straight from its definition. Headwise has no such
// output; this shares nothing with the mapping, so that agreement also says the masks were understood.
#pragma once

#include "conformance/node_case.h"

namespace headwise::conformance {

// Of qk_matmul_output_mode 0 (scaled products), 1 (after softcap), 2 (after masks) or 3 (after softmax);
// rounded to Q's dtype at the end.
Result<Tensor> qk_matmul_output(const NodeCase& node);

}  // namespace headwise::conformance
