#include "lab/captured.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/text.h"
#include "core/try.h"
#include "lab/safetensors.h"

namespace headwise::lab {
namespace {

std::string shape_text(const SafeTensor& tensor) {
  std::string text;
  for (const std::int64_t extent : tensor.shape) text += (text.empty() ? "" : " x ") + std::to_string(extent);
  return text;
}

struct Layer {
  const SafeTensor *q = nullptr, *k = nullptr, *v = nullptr;
};

Result<const SafeTensor*> find_tensor(const SafeTensors& file, const std::string& path,
                                      const std::string& name) {
  const SafeTensor* tensor = file.find(name);
  if (tensor == nullptr) {
    return Status::unavailable(path + ": no tensor '" + name + "'; the file holds " +
                               std::to_string(file.tensors().size()) +
                               " tensors, named layer.<n>.q, .k and .v by tools/capture_qkv.py");
  }
  if (tensor->shape.size() != 4) {
    return Status::invalid_argument(path + ": tensor '" + name +
                                    "' must have the shape [batch, seq, heads, head_dim], has " +
                                    shape_text(*tensor));
  }
  if (tensor->dtype != DType::f64 && tensor->dtype != DType::f32 && tensor->dtype != DType::f16 &&
      tensor->dtype != DType::bf16) {
    return Status::invalid_argument(path + ": tensor '" + name + "' must be f64, f32, f16 or bf16, is " +
                                    std::string(headwise::name(tensor->dtype)));
  }
  return tensor;
}

Result<Layer> find_layer(const SafeTensors& file, const std::string& path, int number) {
  Layer layer;
  const std::string prefix = "layer." + std::to_string(number) + ".";
  for (const auto& [name, slot] :
       {std::pair{"q", &layer.q}, std::pair{"k", &layer.k}, std::pair{"v", &layer.v}}) {
    Result<const SafeTensor*> tensor = find_tensor(file, path, prefix + name);
    if (!tensor.ok()) return tensor.status();
    *slot = *tensor;
  }
  const auto &q = layer.q->shape, &k = layer.k->shape, &v = layer.v->shape;
  const bool fits = q[0] == k[0] && k[0] == v[0] && k[1] == v[1] && k[2] == v[2] && q[3] == k[3] &&
                    k[2] > 0 && q[2] % k[2] == 0;
  if (!fits) {
    return Status::invalid_argument(path + ": layer " + std::to_string(number) + ": q " +
                                    shape_text(*layer.q) + ", k " + shape_text(*layer.k) + " and v " +
                                    shape_text(*layer.v) + " do not fit each other");
  }
  return layer;
}

// What the problem asks for must be what the file has, or a prefix of it.
Status check_sizes(const AttentionProblem& p, const Layer& layer, const InputSpec& spec) {
  struct Rule {
    const char* name;
    std::int64_t asked, has;
    bool prefix;
  };
  const std::array<Rule, 7> rules{{{"batch", p.batch, layer.q->shape[0], true},
                                   {"heads", p.heads, layer.q->shape[2], false},
                                   {"kv_heads", p.kv_heads, layer.k->shape[2], false},
                                   {"head_dim", p.head_dim, layer.q->shape[3], false},
                                   {"head_dim_v", p.head_dim_v, layer.v->shape[3], false},
                                   {"seq_q", p.seq_q, layer.q->shape[1], true},
                                   {"seq_kv", p.seq_kv, layer.k->shape[1], true}}};
  for (const Rule& rule : rules) {
    if (rule.asked == rule.has || (rule.prefix && rule.asked < rule.has)) continue;
    return Status::unsupported("captured inputs: " + std::string(rule.name) + " " +
                               std::to_string(rule.asked) + ": layer " + std::to_string(spec.layer) + " of " +
                               spec.file + " has " + std::to_string(rule.has) +
                               (rule.prefix ? ", and nothing is made up beyond it" : ""));
  }
  return {};
}

// Copies from the file's packed [batch, seq, heads, head_dim], starting at token `first`.
Status copy_tensor(const SafeTensors& file, const SafeTensor& from, std::int64_t first,
                   const TensorView& to) {
  const std::int64_t token = from.shape[2] * from.shape[3];  // elements
  const std::size_t size = size_of(from.dtype);
  const std::int64_t count = to.shape[1] * token;
  std::vector<double> values(static_cast<std::size_t>(count));  // room and alignment for any dtype
  for (std::int64_t b = 0; b < to.shape[0]; ++b) {
    const auto offset = static_cast<std::size_t>((b * from.shape[1] + first) * token) * size;
    HEADWISE_TRY(file.read(from, offset, static_cast<std::size_t>(count) * size, values.data()));
    std::int64_t source = 0;
    for (std::int64_t s = 0; s < to.shape[1]; ++s) {
      for (std::int64_t h = 0; h < to.shape[2]; ++h) {
        const std::int64_t at = b * to.stride[0] + s * to.stride[1] + h * to.stride[2];
        for (std::int64_t c = 0; c < to.shape[3]; ++c) {
          store_element(to.dtype, to.data, at + c, load_element(from.dtype, values.data(), source++));
        }
      }
    }
  }
  return {};
}

}  // namespace

Status fill_captured(const AttentionArgs& host_args, const AttentionProblem& problem, const InputSpec& spec) {
  Result<SafeTensors> file = SafeTensors::open(spec.file);
  if (!file.ok()) return file.status();
  Result<Layer> layer = find_layer(*file, spec.file, spec.layer);
  if (!layer.ok()) return layer.status();
  HEADWISE_TRY(check_sizes(problem, *layer, spec));
  // Queries that stand at the end of the keys are the last tokens of the prefix, as far as there are any.
  const std::int64_t spare = layer->q->shape[1] - problem.seq_q;
  const std::int64_t first_query = std::clamp<std::int64_t>(problem.query_offset(), 0, spare);
  HEADWISE_TRY(copy_tensor(*file, *layer->q, first_query, host_args.q));
  HEADWISE_TRY(copy_tensor(*file, *layer->k, 0, host_args.k));
  return copy_tensor(*file, *layer->v, 0, host_args.v);
}

Result<AttentionProblem> captured_problem(const std::string& file, int layer) {
  Result<SafeTensors> tensors = SafeTensors::open(file);
  if (!tensors.ok()) return tensors.status();
  Result<Layer> found = find_layer(*tensors, file, layer);
  if (!found.ok()) return found.status();
  AttentionProblem problem{.dtype = DType::f16, .kv_dtype = DType::f16};
  problem.batch = found->q->shape[0];
  problem.seq_q = found->q->shape[1];
  problem.seq_kv = found->k->shape[1];
  problem.heads = found->q->shape[2];
  problem.kv_heads = found->k->shape[2];
  problem.head_dim = found->q->shape[3];
  problem.head_dim_v = found->v->shape[3];
  const auto& metadata = tensors->metadata();
  if (const auto scale = metadata.find("softmax_scale"); scale != metadata.end()) {
    const std::optional<double> value = core::parse_number<double>(scale->second);
    if (!value) {
      return Status::invalid_argument(file + ": metadata softmax_scale must be a number, is '" +
                                      scale->second + "'");
    }
    problem.softmax_scale = static_cast<float>(*value);
    // The default is left as the default: it is exact in truth, and more kernels take it.
    AttentionProblem plain = problem;
    plain.softmax_scale.reset();
    if (plain.scale() == problem.scale()) problem.softmax_scale.reset();
  }
  if (const auto causal = metadata.find("causal"); causal != metadata.end())
    problem.causal = causal->second == "1";
  if (problem.causal && problem.seq_q != problem.seq_kv) problem.align = Align::bottom_right;
  return problem;
}

Result<std::vector<int>> captured_layers(const std::string& file) {
  Result<SafeTensors> tensors = SafeTensors::open(file);
  if (!tensors.ok()) return tensors.status();
  std::vector<int> layers;
  for (const SafeTensor& tensor : tensors->tensors()) {
    const std::vector<std::string_view> parts = core::split(tensor.name, '.');
    if (parts.size() != 3 || parts[0] != "layer" || parts[2] != "q") continue;
    if (const std::optional<int> number = core::parse_number<int>(parts[1])) layers.push_back(*number);
  }
  std::sort(layers.begin(), layers.end());
  return layers;
}

}  // namespace headwise::lab
