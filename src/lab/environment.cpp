#include "lab/environment.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <thread>

#include "core/container.h"
#include "core/cpu_features.h"
#include "core/parallel_for.h"
#include "core/text.h"
#include "headwise/kernels.h"
#include "headwise_build_info.h"
#include "lab/data_files.h"
#include "lab/fingerprint.h"
#include "lab/row_files.h"
#include "lab/statistics.h"

namespace headwise::lab {
namespace {

constexpr const char* kUnknown = "unknown";

std::string first_line(const std::string& path) {
  std::ifstream stream(path);
  std::string line;
  if (!std::getline(stream, line) || line.empty()) return kUnknown;
  return line;
}

// The value of the first line "key : value" or key=value.
std::string keyed_line(const std::string& path, std::string_view key, char separator) {
  std::ifstream stream(path);
  for (std::string line; std::getline(stream, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t at = line.find(separator);
    if (at == std::string::npos || line.find_first_not_of(" \t", key.size()) != at) continue;
    std::string value = line.substr(at + 1);
    value.erase(0, value.find_first_not_of(" \t\""));
    value.erase(value.find_last_not_of(" \t\"") + 1);
    return value.empty() ? kUnknown : value;
  }
  return kUnknown;
}

std::string environment_variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "not set" : value;
}

std::string bytes_text(std::uint64_t bytes) { return bytes == 0 ? kUnknown : fmt::format("{}", bytes); }

// How many different values a topology file has over the processors.
std::string distinct(const char* file) {
  std::set<std::string> values;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/devices/system/cpu", error)) {
    const std::string path = (entry.path() / "topology" / file).string();
    if (std::filesystem::exists(path, error)) values.insert(first_line(path));
  }
  return values.empty() ? kUnknown : fmt::format("{}", values.size());
}

std::string numa_nodes() {
  std::size_t nodes = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/devices/system/node", error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("node") && core::parse_number<int>(std::string_view(name).substr(4))) ++nodes;
  }
  return nodes == 0 ? kUnknown : fmt::format("{}", nodes);
}

// "0-3,8": as taskset prints it.
std::string affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return kUnknown;
  std::string text;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    int last = cpu;
    while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &set)) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ",", cpu);
    if (last > cpu) text += fmt::format("-{}", last);
    cpu = last;
  }
  return text;
}

std::string libc_version() {
  char text[64] = "";
  return confstr(_CS_GNU_LIBC_VERSION, text, sizeof text) > 0 ? text : kUnknown;  // "glibc 2.36"
}

std::string container_hint() {
  std::error_code error;
  if (std::filesystem::exists("/.dockerenv", error)) return "docker";
  if (std::filesystem::exists("/run/.containerenv", error)) return "podman";
  if (const char* kind = std::getenv("container"); kind != nullptr) return kind;
  return "none seen";
}

// Tells apart what the same sources and changes do not: two builds of a work tree in progress. The library
// counts where it is a file of its own.
std::string program_hash() {
  std::set<std::string> files{"/proc/self/exe"};
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const std::size_t path = line.find('/');
    if (path != std::string::npos && line.find("/libheadwise") != std::string::npos)
      files.insert(line.substr(path));
  }
  std::uint64_t hash = 0;
  for (const std::string& file : files) {
    Result<std::string> content = read_whole_file(file);
    if (!content) return kUnknown;
    hash = fingerprint(hash, content->data(), content->size());
  }
  return fmt::format("{:016x}", hash);
}

void add_build(Environment& e) {
  e.emplace_back("headwise_version", build::kVersion);
  e.emplace_back("git_sha", build::kGitSha);
  e.emplace_back("git_dirty", build::kGitDirty ? "yes" : "no");
  e.emplace_back("build_type", build::kBuildType.empty() ? kUnknown : std::string(build::kBuildType));
  e.emplace_back("compiler", build::kCompiler);
  e.emplace_back("compiler_flags", build::kCompilerFlags);
  e.emplace_back("program_hash", program_hash());
  e.emplace_back("row_schema", kRowSchema);
  e.emplace_back("kernels", fmt::format("{}", kernels().size()));
  std::string absent;
  for (const AbsentBackend& backend : absent_backends()) {
    absent += fmt::format("{}{}: {}", absent.empty() ? "" : "; ", backend.name, backend.reason);
  }
  e.emplace_back("absent_backends", absent.empty() ? "none" : absent);
}

