// The mapping against the operator's definition as scores.h has it, on random cases of every form: what the
// node tests of the package do not reach.
#include "conformance/mapping.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "conformance/scores.h"
#include "oracle/oracle.h"
#include "support/attention_case.h"

namespace headwise::conformance {
namespace {

constexpr int kTrials = 3000;

struct Random {
  std::mt19937_64 generator;

  std::int64_t below(std::int64_t count) {
    return static_cast<std::int64_t>(generator() % static_cast<std::uint64_t>(count));
  }
  bool chance(std::int64_t one_in) { return below(one_in) == 0; }
  Tensor normal(std::vector<std::int64_t> shape) {
    std::normal_distribution<float> values;
    Tensor tensor = make_tensor(DType::f32, std::move(shape));
    for (std::int64_t i = 0; i < tensor.elements(); ++i)
      store_element(tensor.dtype, tensor.bytes.data(), i, values(generator));
    return tensor;
  }
  // Of 1 to 4 axes; each but the last varies or broadcasts, the last may be short.
  Tensor mask(const std::vector<std::int64_t>& scores, std::int64_t keys) {
    std::vector<std::int64_t> shape(scores.begin() + below(4), scores.end());
    for (std::int64_t& extent : shape) extent = chance(3) ? 1 : extent;
    shape.back() = keys;
    Tensor tensor = normal(shape);
    for (std::int64_t i = 0; i < tensor.elements(); ++i) {
      if (chance(5))
        store_element(tensor.dtype, tensor.bytes.data(), i, -std::numeric_limits<double>::infinity());
    }
    if (chance(2)) return tensor;
    Tensor boolean = make_tensor(DType::boolean, shape);
    for (std::byte& value : boolean.bytes) value = chance(3) ? std::byte{0} : std::byte{1};
    return boolean;
  }
};

void add_tensors(Random& random, const Sizes& size, bool flat, NodeCase& node) {
  const auto tensor = [&](std::int64_t positions, std::int64_t heads, std::int64_t channels) {
    if (flat) return random.normal({size.batch, positions, heads * channels});
    return random.normal({size.batch, heads, positions, channels});
  };
  node.inputs["Q"] = tensor(size.seq_q, size.heads, size.head_dim);
  node.inputs["K"] = tensor(size.seq_new, size.kv_heads, size.head_dim);
  node.inputs["V"] = tensor(size.seq_new, size.kv_heads, size.head_dim_v);
  node.outputs["Y"] = tensor(size.seq_q, size.heads, size.head_dim_v);
  if (flat) {
    node.q_num_heads = size.heads;
    node.kv_num_heads = size.kv_heads;
  }
  if (size.past > 0) {
    node.inputs["past_key"] = random.normal({size.batch, size.kv_heads, size.past, size.head_dim});
    node.inputs["past_value"] = random.normal({size.batch, size.kv_heads, size.past, size.head_dim_v});
    node.outputs["present_key"] = node.outputs["present_value"] = {};
  }
}

NodeCase random_case(std::uint64_t seed) {
  Random random{std::mt19937_64(seed)};
  Sizes size{.batch = 1 + random.below(2),
             .heads = 1,
             .kv_heads = 1 + random.below(2),
             .seq_q = 1 + random.below(5),
             .seq_new = 1 + random.below(6),
             .past = random.chance(2) ? 1 + random.below(5) : 0,
             .head_dim = 1 + random.below(4),
             .head_dim_v = 1 + random.below(4)};
  size.heads = size.kv_heads * (1 + random.below(3));
  NodeCase node;
  node.name = "random " + std::to_string(seed);
  add_tensors(random, size, random.chance(2), node);
  if (size.past == 0 && random.chance(2)) {
    Tensor lengths = make_tensor(DType::int32, {size.batch});
    for (std::int64_t b = 0; b < size.batch; ++b) {
      const auto length = static_cast<std::int32_t>(random.below(size.seq_new + 1));
      std::memcpy(lengths.bytes.data() + b * 4, &length, sizeof length);
    }
    node.inputs["nonpad_kv_seqlen"] = lengths;
  }
  if (random.chance(2)) {
    const std::int64_t keys = random.chance(3) ? 1 + random.below(size.seq_kv()) : size.seq_kv();
    node.inputs["attn_mask"] = random.mask({size.batch, size.heads, size.seq_q, size.seq_kv()}, keys);
  }
  node.is_causal = random.chance(2);
  if (random.chance(2)) node.left_window_size = random.below(5);
  if (random.chance(2)) node.right_window_size = random.below(5);
  if (random.chance(2)) node.scale = 0.75;
  if (random.chance(3)) node.softcap = 1.5;
  node.qk_matmul_output_mode = 3;
  return node;
}

// Whether some query stands further behind the last key than its window reaches, which is not mapped.
bool beyond_its_window(const NodeCase& node) {
  const Sizes size = sizes_of(node);
  return size.past > 0 && node.left_window_size >= 0 && size.seq_q - size.seq_new > node.left_window_size;
}

double weighted_value(const NodeCase& node, const Call& call, const Tensor& weights, const oracle::RowId& id,
                      std::int64_t channel) {
  const Sizes size = sizes_of(node);
  const bool past = size.past > 0;
  const Tensor& v = past ? call.present_value : *node.input("V");
  const Steps step = steps_of(v, size.kv_heads);
  const std::int64_t row = (id.batch * size.heads + id.head) * size.seq_q + id.query;
  double sum = 0;
  for (std::int64_t j = 0; j < size.seq_kv(); ++j) {
    const std::int64_t at = id.batch * step.batch + id.head * size.kv_heads / size.heads * step.head;
    sum += weights.at(row * size.seq_kv() + j) * v.at(at + j * step.position + channel);
  }
  return sum;
}

void expect_agreement(const NodeCase& node, const Call& call) {
  const Result<AttentionProblem> problem = make_problem(call.args, call.options);
  ASSERT_TRUE(problem.ok()) << problem.status().message();
  const std::vector<oracle::RowId> ids = test::all_rows(*problem);
  const Result<oracle::Rows> rows = oracle::forward(call.args, *problem, ids, 1);
  ASSERT_TRUE(rows.ok()) << rows.status().message();
  const Result<Tensor> weights = qk_matmul_output(node);
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  const std::int64_t channels = sizes_of(node).head_dim_v;
  for (std::size_t r = 0; r < ids.size(); ++r) {
    for (std::int64_t c = 0; c < channels; ++c) {
      const double expected = weighted_value(node, call, *weights, ids[r], c);
      const double actual = rows->out[r * static_cast<std::size_t>(channels) + static_cast<std::size_t>(c)];
      ASSERT_NEAR(actual, expected, 1e-5) << to_string(*problem);  // weights are rounded to f32
    }
  }
}

TEST(Mapping, AgreesWithTheDefinition) {
  int refused = 0;
  for (std::uint64_t seed = 1; seed <= kTrials; ++seed) {
    const NodeCase node = random_case(seed);
    const Result<Call> call = make_call(node);
    EXPECT_EQ(call.ok(), !beyond_its_window(node)) << node.name;
    if (!call.ok()) {
      ++refused;
      continue;
    }
    expect_agreement(node, *call);
    ASSERT_FALSE(HasFatalFailure()) << node.name;
  }
  EXPECT_LT(refused, kTrials / 10);
}

TEST(Mapping, RefusesWhatTheOperatorForbids) {
  std::uint64_t seed = 1;
  NodeCase node = random_case(seed);
  while (node.input("past_key") == nullptr) node = random_case(++seed);
  node.inputs["nonpad_kv_seqlen"] = make_tensor(DType::int32, {sizes_of(node).batch});
  const Result<Call> call = make_call(node);
  ASSERT_FALSE(call.ok());
  EXPECT_NE(call.status().message().find("nonpad_kv_seqlen"), std::string::npos);
}

}  // namespace
}  // namespace headwise::conformance
