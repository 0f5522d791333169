// How often this thread has called operator new; empty where a sanitizer has that operator itself.
#pragma once

#include <cstdint>
#include <optional>

namespace headwise::test {

std::optional<std::int64_t> allocations();

}  // namespace headwise::test
