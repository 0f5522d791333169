#include "lab/peers/worker.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <map>
#include <thread>

#include "core/parallel_for.h"

namespace headwise::lab {
namespace {

constexpr std::size_t kMostLine = std::size_t{1} << 20;
constexpr std::size_t kLastWords = 400;

Status system_error(std::string_view what) {
  return Status::internal(fmt::format("{}: {}", what, std::strerror(errno)));
}

void close_all(std::initializer_list<int> files) {
  for (const int file : files) {
    if (file >= 0) close(file);
  }
}

// This process's environment with the command's words in place of its own.
std::vector<std::string> environment_of(const WorkerCommand& command) {
  std::map<std::string, std::string> words;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const std::size_t equals = text.find('=');
    if (equals != std::string_view::npos)
      words[std::string(text.substr(0, equals))] = text.substr(equals + 1);
  }
  for (const auto& [name, value] : command.environment) words[name] = value;
  std::vector<std::string> lines;
  lines.reserve(words.size());
  for (const auto& [name, value] : words) lines.push_back(fmt::format("{}={}", name, value));
  return lines;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> all;
  all.reserve(texts.size() + 1);
  for (std::string& text : texts) all.push_back(text.data());
  all.push_back(nullptr);
  return all;
}

// The processors of a worker, where this thread was bound to fewer than kernels run on.
cpu_set_t processors_of_all(int& count) {
  cpu_set_t all;
  CPU_ZERO(&all);
  for (const int processor : core::bound_processors()) {
    if (processor >= 0 && processor < CPU_SETSIZE) CPU_SET(processor, &all);
  }
  count = CPU_COUNT(&all);
  return all;
}

// Between fork and exec only system calls: other threads' locks may be held for ever.
[[noreturn]] void become(pid_t parent, const char* program, char* const* arguments, char* const* environment,
                         const cpu_set_t* processors, int requests, int replies, int errors) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // it died before the line above
  if (processors != nullptr) sched_setaffinity(0, sizeof *processors, processors);
  dup2(requests, 0);
  dup2(replies, 1);
  dup2(errors, 2);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) {
    struct sigaction action{};
    action.sa_handler = SIG_DFL;
    sigaction(signal, &action, nullptr);
  }
  execve(program, arguments, environment);
  static constexpr std::string_view kText = "cannot be executed";
  if (write(2, kText.data(), kText.size()) < 0) _exit(126);
  _exit(127);
}

}  // namespace

Result<std::unique_ptr<Worker>> Worker::start(const WorkerCommand& command) {
  std::array<int, 2> requests{-1, -1};
  std::array<int, 2> replies{-1, -1};
  // A socket, since writing to one whose reader is gone can be told not to raise SIGPIPE.
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, requests.data()) != 0)
    return system_error("socketpair for a peer");
  if (pipe2(replies.data(), O_CLOEXEC) != 0) {
    const Status status = system_error("pipe for a peer");
    close_all({requests[0], requests[1]});
    return status;
  }
  const int errors = memfd_create("headwise-peer-stderr", MFD_CLOEXEC);
  if (errors >= 0) fcntl(errors, F_SETFL, O_APPEND);
  std::vector<std::string> words{command.program};
  words.insert(words.end(), command.arguments.begin(), command.arguments.end());
  std::vector<std::string> environment = environment_of(command);
  const std::vector<char*> argument_pointers = pointers(words);
  const std::vector<char*> environment_pointers = pointers(environment);
  int bound = 0;
  const cpu_set_t processors = processors_of_all(bound);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) {
    become(parent, command.program.c_str(), argument_pointers.data(), environment_pointers.data(),
           bound > 0 ? &processors : nullptr, requests[1], replies[1], errors);
  }
  const Status status = pid < 0 ? system_error("fork for a peer") : Status();
  close_all({requests[1], replies[1]});
  if (pid < 0) {
    close_all({requests[0], replies[0], errors});
    return status;
  }
  setpgid(pid, pid);  // whichever of the two comes first
  return std::unique_ptr<Worker>(new Worker(pid, requests[0], replies[0], errors));
}

Worker::~Worker() {
  kill();
  close_all({requests_, replies_, errors_});
}

