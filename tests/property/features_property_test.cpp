// Properties of attention with any of its features, for every forward kernel of the registry. What is
// computed in another way, but means the same, must be as near to truth as the pass rule asks of a kernel;
// what may not matter at all must leave every bit.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
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
using test::score_offset;

constexpr int kCases = 12;  // a file takes less than 15 s of one core

class FeaturesProperty : public KernelProperty {};

// Elements of one axis in another order: element i becomes the one that was order[i] behind `begin`.
void reorder(const TensorView& t, std::int64_t offset, std::int64_t step, std::int64_t width,
             const std::vector<std::int64_t>& order) {
  const auto size = static_cast<std::int64_t>(size_of(t.dtype));
  const auto bytes = static_cast<std::size_t>(width * size);
  std::vector<std::byte> old(order.size() * bytes);
  for (std::size_t i = 0; i < order.size(); ++i)
    std::memcpy(old.data() + i * bytes, t.as<std::byte>() + (offset + order[i] * step) * size, bytes);
  for (std::size_t i = 0; i < order.size(); ++i)
    std::memcpy(t.as<std::byte>() + (offset + static_cast<std::int64_t>(i) * step) * size,
                old.data() + i * bytes, bytes);
}

std::vector<std::int64_t> shuffled(std::int64_t count) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(static_cast<std::uint64_t>(count)));
  return order;
}

TEST_P(FeaturesProperty, OrderOfKeysDoesNotMatter) {
  holds(kCases, [] {
    AttentionProblem p = any_problem(kernel(), {.ranges = false, .alibi = false, .dropout = false});
    const bool own_lengths = p.varlen || p.lengths || p.starts;  // then each sequence has an order of its own
    if (own_lengths && p.mask != MaskKind::none) p.mask_axes |= kAxisBatch;
    if (own_lengths && p.bias) p.bias_axes |= kAxisBatch;
    const lab::Inputs inputs = made(p);
    const AttentionArgs& args = inputs.args();
    p = inputs.problem();
    const lab::Reference reference = truth_of(args, p);
    for (std::int64_t b = 0; b < p.batch; ++b) {
      const Sequence s = sequence_of(args, p, b);
      const std::vector<std::int64_t> order = shuffled(s.keys.end - s.keys.begin);
      for (const TensorView& t : {args.k, args.v}) {
        for (std::int64_t h = 0; h < p.kv_heads; ++h) {
          std::vector<std::vector<double>> old;
          for (const std::int64_t from : order) {
            old.emplace_back();
            for (std::int64_t d = 0; d < t.shape[3]; ++d)
              old.back().push_back(
                  load_element(t.dtype, t.data, key_offset(t, p, s, s.keys.begin + from, h) + d));
          }
          for (std::size_t j = 0; j < order.size(); ++j) {
            const std::int64_t to = key_offset(t, p, s, s.keys.begin + static_cast<std::int64_t>(j), h);
            for (std::int64_t d = 0; d < t.shape[3]; ++d)
              store_element(t.dtype, t.data, to + d, old[j][static_cast<std::size_t>(d)]);
          }
        }
      }
      for (const TensorView& t : {args.mask, args.bias}) {
        if (!t.present() || b >= t.shape[0]) continue;
        for (std::int64_t h = 0; h < t.shape[1]; ++h) {
          for (std::int64_t i = 0; i < t.shape[2]; ++i)
            reorder(t, b * t.stride[0] + h * t.stride[1] + i * t.stride[2] + s.keys.begin, 1, 1, order);
        }
      }
    }
    ran(p, args);
    RC_ASSERT(beyond_limits(reference, args, p) == "");
  });
}

