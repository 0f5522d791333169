// The one place that knows all backends.
#pragma once

#include <span>

#include "attention/kernel.h"
#include "headwise/device.h"

namespace headwise::dispatch {

struct Backend {
  std::string_view name;
  DeviceKind kind;
  std::span<const Kernel* const> kernels;  // best first
  Device* (*device)(int index);            // null where there is no such device
  int devices;
};
std::span<const Backend> backends();

// Null where this build has no such backend.
const Backend* backend_of(DeviceKind kind);

}  // namespace headwise::dispatch
