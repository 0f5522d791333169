// What a case will take, before it runs: who will be asked, how much memory, how long.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "headwise/attention.h"
#include "headwise/kernels.h"
#include "lab/axes.h"
#include "lab/peers/catalog.h"

namespace headwise::lab {

// Somebody asked in a case: a kernel with its plan, or the reason why there is none; or a peer.
struct Contender {
  std::string id;  // the kernel's or peer's, or the name that was asked for where no kernel answers to it
  std::string algorithm, isa;
  bool baseline = false;
  Result<Plan> plan = Status::unsupported("not planned");
  double plan_ms = 0;
  const PeerInfo* peer = nullptr;  // whether it can run the case, it says when it is asked
  [[nodiscard]] bool may_run() const { return peer != nullptr ? peer->absent.empty() : plan.ok(); }
  [[nodiscard]] std::size_t workspace_bytes() const { return plan.ok() ? plan->workspace_bytes() : 0; }
};

// Kernels by the case's names, in the registry's order (best first), the baseline among them; "best:NAME" is
// the first of NAME's that can run the case, and so is a baseline that the names do not hold. Behind them the
// peers by the case's names. A name that fits no kernel of this build, or no peer, is invalid_argument with
// the nearest match; one that fits no kernel of this dtype is a contender without a plan.
Result<std::vector<Contender>> contenders_of(const Case& one);

// How fast each contender was so far in this run; a rough guess by algorithm and instruction set before that.
class SpeedBook {
 public:
  void saw(const Contender& contender, const Case& one, double ms);
  [[nodiscard]] bool knows(const std::string& contender) const { return factors_.contains(contender); }
  [[nodiscard]] double call_ms(const Contender& contender, const Case& one) const;

 private:
  std::map<std::string, double> factors_;  // of the rough guess
};

struct Need {
  std::size_t input_bytes = 0;      // of all tensors with their guard bands
  std::size_t reference_bytes = 0;  // fp64 truth of the verified rows
  std::size_t workspace_bytes = 0;  // of one contender
  [[nodiscard]] double total() const;
};
Need need_of(const AttentionProblem& problem, std::size_t workspace_bytes);

bool anybody_runs(const std::vector<Contender>& contenders);

// Why nobody can run the case, whoever is asked: no such device, or what no kernel computes. Ok where plans
// decide.
Status check_case(const Case& one);

// Seconds of one case: inputs, verification, samples; 0 where nobody can run it.
double estimate_seconds(const Case& one, const std::vector<Contender>& contenders, const SpeedBook& speeds,
                        double sample_seconds, bool measured);

}  // namespace headwise::lab
