// A peer as the runner sees it: other people's attention in a worker process, asked over the protocol of
// docs/peers.md. A worker that fails, in whatever way, is killed, and started anew for the next case.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "lab/peers/catalog.h"
#include "lab/peers/messages.h"
#include "lab/peers/worker.h"

namespace headwise::lab {

class Peer {
 public:
  using Clock = std::chrono::steady_clock;
  Peer(std::string name, std::string python) : name_(std::move(name)), python_(std::move(python)) {}

  // A running worker that has said hello, for this number of threads. On a failure, failed_as() is the row's
  // status.
  Status ready(int threads);
  // Sends a request (made from its id) and takes the answer; the worker stands still before and after. A
  // reply of another status than ok is a failure too.
  Result<PeerReply> ask(const std::function<std::string(std::int64_t id)>& request, double seconds);
  void stop() { worker_.reset(); }  // the next ready() starts it anew
  [[nodiscard]] const PeerReply& hello() const { return hello_; }
  [[nodiscard]] std::string_view failed_as() const { return failed_as_; }
  [[nodiscard]] const std::string& name() const { return name_; }

 private:
  Result<PeerReply> take_reply(std::int64_t id, Clock::time_point deadline, std::string_view when);
  Status fail(std::string_view row_status, std::string message);
  Status start(int threads);

  std::string name_, python_;
  std::unique_ptr<Worker> worker_;
  PeerReply hello_;
  int threads_ = 0;
  std::int64_t next_id_ = 1;
  std::string_view failed_as_;
};

// The peers of a run, each with its worker once it was asked.
class Peers {
 public:
  explicit Peers(std::string python) : python_(std::move(python)) {}
  // unavailable where the peer is absent; the message says what brings it.
  Result<Peer*> find(const PeerInfo& info);

 private:
  std::string python_;
  std::map<std::string, std::unique_ptr<Peer>> peers_;
};

// "headwise list --peers": of each its version, devices and dtypes, or why it is absent and what brings it.
// `python` as --peer-python.
std::string peer_list(const std::string& python);

}  // namespace headwise::lab