// Of logits, sinks among them: it adds itself to lse and does nothing else.
TEST_P(FeaturesProperty, AConstantAddedToAllLogitsDoesNotMatter) {
  if (!kernel().features.bias) GTEST_SKIP() << kernel().id << " has no bias";
  holds(kCases, [] {
    AttentionProblem p = any_problem(kernel());
    p.bias = true;
    const lab::Inputs inputs = made(p);
    const AttentionArgs& args = inputs.args();
    p = inputs.problem();
    const lab::Reference reference = truth_of(args, p);
    const float added = 0.25F * static_cast<float>(within(-8, 9));
    each_element(args.bias, [&](std::int64_t at, auto...) { args.bias.as<float>()[at] += added; });
    for (std::int64_t h = 0; p.sinks && h < p.heads; ++h) args.sinks.as<float>()[h] += added;
    ran(p, args);
    each_element(args.lse, [&](std::int64_t at, auto...) { args.lse.as<float>()[at] -= added; });
    // Logits that are larger by `added` are rounded more coarsely: weights by as much, and values are
    // below 5.
    const double rounding = std::abs(static_cast<double>(added)) * 0x1p-22;
    RC_ASSERT(beyond_limits(reference, args, p, 1, kFloor + 5 * rounding) == "");
  });
}

TEST_P(FeaturesProperty, PartsOfTheKeysMergeToTheWhole) {
  if (!kernel().features.lengths) GTEST_SKIP() << kernel().id << " has no lengths";
  holds(kCases, [] {
    AttentionProblem p = any_problem(kernel(), {.varlen = false});
    p.align = Align::top_left;  // bottom_right counts from the end of each part
    const lab::Inputs inputs = made(p);
    const AttentionArgs& whole = inputs.args();
    p = inputs.problem();
    const lab::Reference reference = truth_of(whole, p);
    AttentionProblem part = p;
    part.sinks = false;
    part.lengths = part.starts = true;
    const int first_cut = within(0, 101), second_cut = within(0, 101);
    const std::array<int, 4> cuts{0, std::min(first_cut, second_cut), std::max(first_cut, second_cut), 100};
    std::array<std::vector<double>, 3> outs;
    std::array<std::vector<float>, 3> lses;
    std::vector<PartialResult> partials;
    for (std::size_t n = 0; n < 3; ++n) {
      std::vector<std::int32_t> begins, ends;
      for (std::int64_t b = 0; b < p.batch; ++b) {
        const KeyRange keys = sequence_of(whole, p, b).keys;
        const auto at = [&](int share) {
          return static_cast<std::int32_t>(keys.begin + (keys.end - keys.begin) * share / 100);
        };
        begins.push_back(at(cuts[n]));
        ends.push_back(at(cuts[n + 1]));
      }
      outs[n].resize(static_cast<std::size_t>(whole.out.elements()));
      lses[n].resize(static_cast<std::size_t>(whole.lse.elements()));
      AttentionArgs args = whole;
      args.sinks = {};
      args.starts_kv = contiguous(begins.data(), {p.batch});
      args.lengths_kv = contiguous(ends.data(), {p.batch});
      args.out = contiguous(outs[n].data(), p.dtype, {p.batch, p.seq_q, p.heads, p.head_dim_v});
      args.lse = contiguous(lses[n].data(), {p.batch, p.heads, p.seq_q});
      ran(part, args);
      partials.push_back({args.out, args.lse});
    }
    const Status merged = merge_partials(partials, whole.out, whole.lse, whole.sinks);
    RC_ASSERT(merged.ok());
    RC_ASSERT(beyond_limits(reference, whole, p, 2) == "");  // parts are rounded, and their sum
  });
}

