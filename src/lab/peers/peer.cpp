#include "lab/peers/peer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "lab/rows.h"

namespace headwise::lab {
namespace {

constexpr double kStartSeconds = 120;  // importing a framework from a cold disk takes a minute

Worker::Clock::time_point after(double seconds) {
  return Worker::Clock::now() + std::chrono::duration_cast<Worker::Clock::duration>(
                                    std::chrono::duration<double>(std::clamp(seconds, 0.0, 1e6)));
}

// The row statuses that a worker may answer; anything else is a mistake of its own.
std::string_view row_status_named(const std::string& status) {
  static constexpr std::array<std::string_view, 4> kAll{row_status::kUnsupported, row_status::kOutOfMemory,
                                                        row_status::kError, row_status::kAbsent};
  const auto* found = std::find(kAll.begin(), kAll.end(), status);
  return found == kAll.end() ? std::string_view() : *found;
}

WorkerCommand command_of(const std::string& python, const std::string& peer, int threads) {
  const std::string count = fmt::format("{}", std::max(1, threads));
  WorkerCommand command{
      .program = python,
      .arguments = {"-B", (std::filesystem::path(peers_directory()) / "worker.py").string(), peer}};
  for (const char* name : {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "HEADWISE_THREADS"})
    command.environment.emplace_back(name, count);
  return command;
}

}  // namespace

Status Peer::fail(std::string_view row_status, std::string message) {
  failed_as_ = row_status;
  return Status::internal(std::move(message));
}

// Any failure of the exchange itself ends the worker: what it would say next could be about anything.
Result<PeerReply> Peer::take_reply(std::int64_t id, Clock::time_point deadline, std::string_view when) {
  const auto end = [&](std::string_view row_status, const std::string& what) {
    worker_->kill();
    const std::string words = worker_->last_words();
    worker_.reset();
    return fail(row_status, fmt::format("{} {} {}{}", name_, what, when,
                                        words.empty() ? "" : fmt::format("; it wrote last: {}", words)));
  };
  Result<std::string> line = worker_->receive(deadline);
  if (!line) {
    switch (worker_->failure()) {
      case WorkerFailure::late:
        return end(row_status::kTimeout, "did not answer in the time allowed and was killed,");
      case WorkerFailure::ended: return end(row_status::kError, worker_->how_it_ended());
      case WorkerFailure::unreadable:
      case WorkerFailure::none: break;
    }
    return end(row_status::kError, line.status().message());
  }
  worker_->pause();
  Result<PeerReply> reply = parse_reply(*line);
  if (!reply) return end(row_status::kError, reply.status().message());
  if (reply->id != id)
    return end(row_status::kError, fmt::format("answered request {} when {} was open,", reply->id, id));
  if (reply->status == row_status::kOk) return reply;
  const std::string_view status = row_status_named(reply->status);
  if (status.empty()) return end(row_status::kError, fmt::format("answered the status '{}',", reply->status));
  return fail(status, reply->reason.empty() ? fmt::format("{} {} and gave no reason", name_, reply->status)
                                            : reply->reason);
}

Status Peer::start(int threads) {
  worker_.reset();
  Result<std::unique_ptr<Worker>> worker = Worker::start(command_of(python_, name_, threads));
  if (!worker) return fail(row_status::kError, worker.status().message());
  worker_ = *std::move(worker);
  threads_ = threads;
  Result<PeerReply> hello = take_reply(0, after(kStartSeconds), "while it started");
  if (!hello) {
    worker_.reset();
    return hello.status();
  }
  if (hello->protocol != kPeerProtocol) {
    worker_.reset();
    return fail(row_status::kError,
                fmt::format("{} speaks the protocol '{}', expected {}; peers/worker.py is "
                            "of another version than this program",
                            name_, hello->protocol, kPeerProtocol));
  }
  hello_ = *std::move(hello);
  return {};
}

Status Peer::ready(int threads) {
  if (worker_ != nullptr && (threads == threads_ || hello_.threads != "fixed")) return {};
  return start(threads);
}

Result<PeerReply> Peer::ask(const std::function<std::string(std::int64_t id)>& request, double seconds) {
  if (worker_ == nullptr) return fail(row_status::kError, fmt::format("{} is no longer there", name_));
  const std::int64_t id = next_id_++;
  worker_->resume();
  // A worker that takes no more has ended; the reply says how.
  if (Status status = worker_->send(request(id)); !status.ok() && worker_->failure() != WorkerFailure::ended)
    return fail(row_status::kError, status.message());
  return take_reply(id, after(seconds), "in the middle of a request");
}

Result<Peer*> Peers::find(const PeerInfo& info) {
  if (!info.absent.empty()) return Status::unavailable(fmt::format("{}; {}", info.absent, info.install));
  const auto found = peers_.find(info.name);
  if (found != peers_.end()) return found->second.get();
  Result<std::string> python = peer_python(info.set, python_);
  if (!python) return python.status();
  return peers_.emplace(info.name, std::make_unique<Peer>(info.name, *python)).first->second.get();
}

}  // namespace headwise::lab
