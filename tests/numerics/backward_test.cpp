// Gradients of every backward kernel of the registry against the fp64 oracle, and at the edges: rows that see
// nothing, sizes of 0, values that are not finite, workspace, memory beside the outputs.
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>

#include "lab/forward_results.h"
#include "lab/inputs.h"
#include "lab/verify.h"
#include "numerics/backward_case.h"
#include "numerics/cases.h"
#include "numerics/featured_case.h"
#include "oracle/oracle.h"
#include "support/attention_case.h"

namespace headwise::numerics {
namespace {

using test::AttentionCase;
using test::HostTensor;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// An AttentionCase with all that a backward call takes and gives, outputs full of NaN.
struct GradientCase : AttentionCase {
  std::unique_ptr<HostTensor> out, dq, dk, dv, dbias;
  std::vector<float> lse, dsinks;
  AttentionOptions options;

  explicit GradientCase(AttentionProblem problem, bool scattered = false)
      : AttentionCase((problem.direction = Direction::backward, problem), scattered) {
    const auto tensor = [&](const TensorView& like) {
      auto made = std::make_unique<HostTensor>(like.dtype, like.shape, scattered);
      std::memset(made->view.data, 0xFF, made->memory.size() * sizeof(double));
      return made;
    };
    args.out = (out = tensor(args.dout))->view;
    args.dq = (dq = tensor(args.q))->view;
    args.dk = (dk = tensor(args.k))->view;
    args.dv = (dv = tensor(args.v))->view;
    if (p.bias) args.dbias = (dbias = tensor(args.bias))->view;
    lse.resize(static_cast<std::size_t>(p.batch * p.heads * p.seq_q));
    args.lse = contiguous(lse.data(), {p.batch, p.heads, p.seq_q});
    dsinks.assign(static_cast<std::size_t>(p.heads), std::numeric_limits<float>::quiet_NaN());
    if (p.sinks) args.dsinks = contiguous(dsinks.data(), {p.heads});
    options = {.softmax_scale = p.softmax_scale,
               .causal = p.causal,
               .align = p.align,
               .window_left = p.window_left,
               .window_right = p.window_right,
               .softcap = p.softcap};
  }
};

AttentionProblem problem_of(DType dtype, const std::string& text) {
  AttentionProblem p = check(parse_problem(text));
  p.dtype = p.kv_dtype = dtype;
  return p;
}

oracle::GradientRows every_row(const AttentionProblem& p) {
  oracle::GradientRows rows{test::all_rows(p), {}};
  for (std::int64_t b = 0; b < p.batch; ++b) {
    for (std::int64_t h = 0; h < p.kv_heads; ++h) {
      for (std::int64_t j = 0; j < p.seq_kv; ++j) rows.keys.push_back({b, h, j});
    }
  }
  return rows;
}

// The pass rule of docs/design.md, section 4, for one gradient whose rows the oracle has as [batch, head,
// row].
void expect_passes(const char* what, const TensorView& t, const std::vector<double>& truth,
                   const std::vector<double>& plain) {
  double error = 0, plain_error = 0, square = 0, plain_square = 0, floor = 0, floor_square = 0;
  std::size_t at = 0;
  for (std::int64_t b = 0; b < t.shape[0]; ++b) {
    for (std::int64_t h = 0; h < t.shape[2]; ++h) {
      for (std::int64_t i = 0; i < t.shape[1]; ++i) {
        for (std::int64_t d = 0; d < t.shape[3]; ++d, ++at) {
          const double x =
              load_element(t.dtype, t.data, b * t.stride[0] + i * t.stride[1] + h * t.stride[2] + d);
          ASSERT_TRUE(std::isfinite(x)) << what << " [" << b << ", " << i << ", " << h << ", " << d << "]";
          double rounded[2] = {};
          store_element(t.dtype, rounded, 0, truth[at] + 0.3);
          store_element(t.dtype, rounded + 1, 0, load_element(t.dtype, rounded, 0) - 0.3);
          const double slack = load_element(t.dtype, rounded + 1, 0) - truth[at];
          error = std::max(error, std::abs(x - truth[at]));
          plain_error = std::max(plain_error, std::abs(plain[at] - truth[at]));
          floor = std::max(floor, std::abs(slack));
          square += (x - truth[at]) * (x - truth[at]);
          plain_square += (plain[at] - truth[at]) * (plain[at] - truth[at]);
          floor_square += slack * slack;
        }
      }
    }
  }
  const double n = std::max(1.0, static_cast<double>(at));
  EXPECT_LE(error, 3 * plain_error + 2 * floor) << what;
  EXPECT_LE(std::sqrt(square / n), 1.5 * std::sqrt(plain_square / n) + std::sqrt(floor_square / n)) << what;
}

using Backward = EveryBackwardKernel;

TEST_P(Backward, AgreesWithTruthInEveryFeature) {
  for (const char* text :
       {"batch=2 seq_q=33 seq_kv=47 heads=4 kv_heads=2 head_dim=24 head_dim_v=16",
        "seq_q=33 seq_kv=47 heads=2 head_dim=24 causal=1 align=bottom_right softcap=2",
        "seq_q=47 seq_kv=33 heads=2 head_dim=24 causal=1 align=bottom_right",
        "seq_q=40 seq_kv=40 heads=3 kv_heads=1 head_dim=9 window_left=5 window_right=3 sinks=1",
        "batch=2 seq_q=20 seq_kv=31 heads=2 head_dim=16 alibi=per_batch_head align=top_left bias=1",
        "batch=2 seq_q=20 seq_kv=31 heads=2 head_dim=16 mask=bool mask_axes=b softmax_scale=-0.3",
        "batch=2 seq_q=20 seq_kv=20 heads=4 kv_heads=2 head_dim=16 mask=additive mask_axes=bq bias=1 sinks=1 "
        "softcap=3 alibi=per_head causal=1"}) {
    const AttentionProblem p = problem_of(dtype(), text);
    if (!has_features(GetParam().features, p)) continue;
    for (const bool scattered : {false, true}) {
      SCOPED_TRACE(std::string(text) + (scattered ? " scattered" : ""));
      GradientCase c(p, scattered);
      run_both(GetParam(), c.args, c.options);
      const oracle::GradientRows rows = every_row(c.p);
      const oracle::Gradients truth = check(oracle::backward(c.args, c.p, rows, 2));
      const oracle::Gradients plain = check(oracle::plain_backward(c.args, c.p, rows, 2));
      expect_passes("dq", c.args.dq, truth.dq, plain.dq);
      expect_passes("dk", c.args.dk, truth.dk, plain.dk);
      expect_passes("dv", c.args.dv, truth.dv, plain.dv);
    }
  }
}

// With planted keys, strides, offsets and guard bands of the laboratory, and its forward beside.
void expect_agrees(const KernelInfo& kernel, const AttentionProblem& problem, const lab::InputSpec& spec) {
  lab::Inputs inputs = check(lab::make_inputs(problem, spec, cpu()));
  const lab::Reference reference = check(lab::make_reference(inputs, 0.2));
  ASSERT_TRUE(lab::poison(inputs).ok());
  lab::ForwardResults forward(cpu());
  const Status made = forward.make(inputs);
  ASSERT_TRUE(made.ok()) << made.message();
  const Status status = run(check(plan(inputs.problem(), {}, kernel.id)), forward.beside(inputs));
  ASSERT_TRUE(status.ok()) << status.message();
  const lab::Verdict verdict = lab::verify(inputs, reference);
  EXPECT_TRUE(verdict.passed()) << verdict.reason << "\n  error_max " << verdict.error_max << " limit "
                                << verdict.limit_max << ", rms " << verdict.error_rms << " limit "
                                << verdict.limit_rms;
}

TEST_P(Backward, AgreesWithTruth) {
  int ran = 0;
  for (Case one : cases(dtype())) {
    one.problem.direction = Direction::backward;
    one.problem.lse = false;
    if (cost(one.problem).flops > 1e8) continue;  // pairs one by one take seconds
    SCOPED_TRACE(to_string(one));
    expect_agrees(GetParam(), one.problem, one.inputs);
    ++ran;
  }
  EXPECT_GT(ran, 40);
}

TEST_P(Backward, AgreesWithTruthOnSequences) {
  for (const char* text :
       {"varlen=1 causal=1 align=bottom_right dropout_p=0.25 sinks=1 dsinks=1",
        "varlen=1 alibi=per_batch_head align=top_left bias=1 bias_axes=bhq dbias=1",
        "lengths=1 causal=1 align=bottom_right bias=1 bias_axes=h dbias=1 softcap=5",
        "starts=1 window_left=9 window_right=2 align=bottom_right sinks=1 dsinks=1",
        "lengths=1 starts=1 page_size=16 alibi=per_head align=bottom_right dropout_p=0.5",
        "varlen=1 lengths=1 page_size=8 mask=bool mask_axes=bhq causal=1 align=bottom_right",
        "mask=additive mask_axes=bq bias=1 bias_axes=b dbias=1 dropout_p=0.1",
        "mask=bool mask_axes=b bias=1 dbias=1 sinks=1 dsinks=1 softcap=3 causal=1 align=top_left"}) {
    const AttentionProblem p = problem_of(
        dtype(), std::string("direction=backward batch=4 seq_q=37 seq_kv=64 heads=4 kv_heads=2 head_dim=24 "
                             "head_dim_v=16 threads=2 ") +
                     text);
    if (!has_features(GetParam().features, p)) continue;
    for (const std::int64_t mask_short : {0, 5}) {
      if (mask_short > 0 && p.mask == MaskKind::none) continue;
      SCOPED_TRACE(std::string(text) + ", mask short by " + std::to_string(mask_short));
      expect_agrees(GetParam(), p, {.mask_short = mask_short});
    }
  }
}

// Keys in two parts, with out and lse of all of them: dq sums up, dk and dv are each part's own.
TEST_P(Backward, KeysMayComeInParts) {
  const AttentionProblem p = problem_of(dtype(), "batch=2 seq_q=15 seq_kv=40 heads=4 kv_heads=2 head_dim=8");
  GradientCase c(p);
  run_both(GetParam(), c.args, c.options);
  const auto whole = std::vector{values(c.args.dq), values(c.args.dk), values(c.args.dv)};
  std::vector<double> dq(whole[0].size(), 0);
  for (const auto& [begin, end] : {std::pair<std::int64_t, std::int64_t>{0, 13}, {13, 40}}) {
    AttentionArgs part = c.args;
    for (TensorView* t : {&part.k, &part.v, &part.dk, &part.dv}) {
      t->data = t->as<std::byte>() + begin * t->stride[1] * static_cast<std::int64_t>(size_of(t->dtype));
      t->shape[1] = end - begin;
    }
    const Status status = run_as(GetParam().id, part, c.options, 2);
    ASSERT_TRUE(status.ok()) << status.message();
    const std::vector<double> share = values(part.dq);
    for (std::size_t x = 0; x < dq.size(); ++x) dq[x] += share[x];
  }
  const double epsilon = dtype() == DType::f32 ? 1e-5 : dtype() == DType::f16 ? 5e-3 : 4e-2;
  const auto parts = std::vector{dq, values(c.args.dk), values(c.args.dv)};
  for (std::size_t which = 0; which < 3; ++which) {
    for (std::size_t x = 0; x < parts[which].size(); ++x)
      ASSERT_NEAR(parts[which][x], whole[which][x], epsilon) << "gradient " << which << " element " << x;
  }
}

// The gradient of a bias that broadcasts is that of the same bias written out, summed.
TEST_P(Backward, BiasSumsOverAxesThatBroadcast) {
  if (!GetParam().features.bias) GTEST_SKIP() << GetParam().id << " has no bias";
  const AttentionProblem p =
      problem_of(dtype(), "batch=3 seq_q=18 seq_kv=21 heads=4 kv_heads=2 head_dim=8 bias=1");
  std::mt19937_64 generator(9);
  for (int axes = 0; axes < 8; ++axes) {
    SCOPED_TRACE(axes);
    const auto size = [&](int axis, std::int64_t extent) { return (axes >> axis & 1) != 0 ? extent : 1; };
    HostTensor few(DType::f64, {size(0, p.batch), size(1, p.heads), size(2, p.seq_q), p.seq_kv});
    HostTensor all(DType::f64, {p.batch, p.heads, p.seq_q, p.seq_kv});
    few.fill_normal(generator);
    const auto of_few = [&](std::int64_t b, std::int64_t h, std::int64_t i) {
      const auto& s = few.view.shape;
      return std::array<std::int64_t, 3>{s[0] == 1 ? 0 : b, s[1] == 1 ? 0 : h, s[2] == 1 ? 0 : i};
    };
    all.fill([&](std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
      const auto [fb, fh, fi] = of_few(b, h, i);
      return few.get(fb, fh, fi, j);
    });
    const auto gradient_of = [&](HostTensor& bias, HostTensor& dbias) {
      GradientCase c(p);
      c.args.bias = bias.view;
      c.args.dbias = dbias.view;
      dbias.fill([](auto...) { return kNaN; });
      run_both(GetParam(), c.args, c.options);
    };
    HostTensor d_few(DType::f64, few.view.shape), d_all(DType::f64, all.view.shape),
        sum(DType::f64, few.view.shape);
    gradient_of(few, d_few);
    gradient_of(all, d_all);
    for (std::int64_t b = 0; b < p.batch; ++b) {
      for (std::int64_t h = 0; h < p.heads; ++h) {
        for (std::int64_t i = 0; i < p.seq_q; ++i) {
          for (std::int64_t j = 0; j < p.seq_kv; ++j) {
            const auto [fb, fh, fi] = of_few(b, h, i);
            sum.set(fb, fh, fi, j, sum.get(fb, fh, fi, j) + d_all.get(b, h, i, j));
          }
        }
      }
    }
    const std::vector<double> found = values(d_few.view), expected = values(sum.view);
    for (std::size_t x = 0; x < found.size(); ++x)
      ASSERT_NEAR(found[x], expected[x], 1e-6) << "element " << x;
  }
}

// A row that sees no key has no part in any gradient, whatever its query and dout hold; nor has a key that no
// query sees.
TEST_P(Backward, WhatNobodySeesGivesZeros) {
  const AttentionProblem p =
      problem_of(dtype(), "seq_q=12 seq_kv=7 heads=2 head_dim=8 causal=1 align=bottom_right sinks=1");
  if (!has_features(GetParam().features, p)) GTEST_SKIP() << GetParam().id << " has no sinks";
  GradientCase c(p);  // queries 0 to 4 stand before the first key
  run_both(GetParam(), c.args, c.options);
  const auto clean =
      std::vector{values(c.args.dq), values(c.args.dk), values(c.args.dv), values(c.args.dsinks)};
  for (const TensorView& t : {c.args.q, c.args.dout}) {
    for (std::int64_t i = 0; i < 5 * t.stride[1]; ++i) store_element(t.dtype, t.data, i, kNaN);
  }
  run_both(GetParam(), c.args, c.options);
  EXPECT_TRUE(clean ==
              std::vector({values(c.args.dq), values(c.args.dk), values(c.args.dv), values(c.args.dsinks)}));
  for (std::int64_t x = 0; x < 5 * c.args.dq.stride[1]; ++x)
    ASSERT_EQ(load_element(p.dtype, c.args.dq.data, x), 0) << "element " << x;

  GradientCase tail(problem_of(dtype(), "seq_q=7 seq_kv=12 heads=2 head_dim=8 causal=1 align=top_left"));
  for (const TensorView& t : {tail.args.k, tail.args.v}) {
    for (std::int64_t x = 7 * t.stride[1]; x < t.elements(); ++x) store_element(t.dtype, t.data, x, kNaN);
  }
  run_both(GetParam(), tail.args, tail.options);
  for (const double x : values(tail.args.dq)) ASSERT_TRUE(std::isfinite(x));
  for (const TensorView& t : {tail.args.dk, tail.args.dv}) {
    for (std::int64_t x = 7 * t.stride[1]; x < t.elements(); ++x)
      ASSERT_EQ(load_element(p.dtype, t.data, x), 0) << "element " << x;
  }
}

// A NaN in a key that a mask hides from all queries.
TEST_P(Backward, HiddenKeysAreNotSeen) {
  const AttentionProblem p =
      problem_of(dtype(), "seq_q=9 seq_kv=11 heads=2 head_dim=8 mask=bool mask_axes=b");
  if (!has_features(GetParam().features, p)) GTEST_SKIP() << GetParam().id << " has no mask";
  GradientCase c(p);
  std::fill(c.boolean.begin(), c.boolean.end(), static_cast<unsigned char>(1));
  c.boolean[4] = 0;
  for (const TensorView& t : {c.args.k, c.args.v}) {
    for (std::int64_t x = 0; x < t.stride[1]; ++x) store_element(t.dtype, t.data, 4 * t.stride[1] + x, kNaN);
  }
  run_both(GetParam(), c.args, c.options);
  for (const TensorView& t : {c.args.dq, c.args.dk, c.args.dv}) {
    for (const double x : values(t)) ASSERT_TRUE(std::isfinite(x));
  }
  for (const TensorView& t : {c.args.dk, c.args.dv}) {
    for (std::int64_t x = 0; x < t.stride[1]; ++x)
      EXPECT_EQ(load_element(t.dtype, t.data, 4 * t.stride[1] + x), 0);
  }
}

TEST_P(Backward, SizesOfZeroGiveZeros) {
  for (const char* text :
       {"batch=2 seq_q=0 seq_kv=5 heads=4 kv_heads=2 head_dim=8",
        "batch=2 seq_q=5 seq_kv=0 heads=4 kv_heads=2 head_dim=8",
        "batch=2 seq_q=0 seq_kv=5 heads=4 kv_heads=2 head_dim=8 bias=1 sinks=1",
        "batch=2 seq_q=5 seq_kv=0 heads=4 kv_heads=2 head_dim=8 sinks=1",
        "batch=2 seq_q=0 seq_kv=0 heads=4 kv_heads=2 head_dim=8 sinks=1",
        "batch=0 seq_q=4 seq_kv=5 heads=4 kv_heads=2 head_dim=8 sinks=1",
        "seq_q=4 seq_kv=5 heads=0 kv_heads=2 head_dim=8", "seq_q=4 seq_kv=5 heads=0 kv_heads=0 head_dim=8"}) {
    SCOPED_TRACE(text);
    AttentionProblem p = problem_of(dtype(), text);
    if (!has_features(GetParam().features, p)) continue;
    GradientCase c(p);
    for (TensorView* t :
         {&c.args.q, &c.args.k, &c.args.v, &c.args.out, &c.args.dout, &c.args.dq, &c.args.dk, &c.args.dv}) {
      if (t->elements() == 0) t->data = nullptr;  // nothing is added to it (UBSan)
    }
    run_both(GetParam(), c.args, c.options);
    for (const TensorView& t : {c.args.dq, c.args.dk, c.args.dv, c.args.dbias, c.args.dsinks}) {
      for (const double x : values(t)) ASSERT_EQ(x, 0);
    }
  }
}

TEST_P(Backward, RefusesBadWorkspaceAndForwardKernels) {
  GradientCase c(problem_of(dtype(), "seq_q=33 seq_kv=60 heads=2 head_dim=16"));
  const AttentionProblem problem = check(make_problem(c.args, c.options));
  const Status forward = plan(problem, {}, forward_beside(GetParam())).status();
  EXPECT_EQ(forward.code(), StatusCode::unsupported);
  EXPECT_NE(forward.message().find("direction backward: this kernel is forward"), std::string::npos)
      << forward.message();
  const Plan planned = check(plan(problem, {}, GetParam().id));
  ASSERT_GT(planned.workspace_bytes(), 0U);
  const OwnedWorkspace memory(planned.workspace_bytes());
  auto* data = static_cast<std::byte*>(memory.get().data);
  for (const Workspace& bad : {Workspace{}, Workspace{data, planned.workspace_bytes() - 1},
                               Workspace{data + 4, planned.workspace_bytes()}}) {
    EXPECT_EQ(planned.run(c.args, {.workspace = bad}).code(), StatusCode::invalid_argument);
    for (const TensorView& t : {c.args.dq, c.args.dk, c.args.dv}) {
      for (const double x : values(t)) ASSERT_TRUE(std::isnan(x)) << "nothing is written";
    }
  }
}

// workspace_bytes is what run touches, no more, and never grows when a size shrinks.
TEST_P(Backward, StaysInsideItsWorkspace) {
  GradientCase c(
      problem_of(dtype(), "batch=2 seq_q=30 seq_kv=41 heads=4 kv_heads=2 head_dim=7 bias=1 sinks=1"));
  if (!has_features(GetParam().features, c.p)) GTEST_SKIP() << GetParam().id << " has no bias or no sinks";
  AttentionProblem problem = check(make_problem(c.args, c.options));
  problem.threads = 3;
  const Plan planned = check(plan(problem, {}, GetParam().id));
  run_both(GetParam(), c.args, c.options);
  constexpr std::size_t kGuard = 1 << 16;
  const OwnedWorkspace memory(planned.workspace_bytes() + kGuard);
  auto* guard = static_cast<std::byte*>(memory.get().data) + planned.workspace_bytes();
  std::memset(guard, 0x5A, kGuard);
  ASSERT_TRUE(planned.run(c.args, {.workspace = {memory.get().data, planned.workspace_bytes()}}).ok());
  for (std::size_t i = 0; i < kGuard; ++i) ASSERT_EQ(guard[i], std::byte{0x5A}) << "byte " << i;
}

TEST_P(Backward, WorkspaceNeverGrowsWhenASizeShrinks) {
  const FeatureSet& f = GetParam().features;
  for (const char* text :
       {"batch=3 seq_q=70 seq_kv=300 heads=4 head_dim=32 threads=3",
        "batch=3 seq_q=70 seq_kv=300 heads=4 head_dim=32 threads=3 varlen=1 total_q=90 total_kv=500",
        "batch=3 seq_q=70 seq_kv=300 heads=4 head_dim=32 threads=3 pages=40 page_size=16"}) {
    const AttentionProblem most = problem_of(dtype(), std::string("direction=backward ") + text);
    if ((most.varlen && !f.varlen) || (most.page_size > 0 && !f.paged)) continue;
    const std::size_t bytes = check(plan(most, {}, GetParam().id)).workspace_bytes();
    for (auto member : {&AttentionProblem::batch, &AttentionProblem::seq_q, &AttentionProblem::seq_kv,
                        &AttentionProblem::total_q, &AttentionProblem::total_kv, &AttentionProblem::pages}) {
      AttentionProblem less = most;
      for (; less.*member > 0; --(less.*member))
        ASSERT_LE(check(plan(less, {}, GetParam().id)).workspace_bytes(), bytes) << headwise::to_string(less);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, Backward, testing::ValuesIn(backward_kernels()),
                         [](const testing::TestParamInfo<KernelInfo>& info) {
                           return test_name(info.param.id);
                         });

}  // namespace
}  // namespace headwise::numerics
