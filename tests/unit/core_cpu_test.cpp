// CPU features and the CPU's Device.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "core/container.h"
#include "core/cpu_features.h"
#include "headwise/device.h"

namespace headwise {
namespace {

Device& cpu() { return **device(DeviceId{}); }

// The kernel's own list of features, an independent reading of the same processor.
bool listed(const std::string& flag) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("flags")) return (line + " ").find(" " + flag + " ") != std::string::npos;
  }
  return false;
}

TEST(CpuFeatures, AgreeWithTheKernelsList) {
  if (std::getenv("HEADWISE_MAX_ISA") != nullptr) GTEST_SKIP() << "features are lowered by HEADWISE_MAX_ISA";
  const core::CpuFeatures& f = core::cpu_features();
  EXPECT_EQ(f.avx2, listed("avx2") && listed("fma") && listed("f16c"));
  EXPECT_EQ(f.avx512, listed("avx512f") && listed("avx512bw") && listed("avx512dq") && listed("avx512vl") &&
                          listed("avx512cd"));
  EXPECT_EQ(f.avx512_bf16, f.avx512 && listed("avx512_bf16"));
  EXPECT_EQ(f.avx512_vnni, f.avx512 && listed("avx512_vnni"));
  EXPECT_EQ(f.avx512_fp16, f.avx512 && listed("avx512_fp16"));
  const bool in_software = f.brand.ends_with("AMX in software");  // HEADWISE_AMX_SOFTWARE
  EXPECT_TRUE(!f.amx_bf16 || listed("amx_bf16") || (in_software && f.avx512));
  EXPECT_FALSE(f.brand.empty());
  EXPECT_GT(f.l1d_bytes + f.l2_bytes + f.l3_bytes, 0U);
}

core::CpuFeatures everything() {
  core::CpuFeatures f;
  f.avx2 = f.avx512 = f.avx512_bf16 = f.avx512_fp16 = f.avx512_vnni = f.amx_bf16 = f.amx_int8 = true;
  return f;
}

TEST(CpuFeatures, LimitLeavesWhatTheFamilyHas) {
  using core::best_isa;
  using core::limit_isa;
  EXPECT_EQ(best_isa(limit_isa(everything(), "amx")), "amx");
  EXPECT_EQ(best_isa(limit_isa(everything(), "avx512")), "avx512");
  EXPECT_EQ(best_isa(limit_isa(everything(), "avx2")), "avx2");
  EXPECT_EQ(best_isa(limit_isa(everything(), "scalar")), "scalar");
  EXPECT_EQ(best_isa(limit_isa(everything(), "avx-512")), "scalar");  // no such word
  EXPECT_EQ(feature_names(limit_isa(everything(), "avx2")), (std::vector<std::string_view>{"avx2"}));
  EXPECT_EQ(feature_names(limit_isa(everything(), "avx512")).size(), 5U);
  EXPECT_EQ(feature_names(limit_isa(everything(), "amx")).size(), 7U);
  EXPECT_TRUE(feature_names(limit_isa({}, "amx")).empty());  // a limit adds nothing
}

TEST(CpuFeatures, AreFoundByName) {
  EXPECT_TRUE(has_feature(core::CpuFeatures{}, "scalar"));
  EXPECT_FALSE(has_feature(core::CpuFeatures{}, "avx2"));
  EXPECT_FALSE(has_feature(everything(), "avx1024"));
  for (const std::string_view name : feature_names(everything())) {
    EXPECT_TRUE(has_feature(everything(), name)) << name;
    EXPECT_FALSE(has_feature(core::CpuFeatures{}, name)) << name;
  }
  EXPECT_TRUE(has_feature(everything(), "amx"));
}

TEST(CpuDevice, SaysWhatItIs) {
  EXPECT_EQ(cpu().id(), DeviceId{});
  EXPECT_EQ(cpu().description(), core::cpu_features().brand);
  EXPECT_TRUE(cpu().has("scalar"));
  EXPECT_FALSE(cpu().has("sm90"));
  EXPECT_GE(cpu().max_threads(), 1);
  EXPECT_EQ(cpu().timer(), "steady_clock");
  EXPECT_TRUE(cpu().synchronize(nullptr).ok());
}

