// Whether outputs are still the ones that were verified.
#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <vector>

#include "lab/fingerprint.h"

namespace headwise::lab {
namespace {

TEST(Fingerprint, EveryBitAndTheLengthCount) {
  std::vector<unsigned char> data(101);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<unsigned char>(i * 37);
  std::set<std::uint64_t> seen{fingerprint(0, data.data(), data.size())};
  for (std::size_t bit = 0; bit < 8 * data.size(); ++bit) {
    data[bit / 8] ^= static_cast<unsigned char>(1U << bit % 8);
    EXPECT_TRUE(seen.insert(fingerprint(0, data.data(), data.size())).second) << bit;
    data[bit / 8] ^= static_cast<unsigned char>(1U << bit % 8);
  }
  EXPECT_EQ(fingerprint(0, data.data(), data.size()), fingerprint(0, data.data(), data.size()));
  const std::vector<unsigned char> zeros(100);
  for (std::size_t length = 0; length < zeros.size(); ++length)
    EXPECT_TRUE(seen.insert(fingerprint(0, zeros.data(), length)).second) << length;
  EXPECT_TRUE(seen.insert(fingerprint(1, zeros.data(), 10)).second);
}

TEST(Fingerprint, OutputsAreSeenToTheLastBit) {
  const AttentionProblem problem{.batch = 2,
                                 .heads = 3,
                                 .kv_heads = 3,
                                 .seq_q = 5,
                                 .seq_kv = 5,
                                 .head_dim = 7,
                                 .head_dim_v = 7,
                                 .lse = true};
  Device& cpu = **device({});
  Result<Inputs> inputs = make_inputs(problem, {.row_padding = 3}, cpu);
  ASSERT_TRUE(inputs.ok()) << inputs.status().message();
  const std::uint64_t poisoned = *output_fingerprint(*inputs);
  EXPECT_EQ(poisoned, *output_fingerprint(*inputs));
  std::set<std::uint64_t> seen{poisoned};
  const TensorView& out = inputs->args().out;
  std::int64_t elements = 0;
  for (std::int64_t b = 0; b < 2; ++b) {
    for (std::int64_t s = 0; s < 5; ++s) {
      for (std::int64_t h = 0; h < 3; ++h) {
        for (std::int64_t d = 0; d < 7; ++d, ++elements) {
          auto* bytes = reinterpret_cast<unsigned char*>(  // NOLINT
              out.as<float>() + b * out.stride[0] + s * out.stride[1] + h * out.stride[2] + d);
          *bytes ^= 1U;
          EXPECT_TRUE(seen.insert(*output_fingerprint(*inputs)).second);
          *bytes ^= 1U;
        }
      }
    }
  }
  EXPECT_EQ(elements, out.elements());
  auto* lse = inputs->args().lse.as<float>();
  lse[2 * 3 * 5 - 1] = 0;
  EXPECT_TRUE(seen.insert(*output_fingerprint(*inputs)).second);
  ASSERT_TRUE(poison(*inputs).ok());
  EXPECT_EQ(*output_fingerprint(*inputs), poisoned);
  // Padding between rows is nobody's output.
  out.as<float>()[7] = 1;
  EXPECT_EQ(*output_fingerprint(*inputs), poisoned);
}

TEST(Fingerprint, GradientsAreOutputs) {
  const AttentionProblem problem{.direction = Direction::backward,
                                 .heads = 2,
                                 .kv_heads = 1,
                                 .seq_q = 3,
                                 .seq_kv = 4,
                                 .head_dim = 5,
                                 .head_dim_v = 6};
  Result<Inputs> inputs = make_inputs(problem, {}, **device({}));
  ASSERT_TRUE(inputs.ok()) << inputs.status().message();
  std::set<std::uint64_t> seen{*output_fingerprint(*inputs)};
  for (const TensorView& view : {inputs->args().dq, inputs->args().dk, inputs->args().dv}) {
    for (const std::int64_t i : {std::int64_t{0}, view.elements() - 1}) {
      view.as<float>()[i] = 1;
      EXPECT_TRUE(seen.insert(*output_fingerprint(*inputs)).second);
    }
  }
  inputs->args().dout.as<float>()[0] = 1;
  EXPECT_TRUE(seen.contains(*output_fingerprint(*inputs)));
}

}  // namespace
}  // namespace headwise::lab
