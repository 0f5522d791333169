#include "core/cpu_features.h"

#include <array>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <optional>

#include "core/text.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace headwise::core {
namespace {

struct NamedFeature {
  std::string_view name;
  bool CpuFeatures::* member;
};
constexpr std::array kFeatures = {
    NamedFeature{"avx2", &CpuFeatures::avx2},
    NamedFeature{"avx512", &CpuFeatures::avx512},
    NamedFeature{"avx512_bf16", &CpuFeatures::avx512_bf16},
    NamedFeature{"avx512_fp16", &CpuFeatures::avx512_fp16},
    NamedFeature{"avx512_vnni", &CpuFeatures::avx512_vnni},
    NamedFeature{"amx_bf16", &CpuFeatures::amx_bf16},
    NamedFeature{"amx_int8", &CpuFeatures::amx_int8},
};

#if defined(__x86_64__)

struct Registers {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(std::uint32_t leaf, std::uint32_t subleaf = 0) {
  Registers r;
  // Checks the highest leaf first: above it, processors answer with another leaf's data.
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

constexpr bool bit(std::uint32_t word, int index) { return ((word >> index) & 1U) != 0; }

// Which register states the operating system saves; the caller has seen OSXSAVE.
std::uint64_t read_xcr0() {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

// Linux grants the 8 KiB of tile state to a process only when asked.
[[maybe_unused]] bool request_tile_permission() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

// Palette 1 with 8 tiles of 16 rows of 64 bytes is what kernels are written for.
[[maybe_unused]] bool has_expected_tiles() {
  if (cpuid(0x1d, 0).eax < 1) return false;
  const Registers palette = cpuid(0x1d, 1);
  return (palette.ebx & 0xffffU) == 64 && (palette.ebx >> 16) >= 8 && (palette.ecx & 0xffffU) >= 16;
}

std::string read_brand() {
  std::string brand;
  if (cpuid(0x80000000U).eax < 0x80000004U) return brand;
  for (std::uint32_t leaf = 0x80000002U; leaf <= 0x80000004U; ++leaf) {
    const Registers r = cpuid(leaf);
    for (const std::uint32_t word : {r.eax, r.ebx, r.ecx, r.edx}) {
      for (int byte = 0; byte < 4; ++byte) brand += static_cast<char>((word >> (8 * byte)) & 0xffU);
    }
  }
  brand.resize(brand.find('\0') == std::string::npos ? brand.size() : brand.find('\0'));
  while (!brand.empty() && brand.back() == ' ') brand.pop_back();
  brand.erase(0, brand.find_first_not_of(' '));
  return brand;
}

void detect_processor(CpuFeatures& features) {
  const Registers one = cpuid(1);
  const std::uint32_t family = (one.eax >> 8) & 0xfU;
  const std::uint32_t model = (one.eax >> 4) & 0xfU;
  features.family = static_cast<int>(family == 15 ? family + ((one.eax >> 20) & 0xffU) : family);
  features.model = static_cast<int>(family == 6 || family == 15 ? model + ((one.eax >> 12) & 0xf0U) : model);
  features.brand = read_brand();

  const bool os_saves_state = bit(one.ecx, 27);
  const std::uint64_t xcr0 = os_saves_state ? read_xcr0() : 0;
  const bool ymm = (xcr0 & 0x6U) == 0x6U;
  const bool zmm = (xcr0 & 0xe6U) == 0xe6U;

  const Registers seven = cpuid(7);
  const Registers seven_one = cpuid(7, 1);
  const bool fma = bit(one.ecx, 12);
  const bool avx = bit(one.ecx, 28);
  const bool f16c = bit(one.ecx, 29);
  features.avx2 = ymm && avx && fma && f16c && bit(seven.ebx, 5);
  features.avx512 = features.avx2 && zmm && bit(seven.ebx, 16) && bit(seven.ebx, 17) && bit(seven.ebx, 28) &&
                    bit(seven.ebx, 30) && bit(seven.ebx, 31);
  features.avx512_vnni = features.avx512 && bit(seven.ecx, 11);
  features.avx512_bf16 = features.avx512 && bit(seven_one.eax, 5);
  features.avx512_fp16 = features.avx512 && bit(seven.edx, 23);
#if defined(HEADWISE_AMX_SOFTWARE)
  // Said wherever the processor is named, because its times are of no meaning.
  features.amx_bf16 = features.avx512;
  features.brand += ", AMX in software";
#else
  const bool tiles = (xcr0 & 0x60000U) == 0x60000U;
  const bool amx_listed = features.avx512 && tiles && bit(seven.edx, 24) && has_expected_tiles();
  if (amx_listed && request_tile_permission()) {
    features.amx_bf16 = bit(seven.edx, 22);
    features.amx_int8 = bit(seven.edx, 25);
  }
#endif
}

#else

void detect_processor(CpuFeatures& features) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line) && features.brand.empty();) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) features.brand = line.substr(colon + 2);
  }
}

