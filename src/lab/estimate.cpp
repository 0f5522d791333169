#include "lab/estimate.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <limits>

#include "core/text.h"
#include "lab/verify.h"

namespace headwise::lab {
namespace {

constexpr std::string_view kBest = "best:";
constexpr std::string_view kNone = "none";

bool answers_to(const KernelInfo& kernel, const std::string& name) {
  return kernel.id == name || kernel.traits.algorithm == name ||
         fnmatch(name.c_str(), std::string(kernel.id).c_str(), 0) == 0;
}

bool made_for(const KernelInfo& kernel, const AttentionProblem& problem) {
  return kernel.traits.dtype == problem.dtype && kernel.traits.kv_dtype == problem.kv_dtype &&
         kernel.traits.direction == problem.direction;
}

Status no_such_kernel(const std::string& name, const std::vector<KernelInfo>& known) {
  std::vector<std::string_view> candidates;
  for (const KernelInfo& kernel : known) {
    candidates.push_back(kernel.id);
    candidates.push_back(kernel.traits.algorithm);
  }
  return Status::invalid_argument(
      fmt::format("no kernel '{}' in this build{}; headwise list kernels shows all", name,
                  core::did_you_mean(name, candidates)));
}

// Of the kernels at these places (best first), the first that can run the case; where none can, the first.
std::size_t best_of(const std::vector<std::size_t>& places, const std::vector<KernelInfo>& all,
                    const Case& one) {
  for (const std::size_t place : places) {
    if (plan(one.problem, one.device, all[place].id)) return place;
  }
  return places.front();
}

Contender planned(const KernelInfo& kernel, const Case& one) {
  Contender contender;
  contender.id = kernel.id;
  contender.algorithm = kernel.traits.algorithm;
  contender.isa = kernel.traits.isa;
  const auto start = std::chrono::steady_clock::now();
  const Status able = check_case(one);
  contender.plan = able.ok() ? plan(one.problem, one.device, kernel.id) : Result<Plan>(able);
  contender.plan_ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return contender;
}

Contender nobody(const std::string& name, const Case& one) {
  Contender contender;
  contender.id = name;
  contender.plan = Status::unsupported(
      fmt::format("no {} kernel of this build has dtype {}, kv-dtype {}, direction {}", name,
                  headwise::name(one.problem.dtype), headwise::name(one.problem.kv_dtype),
                  headwise::name(one.problem.direction)));
  return contender;
}

// Rough GFLOP/s of one thread, for estimates of time alone: no result is made from them. Half of what a
// processor of 2024 does at lengths of 128 to 1024, since older ones do less.
double rough_gflops(const Contender& contender, DType dtype) {
  if (contender.peer != nullptr) return 30;
  if (contender.algorithm == "naive" || contender.isa == "scalar") return dtype == DType::f32 ? 2 : 0.7;
  const bool unfused = contender.algorithm == "unfused";
  if (contender.isa == "avx2") return unfused ? 40 : 50;
  if (contender.isa == "amx") return 400;
  return unfused ? 70 : 90;
}

// Decoding waits for memory, not for arithmetic; threads share its bandwidth.
constexpr double kRoughBytesPerSecond = 10e9;

constexpr double kRoughGpuFlops = 100e12;
double rough_call_ms(const Contender& contender, const AttentionProblem& problem, DeviceKind device) {
  const Cost work = cost(problem);
  if (device == DeviceKind::cuda) return 0.01 + work.flops / kRoughGpuFlops * 1000;
  const double threads = std::max(1, problem.threads);
  return std::max(work.flops / (rough_gflops(contender, problem.dtype) * 1e6 * threads),
                  work.least_bytes() / kRoughBytesPerSecond * 1000);
}

// A peer's preparation, its overhead on the smallest problem, and its share of the start of its process.
constexpr double kRoughPeerSeconds = 1;

double flush_seconds(const Case& one) {
  Result<Device*> place = device(one.device);
  return place ? 2 * static_cast<double>((*place)->last_level_cache_bytes()) / kRoughBytesPerSecond : 0;
}

std::string standard_baseline() {
  static const Case standard;
  return standard.baseline;
}

// Appends the peers that the case names, each once.
Status add_peers(const Case& one, std::vector<Contender>& contenders) {
  std::vector<const PeerInfo*> taken;
  for (const std::string& name : one.peers) {
    if (name == kNone) continue;
    Result<std::vector<const PeerInfo*>> found = find_peers(name, one.device.kind);
    if (!found) return found.status();
    for (const PeerInfo* peer : *found) {
      if (std::find(taken.begin(), taken.end(), peer) == taken.end()) taken.push_back(peer);
    }
  }
  for (const PeerInfo* peer : taken) {
    Contender contender;
    contender.id = peer->name;
    contender.peer = peer;
    contenders.push_back(std::move(contender));
  }
  return {};
}

// The best that can run of those the baseline's name fits.
void mark_baseline(const Case& one, std::vector<Contender>& contenders) {
  if (one.baseline == kNone) return;
  for (Contender& c : contenders) {
    if (!c.may_run() || (c.id != one.baseline && c.algorithm != one.baseline &&
                         fnmatch(one.baseline.c_str(), c.id.c_str(), 0) != 0))
      continue;
    c.baseline = true;
    return;
  }
}

}  // namespace

Result<std::vector<Contender>> contenders_of(const Case& one) {
  const std::vector<KernelInfo> all = kernels();
  std::vector<Contender> of_peers;
  if (Status status = add_peers(one, of_peers); !status.ok()) return status;
  std::vector<std::string> names = one.kernels;
  const bool no_kernels = std::erase(names, kNone) > 0 && names.empty();
  const bool peer_baseline = std::any_of(of_peers.begin(), of_peers.end(), [&](const Contender& c) {
    return fnmatch(one.baseline.c_str(), c.id.c_str(), 0) == 0;
  });
  const bool has_baseline = one.baseline != kNone && !peer_baseline;
  // Without names all are asked, the baseline among them, but a name of its own must exist. Beside names, the
  // baseline is one kernel: the best that its name fits.
  const std::string standard_name = standard_baseline();
  const bool standard = one.baseline == standard_name;
  if (has_baseline && !(standard && (names.empty() || no_kernels)))
    names.push_back(std::string(kBest) + one.baseline);
  const bool all_of_dtype = one.kernels.empty();
  std::vector<bool> taken(all.size(), false);
  std::vector<std::string> unanswered;
  for (const std::string& asked_name : names) {
    const bool best = asked_name.starts_with(kBest);
    const std::string name = best ? asked_name.substr(kBest.size()) : asked_name;
    bool exists = false;
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (!answers_to(all[i], name)) continue;
      exists = true;
      // A kernel named in full is asked even if it is not made for the case, and tells why it cannot.
      if (all[i].device == one.device.kind && (made_for(all[i], one.problem) || all[i].id == name))
        found.push_back(i);
    }
    // The standard baseline need not be in every build.
    if (!exists && name != standard_name) return no_such_kernel(name, all);
    if (found.empty() && name != one.baseline) unanswered.push_back(name);
    if (best && !found.empty()) found = {best_of(found, all, one)};
    for (const std::size_t i : found) taken[i] = true;
  }
  std::vector<Contender> contenders;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const bool asked = all_of_dtype && all[i].device == one.device.kind && made_for(all[i], one.problem);
    if (asked || taken[i]) contenders.push_back(planned(all[i], one));
  }
  for (const std::string& name : unanswered) contenders.push_back(nobody(name, one));
  if (contenders.empty() && !no_kernels) contenders.push_back(nobody(std::string(kNobody), one));
  std::move(of_peers.begin(), of_peers.end(), std::back_inserter(contenders));
  if (contenders.empty())
    return Status::invalid_argument("--kernels none: then --peers must name somebody; nobody is left to run");
  mark_baseline(one, contenders);
  return contenders;
}

