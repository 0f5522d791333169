#include <fmt/format.h>

#include "commands.h"
#include "headwise/device.h"
#include "lab/catalog.h"
#include "lab/environment.h"
#include "lab/peaks.h"

namespace headwise::cli {
namespace {

int print_peaks() {
  int exit = lab::exit_code::kGood;
  fmt::print("\nPeaks (median, 95 % interval):\n");
  for (const DeviceId id : devices()) {
    Result<Device*> place = device(id);
    if (!place) return fail(place.status());
    Result<std::vector<lab::Peak>> peaks = lab::measure_peaks(**place, {(*place)->max_threads()});
    if (peaks) {
      fmt::print("{}", lab::render_peaks(*peaks));
    } else {
      exit = fail(peaks.status());
    }
  }
  return exit;
}

}  // namespace

int run_info(const Invocation& invocation) {
  fmt::print("headwise {}\n\n", lab::version_line());
  for (const auto& [name, value] : lab::read_environment({.host_name = invocation.host_name})) {
    fmt::print("{:<24}{}\n", name, value);
  }
  fmt::print("\nKernels, best first:\n{}", lab::kernel_list());
  return invocation.peaks ? print_peaks() : lab::exit_code::kGood;
}

}  // namespace headwise::cli