TEST_P(FeaturesProperty, SlicesOfTheTensorsMergeToTheWhole) {
  holds(kCases, [] {
    const AttentionProblem p = any_problem(kernel(), {.ranges = false,
                                                      .alibi = false,
                                                      .dropout = false,
                                                      .padding = false,
                                                      .varlen = false,
                                                      .paged = false});
    const lab::Inputs inputs = made(p);
    const AttentionArgs& whole = inputs.args();
    const lab::Reference reference = truth_of(whole, p);
    const std::int64_t middle = within<std::int64_t>(0, p.seq_kv + 1);
    std::array<std::vector<double>, 2> outs;
    std::array<std::vector<float>, 2> lses;
    std::vector<PartialResult> partials;
    for (std::size_t n = 0; n < 2; ++n) {
      const std::int64_t begin = n == 0 ? 0 : middle, end = n == 0 ? middle : p.seq_kv;
      outs[n].resize(static_cast<std::size_t>(whole.out.elements()));
      lses[n].resize(static_cast<std::size_t>(whole.lse.elements()));
      AttentionArgs args = whole;
      args.sinks = {};
      for (TensorView* t : {&args.k, &args.v}) *t = cut(*t, 1, begin, end);
      for (TensorView* t : {&args.mask, &args.bias}) {
        if (t->present()) *t = cut(*t, 3, begin, end);
      }
      args.out = contiguous(outs[n].data(), p.dtype, {p.batch, p.seq_q, p.heads, p.head_dim_v});
      args.lse = contiguous(lses[n].data(), {p.batch, p.heads, p.seq_q});
      AttentionProblem part = p;
      part.sinks = false;
      part.seq_kv = end - begin;
      ran(part, args);
      partials.push_back({args.out, args.lse});
    }
    const Status merged = merge_partials(partials, whole.out, whole.lse, whole.sinks);
    RC_ASSERT(merged.ok());
    RC_ASSERT(beyond_limits(reference, whole, p, 2) == "");
  });
}

TEST_P(FeaturesProperty, GroupedHeadsEqualRepeatedHeads) {
  holds(kCases, [] {
    const AttentionProblem grouped = any_problem(kernel());
    AttentionProblem repeated = grouped;
    repeated.kv_heads = grouped.heads;
    const lab::Inputs a = made(grouped);
    const lab::Inputs b = made(repeated);
    const std::int64_t group = grouped.heads / grouped.kv_heads;
    for (const auto& [from, to] : {std::pair{a.args().k, b.args().k}, std::pair{a.args().v, b.args().v}}) {
      each_element(to, [&](std::int64_t at, std::int64_t i, std::int64_t j, std::int64_t h, std::int64_t d) {
        store_element(to.dtype, to.data, at,
                      load_element(from.dtype, from.data,
                                   i * from.stride[0] + j * from.stride[1] + h / group * from.stride[2] + d));
      });
    }
    ran(b.problem(), b.args());
    RC_ASSERT(beyond_limits(truth_of(a.args(), a.problem()), b.args(), b.problem()) == "");
  });
}

// Keys, bias and mask behind the place where a causal row stands.
TEST_P(FeaturesProperty, LaterKeysLeaveEveryBitOfACausalRow) {
  holds(kCases, [] {
    AttentionProblem p = any_problem(kernel());
    p.causal = true;
    const lab::Inputs inputs = made(p, {.hidden_nan = false});
    const AttentionArgs& args = inputs.args();
    p = inputs.problem();
    ran(p, args);
    const std::vector<std::string> before = test::all_row_bits(args, p);
    std::vector<std::int64_t> last_row, first_key;  // of each sequence: rows up to it see keys below
    const int share = within(0, 101);
    for (std::int64_t b = 0; b < p.batch; ++b) {
      const Sequence s = sequence_of(args, p, b);
      last_row.push_back(s.seq_q * share / 100);
      const std::int64_t place =
          last_row.back() + (p.align == Align::bottom_right ? s.keys.end - s.seq_q : 0);
      first_key.push_back(std::max(s.keys.begin, place + 1));
      for (std::int64_t j = first_key.back(); j < s.keys.end; ++j) {
        for (const TensorView& t : {args.k, args.v}) {
          for (std::int64_t x = 0; x < p.kv_heads * t.shape[3]; ++x) {
            const std::int64_t at = key_offset(t, p, s, j, x / t.shape[3]) + x % t.shape[3];
            store_element(t.dtype, t.data, at, 7 - 3 * load_element(t.dtype, t.data, at));
          }
        }
      }
    }
    const std::int64_t last_first = *std::max_element(first_key.begin(), first_key.end());
    const auto later = [&](const TensorView& t, std::int64_t b, std::int64_t j) {
      return j >= (t.shape[0] == 1 ? last_first : first_key[static_cast<std::size_t>(b)]);
    };
    if (p.bias) {
      each_element(args.bias, [&](std::int64_t at, std::int64_t b, auto, auto, std::int64_t j) {
        if (later(args.bias, b, j)) args.bias.as<float>()[at] = 11 - 2 * args.bias.as<float>()[at];
      });
    }
    if (p.mask != MaskKind::none) {
      each_element(args.mask, [&](std::int64_t at, std::int64_t b, auto, auto, std::int64_t j) {
        if (later(args.mask, b, j)) test::set_hidden(args.mask, at, !test::hides(args.mask, at));
      });
    }
    ran(p, args);
    const std::vector<RowId> rows = test::rows_of(args, p);
    for (std::size_t r = 0; r < rows.size(); ++r) {
      if (rows[r].query > last_row[static_cast<std::size_t>(rows[r].batch)]) continue;
      RC_ASSERT(test::row_bits(args, p, rows[r]) == before[r]);
    }
  });
}