void add_system(Environment& e, const EnvironmentOptions& options) {
  utsname names{};
  uname(&names);
  e.emplace_back("os", keyed_line("/etc/os-release", "PRETTY_NAME", '='));
  e.emplace_back("kernel", names.release);
  e.emplace_back("architecture", names.machine);
  e.emplace_back("libc", libc_version());
  e.emplace_back("container", container_hint());
  if (options.host_name) e.emplace_back("host", names.nodename);
  e.emplace_back("aslr", first_line("/proc/sys/kernel/randomize_va_space"));
  e.emplace_back("load_average", first_line("/proc/loadavg"));
  e.emplace_back("uptime_seconds", first_line("/proc/uptime"));
  e.emplace_back("page_bytes", fmt::format("{}", sysconf(_SC_PAGESIZE)));
  e.emplace_back("transparent_huge_pages", first_line("/sys/kernel/mm/transparent_hugepage/enabled"));
  e.emplace_back("timer_step_ns", fmt::format("{:.0f}", timer_step_ns()));
}

void add_processor(Environment& e) {
  const core::CpuFeatures& cpu = core::cpu_features();
  const std::string info = "/proc/cpuinfo", base = "/sys/devices/system/cpu/";
  e.emplace_back("cpu", cpu.brand.empty() ? keyed_line(info, "model name", ':') : cpu.brand);
  e.emplace_back("cpu_vendor", keyed_line(info, "vendor_id", ':'));
  e.emplace_back("cpu_family", fmt::format("{}", cpu.family));
  e.emplace_back("cpu_model", fmt::format("{}", cpu.model));
  e.emplace_back("cpu_stepping", keyed_line(info, "stepping", ':'));
  e.emplace_back("cpu_microcode", keyed_line(info, "microcode", ':'));
  e.emplace_back("hypervisor",
                 keyed_line(info, "flags", ':').find(" hypervisor") != std::string::npos ? "yes" : "no");
  e.emplace_back("isa", core::best_isa(cpu));
  e.emplace_back("instruction_sets", fmt::format("{}", fmt::join(core::feature_names(cpu), " ")));
  e.emplace_back("cpus_online", first_line(base + "online"));
  e.emplace_back("cpus_usable", fmt::format("{}", core::available_threads()));
  e.emplace_back("cpu_affinity", affinity());
  e.emplace_back("cpu_quota", core::container_processors() == 0
                                  ? "none"
                                  : fmt::format("{}", core::container_processors()));
  e.emplace_back("sockets", distinct("physical_package_id"));
  e.emplace_back("cores", distinct("core_cpus_list"));
  e.emplace_back("smt", first_line(base + "smt/active"));
  e.emplace_back("numa_nodes", numa_nodes());
  e.emplace_back("l1d_bytes", bytes_text(cpu.l1d_bytes));
  e.emplace_back("l2_bytes", bytes_text(cpu.l2_bytes));
  e.emplace_back("l3_bytes", bytes_text(cpu.l3_bytes));
  e.emplace_back("clock_mhz", keyed_line(info, "cpu MHz", ':'));
  e.emplace_back("scaling_governor", first_line(base + "cpu0/cpufreq/scaling_governor"));
  e.emplace_back("scaling_driver", first_line(base + "cpu0/cpufreq/scaling_driver"));
  e.emplace_back("boost", first_line(base + "cpufreq/boost"));
}

void add_memory(Environment& e) {
  for (const auto& [name, key] : {std::pair{"memory_total", "MemTotal"},
                                  {"memory_available", "MemAvailable"},
                                  {"swap_total", "SwapTotal"}}) {
    e.emplace_back(name, keyed_line("/proc/meminfo", key, ':'));
  }
  const core::ContainerMemory memory = core::container_memory();
  e.emplace_back("memory_limit_bytes", memory.limit == 0 ? "none" : fmt::format("{}", memory.limit));
}

void add_settings(Environment& e) {
  for (const char* name : {"HEADWISE_KERNEL", "HEADWISE_MAX_ISA", "HEADWISE_DATA", "OMP_NUM_THREADS",
                           "OMP_PROC_BIND", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}) {
    e.emplace_back(name, environment_variable(name));
  }
}

std::string time_text(const char* format, bool with_colon) {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  char text[64];
  std::string result(text, std::strftime(text, sizeof text, format, &parts));
  if (with_colon)
    result.insert(result.size() - 2, ":");  // strftime writes +0000, ISO-8601 extended has +00:00
  return result;
}

