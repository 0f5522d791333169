#include "lab/peers/catalog.h"

#include <fmt/format.h>
#include <fnmatch.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>

#include "core/text.h"
#include "lab/data_files.h"

namespace headwise::lab {
namespace {

namespace fs = std::filesystem;

std::string_view kind_name(DeviceKind kind) { return kind == DeviceKind::cpu ? "cpu" : "cuda"; }

// The quoted words of a line.
std::vector<std::string> quoted_words(const std::string& line) {
  std::vector<std::string> words;
  for (std::size_t at = line.find('"'); at != std::string::npos;) {
    const std::size_t end = line.find('"', at + 1);
    if (end == std::string::npos) break;
    words.push_back(line.substr(at + 1, end - at - 1));
    at = line.find('"', end + 1);
  }
  return words;
}

// A peer's file says where it runs in a line of its own, DEVICES = ("cpu", "cuda"), so that nobody has to
// start Python to know whom a set means.
std::vector<std::string> devices_of(const fs::path& file) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with("DEVICES")) return quoted_words(line);
  }
  return {"cpu"};
}

std::vector<PeerInfo> with_files(const fs::path& folder) {
  std::vector<PeerInfo> found;
  std::error_code error;
  for (const auto& set : fs::directory_iterator(folder, error)) {
    std::error_code inner;
    for (const auto& file : fs::directory_iterator(set.path(), inner)) {
      const std::string stem = file.path().stem().string();
      if (file.path().extension() != ".py" || stem.starts_with("_")) continue;
      const std::string set_name = set.path().filename().string();
      found.push_back({.name = fmt::format("{}.{}", set_name, stem),
                       .set = set_name,
                       .devices = devices_of(file.path()),
                       .absent = {},
                       .install = {}});
    }
  }
  std::sort(found.begin(), found.end(), [](const PeerInfo& a, const PeerInfo& b) { return a.name < b.name; });
  return found;
}

std::string trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1));
}

// Lines "name | devices | reason | what would bring it"; # begins a comment line.
void add_absent(const fs::path& file, std::vector<PeerInfo>& peers) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    if (trimmed(line).empty() || line.starts_with("#")) continue;
    std::vector<std::string> parts;
    for (const std::string_view part : core::split(line, '|')) parts.push_back(trimmed(part));
    if (parts.size() != 4) continue;  // tests/peers reads the file strictly
    std::vector<std::string> devices;
    for (const std::string_view device : core::split(parts[1], ',')) devices.push_back(trimmed(device));
    peers.push_back({.name = parts[0],
                     .set = parts[0].substr(0, parts[0].find('.')),
                     .devices = std::move(devices),
                     .absent = parts[2],
                     .install = parts[3]});
  }
}

bool is_executable(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error) && access(path.c_str(), X_OK) == 0;
}

}  // namespace

bool PeerInfo::runs_on(DeviceKind kind) const {
  return std::find(devices.begin(), devices.end(), kind_name(kind)) != devices.end();
}

std::string peers_directory() {
  const fs::path inside = fs::path(data_directory()) / "peers";
  std::error_code error;
  if (fs::is_directory(inside, error)) return inside.string();
  return (fs::path(data_directory()).parent_path() / "peers").string();
}

std::string peer_files_directory() {
  if (const char* given = std::getenv("HEADWISE_PEERS"); given != nullptr && *given != '\0') return given;
  return peers_directory();
}

const std::vector<PeerInfo>& peers() {
  static std::mutex mutex;
  static std::map<std::string, std::vector<PeerInfo>> of_folder;  // elements stay where they are
  const std::lock_guard<std::mutex> lock(mutex);
  const std::string folder = peer_files_directory();
  const auto known = of_folder.find(folder);
  if (known != of_folder.end()) return known->second;
  std::vector<PeerInfo> found = with_files(folder);
  add_absent(fs::path(folder) / "absent.txt", found);
  return of_folder.emplace(folder, std::move(found)).first->second;
}

Result<std::vector<const PeerInfo*>> find_peers(std::string_view name, DeviceKind kind) {
  std::vector<const PeerInfo*> found;
  const std::string pattern(name);
  bool exists = false;
  for (const PeerInfo& peer : peers()) {
    if (peer.name == name) return std::vector<const PeerInfo*>{&peer};
    const bool fits =
        name == "all" || peer.set == name || fnmatch(pattern.c_str(), peer.name.c_str(), 0) == 0;
    exists = exists || fits;
    if (fits && peer.absent.empty() && peer.runs_on(kind)) found.push_back(&peer);
  }
  if (exists || name == "all") return found;
  std::vector<std::string_view> known{"all"};
  for (const PeerInfo& peer : peers()) {
    known.push_back(peer.set);
    known.push_back(peer.name);
  }
  return Status::invalid_argument(fmt::format("no peer '{}'{}; headwise list --peers shows all (peers in {})",
                                              name, core::did_you_mean(name, known), peer_files_directory()));
}

Result<std::string> peer_python(const std::string& set, const std::string& given) {
  if (!given.empty()) {
    if (given.find('/') != std::string::npos) {
      if (is_executable(given)) return given;
    } else {
      const char* path = std::getenv("PATH");
      for (const std::string_view folder : core::split(path == nullptr ? "" : path, ':')) {
        const fs::path file = fs::path(folder) / given;
        if (is_executable(file)) return file.string();
      }
    }
    return Status::unavailable(fmt::format("--peer-python: '{}' is no program that can be run", given));
  }
  const fs::path python = fs::path(data_directory()) / "environments" / set / "bin" / "python";
  if (is_executable(python)) return python.string();
  std::error_code error;
  if (!fs::exists(fs::path(peer_files_directory()) / "requirements" / (set + ".txt"), error)) {
    return Status::unavailable(fmt::format(
        "{} has no requirements that make peers could install; --peer-python PATH uses a Python that has it",
        set));
  }
  return Status::unavailable(fmt::format(
      "{} is not installed; make peers PEERS={} installs it, --peer-python PATH uses a Python that "
      "has it",
      set, set));
}

}  // namespace headwise::lab
