#include "lab/peaks.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "lab/statistics.h"
#include "lab/units.h"

namespace headwise::lab {
namespace {

Peak peak_of(const PeakSamples& samples, DeviceId device) {
  const bool flops = samples.what == "flops";
  const double unit = flops ? 1e12 : 1e9;
  const Interval interval = median_interval(samples.per_second);
  return {.device = to_string(device),
          .threads = samples.threads,
          .what = samples.what,
          .name = samples.name,
          .isa = samples.isa,
          .dtype = samples.dtype,
          .value = median(samples.per_second) / unit,
          .unit = flops ? "TFLOP/s" : "GB/s",
          .low = interval.low / unit,
          .high = interval.high / unit,
          .set_bytes = static_cast<std::int64_t>(samples.set_bytes),
          .samples = static_cast<std::int64_t>(samples.per_second.size())};
}

}  // namespace

Result<std::vector<Peak>> measure_peaks(Device& device, std::vector<int> threads, double seconds) {
  threads.push_back(1);
  std::sort(threads.begin(), threads.end());
  threads.erase(std::unique(threads.begin(), threads.end()), threads.end());
  Result<std::vector<PeakSamples>> all = device.measure_peaks(threads, seconds);
  if (!all) return all.status();
  std::vector<Peak> peaks;
  for (const PeakSamples& samples : *all) {
    if (!samples.per_second.empty()) peaks.push_back(peak_of(samples, device.id()));
  }
  return peaks;
}

Peaks measure_peaks(const std::vector<Case>& cases) {
  std::vector<std::pair<DeviceId, std::vector<int>>> used;
  for (const Case& one : cases) {
    const auto same = [&](const auto& entry) { return entry.first == one.device; };
    auto found = std::find_if(used.begin(), used.end(), same);
    if (found == used.end()) found = used.insert(used.end(), {one.device, {}});
    found->second.push_back(one.problem.threads);
  }
  Peaks result;
  for (const auto& [id, threads] : used) {
    Result<Device*> place = device(id);
    Result<std::vector<Peak>> peaks =
        place ? measure_peaks(**place, threads) : Result<std::vector<Peak>>(place.status());
    if (peaks) {
      result.peaks.insert(result.peaks.end(), peaks->begin(), peaks->end());
    } else {
      result.notes.push_back(fmt::format("peaks not measured: {}", peaks.status().message()));
    }
  }
  return result;
}

std::string render_peaks(const std::vector<Peak>& peaks) {
  std::string text;
  for (const Peak& peak : peaks) {
    const std::string set =
        peak.set_bytes == 0
            ? ""
            : fmt::format(", {} a thread", bytes_for_people(static_cast<double>(peak.set_bytes)));
    text += fmt::format("  {:<8}{:<14}{:>9} {:<9}({} to {}), {}{}\n", peak.device, peak.name,
                        four_digits(peak.value), peak.unit, four_digits(peak.low), four_digits(peak.high),
                        counted(static_cast<std::size_t>(peak.threads), "thread"), set);
  }
  return text;
}

}  // namespace headwise::lab