// Causal, window, lengths and starts, each said by a mask.
TEST_P(FeaturesProperty, RangesOfKeysEqualTheirMask) {
  if (!kernel().features.mask) GTEST_SKIP() << kernel().id << " has no mask";
  holds(kCases, [] {
    AttentionProblem p = any_problem(kernel(), {.varlen = false, .paged = false});
    if (p.alibi != AlibiKind::none) p.align = Align::top_left;  // its places move with lengths
    const lab::Inputs inputs = made(p);
    const lab::Reference reference = truth_of(inputs.args(), p);
    AttentionProblem masked = p;
    masked.causal = masked.lengths = masked.starts = false;
    masked.window_left = masked.window_right = -1;
    masked.mask = p.mask == MaskKind::additive ? MaskKind::additive : MaskKind::boolean;
    masked.mask_axes = kAxisBatch | kAxisHeads | kAxisQueries;
    AttentionArgs args = inputs.args();
    args.lengths_kv = args.starts_kv = {};
    std::vector<float> memory(static_cast<std::size_t>(p.batch * p.heads * p.seq_q * p.seq_kv));
    args.mask = contiguous(memory.data(), masked.mask == MaskKind::additive ? DType::f32 : DType::boolean,
                           {p.batch, p.heads, p.seq_q, p.seq_kv});
    each_element(args.mask, [&](std::int64_t at, std::int64_t b, std::int64_t h, std::int64_t i,
                                std::int64_t j) {
      const RowId row{b, h, i};
      const bool seen = test::sees(inputs.args(), p, row, j);
      test::set_hidden(args.mask, at, !seen);
      if (seen && p.mask == MaskKind::additive)
        args.mask.as<float>()[at] = inputs.args().mask.as<float>()[score_offset(inputs.args().mask, row, j)];
    });
    ran(masked, args);
    RC_ASSERT(beyond_limits(reference, args, masked) == "");
  });
}

