// Sequences packed, paged, cut short or padded give the bits that each gives alone on plain tensors, for
// every kernel of the registry that has the feature. Whatever is not in use holds NaN.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "headwise/headwise.h"
#include "support/host_tensor.h"
#include "support/run_kernel.h"

namespace headwise::numerics {
namespace {

using test::HostTensor;
using Integers = std::vector<std::int64_t>;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr std::int64_t kHeads = 4, kKvHeads = 2, kHeadDim = 20, kHeadDimV = 13;

// How sequences lie in memory. Keys begin[b], begin[b] + 1, ... of sequence b are in use.
struct Layout {
  std::string name;
  Integers q, kv, begin;       // queries and keys in use of each sequence, and where these begin
  bool varlen = false;         // cu_seqlens_q, and cu_seqlens_kv unless paged
  std::int64_t page_size = 0;  // block_table
  bool lengths = false, starts = false;
  [[nodiscard]] std::int64_t batch() const { return static_cast<std::int64_t>(q.size()); }
  [[nodiscard]] std::int64_t place(std::int64_t b) const { return begin[static_cast<std::size_t>(b)]; }
  [[nodiscard]] std::int64_t keys(std::int64_t b) const { return kv[static_cast<std::size_t>(b)]; }
  [[nodiscard]] std::int64_t queries(std::int64_t b) const { return q[static_cast<std::size_t>(b)]; }
};

// What else a call asks for.
struct Setting {
  std::string name;
  AttentionOptions options;
  bool scores = false;  // softcap, ALiBi and sinks
  bool bias = false, mask = false;
};

std::vector<Setting> settings() {
  return {{.name = "plain", .options = {}},
          {.name = "causal", .options = {.causal = true, .align = Align::bottom_right}},
          {.name = "window", .options = {.align = Align::bottom_right, .window_left = 9, .window_right = 4}},
          {.name = "scores",
           .options = {.causal = true, .align = Align::bottom_right, .softcap = 3},
           .scores = true},
          {.name = "bias", .options = {}, .bias = true},
          {.name = "bias and mask",
           .options = {.causal = true, .align = Align::bottom_right},
           .bias = true,
           .mask = true}};
}

bool has(const FeatureSet& f, const Setting& s, const Layout& l) {
  const bool window = s.options.window_left >= 0 || s.options.window_right >= 0;
  return (!window || f.window) && (!s.scores || (f.softcap && f.alibi && f.sinks)) && (!s.bias || f.bias) &&
         (!s.mask || f.mask) && (!l.varlen || f.varlen) && (l.page_size == 0 || f.paged) &&
         (!(l.lengths || l.starts) || f.lengths);
}

std::int64_t largest(const Integers& values) { return *std::max_element(values.begin(), values.end()); }
std::int64_t total(const Integers& values) { return std::accumulate(values.begin(), values.end(), 0LL); }

// Moves a view along an axis.
TensorView moved(TensorView view, int axis, std::int64_t by, std::int64_t extent) {
  const auto a = static_cast<std::size_t>(axis);
  view.data = view.as<std::byte>() + by * view.stride[a] * static_cast<std::int64_t>(size_of(view.dtype));
  view.shape[a] = extent;
  return view;
}

// Values of all sequences in plain tensors, and the same laid out.
class SequenceCase {
 public:
  SequenceCase(DType dtype, const Layout& layout, const Setting& setting)
      : dtype_(dtype), layout_(layout), setting_(setting), room_(room()) {
    const std::int64_t batch = layout.batch(), queries = largest(layout.q), keys = largest(layout.kv);
    q_ = normal({batch, queries, kHeads, kHeadDim});
    k_ = normal({batch, keys, kKvHeads, kHeadDim});
    v_ = normal({batch, keys, kKvHeads, kHeadDimV});
    // By place in the layout, NaN where no key is in use.
    bias_ = scores(DType::f32, false);
    mask_ = scores(dtype, true);
    for (std::int64_t i = 0; i < batch * kHeads; ++i) slopes_.push_back(0.05F * static_cast<float>(i + 1));
    for (std::int64_t i = 0; i < kHeads; ++i) sinks_.push_back(static_cast<float>(i) - 1);
    lay_out();
  }

  [[nodiscard]] AttentionArgs together() const { return together_; }
  [[nodiscard]] AttentionOptions options() const {
    AttentionOptions options = setting_.options;
    options.page_size = layout_.page_size;
    return options;
  }

