// A kernel of this build in one case.
#pragma once

#include "headwise/device.h"
#include "lab/forward_results.h"
#include "lab/inputs.h"
#include "lab/work.h"

namespace headwise::lab {

class KernelWork final : public Work {
 public:
  KernelWork(Device& device, const Plan& plan, double plan_ms, bool cold, Inputs& inputs)
      : device_(device), plan_(plan), plan_ms_(plan_ms), cold_(cold), inputs_(inputs), forward_(device) {}

  Result<double> first_call(Row& row) override;
  [[nodiscard]] Verdict verdict(const Reference& reference) override { return verify(inputs_, reference); }
  Status accept() override;
  [[nodiscard]] std::size_t workspace_bytes() const override { return plan_.workspace_bytes(); }
  void use(Workspace workspace) override { workspace_ = workspace; }
  Status before_timing() override { return poison(inputs_); }
  Result<Timed> time(std::int64_t calls, double lead_in_ms) override;
  Status check_outputs() override;
  void describe_timing(Row& row) const override;
  [[nodiscard]] std::string_view row_status_of(const Status& status) const override;

 private:
  static Status call(void* context, void* stream);  // TimedWork::call
  void record_memory(Row& row, const MemoryUse& before, const MemoryUse& after) const;

  Device& device_;
  const Plan& plan_;
  double plan_ms_;
  bool cold_;
  Inputs& inputs_;
  ForwardResults forward_;  // direction backward
  Workspace workspace_{};
  std::uint64_t outputs_ = 0;  // fingerprint of those that were verified
  bool changed_ = false;       // a later call gave others
};

}  // namespace headwise::lab
