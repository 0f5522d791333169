// Attention with linear biases (ALiBi; Press, Smith and Lewis 2022, arXiv:2108.12409).
#pragma once

#include <cstdint>
#include <vector>

namespace [[gnu::visibility("default")]] headwise {

// The paper's slopes, one a head, for AttentionArgs::alibi_slopes. Where heads is a power of two, head h
// (from 0) has 2^(-8 (h + 1) / heads). Else the first heads have the slopes of the largest power of two
// below, n, and the rest every second slope of 2 n, from its first on: what models trained with ALiBi do.
// Computed in double, rounded once. Empty where heads is below 1, or where memory for them is lacking.
std::vector<float> standard_alibi_slopes(std::int64_t heads);

}  // namespace headwise
