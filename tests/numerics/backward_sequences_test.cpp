// Gradients of sequences that are packed, paged, cut short or padded, for every backward kernel of the
// registry that has the feature; and that no bit of them depends on threads.
#include <cmath>

#include "numerics/backward_case.h"
#include "numerics/sequence_case.h"

namespace headwise::numerics {
namespace {

using BackwardSequences = EveryBackwardKernel;

void expect_zeros_out_of_use(const SequenceCase& c) {
  const auto used = c.slots_in_use();
  for (const TensorView& t : {c.together_backward().dk, c.together_backward().dv}) {
    for (std::int64_t item = 0; item < t.shape[0]; ++item) {
      for (std::int64_t row = 0; row < t.shape[1]; ++row) {
        if (used[static_cast<std::size_t>(item)][static_cast<std::size_t>(row)]) continue;
        for (std::int64_t x = 0; x < t.shape[2] * t.shape[3]; ++x)
          ASSERT_EQ(load_element(t.dtype, t.data, item * t.stride[0] + row * t.stride[1] + x), 0)
              << "item " << item << " row " << row;
      }
    }
  }
}

void compare(const KernelInfo& kernel, const Layout& layout, const Setting& setting) {
  SCOPED_TRACE(layout.name + ", " + setting.name);
  SequenceCase c(kernel.traits.dtype, layout, setting);
  c.poison_outputs();
  c.poison_gradients();
  const AttentionArgs all = c.together_backward();
  run_both(kernel, all, c.options());
  std::vector<double> sinks(kHeads, 0);
  for (std::int64_t b = 0; b < layout.batch(); ++b) {
    SCOPED_TRACE("sequence " + std::to_string(b));
    const AttentionArgs one = c.alone_backward(b);
    run_both(kernel, one, setting.options, 1);
    EXPECT_EQ(c.dq_bits(all, b), c.dq_bits(one, b));
    EXPECT_EQ(c.key_bits(all, b), c.key_bits(one, b));
    if (setting.bias) {
      EXPECT_EQ(c.dbias_bits(all, b), c.dbias_bits(one, b));
    }
    for (std::int64_t h = 0; setting.scores && h < kHeads; ++h)
      sinks[static_cast<std::size_t>(h)] += one.dsinks.as<float>()[h];
  }
  expect_zeros_out_of_use(c);
  for (std::int64_t h = 0; setting.scores && h < kHeads; ++h)
    EXPECT_NEAR(all.dsinks.as<float>()[h], sinks[static_cast<std::size_t>(h)], 1e-5) << "head " << h;
  if (!setting.bias) return;
  double sum = 0;  // what is beside the sequences is zero, not NaN
  for (const double x : values(all.dbias)) sum += x;
  EXPECT_TRUE(std::isfinite(sum));
}

void compare_all(const KernelInfo& kernel, const Layout& layout) {
  for (const Setting& setting : settings()) {
    if (has(kernel.features, setting, layout)) compare(kernel, layout, setting);
  }
}

TEST_P(BackwardSequences, AreTheSameAlone) {
  const KernelInfo& kernel = GetParam();
  compare_all(kernel, {.name = "varlen",
                       .q = {3, 0, 17, 1, 40, 5},
                       .kv = {3, 4, 40, 0, 40, 90},
                       .begin = {0, 0, 0, 0, 0, 0},
                       .varlen = true});
  compare_all(kernel,
              {.name = "lengths", .q = {19, 19, 19}, .kv = {25, 0, 60}, .begin = {0, 0, 0}, .lengths = true});
  compare_all(kernel, {.name = "starts and lengths",
                       .q = {5, 5, 5},
                       .kv = {30, 0, 53},
                       .begin = {17, 3, 6},
                       .lengths = true,
                       .starts = true});
  for (const std::int64_t page_size : {1, 3, 16, 64}) {
    compare_all(kernel, {.name = "paged by " + std::to_string(page_size),
                         .q = {9, 9, 9},
                         .kv = {64, 7, 0},
                         .begin = {0, 0, 0},
                         .page_size = page_size,
                         .lengths = true});
    compare_all(kernel, {.name = "varlen, starts, paged by " + std::to_string(page_size),
                         .q = {9, 0, 33},
                         .kv = {64, 5, 29},
                         .begin = {3, 20, 70},
                         .varlen = true,
                         .page_size = page_size,
                         .lengths = true,
                         .starts = true});
  }
}

// Two sequences whose first page is the same, and the same with a copy of that page.
TEST_P(BackwardSequences, SharedPagesSumWhatEachSequenceGives) {
  if (!GetParam().features.paged) GTEST_SKIP() << GetParam().id << " has no pages";
  constexpr std::int64_t kPage = 4, kPages = 5;
  std::mt19937_64 generator(3);
  const auto tensor = [&](std::array<std::int64_t, 4> shape) {
    auto made = std::make_unique<HostTensor>(dtype(), shape);
    made->fill_normal(generator);
    return made;
  };
  const auto q = tensor({2, 6, 2, 8}), out = tensor({2, 6, 2, 8}), dout = tensor({2, 6, 2, 8});
  const auto k = tensor({kPages, kPage, 1, 8}), v = tensor({kPages, kPage, 1, 8});
  for (const auto* cache : {&k, &v}) {
    const TensorView& t = (*cache)->view;
    const std::int64_t page = t.stride[0] * static_cast<std::int64_t>(size_of(dtype()));
    std::memcpy(t.as<std::byte>() + 3 * page, t.data, static_cast<std::size_t>(page));
  }
  std::vector<float> lse(2 * 2 * 6);
  const auto gradients = [&](const std::vector<std::int32_t>& table) {
    const auto dq = tensor({2, 6, 2, 8}), dk = tensor({kPages, kPage, 1, 8}),
               dv = tensor({kPages, kPage, 1, 8});
    const AttentionArgs args{.q = q->view,
                             .k = k->view,
                             .v = v->view,
                             .out = out->view,
                             .lse = contiguous(lse.data(), {2, 2, 6}),
                             .block_table = contiguous(table.data(), {2, 2}),
                             .dout = dout->view,
                             .dq = dq->view,
                             .dk = dk->view,
                             .dv = dv->view};
    run_both(GetParam(), args, {.causal = true, .align = Align::bottom_right, .page_size = kPage});
    return std::vector{values(dq->view), values(dk->view), values(dv->view)};
  };
  const auto shared = gradients({0, 1, 0, 2}), copied = gradients({0, 1, 3, 2});
  EXPECT_EQ(shared[0], copied[0]);
  const double epsilon = dtype() == DType::f32 ? 1e-6 : dtype() == DType::f16 ? 2e-3 : 2e-2;
  constexpr std::size_t kPageElements = kPage * 8;
  for (const std::size_t which : {1U, 2U}) {
    for (std::size_t x = 0; x < kPageElements; ++x) {
      const double sum = copied[which][x] + copied[which][3 * kPageElements + x];
      EXPECT_NEAR(shared[which][x], sum, epsilon * (1 + std::abs(sum)));
      EXPECT_EQ(shared[which][3 * kPageElements + x], 0) << "a page of nobody";
      EXPECT_EQ(shared[which][4 * kPageElements + x], 0) << "a page of nobody";
    }
  }
}

TEST_P(BackwardSequences, BitsDoNotDependOnThreads) {
  const Layout layout{
      .name = "varlen", .q = {33, 0, 17, 50}, .kv = {40, 4, 40, 90}, .begin = {0, 0, 0, 0}, .varlen = true};
  const Layout pages{
      .name = "paged", .q = {20, 20}, .kv = {40, 33}, .begin = {0, 0}, .page_size = 16, .lengths = true};
  for (const Layout* l : {&layout, &pages}) {
    for (Setting setting : settings()) {
      setting.options.dropout_p = GetParam().features.dropout ? 0.25F : 0;
      if (!has(GetParam().features, setting, *l)) continue;
      SCOPED_TRACE(l->name + ", " + setting.name);
      SequenceCase c(dtype(), *l, setting);
      const AttentionArgs args = c.together_backward();
      std::vector<std::vector<double>> first;
      for (const int threads : {1, 2, 3, 7, 2}) {
        c.poison_gradients();
        run_both(GetParam(), args, c.options(), threads);
        const std::vector<std::vector<double>> found{values(args.dq), values(args.dk), values(args.dv),
                                                     values(args.dbias), values(args.dsinks)};
        if (first.empty()) first = found;
        EXPECT_TRUE(found == first) << threads << " threads";
      }
    }
  }
}

// Central differences of sum(out * dout), with every feature at once.
TEST_P(BackwardSequences, AreTheSlopesOfForward) {
  if (dtype() != DType::f32) GTEST_SKIP() << "differences need the digits of f32";
  const Layout layout{.name = "varlen", .q = {7, 0, 9}, .kv = {11, 3, 9}, .begin = {0, 0, 0}, .varlen = true};
  const Layout pages{.name = "paged",
                     .q = {6, 6},
                     .kv = {9, 12},
                     .begin = {2, 5},
                     .page_size = 4,
                     .lengths = true,
                     .starts = true};
  for (const Layout* l : {&layout, &pages}) {
    for (const float softcap : {0.0F, 2.0F}) {
      const Setting setting{.name = "all",
                            .options = {.softmax_scale = 0.4F,
                                        .align = Align::bottom_right,
                                        .window_left = 6,
                                        .window_right = 2,
                                        .softcap = softcap,
                                        .dropout_p = 0.3F},
                            .scores = true,
                            .bias = true,
                            .mask = true};
      if (!has(GetParam().features, setting, *l) || !GetParam().features.dropout) continue;
      SCOPED_TRACE(l->name + ", softcap " + std::to_string(softcap));
      SequenceCase c(dtype(), *l, setting);
      AttentionArgs args = c.together_backward();
      args.dropout_seed = 5;
      c.poison_gradients();
      run_both(GetParam(), args, c.options());
      const auto loss = [&] {
        check(run_as(forward_beside(GetParam()), without_gradients(args), c.options(), 1));
        double sum = 0;
        const std::vector<double> out = values(args.out), dout = values(args.dout);
        for (std::size_t i = 0; i < out.size(); ++i) {
          if (!std::isnan(dout[i])) sum += out[i] * dout[i];
        }
        return sum;
      };
      int compared = 0;
      const auto compare_slopes = [&](const TensorView& t, const TensorView& gradient, std::int64_t step) {
        auto* data = t.as<float>();
        for (std::int64_t x = 0; x < t.elements(); x += step) {
          const float value = data[x];
          if (std::isnan(value)) continue;
          constexpr float kStep = 0x1p-6F;
          data[x] = value + kStep;
          const double above = loss();
          data[x] = value - kStep;
          const double below = loss();
          data[x] = value;
          const double slope = (above - below) / (2 * kStep);
          EXPECT_NEAR(gradient.as<float>()[x], slope, 2e-3 * (1 + std::abs(slope))) << "element " << x;
          ++compared;
        }
      };
      {
        SCOPED_TRACE("dq");
        compare_slopes(args.q, args.dq, 7);
      }
      {
        SCOPED_TRACE("dk");
        compare_slopes(args.k, args.dk, 7);
      }
      {
        SCOPED_TRACE("dv");
        compare_slopes(args.v, args.dv, 7);
      }
      {
        SCOPED_TRACE("dbias");
        compare_slopes(args.bias, args.dbias, 3);
      }
      {
        SCOPED_TRACE("dsinks");
        compare_slopes(args.sinks, args.dsinks, 1);
      }
      EXPECT_GT(compared, 400);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, BackwardSequences, testing::ValuesIn(backward_kernels()),
                         [](const testing::TestParamInfo<KernelInfo>& info) {
                           return test_name(info.param.id);
                         });

}  // namespace
}  // namespace headwise::numerics
