// The one place where Headwise starts threads.
#pragma once

#include <cstdint>

#include "headwise/attention.h"

namespace headwise::core {

// fn(context, index, worker), once for each index below count; worker < threads and no two calls
// with the same worker run at once, so that scratch memory can be one slice a worker. Indices are
// handed out in ascending order to whoever is free: put long tasks first. Plain function pointers,
// because callers inside instruction-set target regions may instantiate no template from outside.
using Task = void (*)(void* context, std::int64_t index, int worker);
void parallel_for(std::int64_t count, int threads, Task fn, void* context,
                  const Executor* executor = nullptr);

// Processors this process may run on (affinity and container quota counted).
int available_threads();

}  // namespace headwise::core