void SpeedBook::saw(const Contender& contender, const Case& one, double ms) {
  const double rough = rough_call_ms(contender, one.problem, one.device.kind);
  if (rough > 0 && ms > 0) factors_[contender.id] = ms / rough;
}

double SpeedBook::call_ms(const Contender& contender, const Case& one) const {
  const auto found = factors_.find(contender.id);
  return rough_call_ms(contender, one.problem, one.device.kind) *
         (found == factors_.end() ? 1 : found->second);
}

double Need::total() const {
  return static_cast<double>(input_bytes) + static_cast<double>(reference_bytes) +
         static_cast<double>(workspace_bytes);
}

Need need_of(const AttentionProblem& problem, std::size_t workspace_bytes) {
  Need need{.input_bytes = input_bytes(problem), .workspace_bytes = workspace_bytes};
  if (need.input_bytes == std::numeric_limits<std::size_t>::max()) return need;
  // Truth, plain and their differences: about three fp64 values an element of a verified row.
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  const auto rows = [&](std::int64_t heads, std::int64_t length) {
    return size(problem.batch) * size(heads) * size(std::min<std::int64_t>(length, 256));
  };
  std::size_t elements = rows(problem.heads, problem.seq_q) * size(problem.head_dim_v);
  std::size_t statistics = 0;  // backward keeps four fp64 values of each query
  if (problem.direction == Direction::backward) {
    elements = rows(problem.heads, problem.seq_q) * size(problem.head_dim) +
               rows(problem.kv_heads, problem.seq_kv) * size(problem.head_dim + problem.head_dim_v);
    statistics = size(problem.batch) * size(problem.heads) * size(problem.seq_q) * 4 * sizeof(double);
  }
  need.reference_bytes = elements * 3 * sizeof(double) + statistics + size(problem.seq_kv) * 64;
  return need;
}

