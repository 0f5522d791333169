// Problems drawn at random for properties of kernels, and the fixture that these have in common.
#pragma once

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cstdint>
#include <limits>
#include <sstream>
#include <string>
#include <utility>

#include "headwise/headwise.h"
#include "lab/inputs.h"
#include "support/run_kernel.h"
#include "support/sight.h"

namespace headwise::numerics {

// Below `end`, whatever the size that RapidCheck is at: the first cases of a property are no smaller than its
// last. Shrinks to `begin`.
template <class T>
T within(T begin, T end) {
  return *rc::gen::resize(rc::kNominalSize, rc::gen::inRange<T>(begin, end));
}
inline bool one_in(int count) { return within(0, count) == count - 1; }  // shrinks to what is not

// Sizes and a causal mask alone.
inline AttentionProblem any_plain_problem(DType dtype) {
  AttentionProblem p;
  p.dtype = p.kv_dtype = dtype;
  p.batch = *rc::gen::inRange<std::int64_t>(1, 3);
  p.kv_heads = *rc::gen::inRange<std::int64_t>(1, 4);
  p.heads = p.kv_heads * *rc::gen::inRange<std::int64_t>(1, 5);
  p.seq_q = *rc::gen::inRange<std::int64_t>(1, 150);
  p.seq_kv = *rc::gen::inRange<std::int64_t>(1, 700);
  p.head_dim = *rc::gen::inRange<std::int64_t>(1, 80);
  p.head_dim_v = *rc::gen::inRange<std::int64_t>(1, 80);
  p.causal = *rc::gen::arbitrary<bool>();
  p.align = *rc::gen::element(Align::top_left, Align::bottom_right);
  p.threads = *rc::gen::inRange(1, 4);
  return p;
}

// Which features a property allows; of those, any_problem() draws what the kernel has.
struct Allowed {
  bool ranges = true;  // causal and window
  bool alibi = true, softcap = true, bias = true, mask = true, sinks = true, dropout = true;
  bool padding = true;  // lengths and starts
  bool varlen = true, paged = true;
};

inline void any_sequences(AttentionProblem& p, const FeatureSet& has, const Allowed& allowed) {
  if (allowed.paged && has.paged && one_in(3)) {
    p.page_size = *rc::gen::element<std::int64_t>(1, 3, 16, 64);
    p.seq_kv = (p.seq_kv + p.page_size - 1) / p.page_size * p.page_size;
  }
  p.varlen = allowed.varlen && has.varlen && one_in(3);
  if (p.varlen) p.batch = within<std::int64_t>(1, 5);
  if (!allowed.padding || !has.lengths || (p.varlen && p.page_size == 0)) return;
  p.lengths = one_in(3);
  p.starts = one_in(3);
}

// Small enough for hundreds in a second, with the edges of blocks (64) and, now and then, of chunks (512).
inline AttentionProblem any_problem(const KernelInfo& kernel, const Allowed& allowed = {}) {
  const FeatureSet& has = kernel.features;
  AttentionProblem p;
  p.dtype = kernel.traits.dtype;
  p.kv_dtype = kernel.traits.kv_dtype;
  p.batch = within<std::int64_t>(1, 4);
  p.kv_heads = within<std::int64_t>(1, 3);
  p.heads = p.kv_heads * within<std::int64_t>(1, 4);
  p.seq_q = one_in(4) ? 1 : within<std::int64_t>(1, 60);
  p.seq_kv = within<std::int64_t>(1, one_in(4) ? 600 : 150);
  p.head_dim = within<std::int64_t>(1, 40);
  p.head_dim_v = within<std::int64_t>(1, 40);
  p.align = *rc::gen::element(Align::top_left, Align::bottom_right);
  p.threads = one_in(4) ? 3 : 1;  // waking others takes longer than most problems
  p.lse = true;
  any_sequences(p, has, allowed);
  p.causal = allowed.ranges && one_in(2);
  if (allowed.ranges && has.window && one_in(3)) {
    p.window_left = within<std::int64_t>(-1, 100);
    p.window_right = within<std::int64_t>(-1, 50);
  }
  if (allowed.softcap && has.softcap && one_in(3)) p.softcap = *rc::gen::element(0.5F, 3.0F, 30.0F);
  if (allowed.alibi && has.alibi && one_in(3))
    p.alibi = *rc::gen::element(AlibiKind::per_head, AlibiKind::per_batch_head);
  p.sinks = allowed.sinks && has.sinks && one_in(3);
  if (allowed.bias && has.bias && one_in(3)) {
    p.bias = true;
    p.bias_axes = within<std::uint8_t>(0, 8);
  }
  if (allowed.mask && has.mask && one_in(2)) {
    p.mask = *rc::gen::element(MaskKind::boolean, MaskKind::additive);
    p.mask_axes = within<std::uint8_t>(0, 8);
  }
  if (allowed.dropout && has.dropout && one_in(4)) p.dropout_p = *rc::gen::element(0.1F, 0.5F, 0.9F);
  return p;
}

// No planted keys: properties move and cut keys, and planted ones are chosen by what rows see.
inline lab::Inputs made(const AttentionProblem& p, lab::InputSpec spec = {}) {
  RC_LOG() << to_string(p) << "\n";
  spec.plant = false;
  return check(lab::make_inputs(p, spec, cpu()));
}

class KernelProperty : public testing::TestWithParam<KernelInfo> {
 protected:
  void SetUp() override {
    if (const std::string why = cannot_run_here(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }
  static const KernelInfo& kernel() { return GetParam(); }
  static DType dtype() { return GetParam().traits.dtype; }
  static Plan planned(const AttentionProblem& p) { return check(plan(p, {}, GetParam().id)); }
  // Into outputs that hold NaN.
  static void ran(const AttentionProblem& p, const AttentionArgs& args) {
    for (const TensorView& t : {args.out, args.lse}) {
      test::each_element(t, [&](std::int64_t at, auto...) {
        store_element(t.dtype, t.data, at, std::numeric_limits<double>::quiet_NaN());
      });
    }
    const Status status = run(planned(p), args);
    if (!status.ok()) RC_FAIL(std::string(status.message()));
  }
  template <class Property>
  static void holds(int cases, Property property) {
    rc::detail::TestParams params;
    params.seed = 20;
    params.maxSuccess = cases;
    const auto result = rc::detail::checkTestable(std::move(property), rc::detail::TestMetadata{}, params);
    if (!result.template is<rc::detail::SuccessResult>()) {
      std::ostringstream text;
      rc::detail::printResultMessage(result, text);
      FAIL() << text.str();
    }
  }
};

}  // namespace headwise::numerics
