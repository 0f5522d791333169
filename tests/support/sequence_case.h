// Sequences of different lengths in every layout that attention knows, and each of them apart as plain
// tensors. All memory that holds no key in use is NaN.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "oracle/oracle.h"
#include "support/host_tensor.h"

namespace headwise::test {

enum class Layout : std::uint8_t { batch, packed, paged, packed_paged };
inline constexpr Layout kLayouts[] = {Layout::batch, Layout::packed, Layout::paged, Layout::packed_paged};

// Queries, and keys in use [begin, end).
struct SequenceSizes {
  std::int64_t queries = 0, begin = 0, end = 0;
};

struct SequenceCase {
  static constexpr double kInf = std::numeric_limits<double>::infinity();
  static constexpr std::int64_t kPageSize = 4;

  AttentionProblem p;
  std::vector<SequenceSizes> sequences;
  std::unique_ptr<HostTensor> q, k, v, dout, bias, mask;
  std::vector<float> slopes, sinks;
  std::vector<unsigned char> boolean;
  std::vector<std::int32_t> cu_q{0}, cu_kv{0}, lengths, starts, table;
  AttentionArgs args;

  // Takes heads, channels and features from `problem`; bias and an additive mask are of dtype `scores`, the
  // last axis of a mask has `mask_keys` (0: all).
  SequenceCase(const AttentionProblem& problem, Layout layout, std::vector<SequenceSizes> all,
               DType scores = DType::f64, std::int64_t mask_keys = 0)
      : p(problem), sequences(std::move(all)) {
    p.batch = static_cast<std::int64_t>(sequences.size());
    p.seq_q = p.seq_kv = 0;
    for (const SequenceSizes& s : sequences) {
      cu_q.push_back(cu_q.back() + static_cast<std::int32_t>(s.queries));
      cu_kv.push_back(cu_kv.back() + static_cast<std::int32_t>(s.end));
      p.seq_q = std::max(p.seq_q, s.queries);
      p.seq_kv = std::max(p.seq_kv, s.end);
    }
    p.varlen = layout == Layout::packed || layout == Layout::packed_paged;
    if (layout != Layout::packed) lay_out_keys(layout != Layout::batch);
    lay_out_tensors();
    add_score_features(scores, mask_keys);
  }

  // Item and row of q, and of k, of a place within a sequence.
  [[nodiscard]] std::pair<std::int64_t, std::int64_t> at_query(std::int64_t b, std::int64_t i) const {
    return p.varlen ? std::pair{std::int64_t{0}, cu_q[static_cast<std::size_t>(b)] + i} : std::pair{b, i};
  }
  [[nodiscard]] std::pair<std::int64_t, std::int64_t> at_key(std::int64_t b, std::int64_t j) const {
    if (p.page_size > 0)
      return {table[static_cast<std::size_t>(b * args.block_table.shape[1] + j / kPageSize)], j % kPageSize};
    return p.varlen ? std::pair{std::int64_t{0}, cu_kv[static_cast<std::size_t>(b)] + j} : std::pair{b, j};
  }

  [[nodiscard]] oracle::GradientRows rows() const {
    oracle::GradientRows rows;
    for (std::int64_t b = 0; b < p.batch; ++b) {
      const SequenceSizes& s = sequences[static_cast<std::size_t>(b)];
      for (std::int64_t h = 0; h < p.heads; ++h) {
        for (std::int64_t i = 0; i < s.queries; ++i) rows.queries.push_back({b, h, i});
      }
      for (std::int64_t h = 0; h < p.kv_heads; ++h) {
        for (std::int64_t j = 0; j < s.end; ++j) rows.keys.push_back({b, h, j});
      }
    }
    return rows;
  }

 private:
  void lay_out_keys(bool paged) {
    p.lengths = p.starts = true;
    for (const SequenceSizes& s : sequences) {
      starts.push_back(static_cast<std::int32_t>(s.begin));
      lengths.push_back(static_cast<std::int32_t>(s.end));
    }
    args.starts_kv = contiguous(starts.data(), {p.batch});
    args.lengths_kv = contiguous(lengths.data(), {p.batch});
    if (!paged) return;
    // Pages in use in an order of their own; all others have numbers so far off that a read there would
    // crash.
    const std::int64_t columns = (p.seq_kv + kPageSize - 1) / kPageSize;
    p.page_size = kPageSize;
    p.pages = p.batch * columns;
    p.seq_kv = columns * kPageSize;
    table.assign(static_cast<std::size_t>(p.pages), -(1 << 30));
    for (std::int64_t b = 0; b < p.batch; ++b) {
      const SequenceSizes& s = sequences[static_cast<std::size_t>(b)];
      for (std::int64_t page = s.begin / kPageSize; page * kPageSize < s.end && s.begin < s.end; ++page) {
        const std::int64_t at = b * columns + page;
        table[static_cast<std::size_t>(at)] = static_cast<std::int32_t>(p.pages - 1 - at);
      }
    }
    args.block_table = contiguous(table.data(), {p.batch, columns});
  }

