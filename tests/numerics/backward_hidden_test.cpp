// Gradients of what some queries or none may see, and rules that gradients obey whatever the problem, for
// every backward kernel of the registry with each of its features.
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "lab/inputs.h"
#include "numerics/backward_case.h"
#include "numerics/featured_case.h"
#include "support/host_tensor.h"
#include "support/sight.h"

namespace headwise::numerics {
namespace {

using oracle::RowId;
using test::HostTensor;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

// Tensors of the laboratory, with forward's results beside them.
struct HiddenCase {
  lab::Inputs inputs;
  HostTensor out;
  std::vector<float> lse;
  AttentionArgs args;
  const AttentionProblem& p;

  HiddenCase(const AttentionProblem& problem, bool hidden_nan)
      : inputs(check(lab::make_inputs(wanted(problem), {.plant = false, .hidden_nan = hidden_nan}, cpu()))),
        out(problem.dtype, inputs.args().dout.shape),
        lse(static_cast<std::size_t>(out.view.shape[0] * out.view.shape[1] * problem.heads)),
        args(inputs.args()),
        p(inputs.problem()) {
    args.out = out.view;
    args.lse = contiguous(lse.data(), {out.view.shape[0], problem.heads, out.view.shape[1]});
  }

  static AttentionProblem wanted(AttentionProblem problem) {
    problem.dbias = problem.bias;
    problem.dsinks = problem.sinks;
    return problem;
  }

  // dq, dk, dv, dbias, dsinks.
  std::array<std::vector<double>, 5> gradients(const KernelInfo& kernel) {
    EXPECT_TRUE(lab::poison(inputs).ok());
    AttentionProblem forward = p;
    forward.direction = Direction::forward;
    forward.lse = true;
    forward.dbias = forward.dsinks = false;
    const Status first = run(check(plan(forward, {}, forward_beside(kernel))), without_gradients(args));
    EXPECT_TRUE(first.ok()) << first.message();
    const Status second = run(check(plan(p, {}, kernel.id)), args);
    EXPECT_TRUE(second.ok()) << second.message();
    return {values(args.dq), values(args.dk), values(args.dv), values(args.dbias), values(args.dsinks)};
  }
};

// Whether the same bits, NaN as NaN.
bool same(const std::vector<double>& a, const std::vector<double>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](double x, double y) { return x == y || (std::isnan(x) && std::isnan(y)); });
}

double row_element(const TensorView& t, std::int64_t row, std::int64_t d) {
  return load_element(t.dtype, t.data, row + d);
}

constexpr std::array<const char*, 5> kNames{"dq", "dk", "dv", "dbias", "dsinks"};

using BackwardHidden = EveryBackwardKernel;

TEST_P(BackwardHidden, SlotsThatNobodySeesReachNoGradientAndHaveNone) {
  for (const AttentionProblem& p : featured_problems(GetParam(), unseen_slots())) {
    SCOPED_TRACE(to_string(p));
    HiddenCase c(p, true);
    const test::SeenSlots slots(c.args, c.p);
    ASSERT_GT(slots.unseen(), 0);
    slots.fill_unseen(c.args, 0);
    const auto clean = c.gradients(GetParam());
    for (const double value : {kNaN, kInf}) {
      slots.fill_unseen(c.args, value);
      const auto found = c.gradients(GetParam());
      for (std::size_t n = 0; n < kNames.size(); ++n) {
        EXPECT_TRUE(found[n] == clean[n]) << kNames[n] << " with " << value;
      }
    }
    slots.each_unseen([&](std::int64_t item, std::int64_t row, std::int64_t kv_head) {
      for (const TensorView& t : {c.args.dk, c.args.dv}) {
        for (std::int64_t d = 0; d < t.shape[3]; ++d)
          ASSERT_EQ(row_element(t, item * t.stride[0] + row * t.stride[1] + kv_head * t.stride[2], d), 0);
      }
    });
  }
}

