#include <fmt/format.h>

#include "commands.h"
#include "headwise/kernels.h"
#include "lab/environment.h"

namespace headwise::cli {

int run_info(const Invocation& invocation) {
  fmt::print("headwise {}\n\n", lab::version_line());
  for (const auto& [name, value] : lab::read_environment({.host_name = invocation.host_name})) {
    fmt::print("{:<24}{}\n", name, value);
  }
  fmt::print("\nKernels, best first:\n");
  for (const KernelInfo& kernel : kernels()) {
    Result<Device*> place = device({kernel.device, 0});
    const bool runs = place && (*place)->has(kernel.traits.isa);
    fmt::print("  {:<28}{}\n", kernel.id,
               runs ? "" : fmt::format("not on this processor: needs {}", kernel.traits.isa));
  }
  for (const AbsentBackend& backend : absent_backends()) {
    fmt::print("\nAbsent: {}: {}\n", backend.name, backend.reason);
  }
  return lab::exit_code::kGood;
}

}  // namespace headwise::cli
