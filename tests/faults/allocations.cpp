// A file of its own: where the compiler sees both these and their callers, it warns of pairs that
// only look unmatched.
#include "faults/allocations.h"

#include <cstddef>
#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HEADWISE_COUNT_ALLOCATIONS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HEADWISE_COUNT_ALLOCATIONS 0
#endif
#endif
#if !defined(HEADWISE_COUNT_ALLOCATIONS)
#define HEADWISE_COUNT_ALLOCATIONS 1
#endif

#if HEADWISE_COUNT_ALLOCATIONS

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

std::optional<std::int64_t> headwise::test::allocations() { return count; }

#else

std::optional<std::int64_t> headwise::test::allocations() { return {}; }

#endif
