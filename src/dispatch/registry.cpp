#include "dispatch/registry.h"

#include "cpu/device.h"
#include "cpu/kernels.h"
#include "cuda/absent.h"
#include "headwise/kernels.h"
#include "headwise_version.h"

namespace headwise::dispatch {

std::span<const Backend> backends() {
  static const Backend kBackends[] = {
      {"cpu", DeviceKind::cpu, cpu::kernels(),
       [](int index) -> Device* { return index == 0 ? &cpu::cpu_device() : nullptr; }, 1},
  };
  return kBackends;
}

const Backend* backend_of(DeviceKind kind) {
  for (const Backend& backend : backends()) {
    if (backend.kind == kind) return &backend;
  }
  return nullptr;
}

}  // namespace headwise::dispatch

namespace headwise {

std::vector<DeviceId> devices() {
  std::vector<DeviceId> all;
  for (const dispatch::Backend& backend : dispatch::backends()) {
    for (int i = 0; i < backend.devices; ++i) all.push_back({backend.kind, i});
  }
  return all;
}

Result<Device*> device(DeviceId id) {
  const dispatch::Backend* backend = dispatch::backend_of(id.kind);
  if (backend == nullptr) {
    return Status::unavailable("device " + to_string(id) + ": " + std::string(cuda::absent_reason()));
  }
  Device* found = backend->device(id.index);
  if (found == nullptr) {
    return Status::unavailable("device " + to_string(id) + ": this machine has " +
                               std::to_string(backend->devices) + " of backend " +
                               std::string(backend->name));
  }
  return found;
}

std::vector<KernelInfo> kernels() {
  std::vector<KernelInfo> all;
  for (const dispatch::Backend& backend : dispatch::backends()) {
    for (const Kernel* kernel : backend.kernels)
      all.push_back({kernel->id, backend.kind, kernel->traits, kernel->features});
  }
  return all;
}

std::vector<AbsentBackend> absent_backends() {
  std::vector<AbsentBackend> absent;
  if (dispatch::backend_of(DeviceKind::cuda) == nullptr) absent.push_back({"cuda", cuda::absent_reason()});
  return absent;
}

std::string_view version() { return build::kVersion; }

}  // namespace headwise