#endif

// "48K", "1024K", "393216K".
std::size_t parse_cache_size(std::string_view text) {
  std::size_t unit = 1;
  if (text.ends_with('K')) unit = std::size_t{1} << 10;
  if (text.ends_with('M')) unit = std::size_t{1} << 20;
  if (unit != 1) text.remove_suffix(1);
  return parse_number<std::size_t>(text).value_or(0) * unit;
}

// As the operating system reports them of processor 0; a cache shared by several cores counts whole.
void detect_caches(CpuFeatures& features) {
  for (int index = 0; index < 8; ++index) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index);
    std::ifstream level_file(folder + "/level");
    std::ifstream type_file(folder + "/type");
    std::ifstream size_file(folder + "/size");
    int level = 0;
    std::string type;
    std::string size;
    if (!(level_file >> level && type_file >> type && size_file >> size) || type == "Instruction") continue;
    if (level == 1) features.l1d_bytes = parse_cache_size(size);
    if (level == 2) features.l2_bytes = parse_cache_size(size);
    if (level == 3) features.l3_bytes = parse_cache_size(size);
  }
}

CpuFeatures detect() {
  CpuFeatures features;
  detect_processor(features);
  detect_caches(features);
  const char* const limit =
      std::getenv("HEADWISE_MAX_ISA");  // NOLINT(concurrency-mt-unsafe): read once, never set
  return limit == nullptr ? features : limit_isa(features, limit);
}

}  // namespace

CpuFeatures limit_isa(CpuFeatures features, std::string_view max_isa) {
  const bool amx = max_isa == "amx";
  const bool avx512 = amx || max_isa == "avx512";
  const bool avx2 = avx512 || max_isa == "avx2";
  for (const NamedFeature& feature : kFeatures) {
    const bool allowed = feature.name.starts_with("amx")      ? amx
                         : feature.name.starts_with("avx512") ? avx512
                                                              : avx2;
    if (!allowed) features.*feature.member = false;
  }
  return features;
}

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

std::string_view best_isa(const CpuFeatures& features) {
  if (features.amx_bf16 || features.amx_int8) return "amx";
  if (features.avx512) return "avx512";
  return features.avx2 ? "avx2" : "scalar";
}

bool has_feature(const CpuFeatures& features, std::string_view name) {
  if (name == "scalar") return true;
  if (name == "amx") return features.amx_bf16 || features.amx_int8;
  for (const NamedFeature& feature : kFeatures) {
    if (feature.name == name) return features.*feature.member;
  }
  return false;
}

std::vector<std::string_view> feature_names(const CpuFeatures& features) {
  std::vector<std::string_view> names;
  for (const NamedFeature& feature : kFeatures) {
    if (features.*feature.member) names.push_back(feature.name);
  }
  return names;
}

}  // namespace headwise::core
