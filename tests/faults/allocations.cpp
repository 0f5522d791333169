// A file of its own: where the compiler sees both these and their callers, it warns of pairs that
// only look unmatched.
#include "faults/allocations.h"

#include <cstddef>
#include <cstdlib>
#include <new>

namespace {
thread_local std::int64_t count = 0;
}

void* operator new(std::size_t bytes) {
  ++count;
  if (void* const data = std::malloc(bytes == 0 ? 1 : bytes)) return data;
  throw std::bad_alloc();
}
void operator delete(void* data) noexcept { std::free(data); }
void operator delete(void* data, std::size_t /*bytes*/) noexcept { std::free(data); }

namespace headwise::test {

std::int64_t allocations() { return count; }

}  // namespace headwise::test
