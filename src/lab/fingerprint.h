// Whether bytes are the same as before, without keeping them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lab/inputs.h"

namespace headwise::lab {

// 64 bits from a block, continuing from those of the blocks before it. Not against an adversary.
std::uint64_t fingerprint(std::uint64_t before, const void* data, std::size_t bytes);

// Of every element of the outputs, brought to the host first: equal where all bits are.
Result<std::uint64_t> output_fingerprint(Inputs& inputs);

}  // namespace headwise::lab
