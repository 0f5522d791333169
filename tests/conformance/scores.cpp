#include "conformance/scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

namespace headwise::conformance {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Scores {
  const NodeCase& node;
  Sizes size = sizes_of(node);

  // Channel `c` of key `j`, which lies in the past or in K.
  [[nodiscard]] double key(std::int64_t b, std::int64_t kv_head, std::int64_t j, std::int64_t c) const {
    const Tensor& tensor = *node.input(j < size.past ? "past_key" : "K");
    const Steps step = steps_of(tensor, size.kv_heads);
    const std::int64_t row = j < size.past ? j : j - size.past;
    return tensor.at(b * step.batch + kv_head * step.head + row * step.position + c);
  }

  [[nodiscard]] double product(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const {
    const Tensor& q = *node.input("Q");
    const Steps step = steps_of(q, size.heads);
    const std::int64_t kv_head = h * size.kv_heads / size.heads;
    const std::int64_t row = b * step.batch + h * step.head + i * step.position;
    double sum = 0;
    for (std::int64_t c = 0; c < size.head_dim; ++c) sum += q.at(row + c) * key(b, kv_head, j, c);
    return sum * node.scale.value_or(1 / std::sqrt(static_cast<double>(size.head_dim)));
  }

  [[nodiscard]] double capped(double score) const {
    return node.softcap > 0 ? node.softcap * std::tanh(score / node.softcap) : score;
  }

  // What attn_mask adds; -inf hides.
  [[nodiscard]] double masked(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const {
    const Tensor* mask = node.input("attn_mask");
    if (mask == nullptr) return 0;
    const std::int64_t at[4] = {b, h, i, j};
    if (j >= mask->shape.back()) return -kInfinity;
    std::int64_t index = 0;
    const std::size_t missing = 4 - mask->shape.size();
    for (std::size_t axis = missing; axis < 4; ++axis) {
      const std::int64_t extent = mask->shape[axis - missing];
      index = index * extent + (extent == 1 ? 0 : at[axis]);
    }
    const double value = mask->at(index);
    if (mask->dtype == DType::boolean) return value != 0 ? 0 : -kInfinity;
    return value;
  }

  // What all masks add.
  [[nodiscard]] double bias(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const {
    std::int64_t place = i + size.past;
    if (const Tensor* lengths = node.input("nonpad_kv_seqlen")) {
      const auto length = static_cast<std::int64_t>(lengths->at(b));
      if (j >= length) return -kInfinity;
      place = i + length - size.seq_q;
    }
    if (node.is_causal && j > place) return -kInfinity;
    if (node.left_window_size >= 0 && place - j > node.left_window_size) return -kInfinity;
    if (node.right_window_size >= 0 && j - place > node.right_window_size) return -kInfinity;
    return masked(b, h, i, j);
  }

  // One row, up to the step that the mode names.
  void row(std::int64_t b, std::int64_t h, std::int64_t i, std::vector<double>& scores) const {
    const std::int64_t mode = node.qk_matmul_output_mode;
    double largest = -kInfinity;
    for (std::int64_t j = 0; j < size.seq_kv(); ++j) {
      double& score = scores[static_cast<std::size_t>(j)];
      score = product(b, h, i, j);
      if (mode >= 1) score = capped(score);
      if (mode < 2) continue;
      const double added = bias(b, h, i, j);
      score = added == -kInfinity ? -kInfinity : score + added;
      largest = std::max(largest, score);
    }
    if (mode < 3) return;
    double sum = 0;
    for (double& score : scores) sum += score = largest == -kInfinity ? 0 : std::exp(score - largest);
    for (double& score : scores) score = sum == 0 ? 0 : score / sum;
  }
};

}  // namespace

Result<Tensor> qk_matmul_output(const NodeCase& node) {
  if (node.qk_matmul_output_mode < 0 || node.qk_matmul_output_mode > 3) {
    return Status::unsupported("qk_matmul_output_mode: expected 0 to 3, got " +
                               std::to_string(node.qk_matmul_output_mode));
  }
  const Scores scores{node};
  const Sizes& size = scores.size;
  Tensor out = make_tensor(node.input("Q")->dtype, {size.batch, size.heads, size.seq_q, size.seq_kv()});
  std::vector<double> row(static_cast<std::size_t>(size.seq_kv()));
  std::int64_t index = 0;
  for (std::int64_t b = 0; b < size.batch; ++b) {
    for (std::int64_t h = 0; h < size.heads; ++h) {
      for (std::int64_t i = 0; i < size.seq_q; ++i) {
        scores.row(b, h, i, row);
        for (const double score : row) store_element(out.dtype, out.bytes.data(), index++, score);
      }
    }
  }
  return out;
}

}  // namespace headwise::conformance
