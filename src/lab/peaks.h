// Peaks of the devices that a run uses, measured in the same run: samples taken by the device, made into
// medians with intervals.
#pragma once

#include <string>
#include <vector>

#include "headwise/device.h"
#include "lab/axes.h"
#include "lab/rows.h"

namespace headwise::lab {

inline constexpr double kPeakSeconds = 1.5;  // of a device

// Of one device, for one thread and for each of `threads`.
Result<std::vector<Peak>> measure_peaks(Device& device, std::vector<int> threads,
                                        double seconds = kPeakSeconds);

// Of each device of the cases, for one thread and for each number of threads that the cases use. A device
// that is not here or cannot be measured has none, and a note says why.
struct Peaks {
  std::vector<Peak> peaks;
  std::vector<std::string> notes;
};
Peaks measure_peaks(const std::vector<Case>& cases);

// A line a peak, for people.
std::string render_peaks(const std::vector<Peak>& peaks);

}  // namespace headwise::lab
