// Properties of attention that hold for any input, for every kernel of the registry.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "headwise/headwise.h"
#include "lab/inputs.h"
#include "property/any_problem.h"
#include "support/run_kernel.h"

namespace headwise::numerics {
namespace {

constexpr int kCases = 25;

lab::Inputs any_inputs(const AttentionProblem& p, lab::Layout layout = lab::Layout::bshd) {
  return check(lab::make_inputs(p, {.plant = false, .layout = layout}, cpu()));
}

double largest_difference(const AttentionArgs& a, const AttentionArgs& b) {
  double largest = 0;
  for (std::int64_t i = 0; i < a.out.shape[0]; ++i) {
    for (std::int64_t s = 0; s < a.out.shape[1]; ++s) {
      for (std::int64_t h = 0; h < a.out.shape[2]; ++h) {
        for (std::int64_t d = 0; d < a.out.shape[3]; ++d) {
          const auto at = [&](const TensorView& t) {
            return load_element(t.dtype, t.data, i * t.stride[0] + s * t.stride[1] + h * t.stride[2] + d);
          };
          largest = std::max(largest, std::abs(at(a.out) - at(b.out)));
        }
      }
    }
  }
  return largest;
}

// Values are standard normal, so outputs are below 5: rounding in the dtype, some tens of times.
double tolerance(DType dtype) { return dtype == DType::f32 ? 1e-5 : dtype == DType::f16 ? 2e-2 : 0.15; }

TEST_P(KernelProperty, LayoutInMemoryDoesNotMatter) {
  holds(kCases, [] {
    const AttentionProblem p = any_plain_problem(dtype());
    const lab::Inputs a = any_inputs(p, lab::Layout::bshd);
    const lab::Inputs b = any_inputs(p, lab::Layout::bhsd);
    RC_ASSERT(run(planned(p), a.args()).ok());
    RC_ASSERT(run(planned(p), b.args()).ok());
    RC_ASSERT(output_bits(a.args()) == output_bits(b.args()));
  });
}

TEST_P(KernelProperty, LinearInValuesExactlyForPowersOfTwo) {
  holds(kCases, [] {
    const AttentionProblem p = any_plain_problem(dtype());
    const lab::Inputs inputs = any_inputs(p);
    RC_ASSERT(run(planned(p), inputs.args()).ok());
    std::vector<double> before;
    const TensorView& out = inputs.args().out;
    for (std::int64_t i = 0; i < out.elements(); ++i) before.push_back(load_element(out.dtype, out.data, i));
    const TensorView& v = inputs.args().v;
    for (std::int64_t i = 0; i < v.elements(); ++i) {
      store_element(v.dtype, v.data, i, 4 * load_element(v.dtype, v.data, i));
    }
    RC_ASSERT(run(planned(p), inputs.args()).ok());
    for (std::int64_t i = 0; i < out.elements(); ++i) {
      const double now = load_element(out.dtype, out.data, i);
      const double was = before[static_cast<std::size_t>(i)];
      // Below the normal range of f16 a product with 4 rounds differently.
      RC_ASSERT(now == 4 * was || std::abs(was) < 1e-4);
    }
  });
}

TEST_P(KernelProperty, OrderOfKeysDoesNotMatter) {
  holds(kCases, [] {
    AttentionProblem p = any_plain_problem(dtype());
    p.causal = false;
    const lab::Inputs a = any_inputs(p);
    const lab::Inputs b = any_inputs(p);
    std::vector<std::int64_t> order(static_cast<std::size_t>(p.seq_kv));
    std::iota(order.begin(), order.end(), 0);
    std::reverse(order.begin(), order.end());
    for (const auto& [from, to] : {std::pair{a.args().k, b.args().k}, std::pair{a.args().v, b.args().v}}) {
      const std::int64_t row = from.stride[1];
      for (std::int64_t i = 0; i < p.batch; ++i) {
        for (std::int64_t j = 0; j < p.seq_kv; ++j) {
          const std::int64_t other = order[static_cast<std::size_t>(j)];
          for (std::int64_t x = 0; x < row; ++x) {
            const double value = load_element(from.dtype, from.data, i * from.stride[0] + other * row + x);
            store_element(to.dtype, to.data, i * to.stride[0] + j * row + x, value);
          }
        }
      }
    }
    RC_ASSERT(run(planned(p), a.args()).ok());
    RC_ASSERT(run(planned(p), b.args()).ok());
    RC_ASSERT(largest_difference(a.args(), b.args()) <= tolerance(dtype()));
  });
}

TEST_P(KernelProperty, GroupedHeadsEqualRepeatedHeads) {
  holds(kCases, [] {
    const AttentionProblem grouped = any_plain_problem(dtype());
    AttentionProblem repeated = grouped;
    repeated.kv_heads = grouped.heads;
    const lab::Inputs a = any_inputs(grouped);
    const lab::Inputs b = any_inputs(repeated);
    const std::int64_t group = grouped.heads / grouped.kv_heads;
    for (const auto& [from, to] : {std::pair{a.args().k, b.args().k}, std::pair{a.args().v, b.args().v}}) {
      for (std::int64_t i = 0; i < grouped.batch; ++i) {
        for (std::int64_t j = 0; j < grouped.seq_kv; ++j) {
          for (std::int64_t h = 0; h < grouped.heads; ++h) {
            for (std::int64_t d = 0; d < from.shape[3]; ++d) {
              const double value =
                  load_element(from.dtype, from.data,
                               i * from.stride[0] + j * from.stride[1] + h / group * from.stride[2] + d);
              store_element(to.dtype, to.data, i * to.stride[0] + j * to.stride[1] + h * to.stride[2] + d,
                            value);
            }
          }
        }
      }
    }
    RC_ASSERT(run(planned(grouped), a.args()).ok());
    RC_ASSERT(run(planned(repeated), b.args()).ok());
    RC_ASSERT(largest_difference(a.args(), b.args()) <= tolerance(dtype()));
  });
}

TEST_P(KernelProperty, DecodingStepEqualsRowOfPrefill) {
  holds(kCases, [] {
    AttentionProblem p = any_plain_problem(dtype());
    p.batch = 1;
    p.causal = true;
    p.seq_kv = p.seq_q;
    const lab::Inputs inputs = any_inputs(p);
    RC_ASSERT(run(planned(p), inputs.args()).ok());
    const auto all = output_bits(inputs.args());
    AttentionArgs step = inputs.args();
    const std::int64_t t = *rc::gen::inRange<std::int64_t>(0, p.seq_q);
    for (TensorView* view : {&step.q, &step.out}) {
      view->data =
          view->as<std::byte>() + t * view->stride[1] * static_cast<std::int64_t>(size_of(view->dtype));
      view->shape[1] = 1;
    }
    step.k.shape[1] = step.v.shape[1] = t + 1;
    std::vector<double> before;
    for (std::int64_t i = 0; i < step.out.elements(); ++i) {
      before.push_back(load_element(p.dtype, step.out.data, i));
    }
    AttentionProblem one = p;
    one.seq_q = 1;
    one.align = Align::bottom_right;
    RC_ASSERT(run(planned(one), step).ok());
    for (std::int64_t i = 0; i < step.out.elements(); ++i) {
      const double difference = load_element(p.dtype, step.out.data, i) - before[static_cast<std::size_t>(i)];
      RC_ASSERT(std::abs(difference) <= tolerance(dtype()));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Registry, KernelProperty, testing::ValuesIn(forward_kernels()),
                         [](const testing::TestParamInfo<KernelInfo>& info) {
                           return test_name(info.param.id);
                         });

}  // namespace
}  // namespace headwise::numerics