  // Of sequence b alone, on plain tensors.
  [[nodiscard]] AttentionArgs alone(std::int64_t b) const {
    const std::int64_t queries = layout_.queries(b), keys = layout_.keys(b), place = layout_.place(b);
    const auto part = [&](const HostTensor& t, std::int64_t extent) {
      return moved(moved(t.view, 0, b, 1), 1, 0, extent);
    };
    AttentionArgs args{
        .q = part(*q_, queries),
        .k = part(*k_, keys),
        .v = part(*v_, keys),
        .out = moved(moved(out_alone_->view, 0, b, 1), 1, 0, queries),
        .lse = contiguous(lse_alone_.data() + b * kHeads * largest(layout_.q), {1, kHeads, queries})};
    const auto score_part = [&](const HostTensor& t) {
      return moved(moved(moved(t.view, 0, b, 1), 2, 0, queries), 3, place, keys);
    };
    if (setting_.bias) args.bias = score_part(*bias_);
    if (setting_.mask) args.mask = score_part(*mask_);
    if (setting_.scores) {
      args.alibi_slopes = contiguous(slopes_.data() + b * kHeads, {1, kHeads});
      args.sinks = contiguous(sinks_.data(), {kHeads});
    }
    return args;
  }

  // Bits of the rows of sequence b, [query][head]: out, then lse.
  [[nodiscard]] std::vector<std::byte> bits(const AttentionArgs& args, std::int64_t b) const {
    const bool packed = args.cu_seqlens_q.present();
    const std::int64_t item = packed || args.out.shape[0] == 1 ? 0 : b;
    const std::int64_t row = packed ? cu_q_[static_cast<std::size_t>(b)] : 0;
    std::vector<std::byte> found;
    for (std::int64_t i = row; i < row + layout_.queries(b); ++i) {
      for (std::int64_t h = 0; h < kHeads; ++h) {
        const auto size = static_cast<std::int64_t>(size_of(dtype_));
        const auto* out =
            args.out.as<const std::byte>() +
            (item * args.out.stride[0] + i * args.out.stride[1] + h * args.out.stride[2]) * size;
        found.insert(found.end(), out, out + kHeadDimV * size);
        const auto* lse =
            reinterpret_cast<const std::byte*>(args.lse.as<const float>() + item * args.lse.stride[0] +
                                               h * args.lse.stride[1] + i * args.lse.stride[2]);
        found.insert(found.end(), lse, lse + sizeof(float));
      }
    }
    return found;
  }
  void poison() {
    for (const auto* t : {out_.get(), out_alone_.get()})
      std::memset(t->view.data, 0xFF, t->memory.size() * sizeof(double));
    std::fill(lse_.begin(), lse_.end(), std::numeric_limits<float>::quiet_NaN());
    std::fill(lse_alone_.begin(), lse_alone_.end(), std::numeric_limits<float>::quiet_NaN());
  }

 private:
  using Shape = std::array<std::int64_t, 4>;
  std::unique_ptr<HostTensor> filled(DType dtype, Shape shape, double value) {
    auto made = std::make_unique<HostTensor>(dtype, shape);
    made->fill([&](auto...) { return value; });
    return made;
  }
  std::unique_ptr<HostTensor> normal(Shape shape) {
    auto made = std::make_unique<HostTensor>(dtype_, shape);
    made->fill_normal(generator_);
    return made;
  }

  // Keys that each sequence has room for.
  [[nodiscard]] std::int64_t room() const {
    std::int64_t last = 0;
    for (std::int64_t b = 0; b < layout_.batch(); ++b)
      last = std::max(last, layout_.place(b) + layout_.keys(b));
    if (layout_.lengths) last += 5;  // slots behind the longest too
    if (layout_.page_size == 0) return last;
    return (last + layout_.page_size - 1) / layout_.page_size * layout_.page_size;
  }

  std::unique_ptr<HostTensor> scores(DType dtype, bool hides) {
    auto made =
        std::make_unique<HostTensor>(dtype, Shape{layout_.batch(), kHeads, largest(layout_.q), room_});
    std::normal_distribution<double> value;
    made->fill([&](std::int64_t b, auto, std::int64_t i, std::int64_t j) {
      const bool used = j >= layout_.place(b) && j < layout_.place(b) + layout_.keys(b);
      if (!used || i >= layout_.queries(b)) return kNaN;
      return hides && generator_() % 4 == 0 ? -std::numeric_limits<double>::infinity() : value(generator_);
    });
    return made;
  }

  static void copy_row(const HostTensor& from, std::int64_t b, std::int64_t i, HostTensor& to,
                       std::int64_t item, std::int64_t row) {
    for (std::int64_t h = 0; h < from.view.shape[2]; ++h) {
      for (std::int64_t d = 0; d < from.view.shape[3]; ++d) to.set(item, row, h, d, from.get(b, i, h, d));
    }
  }

