// attention(): plan, remember the plan, find a workspace, run.
#include "headwise/attention.h"

#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "headwise/device.h"

namespace headwise {
namespace {

struct PlanKey {
  AttentionProblem problem;
  DeviceId device;
  std::string kernel;  // forced by the call, or HEADWISE_KERNEL as it stood
  friend bool operator==(const PlanKey&, const PlanKey&) = default;
};
struct PlanKeyHash {
  std::size_t operator()(const PlanKey& key) const noexcept {
    return hash(key.problem) ^ (std::hash<std::string>()(key.kernel) * 31) ^
           (static_cast<std::size_t>(key.device.kind) * 7 + static_cast<std::size_t>(key.device.index));
  }
};

// Calls of a program repeat a few shapes; past this many the oldest habits are forgotten at once.
constexpr std::size_t kMostPlans = 1024;

Result<Plan> remembered_plan(const AttentionProblem& problem, DeviceId device, std::string_view kernel) {
  static std::mutex mutex;
  static std::unordered_map<PlanKey, Plan, PlanKeyHash> plans;
  const char* environment = std::getenv("HEADWISE_KERNEL");
  PlanKey key{problem, device, std::string(kernel)};
  if (kernel.empty() && environment != nullptr) key.kernel = std::string("environment:") + environment;
  {
    const std::lock_guard lock(mutex);
    if (const auto found = plans.find(key); found != plans.end()) return found->second;
  }
  Result<Plan> made = plan(problem, device, kernel);
  if (made.ok()) {
    const std::lock_guard lock(mutex);
    if (plans.size() >= kMostPlans) plans.clear();
    plans.emplace(std::move(key), *made);
  }
  return made;
}

// A thread's own workspace on a device, kept from call to call up to kKept bytes: fresh pages cost
// more than a short attention does.
class KeptWorkspace {
 public:
  KeptWorkspace() = default;
  KeptWorkspace(const KeptWorkspace&) = delete;
  KeptWorkspace& operator=(const KeptWorkspace&) = delete;
  ~KeptWorkspace() { release(); }

  [[nodiscard]] bool borrowed() const { return borrowed_; }
  Result<Workspace> borrow(Device& device, std::size_t bytes) {
    if (device_ != &device || workspace_.bytes < bytes) {
      release();
      Result<void*> data = device.allocate(bytes);
      if (!data.ok()) return data.status();
      device_ = &device;
      workspace_ = {*data, bytes};
    }
    borrowed_ = true;
    return workspace_;
  }
  void give_back() {
    borrowed_ = false;
    if (workspace_.bytes > kKept) release();
  }

 private:
  static constexpr std::size_t kKept = std::size_t{64} << 20;
  void release() {
    if (workspace_.data != nullptr) device_->deallocate(workspace_.data);
    workspace_ = {};
    device_ = nullptr;
  }
  Device* device_ = nullptr;
  Workspace workspace_{};
  bool borrowed_ = false;
};

}  // namespace

Status attention(const AttentionArgs& args, const AttentionOptions& options, const Execution& execution) {
  Result<AttentionProblem> problem = make_problem(args, options);
  if (!problem.ok()) return problem.status();
  problem->threads = execution.threads;
  const DeviceId where = args.q.device;
  const Result<Plan> plan = remembered_plan(*problem, where, execution.kernel);
  if (!plan.ok()) return plan.status();

  Execution run = execution;
  run.kernel = {};
  run.threads = 0;
  if (plan->workspace_bytes() == 0 || execution.workspace.data != nullptr) return plan->run(args, run);

  const Result<Device*> on = device(where);
  if (!on.ok()) return on.status();
  // A caller's executor that steals work may begin another call on this thread while one waits.
  static thread_local KeptWorkspace kept;
  KeptWorkspace own;
  KeptWorkspace& memory = kept.borrowed() ? own : kept;
  const Result<Workspace> workspace = memory.borrow(**on, plan->workspace_bytes());
  if (!workspace.ok()) return workspace.status();
  run.workspace = *workspace;
  Status status = plan->run(args, run);
  memory.give_back();
  return status;
}

}  // namespace headwise
