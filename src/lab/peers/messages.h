// What is said to a worker and what it answers: JSON objects, one a line (docs/peers.md, "The protocol").
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "headwise/tensor.h"
#include "lab/axes.h"

namespace headwise::lab {

inline constexpr std::string_view kPeerProtocol = "headwise.peers/1";

// A tensor in the shared mapping.
struct SharedTensor {
  std::string name;  // "q", "dout"
  TensorView view;   // packed
  std::size_t offset = 0;
};

struct PeerReply {
  std::int64_t id = -1;
  std::string status;  // ok, or a row's status
  std::string reason;
  // hello
  std::string protocol, peer, version, about, threads;
  std::vector<std::string> devices, dtypes, directions;
  // prepare
  std::string ran, timer, regime, cache_method;
  std::optional<double> prepare_ms, overhead_ms;
  // call and time
  std::string peak_method;
  std::optional<double> ms, latency_ms, clock_mhz;
  std::optional<std::int64_t> peak_bytes, calls;
  // release: its library keeps so much memory that others would lack it
  bool restart = false;
};

// `unsupported` where a peer could not be told what the problem asks for: a request has no words for it.
Status check_carried(const AttentionProblem& problem);

std::string prepare_message(std::int64_t id, const Case& one, const std::vector<SharedTensor>& tensors,
                            const std::string& path, std::size_t bytes, std::size_t last_level_cache_bytes);
std::string time_message(std::int64_t id, std::int64_t calls, double lead_in_ms);
std::string plain_message(std::int64_t id, std::string_view op);  // call, output, release

// The message says what is wrong with the line.
Result<PeerReply> parse_reply(std::string_view line);

}  // namespace headwise::lab
