#include "attention/host_tensors.h"

#include <new>
#include <stdexcept>
#include <string>

#include "core/parallel_for.h"
#include "core/try.h"

namespace headwise {

Status check_host_tensor(const Argument& tensor, int rank, std::string_view layout,
                         std::initializer_list<DType> dtypes, std::string_view meaning) {
  HEADWISE_TRY(check_layout(tensor, rank, layout));
  if (tensor.view.device.kind != DeviceKind::cpu) {
    return Status::unsupported(std::string(tensor.name) + ".device: expected cpu, got " +
                               to_string(tensor.view.device) +
                               "; this function works in host memory only: copy the tensor there first");
  }
  HEADWISE_TRY(check_dtype(tensor, dtypes, meaning));
  return check_natural_alignment(tensor);
}

Status check_extents_as(const Argument& tensor, const Argument& other, int unlike) {
  for (int axis = 0; axis + unlike < tensor.view.rank; ++axis) {
    if (tensor.extent(axis) != other.extent(axis))
      return check_extent(tensor, axis, other.extent(axis), "as " + std::string(other.name));
  }
  return {};
}

Status check_no_overlap(const Argument& written, const Argument& other) {
  if (!share_memory(written.view, other.view)) return {};
  return Status::invalid_argument(std::string(written.name) + ": shares memory with " +
                                  std::string(other.name) + "; give it memory of its own");
}

Status check_threads(const Execution& execution) {
  if (execution.threads >= 0) return {};
  return Status::invalid_argument("threads: expected 0 (all there are) or more, got " +
                                  std::to_string(execution.threads));
}

bool same_view(const TensorView& a, const TensorView& b) {
  if (a.data != b.data || a.dtype != b.dtype || !(a.device == b.device) || a.rank != b.rank) return false;
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(a.rank); ++axis) {
    if (a.shape[axis] != b.shape[axis]) return false;
    if (a.shape[axis] > 1 && a.stride[axis] != b.stride[axis]) return false;
  }
  return true;
}

int threads_for(const Execution& execution, std::int64_t elements) {
  constexpr std::int64_t kWorthThreads = 1 << 16;
  if (elements < kWorthThreads || execution.threads == 1) return 1;
  if (execution.threads > 0) return execution.threads;
  const Executor* const executor = execution.executor;
  return executor != nullptr && executor->run != nullptr ? executor->threads : core::available_threads();
}

bool try_resize(std::vector<float>& values, std::int64_t elements) {
  try {
    values.resize(static_cast<std::size_t>(elements));
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  } catch (const std::length_error&) {
    return false;
  }
}

}  // namespace headwise
