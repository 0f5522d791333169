// Times of a kernel's stages by themselves, on data that fit the caches as in a call. Prints rows of
// Markdown.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "headwise/dtype.h"

namespace headwise::stages {

using Stage = void (*)(const void* data);

// ns a call, the median of 15 runs of 2 ms or more.
inline double nanoseconds(Stage stage, const void* data) {
  using Clock = std::chrono::steady_clock;
  const auto run = [&](long calls) {
    const auto start = Clock::now();
    for (long i = 0; i < calls; ++i) {
      stage(data);
      __asm__ volatile("" ::: "memory");
    }
    return std::chrono::duration<double, std::nano>(Clock::now() - start).count();
  };
  long calls = 1;
  while (run(calls) < 2e6) calls *= 2;
  std::vector<double> times(15);
  for (double& time : times) time = run(calls) / static_cast<double>(calls);
  std::nth_element(times.begin(), times.begin() + 7, times.end());
  return times[7];
}

// A row: ns for 16 x 16 scores, and the rate of the multiply-adds that the stage has for each score.
inline void print_stage(const char* name, Stage stage, const void* data, std::int64_t scores,
                        std::int64_t multiply_adds) {
  const double time = nanoseconds(stage, data) / static_cast<double>(scores);
  std::printf("| %s | %.1f | ", name, time * 256);
  if (multiply_adds > 0) std::printf("%.0f", 2 * static_cast<double>(multiply_adds) / time);
  std::printf(" |\n");
}

// Memory on a page, of normal numbers.
template <class T>
T* normal_numbers(std::int64_t count) {
  static std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  const auto bytes = (static_cast<std::size_t>(count) * sizeof(T) + 4095) / 4096 * 4096;
  T* const numbers = static_cast<T*>(std::aligned_alloc(4096, bytes));
  for (std::int64_t i = 0; i < count; ++i) {
    numbers[i] = from_double<T>(static_cast<double>(normal(generator)));
  }
  return numbers;
}

}  // namespace headwise::stages
