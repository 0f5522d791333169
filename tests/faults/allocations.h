// How often this thread has called operator new.
#pragma once

#include <cstdint>

namespace headwise::test {

std::int64_t allocations();

}  // namespace headwise::test
