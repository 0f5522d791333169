// What stands in for the CUDA backend in a build without it, so that callers need no #ifdef.
#pragma once

#include <string_view>

namespace headwise::cuda {

std::string_view absent_reason();

}  // namespace headwise::cuda
