#include "core/container.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "core/text.h"

namespace headwise::core {
namespace {

// The folders of a controller's group and of its ancestors, innermost first. Version 2 has one
// unified tree (an empty controller list in /proc/self/cgroup), version 1 one a controller.
struct Folders {
  std::vector<std::string> unified;
  std::vector<std::string> legacy;
};

std::vector<std::string> upward(const std::string& root, std::string path) {
  std::vector<std::string> folders;
  for (;;) {
    while (!path.empty() && path.back() == '/') path.pop_back();
    folders.push_back(root + path);
    const std::size_t slash = path.rfind('/');
    if (slash == std::string::npos) return folders;
    path.erase(slash);
  }
}

Folders group_folders(std::string_view controller) {
  Folders folders;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // "4:memory:/path", "0::/path"
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) folders.unified = upward("/sys/fs/cgroup", path);
    for (const std::string_view name : split(controllers, ',')) {
      if (name == controller) folders.legacy = upward("/sys/fs/cgroup/" + std::string(controller), path);
    }
  }
  return folders;
}

std::optional<std::uint64_t> read_number(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  file >> text;  // "max" parses as no number, that is no limit
  return parse_number<std::uint64_t>(text);
}

// "name value" lines, as in memory.stat.
std::uint64_t read_entry(const std::string& path, std::string_view entry) {
  std::ifstream file(path);
  std::string name;
  std::uint64_t value = 0;
  while (file >> name >> value) {
    if (name == entry) return value;
  }
  return 0;
}

void tighten(double& processors, double quota, double period) {
  if (quota > 0 && period > 0)
    processors = processors == 0 ? quota / period : std::min(processors, quota / period);
}

struct MemoryFiles {
  const char* limit;
  const char* usage;
  const char* inactive;  // entry of memory.stat: page cache that the kernel drops first
};

void tighten(ContainerMemory& memory, const std::string& folder, const MemoryFiles& files) {
  constexpr std::uint64_t kNoLimit = std::uint64_t{1} << 60;  // version 1 writes 2^63 less a page
  const std::optional<std::uint64_t> limit = read_number(folder + files.limit);
  if (!limit || *limit >= kNoLimit) return;
  const std::uint64_t usage = read_number(folder + files.usage).value_or(0);
  const std::uint64_t inactive = std::min(usage, read_entry(folder + "/memory.stat", files.inactive));
  const std::uint64_t used = usage - inactive;
  const std::uint64_t available = *limit > used ? *limit - used : 0;
  const bool first = memory.limit == 0;
  memory.limit = first ? *limit : std::min(memory.limit, *limit);
  memory.available = first ? available : std::min(memory.available, available);
}

}  // namespace

int container_processors() {
  const Folders folders = group_folders("cpu");
  double processors = 0;
  for (const std::string& folder : folders.unified) {
    std::ifstream file(folder + "/cpu.max");  // "200000 100000", "max 100000"
    std::string quota;
    double period = 0;
    if (file >> quota >> period) tighten(processors, parse_number<double>(quota).value_or(0), period);
  }
  for (const std::string& folder : folders.legacy) {
    const std::optional<std::uint64_t> quota = read_number(folder + "/cpu.cfs_quota_us");  // -1: none
    const std::optional<std::uint64_t> period = read_number(folder + "/cpu.cfs_period_us");
    if (quota && period) tighten(processors, static_cast<double>(*quota), static_cast<double>(*period));
  }
  return static_cast<int>(std::ceil(processors));
}

ContainerMemory container_memory() {
  const Folders folders = group_folders("memory");
  ContainerMemory memory;
  for (const std::string& folder : folders.unified) {
    tighten(memory, folder, {"/memory.max", "/memory.current", "inactive_file"});
  }
  for (const std::string& folder : folders.legacy) {
    tighten(memory, folder, {"/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_inactive_file"});
  }
  return memory;
}

}  // namespace headwise::core
