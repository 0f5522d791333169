// out and lse, which backward kernels read: what forward gives for the same inputs.
#pragma once

#include "headwise/device.h"
#include "lab/inputs.h"

namespace headwise::lab {

// Device memory that goes back when the scope ends.
class Scratch {
 public:
  explicit Scratch(Device& device) : device_(device) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch();
  Status allocate(std::size_t bytes);  // once
  [[nodiscard]] Workspace workspace() const { return workspace_; }

 private:
  Device& device_;
  Workspace workspace_{};
};

class ForwardResults {
 public:
  explicit ForwardResults(Device& device) : device_(device), out_(device), lse_(device) {}

  // For inputs of direction backward: calls the planned forward kernel, untimed. Once.
  Status make(const Inputs& inputs);
  // The inputs' arguments, with out and lse after make().
  [[nodiscard]] AttentionArgs beside(const Inputs& inputs) const;

 private:
  Device& device_;
  Scratch out_, lse_;
};

}  // namespace headwise::lab
