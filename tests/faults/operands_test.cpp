// Bad q, k, v, out, lse and options: shapes, sizes beyond 64 bits, strides, overlap, dtypes, devices.
#include <cmath>
#include <limits>

#include "faults/call.h"

namespace headwise::test {
namespace {

class BadOperands : public ::testing::TestWithParam<Fault> {};
TEST_P(BadOperands, IsRefusedByName) { expect_refused(GetParam()); }

constexpr std::int64_t kHuge = std::int64_t{1} << 62;

const Fault kShapes[] = {
    {"AbsentQ", [](Call& c) { c.args.q = {}; }, "q: missing; expected [batch, seq_q, heads, head_dim]"},
    {"AbsentOut", [](Call& c) { c.args.out = {}; }, "out: missing"},
    {"RankThree", [](Call& c) { c.args.k = contiguous(c.k.data(), {2, 6, 16}); },
     "k: expected rank 4 [batch, seq_kv, kv_heads, head_dim], got rank 3 with shape [2, 6, 16]"},
    {"RankBeyondTheView", [](Call& c) { c.args.v.rank = 7; }, "v: expected rank 4"},
    {"NegativeRank", [](Call& c) { c.args.q.rank = -4; }, "q: missing"},
    {"BatchOfK", [](Call& c) { c.args.k.shape[0] = c.args.v.shape[0] = 1; },
     "k.shape[0]: expected 2 (batch of q), got 1 in shape [1, 6, 2, 8]"},
    {"BatchOfV", [](Call& c) { c.args.v.shape[0] = 1; }, "v.shape[0]: expected 2 (as k), got 1"},
    {"LengthOfV", [](Call& c) { c.args.v.shape[1] = 5; }, "v.shape[1]: expected 6 (as k), got 5"},
    {"HeadsOfV", [](Call& c) { c.args.v.shape[2] = 1; }, "v.shape[2]: expected 2 (kv_heads of k), got 1"},
    {"HeadsNotDivisible", [](Call& c) { c.args.k.shape[2] = c.args.v.shape[2] = 3; },
     "kv_heads: expected a divisor of heads (4), got 3"},
    {"NoKvHeads", [](Call& c) { c.args.k.shape[2] = c.args.v.shape[2] = 0; }, "kv_heads: expected a divisor"},
    {"HeadDimOfK", [](Call& c) { c.args.k.shape[3] = 7; }, "k.shape[3]: expected 8 (head_dim of q), got 7"},
    {"HeadDimZero", [](Call& c) { c.args.q.shape[3] = c.args.k.shape[3] = 0; },
     "q.shape[3] (head_dim): expected 1 to 576, got 0"},
    {"HeadDimTooLarge", [](Call& c) { c.args.q.shape[3] = c.args.k.shape[3] = 577; },
     "q.shape[3] (head_dim): expected 1 to 576, got 577"},
    {"HeadDimVTooLarge", [](Call& c) { c.args.v.shape[3] = c.args.out.shape[3] = 600; },
     "v.shape[3] (head_dim_v): expected 1 to 576, got 600"},
    {"BatchOfOut", [](Call& c) { c.args.out.shape[0] = 1; }, "out.shape[0]: expected 2 (as q), got 1"},
    {"LengthOfOut", [](Call& c) { c.args.out.shape[1] = 3; }, "out.shape[1]: expected 4 (as q), got 3"},
    {"HeadsOfOut", [](Call& c) { c.args.out.shape[2] = 2; }, "out.shape[2]: expected 4 (heads of q), got 2"},
    {"HeadDimOfOut", [](Call& c) { c.args.out.shape[3] = 8; },
     "out.shape[3]: expected 16 (head_dim_v of v), got 8"},
    {"RankOfLse", [](Call& c) { c.args.lse = contiguous(c.lse.data(), {2, 16}); },
     "lse: expected rank 3 [batch, heads, seq_q], got rank 2"},
    {"HeadsOfLse", [](Call& c) { c.args.lse = contiguous(c.lse.data(), {2, 2, 4}); },
     "lse.shape[1]: expected 4 (heads of q), got 2"},
    {"LengthOfLse", [](Call& c) { c.args.lse = contiguous(c.lse.data(), {2, 4, 2}); },
     "lse.shape[2]: expected 4 (as q.shape[1]), got 2"},
    {"NegativeExtent", [](Call& c) { c.args.q.shape[1] = -4; }, "q.shape[1]: expected at least 0, got -4"},
    {"MostNegativeExtent", [](Call& c) { c.args.k.shape[0] = std::numeric_limits<std::int64_t>::min(); },
     "k.shape[0]: expected at least 0"},
};
INSTANTIATE_TEST_SUITE_P(Shape, BadOperands, ::testing::ValuesIn(kShapes), fault_name);

const Fault kOverflows[] = {
    {"ElementsOfQ", [](Call& c) { c.args.q.shape = {kHuge, 4, 4, 8}; },
     "has more elements than 64 bits can count"},
    {"ElementsWithStrideZero",
     [](Call& c) {
       c.args.q.shape = {kHuge, kHuge, 4, 8};
       c.args.q.stride = {0, 0, 0, 1};
     },
     "q: shape [4611686018427387904, 4611686018427387904, 4, 8] has more elements"},
    {"ReachOfStride", [](Call& c) { c.args.k.stride[0] = kHuge; }, "reaches further than 2^59 bytes"},
    {"ReachOfNegativeStride", [](Call& c) { c.args.k.stride[1] = std::numeric_limits<std::int64_t>::min(); },
     "reaches further than 2^59 bytes"},
    {"ReachOfManySmallSteps",
     [](Call& c) { c.args.out.stride[0] = c.args.out.stride[1] = std::int64_t{1} << 56; },
     "out: shape [2, 4, 4, 16] with these strides reaches further"},
    {"SizesOfTheProblem",
     [](Call& c) {  // little memory through stride 0, countable elements, but not their bytes as f64
       const std::int64_t n = std::int64_t{1} << 30;
       c.args.q = {.data = c.q.data(), .rank = 4, .shape = {n, 0, 4, 8}, .stride = {0, 0, 0, 1}};
       c.args.k.shape[0] = c.args.v.shape[0] = n;
       c.args.k.stride[0] = c.args.v.stride[0] = 0;
       c.args.out = {.data = c.out.data(), .rank = 4, .shape = {n, 0, 4, 16}, .stride = {0, 0, 0, 1}};
       c.args.k.shape[1] = c.args.v.shape[1] = n / 8;
       c.args.k.stride[1] = c.args.v.stride[1] = 0;
       c.args.lse = {};
     },
     "k: its sizes 1073741824 x 134217728 x 2 x 8 make more bytes than 64 bits can count"},
};
INSTANTIATE_TEST_SUITE_P(Overflow, BadOperands, ::testing::ValuesIn(kOverflows), fault_name);

const Fault kMemory[] = {
    {"InnermostStrideTwo", [](Call& c) { c.args.q.stride[3] = 2; },
     "q.stride[3]: expected 1 (the innermost axis is packed), got 2"},
    {"InnermostStrideZero", [](Call& c) { c.args.v.stride[3] = 0; }, "v.stride[3]: expected 1"},
    {"InnermostStrideNegative", [](Call& c) { c.args.k.stride[3] = -1; }, "k.stride[3]: expected 1"},
    {"InnermostStrideOfOut", [](Call& c) { c.args.out.stride[3] = 2; }, "out.stride[3]: expected 1"},
    {"InnermostStrideOfLse", [](Call& c) { c.args.lse.stride = {16, 1, 4}; }, "lse.stride[2]: expected 1"},
    {"OutBroadcast", [](Call& c) { c.args.out.stride[0] = 0; }, "out.stride[0]: expected at least 16, got 0"},
    {"OutRowsOverlap", [](Call& c) { c.args.out.stride[2] = 15; },
     "out.stride[2]: expected at least 16, got 15"},
    {"OutPositionsOverlap", [](Call& c) { c.args.out.stride[1] = 63; },
     "out.stride[1]: expected at least 64, got 63; the elements of an output may not overlap"},
    {"OutOverlapsBackwards", [](Call& c) { c.args.out.stride[2] = -8; },
     "out.stride[2]: expected at least 16, got -8"},
    {"LseBroadcast", [](Call& c) { c.args.lse.stride[1] = 0; }, "lse.stride[1]: expected at least 4, got 0"},
    {"OutIsQ", [](Call& c) { c.args.q.data = c.out.data(); },
     "out: shares memory with q; give it memory of its own"},
    {"OutIsV", [](Call& c) { c.args.v.data = c.out.data() + 100; }, "out: shares memory with v"},
    {"OutEndsInK", [](Call& c) { c.args.k.data = c.out.data() + 2 * 4 * 4 * 16 - 1; },
     "out: shares memory with k"},
    {"LseInOut", [](Call& c) { c.args.lse.data = c.out.data() + 7; }, "lse: shares memory with out"},
    {"LseInQ", [](Call& c) { c.args.lse.data = c.q.data(); }, "lse: shares memory with q"},
    {"OutHoldsSinks", [](Call& c) { c.args.sinks = contiguous(c.out.data() + 3, {4}); },
     "out: shares memory with sinks"},
    {"NullQ", [](Call& c) { c.args.q.data = nullptr; },
     "q: expected memory for shape [2, 4, 4, 8], got a null pointer"},
    {"NullK", [](Call& c) { c.args.k.data = nullptr; }, "k: expected memory"},
    {"NullV", [](Call& c) { c.args.v.data = nullptr; }, "v: expected memory"},
    {"NullOut", [](Call& c) { c.args.out.data = nullptr; }, "out: expected memory"},
    {"NullLse", [](Call& c) { c.args.lse.data = nullptr; }, "lse: expected memory"},
    {"LseUnaligned", [](Call& c) { c.args.lse.data = reinterpret_cast<char*>(c.floats.data()) + 2; },
     "lse.data: expected an address that is a multiple of 4 bytes"},
};
INSTANTIATE_TEST_SUITE_P(Memory, BadOperands, ::testing::ValuesIn(kMemory), fault_name);

const Fault kTypes[] = {
    {"QIsInteger", [](Call& c) { c.args.q.dtype = DType::int32; },
     "q.dtype: expected f32, f16, bf16, e4m3, int8, f64, got int32"},
    {"KIsBool", [](Call& c) { c.args.k.dtype = DType::boolean; }, "k.dtype: expected f32"},
    {"KAndVDiffer", [](Call& c) { c.args.v.dtype = DType::f16; },
     "v.dtype: expected f32 (dtype of k), got f16"},
    {"QAndOutDiffer", [](Call& c) { c.args.out.dtype = DType::bf16; },
     "out.dtype: expected f32 (dtype of q), got bf16"},
    {"LseIsHalf", [](Call& c) { c.args.lse.dtype = DType::f16; }, "lse.dtype: expected f32, got f16"},
    {"KElsewhere", [](Call& c) { c.args.k.device = {DeviceKind::cuda, 0}; },
     "k.device: expected cpu, got cuda:0"},
    {"OutElsewhere", [](Call& c) { c.args.out.device = {DeviceKind::cuda, 1}; },
     "out.device: expected cpu, got cuda:1"},
    {"LseElsewhere", [](Call& c) { c.args.lse.device = {DeviceKind::cuda, 0}; }, "lse.device: expected cpu"},
};
INSTANTIATE_TEST_SUITE_P(Type, BadOperands, ::testing::ValuesIn(kTypes), fault_name);

const Fault kOptions[] = {
    {"CausalWithoutAlign", [](Call& c) { c.options.causal = true; },
     "align: required with causal, because seq_q 4 differs from seq_kv 6; choose top_left"},
    {"WindowWithoutAlign", [](Call& c) { c.options.window_left = 0; }, "align: required with window_left"},
    {"WindowBelowMinusOne", [](Call& c) { c.options.window_left = -2; },
     "window_left: expected an integer from -1"},
    {"WindowTooLarge", [](Call& c) { c.options.window_right = std::numeric_limits<std::int64_t>::max(); },
     "window_right: expected an integer from -1"},
    {"ScaleNaN", [](Call& c) { c.options.softmax_scale = std::nanf(""); },
     "softmax_scale: expected a finite number, got nan"},
    {"ScaleInfinite", [](Call& c) { c.options.softmax_scale = -INFINITY; },
     "softmax_scale: expected a finite number, got -inf"},
    {"SoftcapNegative", [](Call& c) { c.options.softcap = -1; },
     "softcap: expected a finite number >= 0, got -1"},
    {"SoftcapInfinite", [](Call& c) { c.options.softcap = INFINITY; },
     "softcap: expected a finite number >= 0, got inf"},
    {"DropoutOne", [](Call& c) { c.options.dropout_p = 1; },
     "dropout_p: expected a number from 0 up to, not including, 1, got 1"},
    {"DropoutNegative", [](Call& c) { c.options.dropout_p = -0.5F; }, "dropout_p: expected"},
    {"DropoutNaN", [](Call& c) { c.options.dropout_p = std::nanf(""); }, "dropout_p: expected"},
};
INSTANTIATE_TEST_SUITE_P(Option, BadOperands, ::testing::ValuesIn(kOptions), fault_name);

// What looks odd and is right: the validator must not refuse it.
TEST(OddOperands, AreTaken) {
  const std::function<void(Call&)> odd[] = {
      [](Call& c) { c.args.k.stride[0] = c.args.v.stride[0] = 0; },  // one k and v for all batches
      [](Call& c) { c.args.q.stride[1] = -32, c.args.q.data = c.q.data() + 3 * 32; },  // backwards
      [](Call& c) {
        c.args.v.data = c.args.k.data, c.args.v.shape[3] = c.args.out.shape[3] = 8,
        c.args.v.stride = c.args.k.stride;
      },
      [](Call& c) { c.args.lse = {}; },
      [](Call& c) { c.options.softmax_scale = -1.0F; },
      [](Call& c) {
        c.args.q.stride[3] = 99, c.args.q.shape[3] = c.args.k.shape[3] = 1;
      },  // irrelevant stride
      // q and out interleaved in one buffer: ranges overlap, elements do not.
      [](Call& c) {
        c.args.q.data = c.floats.data();
        c.args.q.stride = {384, 96, 24, 1};
        c.args.out.data = c.floats.data() + 8;
        c.args.out.stride = {384, 96, 24, 1};
        c.out[0] = 0;
      },
  };
  for (const auto& change : odd) {
    Call call;
    change(call);
    const Status status = attention(call.args, call.options);
    EXPECT_TRUE(status.ok()) << status.message();
    EXPECT_FALSE(call.untouched());
  }
}

TEST(EmptyOperands, Succeed) {
  for (const int axis : {0, 1, 2}) {  // no batch, no position, no head
    Call call;
    call.args.q.shape[static_cast<std::size_t>(axis)] = call.args.out.shape[static_cast<std::size_t>(axis)] =
        0;
    if (axis != 1)
      call.args.k.shape[static_cast<std::size_t>(axis)] = call.args.v.shape[static_cast<std::size_t>(axis)] =
          0;
    call.args.lse = {};
    call.args.q.data = call.args.out.data = nullptr;
    const Status status = attention(call.args, call.options);
    EXPECT_TRUE(status.ok()) << axis << ": " << status.message();
    EXPECT_TRUE(call.untouched());
  }
  Call call;  // no key: every output row is 0, lse -inf
  call.args.k.shape[1] = call.args.v.shape[1] = 0;
  call.args.k.data = call.args.v.data = nullptr;
  ASSERT_TRUE(attention(call.args, call.options).ok());
  EXPECT_EQ(call.out, std::vector<float>(call.out.size(), 0.0F));
  EXPECT_EQ(call.lse, std::vector<float>(call.lse.size(), -INFINITY));
}

TEST(AbsentDevice, IsUnavailable) {
  Call call;
  for (TensorView* view : {&call.args.q, &call.args.k, &call.args.v, &call.args.out, &call.args.lse}) {
    view->device = {DeviceKind::cpu, 1};
  }
  const Status status = attention(call.args, call.options);
  EXPECT_EQ(status.code(), StatusCode::unavailable);
  EXPECT_TRUE(call.untouched());
}

}  // namespace
}  // namespace headwise::test
