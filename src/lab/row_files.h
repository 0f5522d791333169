// How result files and what is made from them come to the disk: whole, under a name of their own, never
// mixed.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "headwise/status.h"

namespace headwise::lab {

// "cannot <doing> '<path>': <errno in words>".
Status system_error(std::string_view doing, const std::string& path);

// Whether a file of that name may come into being: a device or a folder cannot be replaced by renaming a file
// over it, and must not be.
Status check_target(const std::string& path);

Result<std::string> read_whole_file(const std::string& path);

// A text file written under a temporary name and renamed, so that nobody ever sees half of it.
Status write_file_atomically(const std::string& path, std::string_view content);

// A file held so that no other program of ours takes it for its own; let go when the object goes.
class FileLock {
 public:
  FileLock() = default;
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  ~FileLock();

  // `unavailable` where another process holds it, with the file's name.
  static Result<FileLock> take(const std::string& path);

 private:
  int file_ = -1;
};

// Temporary files that writers of `path` left beside it, or are writing now: FILE.<process>[-<n>].partial.
std::vector<std::string> partial_files(const std::string& path);

}  // namespace headwise::lab