Status check_case(const Case& one) {
  if (Result<Device*> place = device(one.device); !place) return place.status();
  return pruned(one) ? Status::unsupported("pruned attention (threshold, topk) is not built yet") : Status();
}

bool anybody_runs(const std::vector<Contender>& contenders) {
  return std::any_of(contenders.begin(), contenders.end(), [](const Contender& c) { return c.may_run(); });
}

double estimate_seconds(const Case& one, const std::vector<Contender>& contenders, const SpeedBook& speeds,
                        double sample_seconds, bool measured) {
  if (!anybody_runs(contenders)) return 0;
  const AttentionProblem& p = one.problem;
  const double threads = std::max(1, p.threads);
  const double elements =
      static_cast<double>(need_of(p, 0).input_bytes) / static_cast<double>(size_of(p.dtype));
  // Inputs at 50 M elements a second; truth and plain at most a second, at about 1 GFLOP/s a thread.
  // Gradients may need more for the fewest rows.
  double seconds = elements / 50e6;
  seconds += p.direction == Direction::backward
                 ? gradient_reference_seconds(p, 1.0, static_cast<int>(threads))
                 : std::min(1.0, 2 * cost(p).flops / (1e9 * threads));
  for (const Contender& contender : contenders) {
    if (!contender.may_run()) continue;
    const double call = speeds.call_ms(contender, one) / 1000;
    seconds += 2 * call + (contender.peer != nullptr ? kRoughPeerSeconds : 0);
    if (!measured) continue;
    const double sample = call + (one.cold ? flush_seconds(one) : 0);
    const double least = call > 0.2 ? 3 * sample : 10 * sample;
    // Noise decides whether 1 % comes sooner than the time allowed; half of it is a fair guess.
    seconds += std::max(least, 0.5 * sample_seconds) + std::min(0.15, 20 * call);
  }
  return seconds;
}

}  // namespace headwise::lab
