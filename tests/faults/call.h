// One valid call of attention() that a test spoils in one place, and the checks that every refused
// call must pass: the message names what is wrong, and nothing was written.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <ostream>
#include <string>
#include <vector>

#include "headwise/attention.h"

namespace headwise::test {

// batch 2, seq_q 4, seq_kv 6, heads 4, kv_heads 2, head_dim 8, head_dim_v 16, all f32, with lse.
struct Call {
  static constexpr float kUntouched = -123.5F;

  std::vector<float> q = std::vector<float>(2 * 4 * 4 * 8, 0.5F);
  // Memory for a seventh key, so that a test that claims one reaches into no other tensor.
  std::vector<float> k = std::vector<float>(2 * 7 * 2 * 8, 0.25F);
  std::vector<float> v = std::vector<float>(2 * 7 * 2 * 16, 1.0F);
  std::vector<float> out = std::vector<float>(2 * 4 * 4 * 16, kUntouched);
  std::vector<float> lse = std::vector<float>(2 * 4 * 4, kUntouched);
  std::vector<float> floats = std::vector<float>(1024, 0.0F);  // for optional tensors
  std::vector<std::int32_t> integers = std::vector<std::int32_t>(64, 0);
  AttentionArgs args{.q = contiguous(q.data(), {2, 4, 4, 8}),
                     .k = contiguous(k.data(), {2, 6, 2, 8}),
                     .v = contiguous(v.data(), {2, 6, 2, 16}),
                     .out = contiguous(out.data(), {2, 4, 4, 16}),
                     .lse = contiguous(lse.data(), {2, 4, 4})};
  AttentionOptions options{};

  Call() = default;
  Call(const Call&) = delete;  // views point into the vectors
  Call& operator=(const Call&) = delete;

  [[nodiscard]] bool untouched() const {
    const auto same = [](float value) { return value == kUntouched; };
    return std::all_of(out.begin(), out.end(), same) && std::all_of(lse.begin(), lse.end(), same);
  }
  // An int32 array with these entries, beginning at integers[offset].
  TensorView indices(std::initializer_list<std::int32_t> entries, std::size_t offset = 0) {
    std::copy(entries.begin(), entries.end(), integers.begin() + static_cast<std::ptrdiff_t>(offset));
    return contiguous(integers.data() + offset, {static_cast<std::int64_t>(entries.size())});
  }
};

struct Fault {
  std::string name;
  std::function<void(Call&)> spoil;
  std::string expected;  // part of the message
};
inline void PrintTo(const Fault& fault, std::ostream* stream) { *stream << fault.name; }
inline std::string fault_name(const ::testing::TestParamInfo<Fault>& info) { return info.param.name; }

inline void expect_refused(const Fault& fault) {
  Call call;
  fault.spoil(call);
  const Status status = attention(call.args, call.options);
  EXPECT_EQ(status.code(), StatusCode::invalid_argument) << status.message();
  EXPECT_NE(status.message().find(fault.expected), std::string::npos)
      << "expected: " << fault.expected << "\n     got: " << status.message();
  EXPECT_TRUE(call.untouched());
  Call good;
  EXPECT_TRUE(attention(good.args, good.options).ok()) << "the next call works";
  EXPECT_FALSE(good.untouched());
}

}  // namespace headwise::test
