// One node test of ONNX's operator Attention, as write_cases.py wrote it down.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "headwise/dtype.h"
#include "headwise/status.h"

namespace headwise::conformance {

// Packed, in host memory.
struct Tensor {
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;

  [[nodiscard]] std::int64_t elements() const;
  [[nodiscard]] double at(std::int64_t index) const;  // bool and int32 too
};

Tensor make_tensor(DType dtype, std::vector<std::int64_t> shape);  // every byte 0xFF: NaN in any float

struct NodeCase {
  std::string name;
  std::int64_t opset = 0;
  double rtol = 0, atol = 0;
  std::string onnx;  // version of the package that made it
  // Attributes, at the operator's defaults.
  std::optional<double> scale;
  double softcap = 0;
  bool is_causal = false;
  std::int64_t q_num_heads = 0, kv_num_heads = 0;  // 0: not given, inputs have four axes
  std::int64_t left_window_size = -1, right_window_size = -1;
  std::int64_t qk_matmul_output_mode = 0;
  std::optional<std::int64_t> softmax_precision;
  std::map<std::string, Tensor, std::less<>> inputs, outputs;  // by their names in the operator's definition

  [[nodiscard]] const Tensor* input(std::string_view name) const;  // null: not given
  [[nodiscard]] const Tensor* output(std::string_view name) const;
};

// An unknown attribute or tensor is an error: a case that is understood in part could pass by accident.
Result<NodeCase> read_case(const std::string& path);
// All *.safetensors of a folder, by name; none where there is no such folder.
Result<std::vector<NodeCase>> read_cases(const std::string& folder);

// What the shapes say, whichever of the operator's two layouts they have.
struct Sizes {
  std::int64_t batch = 0, heads = 0, kv_heads = 0;
  std::int64_t seq_q = 0, seq_new = 0, past = 0;  // keys: past ones, then those of input K
  std::int64_t head_dim = 0, head_dim_v = 0;
  [[nodiscard]] std::int64_t seq_kv() const { return past + seq_new; }
};
Sizes sizes_of(const NodeCase& node);

// Elements between neighbours of [batch, heads, positions, channels] in input or output `tensor`, which has
// four axes, or three where heads and channels share the last.
struct Steps {
  std::int64_t batch = 0, head = 0, position = 0;
};
Steps steps_of(const Tensor& tensor, std::int64_t heads);

}  // namespace headwise::conformance
