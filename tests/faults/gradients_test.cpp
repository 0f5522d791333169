// Direction backward through the public API: what makes it, what is refused, and that nobody who gives
// gradients gets forward instead.
#include "attention/validation.h"
#include "faults/call.h"

namespace headwise::test {
namespace {

// The good call of call.h with gradients; out and lse are then inputs.
struct BackwardCall : Call {
  std::vector<float> dout = std::vector<float>(2 * 4 * 4 * 16, 0.125F);
  std::vector<float> dq = std::vector<float>(q.size(), kUntouched);
  std::vector<float> dk = std::vector<float>(k.size(), kUntouched);
  std::vector<float> dv = std::vector<float>(v.size(), kUntouched);
  BackwardCall() {
    args.dout = contiguous(dout.data(), {2, 4, 4, 16});
    args.dq = contiguous(dq.data(), {2, 4, 4, 8});
    args.dk = contiguous(dk.data(), {2, 6, 2, 8});
    args.dv = contiguous(dv.data(), {2, 6, 2, 16});
  }
  [[nodiscard]] bool untouched() const {
    bool same = Call::untouched();
    for (const auto* values : {&dq, &dk, &dv}) {
      for (const float value : *values) same = same && value == kUntouched;
    }
    return same;
  }
};

TEST(Gradients, MakeTheProblemBackward) {
  BackwardCall call;
  const Result<AttentionProblem> problem = make_problem(call.args, call.options);
  ASSERT_TRUE(problem.ok()) << problem.status().message();
  EXPECT_EQ(problem->direction, Direction::backward);
  EXPECT_FALSE(problem->lse) << "lse is read, none is wanted";
  EXPECT_EQ(problem->pointer_alignment, 16);
  const Result<AttentionProblem> forward = make_problem(Call().args, {});
  ASSERT_TRUE(forward.ok());
  EXPECT_EQ(forward->direction, Direction::forward);
  EXPECT_TRUE(forward->lse);

  call.args.dk.data = call.dk.data() + 1;
  EXPECT_EQ(make_problem(call.args, call.options)->pointer_alignment, 4);
}

TEST(Gradients, OnRequestBelongToTheirTensors) {
  BackwardCall call;
  call.args.dsinks = contiguous(call.floats.data(), {4});
  EXPECT_EQ(attention(call.args, call.options).message(), "dsinks: expected only with sinks");
  call.args.dsinks = {};
  call.args.bias = contiguous(call.floats.data(), {1, 1, 4, 6});
  call.args.dbias = contiguous(call.floats.data() + 512, {1, 4, 4, 6});
  EXPECT_EQ(attention(call.args, call.options).message(),
            "dbias.shape[1]: expected 1 (as bias), got 4 in shape [1, 4, 4, 6]");
  call.args.dbias = contiguous(call.floats.data(), {1, 1, 4, 6});
  EXPECT_EQ(attention(call.args, call.options).message(),
            "dbias: shares memory with bias; give it memory of its own");
  EXPECT_TRUE(call.untouched());
}

TEST(Gradients, AreNeverLeftToAKernelOfForward) {
  BackwardCall call;
  const Status status = attention(call.args, call.options, {.kernel = "cpu/scalar/naive/f32"});
  EXPECT_EQ(status.code(), StatusCode::unsupported);
  EXPECT_NE(status.message().find("direction backward: this kernel is forward"), std::string::npos)
      << status.message();
  EXPECT_TRUE(call.untouched());
  EXPECT_EQ(attention(Call().args, {}, {.kernel = "cpu/scalar/naive_backward/f32"}).code(),
            StatusCode::unsupported);

  ASSERT_TRUE(attention(call.args, call.options).ok());
  EXPECT_TRUE(call.Call::untouched()) << "out and lse are inputs";
  const auto written = [](const std::vector<float>& values, const TensorView& view) {
    return std::find(values.begin(), values.begin() + view.elements(), BackwardCall::kUntouched) ==
           values.begin() + view.elements();
  };
  EXPECT_TRUE(written(call.dq, call.args.dq));
  EXPECT_TRUE(written(call.dk, call.args.dk));
  EXPECT_TRUE(written(call.dv, call.args.dv));
}

TEST(Gradients, PlanOfForwardRefusesThem) {
  const BackwardCall call;
  const AttentionProblem forward = *make_problem(Call().args, {});
  AttentionProblem actual;
  EXPECT_EQ(check_arguments(call.args, forward, {}, actual).message(),
            "direction: the plan was made for forward, got backward; make a plan for this problem");
  AttentionProblem backward = *make_problem(call.args, {});
  EXPECT_TRUE(check_arguments(call.args, backward, {}, actual).ok());
  EXPECT_EQ(actual, backward);
  EXPECT_EQ(check_arguments(Call().args, backward, {}, actual).message(),
            "direction: the plan was made for backward, got forward; make a plan for this problem");
}

struct GradientFault {
  std::string name;
  std::function<void(BackwardCall&)> spoil;
  std::string expected;
};
void PrintTo(const GradientFault& fault, std::ostream* stream) { *stream << fault.name; }

class BadGradients : public ::testing::TestWithParam<GradientFault> {};
TEST_P(BadGradients, AreRefusedByName) {
  BackwardCall call;
  GetParam().spoil(call);
  const Status status = attention(call.args, call.options);
  EXPECT_EQ(status.code(), StatusCode::invalid_argument) << status.message();
  EXPECT_NE(status.message().find(GetParam().expected), std::string::npos)
      << "expected: " << GetParam().expected << "\n     got: " << status.message();
  EXPECT_TRUE(call.untouched());
}

const GradientFault kGradientFaults[] = {
    {"NoDout", [](BackwardCall& c) { c.args.dout = {}; }, "dout: missing; direction backward takes"},
    {"NoDq", [](BackwardCall& c) { c.args.dq = {}; }, "dq: missing"},
    {"NoDk", [](BackwardCall& c) { c.args.dk = {}; }, "dk: missing"},
    {"NoDv", [](BackwardCall& c) { c.args.dv = {}; }, "dv: missing"},
    {"OnlyDout", [](BackwardCall& c) { c.args.dq = c.args.dk = c.args.dv = {}; }, "dq: missing"},
    {"NoLse", [](BackwardCall& c) { c.args.lse = {}; }, "lse: missing"},
    {"NoOut", [](BackwardCall& c) { c.args.out = {}; }, "out: missing"},
    {"DoutShape", [](BackwardCall& c) { c.args.dout.shape[3] = 8; },
     "dout.shape[3]: expected 16 (as out), got 8"},
    {"DqShape", [](BackwardCall& c) { c.args.dq.shape[1] = 3; }, "dq.shape[1]: expected 4 (as q), got 3"},
    {"DkOfEveryHead", [](BackwardCall& c) { c.args.dk = contiguous(c.floats.data(), {2, 6, 4, 8}); },
     "dk.shape[2]: expected 2 (as k), got 4"},
    {"DvShape", [](BackwardCall& c) { c.args.dv.shape[3] = 8; }, "dv.shape[3]: expected 16 (as v), got 8"},
    {"DqRank", [](BackwardCall& c) { c.args.dq = contiguous(c.dq.data(), {8, 4, 8}); },
     "dq: expected rank 4 (as q), got rank 3"},
    {"DqType", [](BackwardCall& c) { c.args.dq.dtype = DType::bf16; },
     "dq.dtype: expected f32 (dtype of q), got bf16"},
    {"DoutType", [](BackwardCall& c) { c.args.dout.dtype = DType::f16; },
     "dout.dtype: expected f32 (dtype of out), got f16"},
    {"DvElsewhere", [](BackwardCall& c) { c.args.dv.device = {DeviceKind::cuda, 0}; },
     "dv.device: expected cpu, got cuda:0"},
    {"DqNull", [](BackwardCall& c) { c.args.dq.data = nullptr; }, "dq: expected memory"},
    {"DkBroadcast", [](BackwardCall& c) { c.args.dk.stride[0] = 0; }, "dk.stride[0]: expected at least"},
    {"DqIsQ", [](BackwardCall& c) { c.args.dq.data = c.q.data(); }, "dq: shares memory with q"},
    {"DvIsDout", [](BackwardCall& c) { c.args.dv.data = c.dout.data(); }, "dv: shares memory with dout"},
    {"DvIsOut", [](BackwardCall& c) { c.args.dv.data = c.out.data(); }, "dv: shares memory with out"},
    {"DkIsLse", [](BackwardCall& c) { c.args.lse.data = c.dk.data() + 3; }, "dk: shares memory with lse"},
    {"DvIsDk", [](BackwardCall& c) { c.args.dk.data = c.dv.data() + 8; }, "dv: shares memory with dk"},
};
INSTANTIATE_TEST_SUITE_P(Backward, BadGradients, ::testing::ValuesIn(kGradientFaults),
                         [](const auto& info) { return info.param.name; });

TEST(Gradients, InputsMayShareMemory) {  // nothing writes out, lse or dout
  BackwardCall call;
  call.args.dout.data = call.out.data();
  EXPECT_TRUE(make_problem(call.args, call.options).ok());
}

}  // namespace
}  // namespace headwise::test