// Blocks of keys hidden from everybody, and the same keys taken out.
TEST_P(FeaturesProperty, HiddenBlocksEqualKeysRemoved) {
  if (!kernel().features.mask) GTEST_SKIP() << kernel().id << " has no mask";
  holds(kCases, [] {
    AttentionProblem p = any_problem(kernel(), {.ranges = false,
                                                .alibi = false,
                                                .dropout = false,
                                                .padding = false,
                                                .varlen = false,
                                                .paged = false});
    if (p.mask == MaskKind::none) p.mask = MaskKind::boolean;
    const lab::Inputs inputs = made(p);
    AttentionArgs args = inputs.args();
    const std::int64_t size = *rc::gen::element<std::int64_t>(7, 64, 96, 128);
    std::vector<std::int64_t> kept;
    bool hidden = false;
    for (std::int64_t j = 0; j < p.seq_kv; ++j) {
      if (j % size == 0) hidden = j > 0 && one_in(2);
      if (!hidden) {
        kept.push_back(j);
        continue;
      }
      fill_keys(args, j, j + 1, std::numeric_limits<double>::quiet_NaN());
      each_element(cut(args.mask, 3, j, j + 1),
                   [&](std::int64_t at, auto...) { test::set_hidden(args.mask, at + j, true); });
    }
    const lab::Reference reference = truth_of(args, p);
    ran(p, args);
    RC_ASSERT(beyond_limits(reference, args, p) == "");
    const auto count = static_cast<std::int64_t>(kept.size());
    for (TensorView* t : {&args.k, &args.v}) {
      for (std::int64_t x = 0; x < p.batch * p.kv_heads; ++x)
        reorder(*t, x / p.kv_heads * t->stride[0] + x % p.kv_heads * t->stride[2], t->stride[1], t->shape[3],
                kept);
      *t = cut(*t, 1, 0, count);
    }
    for (TensorView* t : {&args.mask, &args.bias}) {
      if (!t->present()) continue;
      each_element(cut(*t, 3, 0, 1), [&](std::int64_t at, auto...) { reorder(*t, at, 1, 1, kept); });
      *t = cut(*t, 3, 0, count);
    }
    p.seq_kv = count;
    ran(p, args);
    RC_ASSERT(beyond_limits(reference, args, p) == "");
  });
}

TEST_P(FeaturesProperty, LinearInValuesExactlyForPowersOfTwo) {
  holds(kCases, [] {
    const AttentionProblem p = any_problem(kernel());
    const lab::Inputs inputs = made(p);
    const TensorView &out = inputs.args().out, &v = inputs.args().v;
    ran(inputs.problem(), inputs.args());
    std::vector<double> before;
    each_element(out,
                 [&](std::int64_t at, auto...) { before.push_back(load_element(out.dtype, out.data, at)); });
    each_element(v, [&](std::int64_t at, auto...) {
      store_element(v.dtype, v.data, at, -4 * load_element(v.dtype, v.data, at));
    });
    ran(inputs.problem(), inputs.args());
    std::size_t n = 0;
    each_element(out, [&](std::int64_t at, auto...) {
      const double now = load_element(out.dtype, out.data, at), was = before[n++];
      // Below the normal range of f16 a product with 4 rounds differently.
      RC_ASSERT(now == -4 * was || std::abs(was) < 1e-4);
    });
  });
}

// Values that are all the same come out as they are, whatever the weights.
TEST_P(FeaturesProperty, WeightsSumToOne) {
  holds(kCases, [] {
    const AttentionProblem p = any_problem(kernel(), {.sinks = false, .dropout = false});
    const lab::Inputs inputs = made(p);
    const AttentionArgs& args = inputs.args();
    each_element(args.v, [&](std::int64_t at, auto...) {
      if (!std::isnan(load_element(args.v.dtype, args.v.data, at)))
        store_element(args.v.dtype, args.v.data, at, 2);
    });
    ran(inputs.problem(), args);
    const double rounding = dtype() == DType::f32 ? 2e-6 : dtype() == DType::f16 ? 2e-3 : 1.6e-2;
    for (const RowId& row : test::rows_of(args, inputs.problem())) {
      const Sequence s = sequence_of(args, inputs.problem(), row.batch);
      const bool empty = std::isinf(args.lse.as<float>()[test::lse_offset(args, s, row)]);
      const std::int64_t at = query_offset(args.out, s, row.query, row.head);
      for (std::int64_t d = 0; d < p.head_dim_v; ++d)
        RC_ASSERT(std::abs(load_element(p.dtype, args.out.data, at + d) - (empty ? 0 : 2)) <=
                  (empty ? 0 : rounding));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Registry, FeaturesProperty, testing::ValuesIn(forward_kernels()),
                         [](const testing::TestParamInfo<KernelInfo>& info) {
                           return test_name(info.param.id);
                         });

}  // namespace
}  // namespace headwise::numerics