  void lay_out_tensors() {
    const std::int64_t items = p.varlen ? 1 : p.batch;
    const std::int64_t rows_q = p.varlen ? cu_q.back() : p.seq_q;
    const std::int64_t rows_kv = p.varlen ? cu_kv.back() : p.seq_kv;
    const std::int64_t items_kv = p.page_size > 0 ? p.pages : items;
    const std::int64_t keys = p.page_size > 0 ? kPageSize : rows_kv;
    q = std::make_unique<HostTensor>(p.dtype, std::array{items, rows_q, p.heads, p.head_dim}, true);
    dout = std::make_unique<HostTensor>(p.dtype, std::array{items, rows_q, p.heads, p.head_dim_v});
    k = std::make_unique<HostTensor>(p.kv_dtype, std::array{items_kv, keys, p.kv_heads, p.head_dim}, true);
    v = std::make_unique<HostTensor>(p.kv_dtype, std::array{items_kv, keys, p.kv_heads, p.head_dim_v});
    std::mt19937_64 generator(5);
    std::normal_distribution<double> normal;
    q->fill_normal(generator);
    dout->fill_normal(generator);
    for (auto* tensor : {&k, &v}) {
      (*tensor)->fill([](auto...) { return std::nan(""); });
      for (std::int64_t b = 0; b < p.batch; ++b) {
        const SequenceSizes& s = sequences[static_cast<std::size_t>(b)];
        for (std::int64_t j = s.begin; j < s.end; ++j) {
          const auto [item, row] = at_key(b, j);
          for (std::int64_t h = 0; h < p.kv_heads; ++h) {
            for (std::int64_t c = 0; c < (*tensor)->view.shape[3]; ++c)
              (*tensor)->set(item, row, h, c, normal(generator));
          }
        }
      }
    }
    args.q = q->view, args.k = k->view, args.v = v->view, args.dout = dout->view;
    args.dropout_seed = 0x123456789abcdef;
    args.dropout_offset = 3;
    if (p.varlen) args.cu_seqlens_q = contiguous(cu_q.data(), {p.batch + 1});
    if (p.varlen && p.page_size == 0) args.cu_seqlens_kv = contiguous(cu_kv.data(), {p.batch + 1});
  }

  void add_score_features(DType scores, std::int64_t mask_keys) {
    std::mt19937_64 generator(6);
    const auto shape = [&](std::uint8_t axes, std::int64_t keys) {
      return std::array{(axes & kAxisBatch) != 0 ? p.batch : 1, (axes & kAxisHeads) != 0 ? p.heads : 1,
                        (axes & kAxisQueries) != 0 ? p.seq_q : 1, keys};
    };
    if (p.bias) {
      bias = std::make_unique<HostTensor>(scores, shape(p.bias_axes, p.seq_kv), true);
      bias->fill_normal(generator);
      args.bias = bias->view;
    }
    const std::array<std::int64_t, 4> masked = shape(p.mask_axes, mask_keys > 0 ? mask_keys : p.seq_kv);
    if (p.mask == MaskKind::additive) {
      mask = std::make_unique<HostTensor>(scores, masked);
      mask->fill([&](auto...) { return generator() % 4 == 0 ? -kInf : 0.25 * double(generator() % 5); });
      args.mask = mask->view;
    }
    if (p.mask == MaskKind::boolean) {
      args.mask = contiguous(boolean.data(), DType::boolean, {masked[0], masked[1], masked[2], masked[3]});
      boolean.resize(static_cast<std::size_t>(args.mask.elements()));
      for (auto& value : boolean) value = generator() % 4 != 0;
      args.mask.data = boolean.data();
    }
    if (p.alibi != AlibiKind::none) {
      const bool each = p.alibi == AlibiKind::per_batch_head;
      for (std::int64_t i = 0; i < (each ? p.batch : 1) * p.heads; ++i)
        slopes.push_back(0.05F * static_cast<float>(i + 1));
      args.alibi_slopes =
          each ? contiguous(slopes.data(), {p.batch, p.heads}) : contiguous(slopes.data(), {p.heads});
    }
    if (p.sinks) {
      for (std::int64_t i = 0; i < p.heads; ++i) sinks.push_back(static_cast<float>(i) - 0.5F);
      args.sinks = contiguous(sinks.data(), {p.heads});
    }
  }
};

// One sequence of a case as item b of plain tensors of its size; all other items are 0. Keys before its first
// in use are 0 too, and hidden by a mask, as the case's own mask hides.
struct SequenceApart {
  AttentionProblem p;
  HostTensor q, k, v, dout, bias, mask;
  AttentionArgs args;

