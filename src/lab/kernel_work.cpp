#include "lab/kernel_work.h"

#include <algorithm>
#include <chrono>

#include "lab/fingerprint.h"

namespace headwise::lab {
namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

}  // namespace

std::string_view row_status_of(StatusCode code) {
  switch (code) {
    case StatusCode::ok: return row_status::kOk;
    case StatusCode::unsupported: return row_status::kUnsupported;
    case StatusCode::out_of_memory: return row_status::kOutOfMemory;
    case StatusCode::unavailable: return row_status::kAbsent;
    case StatusCode::invalid_argument:
    case StatusCode::internal: break;
  }
  return row_status::kError;
}

Status KernelWork::call(void* context, void* stream) {
  const auto& self = *static_cast<const KernelWork*>(context);
  return self.plan_.run(self.forward_.beside(self.inputs_), {.stream = stream, .workspace = self.workspace_});
}

Result<double> KernelWork::first_call(Row& row) {
  if (Status status = poison(inputs_); !status.ok()) return status;
  if (inputs_.problem().direction == Direction::backward) {
    if (Status status = forward_.make(inputs_); !status.ok()) return status;
  }
  const MemoryUse before = device_.memory();
  device_.reset_peak();
  const Clock::time_point prepare = Clock::now();
  Scratch scratch(device_);
  if (Status status = scratch.allocate(plan_.workspace_bytes()); !status.ok()) return status;
  row.prepare_ms = plan_ms_ + milliseconds_since(prepare);
  workspace_ = scratch.workspace();
  const Clock::time_point start = Clock::now();
  Status status = call(this, nullptr);
  if (status.ok()) status = device_.synchronize(nullptr);
  const double ms = milliseconds_since(start);
  workspace_ = {};
  if (!status.ok()) return status;
  record_memory(row, before, device_.memory());
  return ms;
}

// Outputs are filled before the call, so they are resident in `before`; what the call adds is workspace and
// whatever it allocates on its own.
void KernelWork::record_memory(Row& row, const MemoryUse& before, const MemoryUse& after) const {
  const std::int64_t held = *row.input_bytes + *row.output_bytes;
  const auto grown = [](std::size_t from, std::size_t to) {
    return to > from ? static_cast<std::int64_t>(to - from) : std::int64_t{0};
  };
  row.peak_allocated_bytes = held + grown(before.allocated, after.peak_allocated);
  if (after.peak_resident > 0) row.peak_resident_bytes = held + grown(before.resident, after.peak_resident);
  row.peak_bytes = std::max(*row.peak_allocated_bytes, row.peak_resident_bytes.value_or(0));
}

Status KernelWork::accept() {
  Result<std::uint64_t> outputs = output_fingerprint(inputs_);
  if (!outputs) return outputs.status();
  outputs_ = *outputs;
  return {};
}

Result<Timed> KernelWork::time(std::int64_t calls, double lead_in_ms) {
  return timed_on(device_, {.call = &KernelWork::call, .context = this})(calls, lead_in_ms);
}

// Whether the outputs are still the ones that were verified, bit by bit.
Status KernelWork::check_outputs() {
  Result<std::uint64_t> outputs = output_fingerprint(inputs_);
  if (!outputs) return outputs.status();
  if (*outputs == outputs_) return {};
  changed_ = true;
  return Status::internal(
      "outputs of a timed call differ from those of the verified one: a kernel gives the same bits each "
      "time");
}

void KernelWork::describe_timing(Row& row) const {
  row.timer = device_.timer();
  row.regime = "sustained";
  row.cache_method = cold_ ? "flushed" : "reused";
  if (const double mhz = device_.clocks().mhz; mhz > 0) row.clock_mhz = mhz;
}

std::string_view KernelWork::row_status_of(const Status& status) const {
  return changed_ ? row_status::kInaccurate : lab::row_status_of(status.code());
}

}  // namespace headwise::lab