TEST(CpuDevice, AllocatesAlignedMemoryAndCountsIt) {
  cpu().reset_peak();
  const MemoryUse before = cpu().memory();
  std::vector<void*> blocks;
  std::size_t sum = 0;
  for (const std::size_t bytes : {0UL, 1UL, 63UL, 100UL, 65535UL, 65536UL, 65537UL, 1000003UL}) {
    Result<void*> block = cpu().allocate(bytes);
    ASSERT_TRUE(block.ok()) << bytes;
    ASSERT_NE(*block, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(*block) % 64, 0U);
    std::memset(*block, 0x5a, bytes);
    blocks.push_back(*block);
    sum += bytes;
  }
  const MemoryUse during = cpu().memory();
  EXPECT_GE(during.allocated, before.allocated + sum);
  EXPECT_LE(during.allocated, before.allocated + sum + 8 * 64);
  for (void* block : blocks) cpu().deallocate(block);
  cpu().deallocate(nullptr);
  const MemoryUse after = cpu().memory();
  EXPECT_EQ(after.allocated, before.allocated);
  EXPECT_EQ(after.peak_allocated, during.allocated);
  cpu().reset_peak();
  EXPECT_EQ(cpu().memory().peak_allocated, before.allocated);
}

TEST(CpuDevice, ResidentMemoryFollowsLargeBlocks) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers keep memory of their own";
#endif
  constexpr std::size_t kBytes = std::size_t{64} << 20;
  constexpr std::size_t kSlack = std::size_t{8} << 20;
  const bool resets = std::ofstream("/proc/self/clear_refs").good();
  cpu().reset_peak();
  const std::size_t before = cpu().memory().resident;
  Result<void*> block = cpu().allocate(kBytes);
  ASSERT_TRUE(block.ok());
  EXPECT_LT(cpu().memory().resident, before + kSlack);  // nothing touched yet
  std::memset(*block, 1, kBytes);
  const MemoryUse touched = cpu().memory();
  EXPECT_GT(touched.resident + kSlack, before + kBytes);
  if (resets) {
    EXPECT_GE(touched.peak_resident, touched.resident);
  } else {
    EXPECT_EQ(touched.peak_resident, 0U);
  }
  cpu().deallocate(*block);
  EXPECT_LT(cpu().memory().resident, before + kSlack);  // given back to the system
  EXPECT_GT(touched.total, kBytes);
  EXPECT_LE(touched.available, touched.total);
}

TEST(CpuDevice, RefusesWhatDoesNotFit) {
  for (const std::size_t bytes :
       {std::numeric_limits<std::size_t>::max(), std::size_t{1} << 62, std::size_t{1} << 46}) {
    const Result<void*> block = cpu().allocate(bytes);
    ASSERT_FALSE(block.ok()) << bytes;
    EXPECT_EQ(block.status().code(), StatusCode::out_of_memory);
    EXPECT_NE(block.status().message().find(std::to_string(bytes)), std::string::npos);
  }
  Result<void*> small = cpu().allocate(100);  // and goes on working
  ASSERT_TRUE(small.ok());
  cpu().deallocate(*small);
}

TEST(CpuDevice, CopiesAndRefusesNull) {
  const std::vector<float> source = {1, 2, 3};
  std::vector<float> target(3);
  EXPECT_TRUE(cpu().copy_from_host(target.data(), source.data(), 12).ok());
  EXPECT_EQ(target, source);
  EXPECT_TRUE(cpu().copy_to_host(nullptr, nullptr, 0).ok());
  EXPECT_EQ(cpu().copy_to_host(nullptr, source.data(), 4).code(), StatusCode::invalid_argument);
}

TEST(CpuDevice, TimesCallsAndEndsAtAnError) {
  struct Counter {
    int calls = 0;
    int fail_at = -1;
  } counter;
  const TimedWork work{.call = [](void* context, void*) -> Status {
                         auto& c = *static_cast<Counter*>(context);
                         ++c.calls;
                         return c.calls == c.fail_at ? Status::unsupported("third") : Status();
                       },
                       .context = &counter};
  const Result<double> time = cpu().time_ms(work, 5, nullptr);
  ASSERT_TRUE(time.ok());
  EXPECT_GE(*time, 0);
  EXPECT_EQ(counter.calls, 5);
  counter = {.calls = 0, .fail_at = 3};
  EXPECT_EQ(cpu().time_ms(work, 5, nullptr).status().message(), "third");
  EXPECT_EQ(counter.calls, 3);
  EXPECT_FALSE(cpu().time_ms(work, 0, nullptr).ok());
  EXPECT_FALSE(cpu().time_ms({}, 1, nullptr).ok());
}

TEST(CpuDevice, FlushesAndReadsItsClock) {
  EXPECT_TRUE(cpu().flush_cache(nullptr).ok());
  EXPECT_TRUE(cpu().flush_cache(nullptr).ok());
  const ClockReading clock = cpu().clocks();
#if defined(__x86_64__) && defined(__OPTIMIZE__)
  EXPECT_GT(clock.mhz, 300);
  EXPECT_LT(clock.mhz, 8000);
#else
  EXPECT_GE(clock.mhz, 0);
#endif
}

TEST(Container, LimitsAreConsistent) {
  EXPECT_GE(core::container_processors(), 0);
  const core::ContainerMemory memory = core::container_memory();
  EXPECT_LE(memory.available, memory.limit);
}

}  // namespace
}  // namespace headwise
