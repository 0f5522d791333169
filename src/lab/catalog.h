// The kernels of this build as texts: what each needs and whether this machine has it, and what each can do.
#pragma once

#include <string>

namespace headwise::lab {

// A line a kernel, best first, and a line a backend that the build lacks. Kernels that this machine cannot
// run have the reason.
std::string kernel_list();

// docs/support-matrix.md: all kernels of the build, whatever this machine has. `headwise list matrix` prints
// it.
std::string support_matrix();

}  // namespace headwise::lab
