#include "conformance/node_case.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <set>
#include <system_error>

#include "core/try.h"
#include "lab/safetensors.h"

namespace headwise::conformance {
namespace {

constexpr std::string_view kAttribute = "attribute.";

template <class T>
Status parse(std::string_view key, const std::string& text, T& value) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc() && stop == end) return {};
  return Status::invalid_argument(std::string(key) + ": expected a number, got '" + text + "'");
}

template <class T>
Status parse(std::string_view key, const std::string& text, std::optional<T>& value) {
  T parsed{};
  HEADWISE_TRY(parse(key, text, parsed));
  value = parsed;
  return {};
}

Status take_attribute(std::string_view name, const std::string& text, NodeCase& node) {
  if (name == "scale") return parse(name, text, node.scale);
  if (name == "softcap") return parse(name, text, node.softcap);
  if (name == "q_num_heads") return parse(name, text, node.q_num_heads);
  if (name == "kv_num_heads") return parse(name, text, node.kv_num_heads);
  if (name == "left_window_size") return parse(name, text, node.left_window_size);
  if (name == "right_window_size") return parse(name, text, node.right_window_size);
  if (name == "qk_matmul_output_mode") return parse(name, text, node.qk_matmul_output_mode);
  if (name == "softmax_precision") return parse(name, text, node.softmax_precision);
  if (name == "is_causal") {
    std::int64_t value = 0;
    HEADWISE_TRY(parse(name, text, value));
    node.is_causal = value != 0;
    return {};
  }
  return Status::unsupported("attribute " + std::string(name) + ": not known here");
}

Status take_metadata(const std::string& key, const std::string& text, NodeCase& node) {
  if (key == "name") return node.name = text, Status();
  if (key == "onnx") return node.onnx = text, Status();
  if (key == "opset") return parse(key, text, node.opset);
  if (key == "rtol") return parse(key, text, node.rtol);
  if (key == "atol") return parse(key, text, node.atol);
  if (key.starts_with(kAttribute)) return take_attribute(key.substr(kAttribute.size()), text, node);
  return Status::unsupported("metadata " + key + ": not known here");
}

Status take_tensor(const lab::SafeTensors& file, const lab::SafeTensor& stored, NodeCase& node) {
  static const std::set<std::string, std::less<>> known{"input.Q",
                                                        "input.K",
                                                        "input.V",
                                                        "input.attn_mask",
                                                        "input.past_key",
                                                        "input.past_value",
                                                        "input.nonpad_kv_seqlen",
                                                        "output.Y",
                                                        "output.present_key",
                                                        "output.present_value",
                                                        "output.qk_matmul_output"};
  if (!known.contains(stored.name)) return Status::unsupported("tensor " + stored.name + ": not known here");
  Tensor tensor = make_tensor(stored.dtype, stored.shape);
  HEADWISE_TRY(file.read(stored, 0, tensor.bytes.size(), tensor.bytes.data()));
  const std::size_t dot = stored.name.find('.');
  auto& side = dot == std::string_view("input").size() ? node.inputs : node.outputs;
  side.emplace(stored.name.substr(dot + 1), std::move(tensor));
  return {};
}

const Tensor* find(const std::map<std::string, Tensor, std::less<>>& tensors, std::string_view name) {
  const auto found = tensors.find(name);
  return found == tensors.end() ? nullptr : &found->second;
}

Status check_shapes(const NodeCase& node) {
  for (const char* name : {"Q", "K", "V"}) {
    const Tensor* tensor = node.input(name);
    const bool flat = node.q_num_heads > 0 && node.kv_num_heads > 0;
    if (tensor == nullptr || tensor->shape.size() != (flat ? 3U : 4U)) {
      return Status::invalid_argument(std::string(name) + ": expected 4 axes, or 3 and the numbers of heads");
    }
  }
  if (node.output("Y") == nullptr) return Status::invalid_argument("Y: missing");
  if ((node.input("past_key") == nullptr) != (node.input("past_value") == nullptr))
    return Status::invalid_argument("past_key and past_value: expected both or none");
  return {};
}

}  // namespace

std::int64_t Tensor::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  return count;
}

double Tensor::at(std::int64_t index) const {
  const auto place = static_cast<std::size_t>(index);
  if (dtype == DType::boolean) return bytes[place] != std::byte{0} ? 1 : 0;
  if (dtype == DType::int32)
    return static_cast<double>(reinterpret_cast<const std::int32_t*>(bytes.data())[place]);
  return load_element(dtype, bytes.data(), index);
}

Tensor make_tensor(DType dtype, std::vector<std::int64_t> shape) {
  Tensor tensor{.dtype = dtype, .shape = std::move(shape), .bytes = {}};
  tensor.bytes.assign(static_cast<std::size_t>(tensor.elements()) * size_of(dtype), std::byte{0xFF});
  return tensor;
}

const Tensor* NodeCase::input(std::string_view name) const { return find(inputs, name); }
const Tensor* NodeCase::output(std::string_view name) const { return find(outputs, name); }

Result<NodeCase> read_case(const std::string& path) {
  const auto failed = [&](const Status& status) {
    return Status(status.code(), path + ": " + status.message());
  };
  const Result<lab::SafeTensors> file = lab::SafeTensors::open(path);
  if (!file.ok()) return file.status();
  NodeCase node;
  for (const auto& [key, text] : file->metadata()) {
    if (const Status status = take_metadata(key, text, node); !status.ok()) return failed(status);
  }
  for (const lab::SafeTensor& stored : file->tensors()) {
    if (const Status status = take_tensor(*file, stored, node); !status.ok()) return failed(status);
  }
  if (const Status status = check_shapes(node); !status.ok()) return failed(status);
  return node;
}

Result<std::vector<NodeCase>> read_cases(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".safetensors") paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<NodeCase> nodes;
  for (const std::string& path : paths) {
    Result<NodeCase> node = read_case(path);
    if (!node.ok()) return node.status();
    nodes.push_back(*std::move(node));
  }
  return nodes;
}

Sizes sizes_of(const NodeCase& node) {
  const std::vector<std::int64_t>& q = node.input("Q")->shape;
  const std::vector<std::int64_t>& k = node.input("K")->shape;
  const std::vector<std::int64_t>& v = node.input("V")->shape;
  const Tensor* past = node.input("past_key");
  const std::int64_t past_keys = past == nullptr ? 0 : past->shape[2];
  if (q.size() == 4) return {q[0], q[1], k[1], q[2], k[2], past_keys, q[3], v[3]};
  return {q[0], node.q_num_heads, node.kv_num_heads,       q[1],
          k[1], past_keys,        q[2] / node.q_num_heads, v[2] / node.kv_num_heads};
}

Steps steps_of(const Tensor& tensor, std::int64_t heads) {
  const std::vector<std::int64_t>& shape = tensor.shape;
  if (shape.size() == 4) return {shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3]};
  return {shape[1] * shape[2], shape[2] / heads, shape[2]};
}

}  // namespace headwise::conformance
