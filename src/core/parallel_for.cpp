#include "core/parallel_for.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <functional>
#include <system_error>
#include <thread>
#include <vector>

#include "core/container.h"

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace headwise::core {
namespace {

// One call of parallel_for, shared by its workers.
struct Region {
  std::int64_t count;
  Task fn;
  void* context;
  std::atomic<std::int64_t> next{0};
};

// Set while this thread runs tasks: a call from inside a task stays on its thread.
thread_local bool in_task = false;

// A child of fork() inherits the OpenMP runtime's bookkeeping but not its threads, and waits for
// them for ever. So the handler below, registered when the library is loaded, makes a child start
// threads of its own for each region.
std::atomic<bool> forked_child{false};

#if defined(__linux__)
[[maybe_unused]] const int kForkHandlerRegistered =
    pthread_atfork(nullptr, nullptr, [] { forked_child.store(true, std::memory_order_relaxed); });
#endif

void work(Region& region, int worker) {
  const bool outer = in_task;
  in_task = true;
  for (;;) {
    const std::int64_t index = region.next.fetch_add(1, std::memory_order_relaxed);
    if (index >= region.count) break;
    region.fn(region.context, index, worker);
  }
  in_task = outer;
}

// The executor runs whole workers, not tasks: so worker numbers stay below `threads` whatever
// numbers the caller's pool uses, and indices are handed out in ascending order as always.
void run_on_executor(Region& region, int threads, const Executor& executor) {
  executor.run(
      executor.context, threads,
      [](void* shared, std::int64_t index, int) {
        work(*static_cast<Region*>(shared), static_cast<int>(index));
      },
      &region);
}

void run_on_new_threads(Region& region, int threads) {
  std::vector<std::thread> others;
  others.reserve(static_cast<std::size_t>(threads - 1));
  for (int worker = 1; worker < threads; ++worker) {
    try {
      others.emplace_back(work, std::ref(region), worker);
    } catch (const std::system_error&) {
      break;  // a thread limit: those that started do all the work
    }
  }
  work(region, 0);
  for (std::thread& other : others) other.join();
}

void run_on_pool(Region& region, int threads) {
#if defined(_OPENMP)
  if (!forked_child.load(std::memory_order_relaxed)) {
    // The runtime may give fewer threads than asked for; the counter hands out every index anyway.
#pragma omp parallel num_threads(threads)
    work(region, omp_get_thread_num());
    return;
  }
#endif
  run_on_new_threads(region, threads);
}

int allowed_processors() {
#if defined(__linux__)
  // The set must be at least as long as the kernel's, which is not known in advance.
  for (int processors = 1024; processors <= 1 << 16; processors *= 2) {
    cpu_set_t* const set = CPU_ALLOC(static_cast<std::size_t>(processors));
    if (set == nullptr) break;
    const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(processors));
    const int found = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (found > 0) return found;
  }
#endif
  return static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

}  // namespace

void parallel_for(std::int64_t count, int threads, Task fn, void* context, const Executor* executor) {
  if (count <= 0) return;
  Region region{count, fn, context};
  const bool own_pool = executor != nullptr && executor->run != nullptr;
  if (own_pool) threads = std::min(threads, executor->threads);
  threads = static_cast<int>(std::min<std::int64_t>(threads, count));
  if (threads <= 1 || in_task) {
    work(region, 0);
  } else if (own_pool) {
    run_on_executor(region, threads, *executor);
  } else {
    run_on_pool(region, threads);
  }
}

int available_threads() {
  static const int quota = container_processors();  // a container's quota is set when it starts
  const int allowed = allowed_processors();
  return quota > 0 ? std::min(quota, allowed) : allowed;
}

std::vector<int> bound_processors() {
  std::vector<int> processors;
#if defined(_OPENMP)
  if (omp_get_proc_bind() == omp_proc_bind_false) return processors;
  for (int place = 0; place < omp_get_num_places(); ++place) {
    std::vector<int> of_place(static_cast<std::size_t>(std::max(0, omp_get_place_num_procs(place))));
    if (of_place.empty()) continue;
    omp_get_place_proc_ids(place, of_place.data());
    processors.insert(processors.end(), of_place.begin(), of_place.end());
  }
#endif
  return processors;
}

}  // namespace headwise::core