// A key that is NaN makes NaN of all that the rows which see it take part in, and of nothing else.
TEST_P(BackwardHidden, KeysReachOnlyWhatTheirRowsTakePartIn) {
  for (const AttentionProblem& p : featured_problems(GetParam(), partly_seen_slots())) {
    SCOPED_TRACE(to_string(p));
    const auto clean = HiddenCase(p, false).gradients(GetParam());
    for (const PlantedKey& key : planted_keys(p)) {
      HiddenCase c(p, false);
      const Sequence s = sequence_of(c.args, c.p, key.batch);
      if (key.key < s.keys.begin || key.key >= s.keys.end) continue;
      store_element(c.args.k.dtype, c.args.k.data, key_offset(c.args.k, c.p, s, key.key, key.kv_head), kNaN);
      const auto found = c.gradients(GetParam());
      std::vector<RowId> spoilt;
      for (const RowId& row : test::rows_of(c.args, c.p)) {
        const bool seen = seen_by(c.inputs, row, key);
        if (seen) spoilt.push_back(row);
        const std::int64_t at =
            query_offset(c.args.dq, sequence_of(c.args, c.p, row.batch), row.query, row.head);
        for (std::int64_t d = 0; d < p.head_dim; ++d) {
          const double x = row_element(c.args.dq, at, d);
          if (seen) {
            ASSERT_TRUE(std::isnan(x)) << "dq of query " << row.query << " head " << row.head;
          } else {
            ASSERT_EQ(x, clean[0][static_cast<std::size_t>(at + d)])
                << "dq of query " << row.query << " head " << row.head;
          }
        }
      }
      for (std::int64_t j = s.keys.begin; j < s.keys.end; ++j) {
        for (std::int64_t h = 0; h < p.kv_heads; ++h) {
          bool reached = false;
          for (const RowId& row : spoilt)
            reached = reached || (h == key.kv_head && test::sees(c.args, c.p, row, j));
          const std::int64_t at = key_offset(c.args.dv, c.p, s, j, h);
          for (std::int64_t d = 0; d < p.head_dim_v && !reached; ++d)
            ASSERT_EQ(row_element(c.args.dv, at, d), clean[2][static_cast<std::size_t>(at + d)])
                << "dv of key " << j << " kv head " << h;
        }
      }
    }
  }
}

// dv = P^T dout: over all keys of a head the weights of a row sum to 1. dS = P (dP - delta) sums to 0 over
// the keys of a row, and the sink is one key more.
TEST_P(BackwardHidden, SumsOverKeys) {
  const double epsilon = dtype() == DType::f32 ? 1e-5 : dtype() == DType::f16 ? 2e-3 : 1e-2;
  for (AttentionProblem p : featured_problems(GetParam(), partly_seen_slots())) {
    if (p.bias) p.bias_axes = kAxisBatch | kAxisHeads | kAxisQueries;
    SCOPED_TRACE(to_string(p));
    HiddenCase c(p, false);
    c.gradients(GetParam());
    std::vector<double> logits(static_cast<std::size_t>(p.heads), 0), size(logits);
    for (std::int64_t b = 0; b < p.batch; ++b) {
      const Sequence s = sequence_of(c.args, c.p, b);
      for (std::int64_t x = 0; x < p.kv_heads * p.head_dim_v && p.dropout_p == 0 && !p.sinks; ++x) {
        const std::int64_t kv_head = x / p.head_dim_v, d = x % p.head_dim_v, group = p.heads / p.kv_heads;
        double given = 0, taken = 0, magnitude = 0;
        for (std::int64_t j = s.keys.begin; j < s.keys.end; ++j) {
          const double value = row_element(c.args.dv, key_offset(c.args.dv, c.p, s, j, kv_head), d);
          taken += value;
          magnitude += std::abs(value);
        }
        for (std::int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
          for (std::int64_t i = 0; i < s.seq_q; ++i) {
            const float lse = c.args.lse.as<float>()[test::lse_offset(c.args, s, {b, h, i})];
            if (!std::isinf(lse)) given += row_element(c.args.dout, query_offset(c.args.dout, s, i, h), d);
          }
        }
        ASSERT_NEAR(taken, given, epsilon * (1 + magnitude)) << "kv head " << kv_head << " channel " << d;
      }
      if (!p.bias) continue;
      for (std::int64_t h = 0; h < p.heads; ++h) {
        for (std::int64_t i = 0; i < s.seq_q; ++i) {
          double sum = 0, magnitude = 0;
          for (std::int64_t j = 0; j < p.seq_kv; ++j) {
            const double value = load_element(c.args.dbias.dtype, c.args.dbias.data,
                                              test::score_offset(c.args.dbias, {b, h, i}, j));
            sum += value;
            magnitude += std::abs(value);
          }
          logits[static_cast<std::size_t>(h)] += sum;
          size[static_cast<std::size_t>(h)] += magnitude;
          // delta is of the rounded out.
          if (!p.sinks) {
            ASSERT_NEAR(sum, 0, 20 * epsilon * (1 + magnitude)) << "row " << i << " head " << h;
          }
        }
      }
    }
    for (std::size_t h = 0; p.bias && p.sinks && h < logits.size(); ++h) {
      ASSERT_NEAR(logits[h] + static_cast<double>(c.args.dsinks.as<float>()[h]), 0,
                  20 * epsilon * (1 + size[h]))
          << "head " << h;
    }
  }
}

