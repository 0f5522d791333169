// What there is to measure against, as people read it.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "lab/peers/peer.h"
#include "lab/rows.h"

namespace headwise::lab {
namespace {

constexpr std::chrono::seconds kDescribeLimit{180};  // imports every library of the set, one after another

// The hello of each peer of a set, by name; or why there is none.
Result<std::map<std::string, PeerReply>> describe(const std::string& set, const std::string& python) {
  const std::string script = (std::filesystem::path(peers_directory()) / "worker.py").string();
  Result<std::unique_ptr<Worker>> worker =
      Worker::start({.program = python, .arguments = {"-B", script, "--describe", set}});
  if (!worker) return worker.status();
  std::map<std::string, PeerReply> all;
  const auto deadline = Worker::Clock::now() + kDescribeLimit;
  for (;;) {
    Result<std::string> line = (*worker)->receive(deadline);
    if (!line && (*worker)->failure() == WorkerFailure::ended && !all.empty()) return all;
    if (!line) {
      const std::string ended =
          (*worker)->failure() == WorkerFailure::ended ? (*worker)->how_it_ended() : line.status().message();
      return Status::unavailable(fmt::format("{} {} {}", python, ended, (*worker)->last_words()));
    }
    Result<PeerReply> hello = parse_reply(*line);
    if (!hello) return hello.status();
    all[hello->peer] = *std::move(hello);
  }
}

std::string line_of(const PeerInfo& peer, std::size_t width, const PeerReply& hello) {
  if (hello.status != row_status::kOk)
    return fmt::format("  {:<{}}  absent: {}\n", peer.name, width, hello.reason);
  return fmt::format(
      "  {:<{}}  {}; {}; {}; {}\n  {:<{}}  {}\n", peer.name, width, hello.version,
      hello.devices.empty() ? "no device here" : fmt::format("{}", fmt::join(hello.devices, ", ")),
      fmt::join(hello.dtypes, ", "), fmt::join(hello.directions, ", "), "", width, hello.about);
}

}  // namespace

std::string peer_list(const std::string& python) {
  std::string text = fmt::format("Peers (--peers NAMES), their files in {}:\n", peers_directory());
  std::size_t width = 0;
  for (const PeerInfo& peer : peers()) width = std::max(width, peer.name.size());
  std::map<std::string, Result<std::map<std::string, PeerReply>>> sets;
  for (const PeerInfo& peer : peers()) {
    if (!peer.absent.empty()) {
      text += fmt::format("  {:<{}}  absent: {}; {}\n", peer.name, width, peer.absent, peer.install);
      continue;
    }
    auto found = sets.find(peer.set);
    if (found == sets.end()) {
      Result<std::string> program = peer_python(peer.set, python);
      found = sets.emplace(peer.set, program ? describe(peer.set, *program)
                                             : Result<std::map<std::string, PeerReply>>(program.status()))
                  .first;
    }
    const Result<std::map<std::string, PeerReply>>& described = found->second;
    if (!described) {
      text += fmt::format("  {:<{}}  absent: {}\n", peer.name, width, described.status().message());
    } else if (const auto hello = described->find(peer.name); hello != described->end()) {
      text += line_of(peer, width, hello->second);
    } else {
      text += fmt::format("  {:<{}}  absent: its worker does not know it\n", peer.name, width);
    }
  }
  return text;
}

}  // namespace headwise::lab
