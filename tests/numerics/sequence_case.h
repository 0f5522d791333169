// Sequences as plain tensors, each alone, and the same laid out in memory in every way that Headwise takes:
// packed, paged, cut short, padded. Whatever is not in use holds NaN.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "headwise/headwise.h"
#include "support/host_tensor.h"

namespace headwise::numerics {

using test::HostTensor;
using Integers = std::vector<std::int64_t>;

inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
inline constexpr std::int64_t kHeads = 4, kKvHeads = 2, kHeadDim = 20, kHeadDimV = 13;

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

inline std::vector<Setting> settings() {
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

inline bool has(const FeatureSet& f, const Setting& s, const Layout& l) {
  const bool window = s.options.window_left >= 0 || s.options.window_right >= 0;
  return (!window || f.window) && (!s.scores || (f.softcap && f.alibi && f.sinks)) && (!s.bias || f.bias) &&
         (!s.mask || f.mask) && (!l.varlen || f.varlen) && (l.page_size == 0 || f.paged) &&
         (!(l.lengths || l.starts) || f.lengths);
}

inline std::int64_t largest(const Integers& values) {
  return *std::max_element(values.begin(), values.end());
}
inline std::int64_t total(const Integers& values) {
  return std::accumulate(values.begin(), values.end(), 0LL);
}

// Moves a view along an axis.
inline TensorView moved(TensorView view, int axis, std::int64_t by, std::int64_t extent) {
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
    dout_ = normal({batch, queries, kHeads, kHeadDimV});
    out_alone_ = filled(dtype, dout_->view.shape, kNaN);
    lse_alone_.resize(static_cast<std::size_t>(batch * kHeads * queries));
    dq_alone_ = filled(dtype, q_->view.shape, kNaN);
    dk_alone_ = filled(dtype, k_->view.shape, kNaN);
    dv_alone_ = filled(dtype, v_->view.shape, kNaN);
    dbias_ = filled(bias_->view.dtype, bias_->view.shape, kNaN);
    dbias_alone_ = filled(bias_->view.dtype, bias_->view.shape, kNaN);
    dsinks_.resize(kHeads);
    dsinks_alone_.resize(static_cast<std::size_t>(batch * kHeads));
    lay_out();
  }

  [[nodiscard]] const Layout& layout() const { return layout_; }
  [[nodiscard]] AttentionOptions options() const {
    AttentionOptions options = setting_.options;
    options.page_size = layout_.page_size;
    return options;
  }
  [[nodiscard]] AttentionArgs together() const { return together_; }
  // The same with gradients.
  [[nodiscard]] AttentionArgs together_backward() const {
    AttentionArgs args = together_;
    args.dout = packed_dout_->view;
    args.dq = dq_->view;
    args.dk = dk_->view;
    args.dv = dv_->view;
    if (setting_.bias) args.dbias = dbias_->view;
    if (setting_.scores) args.dsinks = contiguous(dsinks_.data(), {kHeads});
    return args;
  }

  // Of sequence b alone, on plain tensors.
  [[nodiscard]] AttentionArgs alone(std::int64_t b) const {
    const std::int64_t queries = layout_.queries(b), keys = layout_.keys(b);
    const float* lse = lse_alone_.data() + b * kHeads * largest(layout_.q);
    AttentionArgs args{.q = part(*q_, b, queries),
                       .k = part(*k_, b, keys),
                       .v = part(*v_, b, keys),
                       .out = part(*out_alone_, b, queries),
                       .lse = contiguous(lse, {1, kHeads, queries})};
    if (setting_.bias) args.bias = score_part(*bias_, b);
    if (setting_.mask) args.mask = score_part(*mask_, b);
    if (setting_.scores) {
      args.alibi_slopes = contiguous(slopes_.data() + b * kHeads, {1, kHeads});
      args.sinks = contiguous(sinks_.data(), {kHeads});
    }
    return args;
  }
  [[nodiscard]] AttentionArgs alone_backward(std::int64_t b) const {
    AttentionArgs args = alone(b);
    args.dout = part(*dout_, b, layout_.queries(b));
    args.dq = part(*dq_alone_, b, layout_.queries(b));
    args.dk = part(*dk_alone_, b, layout_.keys(b));
    args.dv = part(*dv_alone_, b, layout_.keys(b));
    if (setting_.bias) args.dbias = score_part(*dbias_alone_, b);
    if (setting_.scores) args.dsinks = contiguous(dsinks_alone_.data() + b * kHeads, {kHeads});
    return args;
  }

  // Bits of the rows of sequence b in out, and in lse.
  [[nodiscard]] std::vector<std::byte> bits(const AttentionArgs& args, std::int64_t b) const {
    std::vector<std::byte> found = query_bits(args, args.out, b);
    const auto [item, row] = first_query(args, b);
    for (std::int64_t i = row; i < row + layout_.queries(b); ++i) {
      for (std::int64_t h = 0; h < kHeads; ++h)
        append(args.lse, item * args.lse.stride[0] + h * args.lse.stride[1] + i * args.lse.stride[2], 1,
               found);
    }
    return found;
  }
  // In dq.
  [[nodiscard]] std::vector<std::byte> dq_bits(const AttentionArgs& args, std::int64_t b) const {
    return query_bits(args, args.dq, b);
  }
  // In dk and dv.
  [[nodiscard]] std::vector<std::byte> key_bits(const AttentionArgs& args, std::int64_t b) const {
    std::vector<std::byte> found;
    for (std::int64_t j = 0; j < layout_.keys(b); ++j) {
      const auto [item, row] = args.q.data == together_.q.data ? key_slot(b, j) : Slot{0, j};
      for (const TensorView& t : {args.dk, args.dv})
        append(t, item * t.stride[0] + row * t.stride[1], kKvHeads * t.shape[3], found);
    }
    return found;
  }
  // In dbias.
  [[nodiscard]] std::vector<std::byte> dbias_bits(const AttentionArgs& args, std::int64_t b) const {
    const bool all = args.q.data == together_.q.data;
    std::vector<std::byte> found;
    for (std::int64_t h = 0; h < kHeads; ++h) {
      for (std::int64_t i = 0; i < layout_.queries(b); ++i) {
        const TensorView& t = args.dbias;
        append(t, (all ? b * t.stride[0] + layout_.place(b) : 0) + h * t.stride[1] + i * t.stride[2],
               layout_.keys(b), found);
      }
    }
    return found;
  }
  // Which rows of dk and dv, [item][row], hold a key in use.
  [[nodiscard]] std::vector<std::vector<bool>> slots_in_use() const {
    const auto& shape = together_.k.shape;
    std::vector<std::vector<bool>> used(static_cast<std::size_t>(shape[0]),
                                        std::vector<bool>(static_cast<std::size_t>(shape[1]), false));
    for (std::int64_t b = 0; b < layout_.batch(); ++b) {
      for (std::int64_t j = 0; j < layout_.keys(b); ++j) {
        const auto [item, row] = key_slot(b, j);
        used[static_cast<std::size_t>(item)][static_cast<std::size_t>(row)] = true;
      }
    }
    return used;
  }
  void poison_outputs() {
    for (const auto* t : {out_.get(), out_alone_.get()}) poison(*t);
    for (auto* values : {&lse_, &lse_alone_})
      std::fill(values->begin(), values->end(), std::numeric_limits<float>::quiet_NaN());
  }
  void poison_gradients() {
    for (const auto* t : {dq_.get(), dk_.get(), dv_.get(), dbias_.get(), dq_alone_.get(), dk_alone_.get(),
                          dv_alone_.get(), dbias_alone_.get()})
      poison(*t);
    for (auto* values : {&dsinks_, &dsinks_alone_})
      std::fill(values->begin(), values->end(), std::numeric_limits<float>::quiet_NaN());
  }

 private:
  struct Slot {
    std::int64_t item, row;
  };
  using Shape = std::array<std::int64_t, 4>;

  static void poison(const HostTensor& t) {
    std::memset(t.view.data, 0xFF, t.memory.size() * sizeof(double));
  }
  // Rows of sequence b in a plain tensor.
  static TensorView part(const HostTensor& t, std::int64_t b, std::int64_t extent) {
    return moved(moved(t.view, 0, b, 1), 1, 0, extent);
  }
  [[nodiscard]] TensorView score_part(const HostTensor& t, std::int64_t b) const {
    return moved(moved(moved(t.view, 0, b, 1), 2, 0, layout_.queries(b)), 3, layout_.place(b),
                 layout_.keys(b));
  }
  static void append(const TensorView& t, std::int64_t at, std::int64_t count, std::vector<std::byte>& to) {
    const auto size = static_cast<std::int64_t>(size_of(t.dtype));
    const auto* from = t.as<const std::byte>() + at * size;
    to.insert(to.end(), from, from + count * size);
  }
  [[nodiscard]] Slot first_query(const AttentionArgs& args, std::int64_t b) const {
    if (args.q.data != together_.q.data) return {0, 0};
    return layout_.varlen ? Slot{0, cu_q_[static_cast<std::size_t>(b)]} : Slot{b, 0};
  }
  [[nodiscard]] std::vector<std::byte> query_bits(const AttentionArgs& args, const TensorView& t,
                                                  std::int64_t b) const {
    std::vector<std::byte> found;
    const auto [item, row] = first_query(args, b);
    for (std::int64_t i = row; i < row + layout_.queries(b); ++i)
      append(t, item * t.stride[0] + i * t.stride[1], kHeads * t.shape[3], found);
    return found;
  }
  // Where key j of those in use of sequence b lies.
  [[nodiscard]] Slot key_slot(std::int64_t b, std::int64_t j) const {
    const std::int64_t place = layout_.place(b) + j, page = layout_.page_size;
    if (page > 0) {  // pages of all sequences lie from the last to the first
      const std::int64_t places = room_ / page;
      return {layout_.batch() * places - (b * places + place / page), place % page};
    }
    return layout_.varlen ? Slot{0, cu_kv_[static_cast<std::size_t>(b)] + j} : Slot{b, place};
  }
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
    const std::int64_t items = layout_.varlen ? 1 : batch, rows = layout_.varlen ? total(layout_.q) : longest;
    cu_q_ = cu_kv_ = {0};
    for (std::int64_t b = 0; b < batch; ++b) {
      cu_q_.push_back(static_cast<std::int32_t>(cu_q_.back() + layout_.queries(b)));
      cu_kv_.push_back(static_cast<std::int32_t>(cu_kv_.back() + layout_.keys(b)));
      starts_.push_back(static_cast<std::int32_t>(layout_.place(b)));
      ends_.push_back(static_cast<std::int32_t>(layout_.place(b) + layout_.keys(b)));
    }
    packed_q_ = filled(dtype_, {items, rows, kHeads, kHeadDim}, kNaN);
    dq_ = filled(dtype_, packed_q_->view.shape, kNaN);
    out_ = filled(dtype_, {items, rows, kHeads, kHeadDimV}, kNaN);
    packed_dout_ = filled(dtype_, out_->view.shape, kNaN);
    lse_.resize(static_cast<std::size_t>(items * rows * kHeads));
    together_.q = packed_q_->view;
    for (std::int64_t b = 0; b < batch; ++b) {
      const auto [item, row] = first_query(together_, b);
      for (std::int64_t i = 0; i < layout_.queries(b); ++i) {
        copy_row(*q_, b, i, *packed_q_, item, row + i);
        copy_row(*dout_, b, i, *packed_dout_, item, row + i);
      }
    }
    together_.out = out_->view;
    together_.lse = contiguous(lse_.data(), {items, kHeads, rows});
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
      sizes = {batch * places + 2, page};  // the first and the last are nobody's
    } else if (layout_.varlen) {
      sizes = {1, total(layout_.kv)};
      together_.cu_seqlens_kv = contiguous(cu_kv_.data(), {batch + 1});
    }
    packed_k_ = filled(dtype_, {sizes[0], sizes[1], kKvHeads, kHeadDim}, kNaN);
    packed_v_ = filled(dtype_, {sizes[0], sizes[1], kKvHeads, kHeadDimV}, kNaN);
    dk_ = filled(dtype_, packed_k_->view.shape, kNaN);
    dv_ = filled(dtype_, packed_v_->view.shape, kNaN);
    table_.assign(static_cast<std::size_t>(batch * places), -7);  // what is not in use may hold anything
    for (std::int64_t b = 0; b < batch; ++b) {
      for (std::int64_t j = 0; j < layout_.keys(b); ++j) {
        const auto [item, row] = key_slot(b, j);
        if (page > 0)
          table_[static_cast<std::size_t>(b * places + (layout_.place(b) + j) / page)] =
              static_cast<std::int32_t>(item);
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
  std::unique_ptr<HostTensor> q_, k_, v_, bias_, mask_, dout_;
  std::unique_ptr<HostTensor> out_alone_, dq_alone_, dk_alone_, dv_alone_, dbias_alone_;
  std::unique_ptr<HostTensor> packed_q_, packed_k_, packed_v_, packed_dout_, out_, dq_, dk_, dv_, dbias_;
  std::vector<float> slopes_, sinks_, lse_, lse_alone_, dsinks_, dsinks_alone_;
  std::vector<std::int32_t> cu_q_, cu_kv_, starts_, ends_, table_;
  AttentionArgs together_{};
};

}  // namespace headwise::numerics
