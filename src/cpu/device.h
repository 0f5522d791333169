// The CPU as a Device.
#pragma once

#include "headwise/device.h"

namespace headwise::cpu {

// The one object; lives as long as the program.
Device& cpu_device();

}  // namespace headwise::cpu
