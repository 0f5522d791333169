#include "lab/row_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "lab/rows.h"

namespace headwise::lab {
namespace {

constexpr std::string_view kPartial = ".partial";

// A new file beside `path` that is nobody else's, locked. Process ids come again (in containers at once), so
// the name alone would not do.
Result<int> create_partial(const std::string& path, std::string& name) {
  for (int attempt = 1; attempt <= 1000; ++attempt) {
    name =
        fmt::format("{}.{}{}{}", path, getpid(), attempt == 1 ? "" : fmt::format("-{}", attempt), kPartial);
    const int file = open(name.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    if (file < 0 && errno == EEXIST) continue;
    if (file < 0) return system_error("create", name);
    // Only who looks for leftovers in this very moment can hold it; the file stays his. A file system without
    // locks is no reason not to measure: the name is still nobody else's.
    if (flock(file, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return file;
    close(file);
  }
  return Status::unavailable(fmt::format("cannot create '{}': a thousand like it exist; remove them", name));
}

Status write_all(int file, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t written = write(file, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return system_error("write to", path);
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

// The name is as safe as the content: after a power cut both are there.
void sync_folder_of(const std::string& path) {
  const std::string folder = std::filesystem::absolute(path).parent_path().string();
  const int file = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) return;  // a folder that may be written and not read: nothing more can be done
  fsync(file);
  close(file);
}

}  // namespace

Status system_error(std::string_view doing, const std::string& path) {
  return Status::unavailable(fmt::format("cannot {} '{}': {}", doing, path, std::strerror(errno)));
}

Status check_target(const std::string& path) {
  if (path == "-") {
    return Status::invalid_argument(
        "'-' is no name for a file, and standard output has the table; name a file");
  }
  std::error_code ignored;
  const auto kind = std::filesystem::status(path, ignored).type();
  if (kind == std::filesystem::file_type::not_found || kind == std::filesystem::file_type::regular) return {};
  return Status::invalid_argument(
      fmt::format("'{}' exists and is no regular file; name a file to write", path));
}

Result<std::string> read_whole_file(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return system_error("open", path);
  std::string content;
  char buffer[1 << 16];
  std::size_t got = 0;
  while ((got = std::fread(buffer, 1, sizeof buffer, file)) > 0) content.append(buffer, got);
  const bool failed = std::ferror(file) != 0;
  std::fclose(file);
  if (failed) return system_error("read", path);
  return content;
}

Status write_file_atomically(const std::string& path, std::string_view content) {
  if (Status status = check_target(path); !status.ok()) return status;
  std::string temporary;
  Result<int> file = create_partial(path, temporary);
  if (!file) return file.status();
  Status status = write_all(*file, content, temporary);
  if (close(*file) != 0 && status.ok()) status = system_error("write to", temporary);
  if (status.ok() && std::rename(temporary.c_str(), path.c_str()) != 0) status = system_error("create", path);
  if (!status.ok()) std::remove(temporary.c_str());
  return status;
}

FileLock::FileLock(FileLock&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(file_, other.file_);
  return *this;
}
FileLock::~FileLock() {
  if (file_ >= 0) close(file_);
}

Result<FileLock> FileLock::take(const std::string& path) {
  for (;;) {
    FileLock lock;
    lock.file_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (lock.file_ < 0) return system_error("open", path);
    if (flock(lock.file_, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) return system_error("lock", path);
      return Status::unavailable(fmt::format("'{}' is in use by another run; wait for its end", path));
    }
    // Its holder may have put another file in its place between the two calls.
    struct stat held{}, named{};
    if (fstat(lock.file_, &held) != 0 || stat(path.c_str(), &named) != 0) return system_error("open", path);
    if (held.st_ino == named.st_ino && held.st_dev == named.st_dev) return lock;
  }
}

std::vector<std::string> partial_files(const std::string& path) {
  const std::filesystem::path whole = std::filesystem::absolute(path);
  const std::string begin = whole.filename().string() + ".";
  std::vector<std::string> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(whole.parent_path(), error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(begin) || !name.ends_with(kPartial) ||
        name.size() <= begin.size() + kPartial.size())
      continue;
    const std::string_view middle =
        std::string_view(name).substr(begin.size(), name.size() - begin.size() - kPartial.size());
    if (middle.find_first_not_of("0123456789-") == std::string_view::npos)
      found.push_back((std::filesystem::path(path).parent_path() / name).string());
  }
  std::sort(found.begin(), found.end());
  return found;
}

RowWriter::~RowWriter() {
  if (file_ >= 0) close(file_);
}

Status RowWriter::open(const std::string& path, const Run& run) {
  if (Status status = check_target(path); !status.ok()) return status;
  Result<int> file = create_partial(path, temporary_);
  if (!file) return file.status();
  path_ = path;
  file_ = *file;
  sync_folder_of(temporary_);
  std::string text = to_json_line(run) + "\n";
  for (const Peak& peak : run.peaks) text += to_json_line(peak) + "\n";
  return put(text);
}

Status RowWriter::write(std::span<const Peak> peaks) {
  std::string text;
  for (const Peak& peak : peaks) text += to_json_line(peak) + "\n";
  return put(text);
}

Status RowWriter::write(std::span<const Row> rows) {
  std::string text;
  for (const Row& row : rows) text += to_json_line(row) + "\n";
  return put(text);
}

Status RowWriter::put(std::string_view text) {
  if (file_ < 0) return Status::internal("RowWriter: write without open");
  if (Status status = write_all(file_, text, temporary_); !status.ok()) return status;
  return fdatasync(file_) == 0 || errno == EINVAL ? Status() : system_error("write to", temporary_);
}

Status RowWriter::finish() {
  if (file_ < 0) return Status::internal("RowWriter: finish without open");
  // Renamed while it is locked, so that nobody takes it for a leftover in between.
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) return system_error("create", path_);
  sync_folder_of(path_);
  const int file = std::exchange(file_, -1);
  return close(file) == 0 ? Status() : system_error("write to", path_);
}

}  // namespace headwise::lab