// Ticks of the processors that this process may use, while anybody computed: the machine of a container may
// have many others. Nothing where the system does not tell.
std::optional<std::uint64_t> busy_ticks() {
  cpu_set_t mine;
  if (sched_getaffinity(0, sizeof(mine), &mine) != 0) return {};
  std::ifstream stream("/proc/stat");
  std::uint64_t sum = 0;
  bool any = false;
  for (std::string line; std::getline(stream, line);) {
    std::uint64_t user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, soft_irq = 0, stolen = 0;
    std::istringstream words(line);
    std::string name;
    if (!(words >> name) || !name.starts_with("cpu") || name == "cpu") continue;
    const auto processor = core::parse_number<unsigned>(std::string_view(name).substr(3));
    if (!processor || *processor >= CPU_SETSIZE || !CPU_ISSET(*processor, &mine)) continue;
    if (!(words >> user >> nice >> system >> idle >> wait >> irq >> soft_irq >> stolen)) return {};
    sum += user + nice + system + irq + soft_irq + stolen;
    any = true;
  }
  return any ? std::optional(sum) : std::nullopt;
}

// How many of them were busy while this process slept for a fifth of a second: the load average still holds
// what ended a minute ago, such as the build before a first run.
std::string processors_busy() {
  const std::optional<std::uint64_t> before = busy_ticks();
  const auto start = std::chrono::steady_clock::now();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const std::optional<std::uint64_t> after = busy_ticks();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  if (!before || !after || *after < *before) return kUnknown;
  const auto ticks = static_cast<double>(*after - *before);
  return fmt::format("{:.2f}", ticks / static_cast<double>(sysconf(_SC_CLK_TCK)) / seconds.count());
}

}  // namespace

Environment read_environment(const EnvironmentOptions& options) {
  Environment e;
  add_build(e);
  add_system(e, options);
  add_processor(e);
  add_memory(e);
  for (const DeviceId id : devices()) {
    if (Result<Device*> one = device(id); one) {
      e.emplace_back("device_" + to_string(id), fmt::format("{}, {} threads, {}", (*one)->description(),
                                                            (*one)->max_threads(), (*one)->isa()));
    }
  }
  add_settings(e);
  return e;
}

Run start_run(std::string command, const EnvironmentOptions& options) {
  const auto ticks = std::chrono::system_clock::now().time_since_epoch().count();
  Environment environment = read_environment(options);
  environment.emplace_back("processors_busy", processors_busy());
  return {.run = fmt::format("{}-{:08x}", time_text("%Y-%m-%dT%H-%M-%S", false),
                             static_cast<std::uint32_t>(static_cast<std::uint64_t>(ticks) * 2654435761U ^
                                                        static_cast<std::uint64_t>(getpid()))),
          .started = time_text("%Y-%m-%dT%H:%M:%S%z", true),
          .command = std::move(command),
          .environment = std::move(environment),
          .options = {},
          .continued = {},
          .peaks = {}};
}

std::string load_note(const Environment& environment) {
  const auto number = [&](std::string_view name) {
    for (const auto& [key, value] : environment) {
      if (key == name) return core::parse_number<double>(value.substr(0, value.find(' '))).value_or(0);
    }
    return 0.0;
  };
  const double busy = number("processors_busy"), processors = number("cpus_usable");
  if (processors < 1 || busy < 0.25 * processors) return "";
  return fmt::format(
      "{:.1f} of {:.0f} {} busy when the run began: other programs compute too, and times and ratios may be "
      "theirs",
      busy, processors, processors == 1 ? "processor was" : "processors were");
}

double timer_step_ns() {
  static const double step = [] {
    using clock = std::chrono::steady_clock;
    std::vector<double> steps;
    for (int i = 0; i < 101; ++i) {
      const auto start = clock::now();
      auto next = clock::now();
      while (next == start) next = clock::now();
      steps.push_back(std::chrono::duration<double, std::nano>(next - start).count());
    }
    return median(std::move(steps));
  }();
  return step;
}

std::string version_line() {
  return fmt::format("{} (git {}{}, {}, {})", build::kVersion, build::kGitSha.substr(0, 7),
                     build::kGitDirty ? " with changes" : "", build::kBuildType, build::kCompiler);
}

}  // namespace headwise::lab