TEST_P(BackwardHidden, LinearInDoutExactlyForPowersOfTwo) {
  for (const AttentionProblem& p : featured_problems(GetParam(), partly_seen_slots())) {
    SCOPED_TRACE(to_string(p));
    HiddenCase c(p, false);
    const auto once = c.gradients(GetParam());
    const TensorView& dout = c.args.dout;
    test::each_element(dout, [&](std::int64_t at, auto...) {
      store_element(dout.dtype, dout.data, at, -4 * load_element(dout.dtype, dout.data, at));
    });
    const auto found = c.gradients(GetParam());
    for (std::size_t n = 0; n < kNames.size(); ++n) {
      ASSERT_EQ(found[n].size(), once[n].size());
      for (std::size_t x = 0; x < found[n].size(); ++x) {
        if (std::abs(once[n][x]) < 1e-4)
          continue;  // below the normal range of f16 products round differently
        ASSERT_EQ(found[n][x], -4 * once[n][x]) << kNames[n] << " element " << x;
      }
    }
  }
}

// Gradients of keys that heads share are the sum over these heads.
TEST_P(BackwardHidden, SharedKeysHaveTheSumOfTheirHeads) {
  const double epsilon = dtype() == DType::f32 ? 1e-5 : dtype() == DType::f16 ? 2e-3 : 2e-2;
  for (const AttentionProblem& p : featured_problems(GetParam(), partly_seen_slots())) {
    SCOPED_TRACE(to_string(p));
    HiddenCase few(p, false);
    AttentionProblem repeated = p;
    repeated.kv_heads = p.heads;
    HiddenCase all(repeated, false);
    const std::int64_t group = p.heads / p.kv_heads;
    for (const auto& [from, to] : {std::pair{few.args.k, all.args.k}, std::pair{few.args.v, all.args.v}}) {
      test::each_element(
          to, [&](std::int64_t at, std::int64_t i, std::int64_t j, std::int64_t h, std::int64_t d) {
            store_element(
                to.dtype, to.data, at,
                row_element(from, i * from.stride[0] + j * from.stride[1] + h / group * from.stride[2], d));
          });
    }
    const auto shared = few.gradients(GetParam()), apart = all.gradients(GetParam());
    for (const std::size_t n : {0U, 3U, 4U}) EXPECT_TRUE(same(shared[n], apart[n])) << kNames[n];
    for (const auto& [sum, parts] :
         {std::pair{few.args.dk, all.args.dk}, std::pair{few.args.dv, all.args.dv}}) {
      test::each_element(
          sum, [&](std::int64_t at, std::int64_t i, std::int64_t j, std::int64_t h, std::int64_t d) {
            double expected = 0, magnitude = 0;
            for (std::int64_t g = h * group; g < (h + 1) * group; ++g) {
              const double part =
                  row_element(parts, i * parts.stride[0] + j * parts.stride[1] + g * parts.stride[2], d);
              expected += part;
              magnitude += std::abs(part);
            }
            ASSERT_NEAR(load_element(sum.dtype, sum.data, at), expected, epsilon * (1 + magnitude));
          });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, BackwardHidden, testing::ValuesIn(backward_kernels()),
                         [](const testing::TestParamInfo<KernelInfo>& info) {
                           return test_name(info.param.id);
                         });

}  // namespace
}  // namespace headwise::numerics
