#include <gtest/gtest.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <numeric>
#include <thread>
#include <vector>

#include "core/parallel_for.h"

namespace headwise::core {
namespace {

struct Record {
  explicit Record(std::int64_t count, int threads = 64)
      : calls(static_cast<std::size_t>(count)), busy(static_cast<std::size_t>(threads)) {}
  std::vector<std::atomic<int>> calls;  // of each index
  std::vector<std::atomic<int>> busy;   // of each worker
  std::atomic<int> clashes{0};          // two calls with one worker number at once
  std::atomic<int> highest_worker{-1};
  bool slow = false;

  static void task(void* context, std::int64_t index, int worker) {
    auto& self = *static_cast<Record*>(context);
    if (self.busy[static_cast<std::size_t>(worker)].fetch_add(1) != 0) ++self.clashes;
    ++self.calls[static_cast<std::size_t>(index)];
    for (int seen = self.highest_worker;
         worker > seen && !self.highest_worker.compare_exchange_weak(seen, worker);) {
    }
    if (self.slow) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    self.busy[static_cast<std::size_t>(worker)].fetch_sub(1);
  }
  [[nodiscard]] bool each_once() const {
    for (const std::atomic<int>& n : calls) {
      if (n != 1) return false;
    }
    return true;
  }
};

TEST(ParallelFor, CallsEachIndexOnce) {
  for (const int threads : {-1, 0, 1, 2, 3, 16}) {
    for (const std::int64_t count : {0, 1, 2, 7, 1000}) {
      Record record(count);
      parallel_for(count, threads, Record::task, &record);
      EXPECT_TRUE(record.each_once()) << threads << " threads, " << count;
      EXPECT_EQ(record.clashes, 0);
      EXPECT_LT(record.highest_worker, std::max(1, threads));
      EXPECT_LT(record.highest_worker, std::max<std::int64_t>(1, count));
    }
  }
}

TEST(ParallelFor, NegativeCountDoesNothing) {
  Record record(1);
  parallel_for(-5, 2, Record::task, &record);
  EXPECT_EQ(record.calls[0], 0);
}

TEST(ParallelFor, ReallyRunsAtTheSameTime) {
  struct Meeting {
    std::atomic<int> arrived{0};
    std::atomic<int> met{0};
  } meeting;
  parallel_for(
      2, 2,
      [](void* context, std::int64_t, int) {
        auto& m = *static_cast<Meeting*>(context);
        ++m.arrived;
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        while (m.arrived < 2 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
        if (m.arrived == 2) ++m.met;
      },
      &meeting);
  EXPECT_EQ(meeting.met, 2);
}

TEST(ParallelFor, NestedCallsStayOnTheirThread) {
  struct Outer {
    std::atomic<int> inner_calls{0};
    std::atomic<int> strangers{0};
  } outer;
  struct Inner {
    Outer* outer;
    std::thread::id thread;
  };
  parallel_for(
      8, 4,
      [](void* context, std::int64_t, int) {
        Inner inner{static_cast<Outer*>(context), std::this_thread::get_id()};
        parallel_for(
            10, 4,
            [](void* inner_context, std::int64_t, int worker) {
              const auto& self = *static_cast<Inner*>(inner_context);
              ++self.outer->inner_calls;
              if (worker != 0 || self.thread != std::this_thread::get_id()) ++self.outer->strangers;
            },
            &inner);
      },
      &outer);
  EXPECT_EQ(outer.inner_calls, 80);
  EXPECT_EQ(outer.strangers, 0);
}

// A pool that numbers its workers from far away, to see that scratch slices never depend on it.
struct Pool {
  std::atomic<int> regions{0};
  std::int64_t asked = 0;

  static void run(void* context, std::int64_t count, void (*task)(void*, std::int64_t, int),
                  void* task_context) {
    auto& self = *static_cast<Pool*>(context);
    ++self.regions;
    self.asked = count;
    std::vector<std::thread> threads;
    for (std::int64_t i = 0; i < count; ++i) {
      threads.emplace_back([=] { task(task_context, i, 1000 + static_cast<int>(i)); });
    }
    for (std::thread& thread : threads) thread.join();
  }
};

TEST(ParallelFor, UsesTheCallersExecutorWithinBothLimits) {
  for (const auto& [pool_threads, threads, expected] : {std::array{3, 8, 3}, std::array{8, 3, 3}}) {
    Pool pool;
    const Executor executor{.context = &pool, .threads = pool_threads, .run = Pool::run};
    Record record(500);
    parallel_for(500, threads, Record::task, &record, &executor);
    EXPECT_TRUE(record.each_once());
    EXPECT_EQ(record.clashes, 0);
    EXPECT_EQ(pool.regions, 1);
    EXPECT_EQ(pool.asked, expected);
    EXPECT_LT(record.highest_worker, expected);
  }
}

TEST(ParallelFor, ExecutorThatRunsOneAfterTheOtherIsEnough) {
  const Executor executor{
      .context = nullptr, .threads = 4, .run = [](void*, std::int64_t count, auto task, void* task_context) {
        for (std::int64_t i = 0; i < count; ++i) task(task_context, i, 0);
      }};
  Record record(100);
  parallel_for(100, 4, Record::task, &record, &executor);
  EXPECT_TRUE(record.each_once());
}

TEST(ParallelFor, ManyCallersAtOnce) {
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&wrong] {
      for (int i = 0; i < 20; ++i) {
        Record record(50);
        parallel_for(50, 3, Record::task, &record);
        if (!record.each_once() || record.clashes != 0) ++wrong;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
}

// Exit status of a child that runs parallel_for, or -1 when it hangs.
int run_in_child() {
  const pid_t child = fork();
  if (child == 0) {
    Record record(64);
    record.slow = true;  // so that more than one worker gets an index
    parallel_for(64, 4, Record::task, &record);
    Record again(64);
    parallel_for(64, 4, Record::task, &again);
    _exit(record.each_once() && again.each_once() && record.highest_worker > 0 ? 0 : 1);
  }
  for (int tries = 0; tries < 1500; ++tries) {
    int status = 0;
    if (waitpid(child, &status, WNOHANG) == child) return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return -1;
}

#if defined(__SANITIZE_THREAD__)
constexpr bool kThreadSanitizer = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif
#else
constexpr bool kThreadSanitizer = false;
#endif

TEST(ParallelFor, ChildOfAForkAfterAParallelRegionStillWorks) {
  if (kThreadSanitizer) GTEST_SKIP() << "ThreadSanitizer refuses threads in the child of a threaded process";
  Record record(64);
  parallel_for(64, 4, Record::task, &record);  // the runtime has its threads now
  ASSERT_TRUE(record.each_once());
  EXPECT_EQ(run_in_child(), 0);
  Record after(64);
  parallel_for(64, 4, Record::task, &after);  // and the parent's still work
  EXPECT_TRUE(after.each_once());
}

TEST(AvailableThreads, AtLeastOneAndAtMostTheMachine) {
  EXPECT_GE(available_threads(), 1);
  EXPECT_LE(available_threads(), static_cast<int>(sysconf(_SC_NPROCESSORS_CONF)));
}

TEST(AvailableThreads, FollowsAffinity) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  const int threads = available_threads();
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
  EXPECT_EQ(threads, 1);
}

}  // namespace
}  // namespace headwise::core
