// Properties of what lies where: memory beside the tensors, threads, neighbours in a batch, steps of a
// decode; with any features, for every forward kernel of the registry.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "headwise/headwise.h"
#include "lab/verify.h"
#include "property/any_problem.h"
#include "property/near_truth.h"
#include "support/sight.h"

namespace headwise::numerics {
namespace {

using oracle::RowId;
using test::cut;
using test::each_element;

constexpr int kCases = 14;  // a file takes less than 15 s of one core

class SequencesProperty : public KernelProperty {};

// Everything at once: the pass rule, planted keys, gaps that hold NaN and must not be written.
TEST_P(SequencesProperty, AnyProblemPassesAndStaysInItsTensors) {
  holds(kCases, [] {
    const AttentionProblem p = any_problem(kernel());
    RC_LOG() << to_string(p) << "\n";
    lab::InputSpec spec{.seed = within<std::uint64_t>(0, 1000),
                        .layout = *rc::gen::element(lab::Layout::bshd, lab::Layout::bhsd),
                        .row_padding = *rc::gen::element<std::int64_t>(0, 0, 1, 5),
                        .offset = *rc::gen::element<std::int64_t>(0, 0, 1, 3)};
    if (p.mask != MaskKind::none && one_in(3)) spec.mask_short = within<std::int64_t>(0, p.seq_kv);
    lab::Inputs inputs = check(lab::make_inputs(p, spec, cpu()));
    std::vector<RowId> rows;
    for (const lab::Plant& plant : inputs.planted()) {
      if (rows.size() < 24) rows.push_back(plant.row);
    }
    lab::Reference reference = rows.empty()
                                   ? truth_of(inputs.args(), inputs.problem())
                                   : check(lab::make_reference(inputs.args(), inputs.problem(), rows, 1));
    RC_ASSERT(lab::poison(inputs).ok());
    ran(inputs.problem(), inputs.args());
    RC_ASSERT(beyond_limits(reference, inputs.args(), inputs.problem()) == "");
    RC_ASSERT(lab::check_guards(inputs).message() == "");
  });
}

TEST_P(SequencesProperty, BitsDoNotDependOnThreads) {
  holds(kCases, [] {
    AttentionProblem p = any_problem(kernel());
    const lab::Inputs inputs = made(p);
    p = inputs.problem();
    // An infinite value shows which rows shared a block with which.
    const TensorView& v = inputs.args().v;
    const std::int64_t item = within<std::int64_t>(0, v.shape[0]);
    const std::int64_t row = within<std::int64_t>(0, v.shape[1]);
    test::set_row(v, item * v.stride[0] + row * v.stride[1], std::numeric_limits<double>::infinity());
    std::vector<std::string> first;
    for (const int threads : {1, 2, 3}) {
      p.threads = threads;
      ran(p, inputs.args());
      const std::vector<std::string> bits = test::all_row_bits(inputs.args(), p);
      if (first.empty()) first = bits;
      RC_ASSERT(bits == first);
    }
  });
}

// Sequence b of a call, as a call of its own.
struct Alone {
  AttentionProblem p;
  AttentionArgs args;
  Alone(const AttentionArgs& all, const AttentionProblem& together, std::int64_t b) : p(together), args(all) {
    const Sequence s = sequence_of(all, together, b);
    p.batch = 1;
    p.varlen = false;
    p.total_q = p.total_kv = 0;
    p.seq_q = s.seq_q;
    args.cu_seqlens_q = args.cu_seqlens_kv = {};
    for (TensorView* t : {&args.q, &args.out})
      *t = cut(cut(*t, 0, s.item_q, s.item_q + 1), 1, s.row_q, s.row_q + s.seq_q);
    args.lse = cut(cut(args.lse, 0, s.item_q, s.item_q + 1), 2, s.row_q, s.row_q + s.seq_q);
    if (p.page_size > 0) {
      args.block_table = cut(args.block_table, 0, b, b + 1);
    } else {
      if (together.varlen) p.seq_kv = s.keys.end;
      for (TensorView* t : {&args.k, &args.v})
        *t = cut(cut(*t, 0, s.item_kv, s.item_kv + 1), 1, s.row_kv, s.row_kv + p.seq_kv);
    }
    for (TensorView* t : {&args.lengths_kv, &args.starts_kv}) {
      if (t->present()) *t = cut(*t, 0, b, b + 1);
    }
    if (p.alibi == AlibiKind::per_batch_head) args.alibi_slopes = cut(args.alibi_slopes, 0, b, b + 1);
    for (TensorView* t : {&args.mask, &args.bias}) {
      if (!t->present()) continue;
      if (t->shape[0] > 1) *t = cut(*t, 0, b, b + 1);
      if (t->shape[2] > 1) *t = cut(*t, 2, 0, s.seq_q);
      *t = cut(*t, 3, 0, p.seq_kv);
    }
  }
};

TEST_P(SequencesProperty, ASequenceHasTheBitsItHasAlone) {
  holds(kCases, [] {
    AttentionProblem p = any_problem(kernel(), {.dropout = false});  // it counts heads of all sequences
    p.batch = within<std::int64_t>(2, 5);
    const lab::Inputs inputs = made(p);
    p = inputs.problem();
    ran(p, inputs.args());
    const std::vector<std::string> together = test::all_row_bits(inputs.args(), p);
    const std::vector<RowId> rows = test::rows_of(inputs.args(), p);
    std::size_t first = 0;
    for (std::int64_t b = 0; b < p.batch; ++b) {
      Alone alone(inputs.args(), p, b);
      alone.p.threads = within(1, 4);
      ran(alone.p, alone.args);
      const std::vector<std::string> bits = test::all_row_bits(alone.args, alone.p);
      for (std::size_t r = 0; r < bits.size(); ++r) RC_ASSERT(bits[r] == together[first + r]);
      first += bits.size();
    }
    RC_ASSERT(first == together.size());
  });
}

// Values of all other sequences become NaN, and their lengths others.
TEST_P(SequencesProperty, NeighboursChangeNoBit) {
  holds(kCases, [] {
    AttentionProblem p = any_problem(kernel());
    p.batch = within<std::int64_t>(2, 5);
    const lab::Inputs inputs = made(p);
    const AttentionArgs& args = inputs.args();
    p = inputs.problem();
    ran(p, args);
    const std::vector<std::string> before = test::all_row_bits(args, p);
    const std::vector<RowId> rows = test::rows_of(args, p);
    const std::int64_t kept = within<std::int64_t>(0, p.batch);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    for (std::int64_t b = 0; b < p.batch; ++b) {
      if (b == kept) continue;
      const Sequence s = sequence_of(args, p, b);
      for (std::int64_t h = 0; h < p.heads; ++h) {
        for (std::int64_t i = 0; i < s.seq_q; ++i) test::set_row(args.q, query_offset(args.q, s, i, h), nan);
      }
      for (const TensorView& t : {args.k, args.v}) {
        for (std::int64_t x = 0; x < (s.keys.end - s.keys.begin) * p.kv_heads; ++x)
          test::set_row(t, key_offset(t, p, s, s.keys.begin + x / p.kv_heads, x % p.kv_heads), nan);
      }
      for (const TensorView& t : {args.bias, args.mask}) {
        if (!t.present() || t.shape[0] == 1) continue;
        each_element(cut(t, 0, b, b + 1), [&](std::int64_t at, auto...) {
          const std::int64_t element = b * t.stride[0] + at;
          if (t.dtype == DType::boolean) {
            test::set_hidden(t, element, !test::hides(t, element));
          } else {
            store_element(t.dtype, t.data, element, nan);
          }
        });
      }
      // Fewer keys: the table has pages for no more.
      if (p.lengths) {
        std::int32_t& end = args.lengths_kv.as<std::int32_t>()[b];
        const auto begin = static_cast<std::int32_t>(s.keys.begin);
        end = begin + (end - begin) / 2;
      } else if (p.starts) {
        args.starts_kv.as<std::int32_t>()[b] += static_cast<std::int32_t>((s.keys.end - s.keys.begin) / 2);
      }
    }
    ran(p, args);
    for (std::size_t r = 0; r < rows.size(); ++r) {
      if (rows[r].batch == kept) RC_ASSERT(test::row_bits(args, p, rows[r]) == before[r]);
    }
  });
}

// A step of a decode, with the keys so far or with a cache that has room for more.
TEST_P(SequencesProperty, DecodingStepEqualsRowOfPrefill) {
  holds(kCases, [] {
    AttentionProblem p = any_problem(
        kernel(), {.dropout = false, .padding = false, .varlen = false, .paged = kernel().features.lengths});
    p.causal = true;
    p.align = Align::bottom_right;
    p.seq_q = p.seq_kv = std::min<std::int64_t>(p.seq_kv, 64 * 3);  // whole pages of any size
    if (p.page_size > 0) p.pages = 0;
    const lab::Inputs inputs = made(p, {.hidden_nan = false});
    const AttentionArgs& args = inputs.args();
    p = inputs.problem();
    const std::int64_t t = within<std::int64_t>(0, p.seq_q);
    std::vector<RowId> rows;
    for (std::int64_t x = 0; x < p.batch * p.heads; ++x) rows.push_back({x / p.heads, x % p.heads, t});
    const lab::Reference reference = check(lab::make_reference(args, p, rows, 1));
    ran(p, args);
    RC_ASSERT(beyond_limits(reference, args, p) == "");

    AttentionArgs step = args;
    AttentionProblem one = p;
    for (TensorView* view : {&step.q, &step.out}) *view = cut(*view, 1, t, t + 1);
    step.lse = cut(step.lse, 2, t, t + 1);
    for (TensorView* view : {&step.mask, &step.bias}) {
      if (view->present() && view->shape[2] > 1) *view = cut(*view, 2, t, t + 1);
    }
    one.seq_q = 1;
    const std::vector<std::int32_t> lengths(static_cast<std::size_t>(p.batch),
                                            static_cast<std::int32_t>(t + 1));
    one.lengths = p.page_size > 0 || (kernel().features.lengths && one_in(2));
    if (one.lengths) {
      step.lengths_kv = contiguous(lengths.data(), {p.batch});
    } else {
      one.seq_kv = t + 1;
      for (TensorView* view : {&step.k, &step.v}) *view = cut(*view, 1, 0, t + 1);
      for (TensorView* view : {&step.mask, &step.bias}) {
        if (view->present()) *view = cut(*view, 3, 0, t + 1);
      }
    }
    ran(one, step);
    RC_ASSERT(beyond_limits(reference, args, p) == "");  // both within one limit: within two of each other
  });
}

INSTANTIATE_TEST_SUITE_P(Registry, SequencesProperty, testing::ValuesIn(forward_kernels()),
                         [](const testing::TestParamInfo<KernelInfo>& info) {
                           return test_name(info.param.id);
                         });

}  // namespace
}  // namespace headwise::numerics
