// The one place where Headwise starts threads.
#pragma once

#include <cstdint>
#include <vector>

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

// Processors that the threads of parallel_for are bound to, where OpenMP was told to bind them: the thread
// that starts the program is then bound to one alone, and hands that on to processes that it starts. Else
// empty.
std::vector<int> bound_processors();

}  // namespace headwise::core