  void lay_out() {
    const std::int64_t batch = layout_.batch(), longest = largest(layout_.q);
    const Shape rows =
        layout_.varlen ? Shape{1, total(layout_.q), kHeads, 0} : Shape{batch, longest, kHeads, 0};
    const auto with = [](Shape shape, std::int64_t channels) {
      shape[3] = channels;
      return shape;
    };
    packed_q_ = filled(dtype_, with(rows, kHeadDim), kNaN);
    out_ = filled(dtype_, with(rows, kHeadDimV), kNaN);
    out_alone_ = filled(dtype_, {batch, longest, kHeads, kHeadDimV}, kNaN);
    lse_.resize(static_cast<std::size_t>(rows[0] * rows[1] * kHeads));
    lse_alone_.resize(static_cast<std::size_t>(batch * longest * kHeads));
    cu_q_ = cu_kv_ = {0};
    for (std::int64_t b = 0; b < batch; ++b) {
      for (std::int64_t i = 0; i < layout_.queries(b); ++i)
        copy_row(*q_, b, i, *packed_q_, layout_.varlen ? 0 : b, layout_.varlen ? cu_q_.back() + i : i);
      cu_q_.push_back(static_cast<std::int32_t>(cu_q_.back() + layout_.queries(b)));
      cu_kv_.push_back(static_cast<std::int32_t>(cu_kv_.back() + layout_.keys(b)));
      starts_.push_back(static_cast<std::int32_t>(layout_.place(b)));
      ends_.push_back(static_cast<std::int32_t>(layout_.place(b) + layout_.keys(b)));
    }
    together_.q = packed_q_->view;
    together_.out = out_->view;
    together_.lse = contiguous(lse_.data(), {rows[0], kHeads, rows[1]});
    if (layout_.varlen) together_.cu_seqlens_q = contiguous(cu_q_.data(), {batch + 1});
    if (layout_.lengths) together_.lengths_kv = contiguous(ends_.data(), {batch});
    if (layout_.starts) together_.starts_kv = contiguous(starts_.data(), {batch});
    lay_out_keys();
    if (setting_.bias) together_.bias = bias_->view;
    if (setting_.mask) together_.mask = mask_->view;
    if (setting_.scores) {
      together_.alibi_slopes = contiguous(slopes_.data(), {batch, kHeads});
      together_.sinks = contiguous(sinks_.data(), {kHeads});
    }
  }

  void lay_out_keys() {
    const std::int64_t batch = layout_.batch(), page = layout_.page_size;
    const std::int64_t places = page > 0 ? room_ / page : 0;
    std::array<std::int64_t, 2> sizes{batch, room_};
    if (page > 0) {
      sizes = {batch * places + 2, page};
    } else if (layout_.varlen) {
      sizes = {1, total(layout_.kv)};
      together_.cu_seqlens_kv = contiguous(cu_kv_.data(), {batch + 1});
    }
    packed_k_ = filled(dtype_, {sizes[0], sizes[1], kKvHeads, kHeadDim}, kNaN);
    packed_v_ = filled(dtype_, {sizes[0], sizes[1], kKvHeads, kHeadDimV}, kNaN);
    table_.assign(static_cast<std::size_t>(batch * places), -7);  // what is not in use may hold anything
    for (std::int64_t b = 0; b < batch; ++b) {
      for (std::int64_t j = 0; j < layout_.keys(b); ++j) {
        const std::int64_t place = layout_.place(b) + j;
        std::int64_t item = b, row = place;
        if (page > 0) {
          const std::int64_t entry = b * places + place / page;
          item = batch * places - entry;  // pages of a sequence lie from the last to the first
          row = place % page;
          table_[static_cast<std::size_t>(entry)] = static_cast<std::int32_t>(item);
        } else if (layout_.varlen) {
          item = 0;
          row = cu_kv_[static_cast<std::size_t>(b)] + j;
        }
        copy_row(*k_, b, j, *packed_k_, item, row);
        copy_row(*v_, b, j, *packed_v_, item, row);
      }
    }
    together_.k = packed_k_->view;
    together_.v = packed_v_->view;
    if (page > 0) together_.block_table = contiguous(table_.data(), {batch, places});
  }

