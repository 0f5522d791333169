#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "attention/kernel.h"
#include "attention/validation.h"
#include "core/text.h"
#include "dispatch/registry.h"
#include "dispatch/run_plan.h"
#include "headwise/attention.h"

namespace headwise {

struct PlanBuilder {
  static Plan build(const Kernel& kernel, const AttentionProblem& problem, const Device& device) {
    Plan plan;
    plan.kernel_ = &kernel;
    plan.policy_ = kernel.policies.data();
    plan.problem_ = problem;
    if (plan.problem_.threads == 0) plan.problem_.threads = device.max_threads();
    plan.device_ = device.id();
    plan.workspace_bytes_ = kernel.workspace_bytes(plan.problem_, *plan.policy_);
    return plan;
  }
  // `actual`: what the arguments, all checked, describe.
  static Status run(const Plan& plan, const AttentionArgs& args, const AttentionProblem& actual,
                    const Execution& execution) noexcept;
};

namespace {

Status unknown_kernel(std::string_view id, const dispatch::Backend& backend, std::string_view where) {
  std::vector<std::string_view> ids;
  for (const Kernel* kernel : backend.kernels) ids.push_back(kernel->id);
  std::string message = std::string(where) + ": there is no kernel '" + std::string(id) + "' for device " +
                        std::string(backend.name);
  return Status::invalid_argument(message + core::did_you_mean(id, ids));
}

const Kernel* find_kernel(const dispatch::Backend& backend, std::string_view id) {
  for (const Kernel* kernel : backend.kernels) {
    if (kernel->id == id) return kernel;
  }
  return nullptr;
}

// HEADWISE_KERNEL=id[,id]: the one for this direction and device, if any.
Result<const Kernel*> kernel_from_environment(const AttentionProblem& problem,
                                              const dispatch::Backend& backend) {
  const char* text = std::getenv("HEADWISE_KERNEL");
  if (text == nullptr || *text == '\0') return static_cast<const Kernel*>(nullptr);
  const Kernel* found = nullptr;
  for (const std::string_view id : core::split(text, ',')) {
    const Kernel* kernel = find_kernel(backend, id);
    if (kernel == nullptr) {
      const bool elsewhere = !id.starts_with(std::string(backend.name) + "/");
      if (elsewhere && id.find('/') != std::string_view::npos) continue;
      return unknown_kernel(id, backend, "HEADWISE_KERNEL");
    }
    if (kernel->traits.direction != problem.direction) continue;
    if (found != nullptr) {
      return Status::invalid_argument("HEADWISE_KERNEL: names two kernels for direction " +
                                      std::string(name(problem.direction)) + ", '" + std::string(found->id) +
                                      "' and '" + std::string(id) + "'; name at most one a direction");
    }
    found = kernel;
  }
  return found;
}

Result<std::pair<const dispatch::Backend*, Device*>> backend_and_device(DeviceId id) {
  Result<Device*> found = device(id);
  if (!found.ok()) return found.status();
  return std::pair{dispatch::backend_of(id.kind), *found};
}

std::string_view why_slower(const Kernel& kernel, const AttentionProblem& problem) {
  return kernel.yields == nullptr ? std::string_view() : kernel.yields(problem);
}

Status nothing_supports(const AttentionProblem& problem, const dispatch::Backend& backend,
                        const Device& device) {
  std::string message = "no kernel of device " + to_string(device.id()) + " can run " + to_string(problem);
  for (const Kernel* kernel : backend.kernels) {
    message += "\n  " + std::string(kernel->id) + ": " + supports(*kernel, problem, device).reason;
  }
  return Status::unsupported(message);
}

// No output has an element. Gradients may have some where others have none: without queries, dk and dv are
// zeros.
bool writes_nothing(const AttentionArgs& args, Direction direction) {
  const auto empty = [](const TensorView& view) {
    return !view.present() ||
           std::find(view.shape.begin(), view.shape.begin() + view.rank, 0) != view.shape.begin() + view.rank;
  };
  if (direction == Direction::forward) return empty(args.out);
  return empty(args.dq) && empty(args.dk) && empty(args.dv) && empty(args.dbias) && empty(args.dsinks);
}

}  // namespace

std::string_view Plan::kernel() const noexcept {
  return kernel_ == nullptr ? std::string_view() : kernel_->id;
}

Result<Plan> plan(const AttentionProblem& problem, DeviceId device_id, std::string_view kernel) {
  if (Status status = validate(problem); !status.ok()) return status;
  const auto place = backend_and_device(device_id);
  if (!place.ok()) return place.status();
  const auto [backend, device] = *place;

  const Kernel* forced = nullptr;
  std::string_view where = "kernel";
  if (!kernel.empty()) {
    forced = find_kernel(*backend, kernel);
    if (forced == nullptr) return unknown_kernel(kernel, *backend, where);
  } else {
    const Result<const Kernel*> named = kernel_from_environment(problem, *backend);
    if (!named.ok()) return named.status();
    forced = *named;
    where = "HEADWISE_KERNEL";
  }
  if (forced != nullptr) {
    const Support support = supports(*forced, problem, *device);
    if (support.ok()) return PlanBuilder::build(*forced, problem, *device);
    return Status::unsupported(std::string(where) + ": " + std::string(forced->id) +
                               " cannot run this: " + support.reason);
  }
  const Kernel* best = nullptr;
  for (const Kernel* candidate : backend->kernels) {
    if (!candidate->traits.exact || !supports(*candidate, problem, *device).ok()) continue;
    if (best == nullptr) best = candidate;
    if (!why_slower(*candidate, problem).empty()) continue;
    best = candidate;
    break;
  }
  if (best == nullptr) return nothing_supports(problem, *backend, *device);
  return PlanBuilder::build(*best, problem, *device);
}

std::vector<Candidate> explain(const AttentionProblem& problem, DeviceId device_id) {
  std::vector<Candidate> candidates;
  const auto place = backend_and_device(device_id);
  if (!place.ok()) return candidates;
  const auto [backend, device] = *place;
  const Result<Plan> chosen = plan(problem, device_id);
  std::string_view ahead;
  for (const Kernel* kernel : backend->kernels) {
    Candidate candidate{.kernel = kernel->id, .supported = false, .chosen = false, .reason = {}};
    const Support support = supports(*kernel, problem, *device);
    candidate.supported = support.ok();
    candidate.chosen = chosen.ok() && chosen->kernel() == kernel->id;
    if (candidate.chosen) {
      ahead = kernel->id;
      const Result<const Kernel*> named = kernel_from_environment(problem, *backend);
      candidate.reason = named.ok() && *named != nullptr
                             ? "named by HEADWISE_KERNEL"
                             : "the first, in order of measured speed, that can run it";
    } else if (!support.ok()) {
      candidate.reason = support.reason;
    } else if (const std::string_view why = why_slower(*kernel, problem); !why.empty()) {
      candidate.reason = "can run it; slower here: " + std::string(why);
    } else if (!ahead.empty()) {
      candidate.reason = "can run it; " + std::string(ahead) + " stands before it in the backend's list";
    } else {
      candidate.reason =
          chosen.ok() ? "can run it; HEADWISE_KERNEL forces another" : chosen.status().message();
    }
    candidates.push_back(std::move(candidate));
  }
  return candidates;
}

Status PlanBuilder::run(const Plan& plan, const AttentionArgs& args, const AttentionProblem& actual,
                        const Execution& execution) noexcept {
  if (writes_nothing(args, actual.direction)) return {};
  if (plan.workspace_bytes_ > 0) {
    const Workspace& workspace = execution.workspace;
    if (workspace.data == nullptr || workspace.bytes < plan.workspace_bytes_) {
      return Status::invalid_argument("workspace: the plan needs " + std::to_string(plan.workspace_bytes_) +
                                      " bytes, came " +
                                      (workspace.data == nullptr ? "null" : std::to_string(workspace.bytes)));
    }
    if (reinterpret_cast<std::uintptr_t>(workspace.data) % 64 != 0) {
      return Status::invalid_argument("workspace: must be 64-byte aligned");
    }
  }
  return plan.kernel_->run(args, {actual, *plan.policy_, plan.problem_.threads, execution.workspace,
                                  execution.stream, execution.executor});
}

Status dispatch::run_checked(const Plan& plan, const AttentionArgs& args,
                             const Execution& execution) noexcept {
  return PlanBuilder::run(plan, args, plan.problem(), execution);
}

Status Plan::run(const AttentionArgs& args, const Execution& execution) const noexcept {
  if (kernel_ == nullptr)
    return Status::invalid_argument("plan: this Plan is empty; make one with headwise::plan()");
  if (!execution.kernel.empty() || execution.threads != 0) {
    return Status::invalid_argument("execution: kernel and threads are fixed by the plan; leave them unset");
  }
  AttentionProblem actual;
  if (Status status = check_arguments(args, problem_, device_, actual); !status.ok()) return status;
  return PlanBuilder::run(*this, args, actual, execution);
}

}  // namespace headwise
