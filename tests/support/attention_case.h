// A problem with host tensors for all it names: what the oracle's tests compute on.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "oracle/oracle.h"
#include "support/host_tensor.h"

namespace headwise::test {

inline std::vector<oracle::RowId> all_rows(const AttentionProblem& p) {
  std::vector<oracle::RowId> rows;
  for (std::int64_t b = 0; b < p.batch; ++b) {
    for (std::int64_t h = 0; h < p.heads; ++h) {
      for (std::int64_t i = 0; i < p.seq_q; ++i) rows.push_back({b, h, i});
    }
  }
  return rows;
}

inline AttentionProblem sizes(std::int64_t batch, std::int64_t heads, std::int64_t kv_heads,
                              std::int64_t seq_q, std::int64_t seq_kv, std::int64_t head_dim,
                              std::int64_t head_dim_v) {
  return {.dtype = DType::f64,
          .kv_dtype = DType::f64,
          .batch = batch,
          .heads = heads,
          .kv_heads = kv_heads,
          .seq_q = seq_q,
          .seq_kv = seq_kv,
          .head_dim = head_dim,
          .head_dim_v = head_dim_v};
}

// q, k, v of a problem, and whatever optional tensors it names.
struct AttentionCase {
  AttentionProblem p;
  std::unique_ptr<HostTensor> q, k, v, bias, mask;
  std::unique_ptr<HostTensor> dout;  // direction backward
  std::vector<float> slopes, sinks;
  std::vector<unsigned char> boolean;
  AttentionArgs args;

  explicit AttentionCase(const AttentionProblem& problem, bool scattered = false, std::uint64_t seed = 1)
      : p(problem) {
    std::mt19937_64 generator(seed);
    const auto tensor = [&](DType dtype, std::array<std::int64_t, 4> shape) {
      auto made = std::make_unique<HostTensor>(dtype, shape, scattered);
      made->fill_normal(generator);
      return made;
    };
    q = tensor(p.dtype, {p.batch, p.seq_q, p.heads, p.head_dim});
    k = tensor(p.kv_dtype, {p.batch, p.seq_kv, p.kv_heads, p.head_dim});
    v = tensor(p.kv_dtype, {p.batch, p.seq_kv, p.kv_heads, p.head_dim_v});
    args = {.q = q->view, .k = k->view, .v = v->view, .out = {}};
    if (p.direction == Direction::backward)
      args.dout = (dout = tensor(p.dtype, {p.batch, p.seq_q, p.heads, p.head_dim_v}))->view;
    if (p.bias) args.bias = (bias = tensor(DType::f32, {1, p.heads, p.seq_q, p.seq_kv}))->view;
    if (p.mask == MaskKind::additive) {
      mask = tensor(DType::f32, {p.batch, 1, p.seq_q, p.seq_kv});
      mask->fill([&](auto, auto, auto, auto) {
        return generator() % 3 == 0 ? -std::numeric_limits<double>::infinity() : 0.5;
      });
      args.mask = mask->view;
    }
    if (p.mask == MaskKind::boolean) {
      boolean.resize(static_cast<std::size_t>(p.batch * p.seq_kv));
      for (auto& value : boolean) value = generator() % 4 != 0;
      args.mask = contiguous(boolean.data(), DType::boolean, {p.batch, 1, 1, p.seq_kv});
    }
    if (p.alibi != AlibiKind::none) {
      const bool each = p.alibi == AlibiKind::per_batch_head;
      for (std::int64_t i = 0; i < (each ? p.batch : 1) * p.heads; ++i)
        slopes.push_back(0.1F * static_cast<float>(i + 1));
      args.alibi_slopes =
          each ? contiguous(slopes.data(), {p.batch, p.heads}) : contiguous(slopes.data(), {p.heads});
    }
    if (p.sinks) {
      for (std::int64_t i = 0; i < p.heads; ++i) sinks.push_back(static_cast<float>(i) - 0.5F);
      args.sinks = contiguous(sinks.data(), {p.heads});
    }
  }
};

}  // namespace headwise::test
