#include "cuda/absent.h"

namespace headwise::cuda {

std::string_view absent_reason() { return "this build has no CUDA backend"; }

}  // namespace headwise::cuda
