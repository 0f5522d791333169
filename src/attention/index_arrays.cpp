#include "attention/index_arrays.h"

#include <algorithm>

#include "attention/derive.h"
#include "core/try.h"

namespace headwise {

Status check_index_array(const Argument& array, int rank, std::string_view layout, DeviceId device) {
  HEADWISE_TRY(check_layout(array, rank, layout));
  HEADWISE_TRY(check_dtype(array, {DType::int32}, ""));
  if (!on_host(array.view)) HEADWISE_TRY(check_device(array, device));
  return check_natural_alignment(array);
}

std::string entry(const Argument& array, std::int64_t i) {
  return std::string(array.name) + "[" + std::to_string(i) + "]";
}

Status check_offsets(const Argument& array, std::int64_t total, std::string_view total_name,
                     std::int64_t& longest) {
  if (!on_host(array.view)) {
    longest = longest > 0 ? std::min(longest, total) : total;
    return {};
  }
  const std::int64_t last = array.extent(0) - 1;
  longest = 0;
  if (index_at(array.view, 0) != 0) {
    return Status::invalid_argument(entry(array, 0) + ": expected 0, got " +
                                    std::to_string(index_at(array.view, 0)));
  }
  for (std::int64_t i = 1; i <= last; ++i) {
    const std::int64_t length = index_at(array.view, i) - index_at(array.view, i - 1);
    if (length < 0) {
      return Status::invalid_argument(entry(array, i) + ": expected at least " +
                                      std::to_string(index_at(array.view, i - 1)) +
                                      " (the entry before), got " + std::to_string(index_at(array.view, i)));
    }
    longest = std::max(longest, length);
  }
  if (index_at(array.view, last) != total) {
    return Status::invalid_argument(entry(array, last) + ": expected " + std::to_string(total) + " (" +
                                    std::string(total_name) + "), got " +
                                    std::to_string(index_at(array.view, last)));
  }
  return {};
}

Status check_packed(const Argument& array, const Argument& rows, DeviceId device) {
  HEADWISE_TRY(check_index_array(array, 1, "[sequences + 1]", device));
  if (array.extent(0) < 1) {
    return Status::invalid_argument(std::string(array.name) +
                                    ".shape[0]: expected at least 1 (sequences + 1), got 0");
  }
  return check_extent(rows, 0, 1,
                      "rows of all sequences are packed when " + std::string(array.name) + " is given");
}

}  // namespace headwise