  SequenceApart(const SequenceCase& all, std::int64_t b)
      : p(sized(all, b)),
        q(p.dtype, {p.batch, p.seq_q, p.heads, p.head_dim}),
        k(p.kv_dtype, {p.batch, p.seq_kv, p.kv_heads, p.head_dim}),
        v(p.kv_dtype, {p.batch, p.seq_kv, p.kv_heads, p.head_dim_v}),
        dout(p.dtype, {p.batch, p.seq_q, p.heads, p.head_dim_v}),
        bias(DType::f64, {p.batch, p.heads, p.seq_q, p.seq_kv}),
        mask(DType::f64, {p.batch, p.heads, p.seq_q, p.seq_kv}),
        args(all.args) {
    const std::int64_t begin = all.sequences[static_cast<std::size_t>(b)].begin;
    for (auto [from, to] : {std::pair{all.q.get(), &q}, std::pair{all.dout.get(), &dout}}) {
      for (std::int64_t i = 0; i < p.seq_q; ++i) copy_row(*from, all.at_query(b, i), *to, b, i);
    }
    for (auto [from, to] : {std::pair{all.k.get(), &k}, std::pair{all.v.get(), &v}}) {
      for (std::int64_t j = begin; j < p.seq_kv; ++j) copy_row(*from, all.at_key(b, j), *to, b, j);
    }
    if (p.bias) bias.fill([&](auto, auto h, auto i, auto j) { return broadcast(all.args.bias, b, h, i, j); });
    mask.fill([&](auto, auto h, auto i, auto j) {
      const bool hidden = j < begin || (all.p.mask != MaskKind::none && j >= all.args.mask.shape[3]);
      if (hidden) return -SequenceCase::kInf;
      if (all.p.mask == MaskKind::none) return 0.0;
      const double m = broadcast(all.args.mask, b, h, i, j);
      return all.p.mask == MaskKind::additive ? m : (m == 0 ? -SequenceCase::kInf : 0.0);
    });
    args.q = q.view, args.k = k.view, args.v = v.view, args.dout = dout.view, args.mask = mask.view;
    args.bias = p.bias ? bias.view : TensorView{};
    for (TensorView* index :
         {&args.cu_seqlens_q, &args.cu_seqlens_kv, &args.lengths_kv, &args.starts_kv, &args.block_table})
      *index = {};
  }

 private:
  static AttentionProblem sized(const SequenceCase& all, std::int64_t b) {
    AttentionProblem p = all.p;
    const SequenceSizes& s = all.sequences[static_cast<std::size_t>(b)];
    p.seq_q = s.queries;
    p.seq_kv = s.end;
    p.varlen = p.lengths = p.starts = false;
    p.pages = p.page_size = 0;
    p.mask = MaskKind::additive;
    return p;
  }
  static void copy_row(const HostTensor& from, std::pair<std::int64_t, std::int64_t> place, HostTensor& to,
                       std::int64_t b, std::int64_t row) {
    for (std::int64_t h = 0; h < to.view.shape[2]; ++h) {
      for (std::int64_t c = 0; c < to.view.shape[3]; ++c)
        to.set(b, row, h, c, from.get(place.first, place.second, h, c));
    }
  }
  static double broadcast(const TensorView& view, std::int64_t b, std::int64_t h, std::int64_t i,
                          std::int64_t j) {
    const std::int64_t at = (view.shape[0] == 1 ? 0 : b * view.stride[0]) +
                            (view.shape[1] == 1 ? 0 : h * view.stride[1]) +
                            (view.shape[2] == 1 ? 0 : i * view.stride[2]) + j * view.stride[3];
    return view.dtype == DType::boolean ? view.as<const unsigned char>()[at]
                                        : load_element(view.dtype, view.data, at);
  }
};

}  // namespace headwise::test
