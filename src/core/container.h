// What the container (Linux control group, versions 1 and 2) grants to this process.
#pragma once

#include <cstdint>

namespace headwise::core {

// The CPU quota in processors, rounded up; 0: none.
int container_processors();

struct ContainerMemory {
  std::uint64_t limit = 0;      // bytes; 0: none
  std::uint64_t available = 0;  // bytes below every limit on the way up, reclaimable caches counted as free
};
ContainerMemory container_memory();

}  // namespace headwise::core