// Whether it has ended. What it started goes with it: as long as it is not reaped, no other group can have
// its number.
bool Worker::reap() {
  if (ended_) return true;
  const auto look = [&](int options) {
    siginfo_t found{};
    while (waitid(P_PID, static_cast<id_t>(pid_), &found, options | WNOHANG) != 0) {
      if (errno == EINTR) continue;
      ended_ = true;  // where SIGCHLD is ignored the system reaps, and nobody learns how it ended
      break;
    }
    return found;
  };
  const siginfo_t seen = look(WEXITED | WSTOPPED | WNOWAIT);
  if (ended_ || seen.si_pid == 0) return ended_;
  if (seen.si_code == CLD_STOPPED) {
    paused_ = look(WSTOPPED).si_pid != 0;
    return ended_;
  }
  ::kill(-pid_, SIGKILL);
  end_ = look(WEXITED);
  ended_ = true;
  return true;
}

void Worker::pause() {
  if (ended_ || paused_) return;
  ::kill(-pid_, SIGSTOP);
  const Clock::time_point limit = Clock::now() + std::chrono::milliseconds(100);
  while (!paused_ && !reap() && Clock::now() < limit)
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  paused_ = !ended_;
}

void Worker::resume() {
  if (ended_ || !paused_) return;
  paused_ = false;
  ::kill(-pid_, SIGCONT);
}

Status Worker::fail(WorkerFailure failure, std::string message) {
  failure_ = failure;
  return Status::internal(std::move(message));
}

Status Worker::send(std::string_view line) {
  std::string text(line);
  text += '\n';
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t sent = ::send(requests_, rest.data(), rest.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return fail(WorkerFailure::ended, "takes no more requests");
    rest.remove_prefix(static_cast<std::size_t>(sent));
  }
  return {};
}

Result<std::string> Worker::receive(Clock::time_point deadline) {
  for (;;) {
    if (const std::size_t end = buffer_.find('\n'); end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    if (buffer_.size() > kMostLine) return fail(WorkerFailure::unreadable, "wrote a line without an end");
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd file{.fd = replies_, .events = POLLIN, .revents = 0};
    const int ready = poll(&file, 1, static_cast<int>(std::clamp<std::int64_t>(left + 1, 0, 1'000'000)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) {
      if (Clock::now() < deadline) continue;
      return fail(WorkerFailure::late, "did not answer in time");
    }
    std::array<char, 4096> piece{};
    const ssize_t count = read(replies_, piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return fail(WorkerFailure::ended, "closed its end");
    buffer_.append(piece.data(), static_cast<std::size_t>(count));
  }
}

void Worker::kill() {
  if (!ended_) ::kill(-pid_, SIGKILL);
  // A process in the kernel's hands (a driver's call) may take its time; nobody waits for it for ever.
  const Clock::time_point limit = Clock::now() + std::chrono::seconds(2);
  while (!reap() && Clock::now() < limit) std::this_thread::sleep_for(std::chrono::microseconds(200));
}

std::string Worker::how_it_ended() {
  const Clock::time_point limit = Clock::now() + std::chrono::seconds(1);
  while (!reap() && Clock::now() < limit) std::this_thread::sleep_for(std::chrono::microseconds(200));
  if (!ended_) return "closed its pipe and went on";
  if (end_.si_pid == 0) return "ended, the system does not say how";
  if (end_.si_code == CLD_EXITED) return fmt::format("ended with exit code {}", end_.si_status);
  const int signal = end_.si_status;
  return fmt::format("was killed by signal {} ({}{})", signal, strsignal(signal),
                     signal == SIGKILL ? "; the system does so where memory runs out" : "");
}

std::string Worker::last_words() const {
  const off_t size = lseek(errors_, 0, SEEK_END);
  if (size <= 0) return "";
  const auto length = static_cast<std::size_t>(std::min<off_t>(size, kLastWords));
  std::string text(length, '\0');
  const ssize_t count = pread(errors_, text.data(), length, size - static_cast<off_t>(length));
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
    if (static_cast<unsigned char>(c) >= 0x7f) c = '?';  // a cut may have halved a character
  }
  const std::size_t begin = text.find_first_not_of(' ');
  if (begin == std::string::npos) return "";
  text = text.substr(begin, text.find_last_not_of(' ') - begin + 1);
  return static_cast<std::size_t>(size) > length ? "..." + text : text;
}

}  // namespace headwise::lab
