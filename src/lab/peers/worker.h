// A worker process: its pipes, its deadlines, and its end. Knows nothing of what is said.
#pragma once

#include <sys/types.h>
#include <sys/wait.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "headwise/status.h"

namespace headwise::lab {

struct WorkerCommand {
  std::string program;                                             // path
  std::vector<std::string> arguments;                              // without the program's name
  std::vector<std::pair<std::string, std::string>> environment{};  // beside this process's own
};

// Why an exchange with a worker failed.
enum class WorkerFailure : std::uint8_t { none, late, ended, unreadable };

// Leader of a process group of its own, so that a Ctrl-C does not reach it and what it starts ends with it.
// Dies with the thread that started it.
class Worker {
 public:
  using Clock = std::chrono::steady_clock;

  static Result<std::unique_ptr<Worker>> start(const WorkerCommand& command);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker();  // kills the group

  // Stops and continues all threads of the group: idle thread pools spin, and what spins disturbs others.
  // pause() returns when the worker stands still, or 100 ms later.
  void pause();
  void resume();

  Status send(std::string_view line);  // adds the newline
  // A line of at most 1 MiB. On a failure, failure() tells which; the worker is of no more use then.
  Result<std::string> receive(Clock::time_point deadline);
  [[nodiscard]] WorkerFailure failure() const { return failure_; }

  void kill();
  // "was killed by signal 11 (Segmentation fault)"; waits for it at most a second.
  std::string how_it_ended();
  // The end of what it wrote to stderr, on one line.
  [[nodiscard]] std::string last_words() const;

 private:
  Worker(pid_t pid, int requests, int replies, int errors)
      : pid_(pid), requests_(requests), replies_(replies), errors_(errors) {}
  Status fail(WorkerFailure failure, std::string message);
  bool reap();

  pid_t pid_;
  int requests_, replies_, errors_;
  bool paused_ = false;
  bool ended_ = false;
  siginfo_t end_{};  // once it has ended
  std::string buffer_;
  WorkerFailure failure_ = WorkerFailure::none;
};

}  // namespace headwise::lab
