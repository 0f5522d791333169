// A case's tensors in memory that worker processes can map: copies of the inputs, room for the outputs.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "lab/inputs.h"
#include "lab/peers/messages.h"

namespace headwise::lab {

class SharedTensors {
 public:
  SharedTensors() = default;
  SharedTensors(const SharedTensors&) = delete;
  SharedTensors& operator=(const SharedTensors&) = delete;
  ~SharedTensors();

  // Packs q, k, v (and dout) of `inputs` into anonymous shared memory; outputs hold NaN.
  Status make(const Inputs& inputs);
  void poison();                      // outputs become NaN
  void read_outputs(Inputs& inputs);  // into the inputs' own host tensors

  [[nodiscard]] const std::vector<SharedTensor>& tensors() const { return tensors_; }
  [[nodiscard]] std::string path() const;  // by which another process of this user maps it
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  int file_ = -1;
  std::byte* memory_ = nullptr;
  std::size_t bytes_ = 0, outputs_begin_ = 0;
  std::vector<SharedTensor> tensors_;
};

}  // namespace headwise::lab