  DType dtype_;
  Layout layout_;
  Setting setting_;
  std::int64_t room_;
  std::mt19937_64 generator_{7};
  std::unique_ptr<HostTensor> q_, k_, v_, bias_, mask_, out_alone_;
  std::unique_ptr<HostTensor> packed_q_, packed_k_, packed_v_, out_;
  std::vector<float> slopes_, sinks_, lse_;
  mutable std::vector<float> lse_alone_;
  std::vector<std::int32_t> cu_q_, cu_kv_, starts_, ends_, table_;
  AttentionArgs together_{};
};

class SequencesOfKernels : public testing::TestWithParam<KernelInfo> {
 protected:
  void SetUp() override {
    if (const std::string why = cannot_run_here(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }

  static void expect_ran(const AttentionArgs& args, const AttentionProblem& problem) {
    const Result<Plan> made = plan(problem, {}, GetParam().id);
    ASSERT_TRUE(made.ok()) << made.status().message();
    const Status status = run(*made, args);
    ASSERT_TRUE(status.ok()) << status.message();
  }

  static void compare(const Layout& layout, const Setting& setting) {
    SCOPED_TRACE(layout.name + ", " + setting.name);
    SequenceCase c(GetParam().traits.dtype, layout, setting);
    c.poison();
    AttentionProblem problem = check(make_problem(c.together(), c.options()));
    problem.threads = 2;
    expect_ran(c.together(), problem);
    std::vector<std::vector<std::byte>> bits;
    for (std::int64_t b = 0; b < layout.batch(); ++b) {
      bits.push_back(c.bits(c.together(), b));
      AttentionProblem one = check(make_problem(c.alone(b), setting.options));
      one.threads = 1;
      expect_ran(c.alone(b), one);
      EXPECT_EQ(bits.back(), c.bits(c.alone(b), b)) << "sequence " << b;
    }
    // A plan for larger sizes gives the same.
    c.poison();
    problem.batch += 1;
    problem.seq_q += 3;
    problem.seq_kv += 100;
    problem.total_q += layout.varlen ? 11 : 0;
    problem.total_kv += layout.varlen && layout.page_size == 0 ? 12 : 0;
    problem.pages += layout.page_size > 0 ? 5 : 0;
    expect_ran(c.together(), problem);
    for (std::int64_t b = 0; b < layout.batch(); ++b)
      EXPECT_EQ(c.bits(c.together(), b), bits[static_cast<std::size_t>(b)]) << "sequence " << b;
  }

  static void compare_all(const Layout& layout) {
    if (!has(GetParam().features, {}, layout)) GTEST_SKIP() << GetParam().id << " has no " << layout.name;
    for (const Setting& setting : settings()) {
      if (has(GetParam().features, setting, layout)) compare(layout, setting);
    }
  }
};

TEST_P(SequencesOfKernels, PackedOnesAreTheSameAlone) {
  compare_all({.name = "varlen",
               .q = {3, 0, 17, 1, 70, 5},
               .kv = {3, 4, 40, 0, 70, 600},
               .begin = {0, 0, 0, 0, 0, 0},
               .varlen = true});
}

TEST_P(SequencesOfKernels, ShorterOnesAreTheSameAlone) {
  compare_all({.name = "lengths",
               .q = {19, 19, 19, 19},
               .kv = {25, 0, 600, 1},
               .begin = {0, 0, 0, 0},
               .lengths = true});
}

TEST_P(SequencesOfKernels, LeftPaddedOnesAreTheSameAlone) {
  compare_all({.name = "starts",
               .q = {5, 5, 5, 5},
               .kv = {30, 0, 513, 599},
               .begin = {570, 600, 87, 1},
               .starts = true});
  compare_all({.name = "starts and lengths",
               .q = {5, 5, 5},
               .kv = {30, 0, 513},
               .begin = {17, 3, 60},
               .lengths = true,
               .starts = true});
}

TEST_P(SequencesOfKernels, PagedOnesAreTheSameAlone) {
  for (const std::int64_t page_size : {1, 3, 16, 64}) {
    const std::string pages = "paged by " + std::to_string(page_size);
    compare_all({.name = pages,
                 .q = {9, 9, 9, 9},
                 .kv = {64, 7, 530, 0},
                 .begin = {0, 0, 0, 0},
                 .page_size = page_size,
                 .lengths = true});
    compare_all({.name = pages + ", starts",
                 .q = {9, 9, 9},
                 .kv = {64, 7, 130},
                 .begin = {70, 65, 3},
                 .page_size = page_size,
                 .lengths = true,
                 .starts = true});
    compare_all({.name = pages + ", varlen",
                 .q = {9, 1, 0, 33},
                 .kv = {64, 70, 5, 129},
                 .begin = {0, 0, 0, 0},
                 .varlen = true,
                 .page_size = page_size,
                 .lengths = true});
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, SequencesOfKernels, testing::ValuesIn(forward_kernels()),
                         [](const testing::TestParamInfo<KernelInfo>& info) {
                           return test_name(info.param.id);
                         });

}  // namespace
}  // namespace headwise::numerics
