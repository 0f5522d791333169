#include "lab/peers/peer_work.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <thread>

#include "lab/statistics.h"

namespace headwise::lab {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kStallSeconds = 10;  // a timed request may take this, and ten times what it should

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

bool contains(const std::vector<std::string>& all, std::string_view one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

// Whether another thread of this process is running: field 3 of its stat, behind the name in parentheses.
bool others_run() {
  const std::string self = fmt::format("{}", syscall(SYS_gettid));
  DIR* folder = opendir("/proc/self/task");
  if (folder == nullptr) return false;
  bool running = false;
  while (const dirent* entry = readdir(folder)) {
    const std::string name = entry->d_name;
    if (name.starts_with(".") || name == self) continue;
    std::ifstream file("/proc/self/task/" + name + "/stat");
    std::string line;
    std::getline(file, line);
    const std::size_t end = line.rfind(')');
    running = running || (end != std::string::npos && end + 2 < line.size() && line[end + 2] == 'R');
  }
  closedir(folder);
  return running;
}

// Our own threads spin for a while after a kernel's call, in wait of the next. A peer must not be timed
// beside them: workers are stopped by a signal, this process waits.
void wait_until_quiet() {
  const Clock::time_point limit = Clock::now() + std::chrono::milliseconds(50);
  while (others_run() && Clock::now() < limit) std::this_thread::sleep_for(std::chrono::microseconds(300));
}

}  // namespace

PeerWork::~PeerWork() {
  if (!prepared_) return;
  // One that cannot even let go is killed by ask().
  const Result<PeerReply> reply =
      peer_.ask([](std::int64_t id) { return plain_message(id, "release"); }, kStallSeconds);
  if (reply && reply->restart) peer_.stop();
}

Status PeerWork::fail(std::string_view row_status, std::string message) {
  failed_as_ = row_status;
  return Status::internal(std::move(message));
}

Result<PeerReply> PeerWork::ask(const std::function<std::string(std::int64_t)>& request, double seconds) {
  const Clock::time_point start = Clock::now();
  Result<PeerReply> reply = peer_.ask(request, seconds);
  if (!reply) {
    failed_as_ = peer_.failed_as();
    lost_seconds_ += seconds_since(start);
  }
  return reply;
}

// By what its hello said.
Status PeerWork::check_able() const {
  const AttentionProblem& p = shared_.one.problem;
  const PeerReply& hello = peer_.hello();
  const auto no = [&](std::string_view what, std::string_view wanted, const std::vector<std::string>& has) {
    if (has.empty()) return Status::unsupported(fmt::format("runs on no {} that is here", what));
    return Status::unsupported(fmt::format("{} {} is not among {}", what, wanted, fmt::join(has, ", ")));
  };
  const std::string_view kind = shared_.one.device.kind == DeviceKind::cpu ? "cpu" : "cuda";
  if (!contains(hello.devices, kind)) return no("device", kind, hello.devices);
  if (!contains(hello.directions, name(p.direction)))
    return no("direction", name(p.direction), hello.directions);
  for (const DType dtype : {p.dtype, p.kv_dtype}) {
    if (!contains(hello.dtypes, name(dtype))) return no("dtype", name(dtype), hello.dtypes);
  }
  return {};
}

Status PeerWork::prepare(Row& row) {
  const Clock::time_point start = Clock::now();
  if (Status status = peer_.ready(shared_.one.problem.threads); !status.ok()) {
    lost_seconds_ += seconds_since(start);
    return fail(peer_.failed_as(), status.message());
  }
  row.version = peer_.hello().version;
  if (Status status = check_able(); !status.ok()) return fail(row_status::kUnsupported, status.message());
  Result<PeerReply> reply = ask(
      [&](std::int64_t id) {
        return prepare_message(id, shared_.one, shared_.tensors.tensors(), shared_.tensors.path(),
                               shared_.tensors.bytes(), shared_.last_level_cache_bytes);
      },
      shared_.seconds);
  if (!reply) return reply.status();
  prepared_ = true;
  if (reply->ran.empty() || reply->timer.empty())
    return fail(row_status::kError, fmt::format("{} does not say what ran, or by which timer", peer_.name()));
  row.ran = reply->ran;
  row.prepare_ms = reply->prepare_ms;
  row.overhead_ms = reply->overhead_ms;
  timer_ = reply->timer;
  regime_ = reply->regime;
  cache_method_ = reply->cache_method;
  return {};
}

Result<double> PeerWork::first_call(Row& row) {
  if (Status status = poison(shared_.inputs); !status.ok()) return status;
  shared_.tensors.poison();
  if (Status status = prepare(row); !status.ok()) return status;
  wait_until_quiet();
  Result<PeerReply> reply = ask([](std::int64_t id) { return plain_message(id, "call"); }, shared_.seconds);
  if (!reply) return reply.status();
  if (!reply->ms)
    return fail(row_status::kError, fmt::format("{} does not say how long its call took", peer_.name()));
  row.latency_ms = reply->latency_ms;
  if (reply->peak_bytes) {
    const std::int64_t peak = *row.input_bytes + *row.output_bytes + *reply->peak_bytes;
    (reply->peak_method == "resident" ? row.peak_resident_bytes : row.peak_allocated_bytes) = peak;
    row.peak_bytes = peak;
  }
  shared_.tensors.read_outputs(shared_.inputs);
  call_ms_ = *reply->ms;
  return call_ms_;
}

// They are in host memory, whatever the device, and lse is not asked of peers.
Verdict PeerWork::verdict(const Reference& reference) {
  AttentionArgs outputs = shared_.inputs.host_args();
  outputs.lse = {};
  return judge(reference, outputs);
}

Result<Timed> PeerWork::time(std::int64_t calls, double lead_in_ms) {
  wait_until_quiet();
  const Clock::time_point start = Clock::now();
  const double expected_ms = static_cast<double>(calls) * call_ms_ + lead_in_ms;
  Result<PeerReply> reply = ask([&](std::int64_t id) { return time_message(id, calls, lead_in_ms); },
                                kStallSeconds + 10 * expected_ms / 1000);
  if (!reply) return reply.status();
  if (!reply->ms || *reply->ms <= 0 || reply->calls.value_or(0) < calls) {
    return fail(row_status::kError,
                fmt::format("{} was asked to time {} calls and answered {} calls in {} ms", peer_.name(),
                            calls, reply->calls.value_or(0), reply->ms.value_or(0)));
  }
  if (reply->clock_mhz) clocks_mhz_.push_back(*reply->clock_mhz);
  call_ms_ = *reply->ms / static_cast<double>(*reply->calls);
  const double beside_ms = seconds_since(start) * 1000 - *reply->ms;
  return Timed{.ms = *reply->ms, .calls = *reply->calls, .beside_ms = std::max(0.0, beside_ms)};
}

Status PeerWork::check_outputs() {
  if (Status status = poison(shared_.inputs); !status.ok()) return status;
  shared_.tensors.poison();
  Result<PeerReply> reply =
      ask([](std::int64_t id) { return plain_message(id, "output"); }, kStallSeconds + call_ms_ / 100);
  if (!reply) return reply.status();
  shared_.tensors.read_outputs(shared_.inputs);
  const Verdict again = verdict(shared_.reference);
  if (again.passed()) return {};
  return fail(
      row_status::kInaccurate,
      fmt::format("outputs of a timed call are wrong, those of the first were right: {}", again.reason));
}

void PeerWork::describe_timing(Row& row) const {
  row.timer = timer_;
  row.regime = regime_;
  row.cache_method = cache_method_;
  if (!clocks_mhz_.empty()) row.clock_mhz = summarize(clocks_mhz_).median;
}

std::string_view PeerWork::row_status_of(const Status& status) const {
  return failed_as_.empty() ? lab::row_status_of(status.code()) : failed_as_;
}

}  // namespace headwise::lab
