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

using Hellos = std::map<std::string, PeerReply>;

// What a worker started with these words says of peers, by name: of one, or of as many as it tells of before
// it ends.
Result<Hellos> describe(const std::string& python, const std::vector<std::string>& words, bool one) {
  WorkerCommand command{
      .program = python,
      .arguments = {"-B", (std::filesystem::path(peers_directory()) / "worker.py").string()}};
  command.arguments.insert(command.arguments.end(), words.begin(), words.end());
  Result<std::unique_ptr<Worker>> worker = Worker::start(command);
  if (!worker) return worker.status();
  Hellos all;
  const auto deadline = Worker::Clock::now() + kDescribeLimit;
  while (all.empty() || !one) {
    Result<std::string> line = (*worker)->receive(deadline);
    if (!line && (*worker)->failure() == WorkerFailure::ended && !one) return all;
    if (!line) {
      const std::string ended =
          (*worker)->failure() == WorkerFailure::ended ? (*worker)->how_it_ended() : line.status().message();
      return Status::unavailable(fmt::format("{} {} {}", python, ended, (*worker)->last_words()));
    }
    Result<PeerReply> hello = parse_reply(*line);
    if (!hello) return hello.status();
    std::string peer = hello->peer;
    all[std::move(peer)] = *std::move(hello);
  }
  return all;
}

Result<Hellos> describe_set(const std::string& set, const std::string& given) {
  Result<std::string> python = peer_python(set, given);
  if (!python) return python.status();
  return describe(*python, {"--describe", set}, /*one=*/false);
}

// One whose library ends the process takes those behind it along: whoever was not told of is asked alone.
Result<Hellos> describe_alone(const PeerInfo& peer, const std::string& given) {
  Result<std::string> python = peer_python(peer.set, given);
  if (!python) return python.status();
  return describe(*python, {peer.name}, /*one=*/true);
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
  std::string text = fmt::format("Peers (--peers NAMES), their files in {}:\n", peer_files_directory());
  std::size_t width = 0;
  for (const PeerInfo& peer : peers()) width = std::max(width, peer.name.size());
  std::map<std::string, Result<Hellos>> sets;
  for (const PeerInfo& peer : peers()) {
    if (!peer.absent.empty()) {
      text += fmt::format("  {:<{}}  absent: {}; {}\n", peer.name, width, peer.absent, peer.install);
      continue;
    }
    auto found = sets.find(peer.set);
    if (found == sets.end()) found = sets.emplace(peer.set, describe_set(peer.set, python)).first;
    Result<Hellos> described = found->second;
    if (described && !described->contains(peer.name)) described = describe_alone(peer, python);
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
