// int32 arrays that say where rows lie: their shape on any device, their entries in host memory.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "attention/tensor_checks.h"

namespace headwise {

inline bool on_host(const TensorView& view) { return view.device.kind == DeviceKind::cpu; }

// "lengths_kv[3]"
std::string entry(const Argument& array, std::int64_t i);

Status check_index_array(const Argument& array, int rank, std::string_view layout, DeviceId device);

// cu_seqlens as such: at least one entry, and its rows packed into one batch.
Status check_packed(const Argument& array, const Argument& rows, DeviceId device);

// Its entries: 0, then the end of each sequence. Sets the longest sequence.
Status check_offsets(const Argument& array, std::int64_t total, std::string_view total_name,
                     std::int64_t& longest);

}  // namespace headwise
