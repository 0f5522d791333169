// attention(): plan, remember the plan, find a workspace, run.
#include "headwise/attention.h"

#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "attention/validation.h"
#include "core/try.h"
#include "dispatch/run_plan.h"
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

Result<Plan> shared_plan(PlanKey key, std::string_view kernel) {
  static std::mutex mutex;
  static std::unordered_map<PlanKey, Plan, PlanKeyHash> plans;
  {
    const std::lock_guard lock(mutex);
    if (const auto found = plans.find(key); found != plans.end()) return found->second;
  }
  Result<Plan> made = plan(key.problem, key.device, kernel);
  if (made.ok()) {
    const std::lock_guard lock(mutex);
    if (plans.size() >= kMostPlans) plans.clear();
    plans.emplace(std::move(key), *made);
  }
  return made;
}

// The plan of a thread's last call, looked at before those that all threads share: the layers of a model
// repeat one problem. `plan` is the one to take where the Status is good; it stays until this thread's next
// call.
Status remembered_plan(const AttentionProblem& problem, DeviceId device, std::string_view kernel,
                       const Plan*& plan) {
  static thread_local struct {
    PlanKey key;
    Plan plan;
  } last;
  plan = &last.plan;
  const char* environment = kernel.empty() ? std::getenv("HEADWISE_KERNEL") : nullptr;
  const auto named = [&](const std::string& name) {
    constexpr std::string_view kFrom = "environment:";
    return environment == nullptr
               ? name == kernel
               : name.starts_with(kFrom) && std::string_view(name).substr(kFrom.size()) == environment;
  };
  if (!last.plan.kernel().empty() && last.key.problem == problem && last.key.device == device &&
      named(last.key.kernel))
    return {};
  PlanKey key{problem, device, std::string(kernel)};
  if (environment != nullptr) key.kernel = std::string("environment:") + environment;
  Result<Plan> found = shared_plan(key, kernel);
  if (!found.ok()) return found.status();
  last = {std::move(key), *found};
  return {};
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
  AttentionProblem problem;
  HEADWISE_TRY(describe_call(args, options, problem));
  problem.threads = execution.threads;
  const DeviceId where = args.q.device;
  const Plan* remembered = nullptr;
  HEADWISE_TRY(remembered_plan(problem, where, execution.kernel, remembered));
  const Plan plan = *remembered;  // a call from within the caller's executor may replace it

  Execution run = execution;
  run.kernel = {};
  run.threads = 0;
  if (plan.workspace_bytes() == 0 || execution.workspace.data != nullptr)
    return dispatch::run_checked(plan, args, run);

  const Result<Device*> on = device(where);
  if (!on.ok()) return on.status();
  // A caller's executor that steals work may begin another call on this thread while one waits.
  static thread_local KeptWorkspace kept;
  KeptWorkspace own;
  KeptWorkspace& memory = kept.borrowed() ? own : kept;
  const Result<Workspace> workspace = memory.borrow(**on, plan.workspace_bytes());
  if (!workspace.ok()) return workspace.status();
  run.workspace = *workspace;
  Status status = dispatch::run_checked(plan, args, run);
  memory.give_back();
  return status;
}

}  // namespace headwise
