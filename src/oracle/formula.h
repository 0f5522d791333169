// One score, one softmax, and the blocked sums they and the gradients are made of: what forward.cpp and
// backward.cpp share.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "oracle/dropout.h"
#include "oracle/oracle.h"
#include "oracle/sequences.h"

namespace headwise::oracle {

inline constexpr std::int64_t kKeyBlock = 32;
inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Element (a, b, c, d) of a view; extents of 1 broadcast.
inline double element(const TensorView& view, std::int64_t a, std::int64_t b, std::int64_t c,
                      std::int64_t d) {
  const std::array<std::int64_t, 4> at{a, b, c, d};
  std::int64_t index = 0;
  for (std::size_t i = 0; i < 4; ++i) index += view.shape[i] == 1 ? 0 : at[i] * view.stride[i];
  if (view.dtype == DType::boolean) return view.as<const unsigned char>()[index] != 0 ? 1 : 0;
  return load_element(view.dtype, view.data, index);
}

template <class T, class Real>
void convert_run(const T* from, std::int64_t step, std::int64_t count, Real* to, std::int64_t to_step) {
  for (std::int64_t i = 0; i < count; ++i) to[i * to_step] = static_cast<Real>(to_double(from[i * step]));
}

// The innermost row that begins at element `at`, as Real, with `step` between the results.
template <class Real>
void convert(const TensorView& view, std::int64_t at, Real* to, std::int64_t step) {
  const std::int64_t n = view.shape[3];
  switch (view.dtype) {
    case DType::f64: return convert_run(view.as<const double>() + at, view.stride[3], n, to, step);
    case DType::f32: return convert_run(view.as<const float>() + at, view.stride[3], n, to, step);
    case DType::f16: return convert_run(view.as<const float16>() + at, view.stride[3], n, to, step);
    case DType::bf16: return convert_run(view.as<const bfloat16>() + at, view.stride[3], n, to, step);
    default: return;  // refused by check_problem()
  }
}

// Keys [begin, end) of one kv head: one after the other, or transposed for dot_block().
template <class Real>
void convert_keys(const TensorView& view, const Sequence& sequence, std::int64_t kv_head, std::int64_t begin,
                  std::int64_t end, bool transposed, Real* to) {
  const std::int64_t next = transposed ? 1 : view.shape[3];
  for (std::int64_t j = begin; j < end; ++j)
    convert(view, sequence.key_at(view, j, kv_head), to + (j - begin) * next, transposed ? kKeyBlock : 1);
}

// out[r][j] = row[r] . key[j] for kRows rows and kKeyBlock keys; keys are transposed, [channels][kKeyBlock].
// Each sum runs over the channels in order.
template <class Real, int kRows>
void dot_rows(const Real* rows, const Real* keys, std::int64_t channels, Real* out) {
  // Spelled out as vectors: left to itself, g++ 12 takes f32 across channels and needs three times as long.
  using Vector [[gnu::vector_size(16)]] = Real;
  constexpr int kLanes = sizeof(Vector) / sizeof(Real);
  for (std::int64_t j = 0; j < kKeyBlock; j += 2 * kLanes) {
    Vector sum[kRows][2] = {};
    for (std::int64_t c = 0; c < channels; ++c) {
      Vector key[2];
      std::memcpy(key, keys + c * kKeyBlock + j, sizeof key);
      for (int r = 0; r < kRows; ++r) {
        const Real row = rows[r * channels + c];
        sum[r][0] += row * key[0];
        sum[r][1] += row * key[1];
      }
    }
    for (int r = 0; r < kRows; ++r) std::memcpy(out + r * kKeyBlock + j, sum[r], sizeof sum[r]);
  }
}

// The same for any number of rows.
template <class Real>
void dot_block(const Real* rows, std::int64_t count, const Real* keys, std::int64_t channels, Real* out) {
  std::int64_t r = 0;
  for (; r + 4 <= count; r += 4) dot_rows<Real, 4>(rows + r * channels, keys, channels, out + r * kKeyBlock);
  for (; r < count; ++r) dot_rows<Real, 1>(rows + r * channels, keys, channels, out + r * kKeyBlock);
}

// A weight of -inf marks what takes no part: its vector is not touched, whatever stands in it.
template <class Real>
bool takes_part(Real weight) {
  return weight != static_cast<Real>(-kInfinity);
}

// sum += weights[i * step] * vectors[i], over i in order, without those whose marks[i * step] take no part.
template <class Real>
void add_weighted(const Real* weights, const Real* marks, std::int64_t step, const Real* vectors,
                  std::int64_t count, std::int64_t channels, Real* __restrict sum) {
  const auto add_one = [&](std::int64_t i) {
    if (!takes_part(marks[i * step])) return;
    for (std::int64_t x = 0; x < channels; ++x) sum[x] += weights[i * step] * vectors[i * channels + x];
  };
  std::int64_t i = 0;
  for (; i + 4 <= count; i += 4) {  // four at once: sum is loaded and stored once, its order stays
    const Real* m = marks + i * step;
    if (takes_part(m[0]) && takes_part(m[step]) && takes_part(m[2 * step]) && takes_part(m[3 * step])) {
      const Real* w = weights + i * step;
      const Real a = w[0], b = w[step], c = w[2 * step], d = w[3 * step];
      const Real* v = vectors + i * channels;
      const Real *va = v, *vb = v + channels, *vc = v + 2 * channels, *vd = v + 3 * channels;
      for (std::int64_t x = 0; x < channels; ++x)
        sum[x] = (((sum[x] + a * va[x]) + b * vb[x]) + c * vc[x]) + d * vd[x];
    } else {
      for (std::int64_t k = i; k < i + 4; ++k) add_one(k);
    }
  }
  for (; i < count; ++i) add_one(i);
}

// Real is what sums are kept in; scores, probabilities and results are rounded to Store: to nearest, ties to
// even, as from_double() does, without its call for each of a row's scores.
template <class Real, class Store>
Real rounded(Real value) {
  if constexpr (std::is_same_v<Real, Store>) {
    return value;
  } else {
    static_assert(std::is_same_v<Real, float>);
    constexpr bool kHalf = std::is_same_v<Store, float16>;
    constexpr std::uint32_t kDropped = kHalf ? 13 : 16;  // bits of the mantissa
    const float magnitude = std::abs(value);
    if (!(magnitude <= std::numeric_limits<float>::max())) return value;
    if (kHalf && magnitude < 0x1p-14F)
      return std::copysign((magnitude + 0.5F) - 0.5F, value);  // steps of 2^-24
    auto bits = std::bit_cast<std::uint32_t>(value);
    bits += (1U << (kDropped - 1)) - 1 + (bits >> kDropped & 1U);
    const float near = std::bit_cast<float>(bits >> kDropped << kDropped);
    return kHalf && std::abs(near) > 65504 ? std::copysign(std::numeric_limits<float>::infinity(), value)
                                           : near;
  }
}

// A gradient as its tensor stores it; truth stays as it is.
template <class Real>
double stored_as(Real value, DType dtype) {
  if constexpr (std::is_same_v<Real, double>) {
    return value;
  } else {
    double slot = 0;
    store_element(dtype, &slot, 0, value);
    return load_element(dtype, &slot, 0);
  }
}

// What softmax leaves of a row: probabilities are exp(score - largest) / sum, and both include the sink. As
// it stands here where the row sees no key.
template <class Real>
struct RowStatistics {
  Real largest = static_cast<Real>(-kInfinity);
  Real sum = 0;
  Real lse = static_cast<Real>(-kInfinity);
};

template <class Real, class Store>
struct Formula {
  const AttentionArgs& args;
  const AttentionProblem& problem;
  std::vector<Sequence> sequences;
  Sizes size;
  Real scale;
  Dropout dropout;

  Formula(const AttentionArgs& arguments, const AttentionProblem& p)
      : args(arguments),
        problem(p),
        sequences(sequences_of(arguments, p)),
        size(sizes_of(arguments, sequences)),
        dropout(arguments, p) {
    // The default is the exact root: a kernel's rounding of it is the kernel's own error.
    scale = static_cast<Real>(p.softmax_scale ? static_cast<double>(*p.softmax_scale)
                                              : 1 / std::sqrt(static_cast<double>(size.head_dim)));
  }

  [[nodiscard]] std::int64_t shared() const { return size.heads / size.kv_heads; }  // heads of a kv head
  [[nodiscard]] const Sequence& sequence(std::int64_t batch) const {
    return sequences[static_cast<std::size_t>(batch)];
  }
  [[nodiscard]] bool drops() const { return problem.dropout_p > 0; }
  [[nodiscard]] DropoutRow dropout_row(const RowId& row) const {
    return {dropout, row.batch * size.heads + row.head, row.query};
  }

  void convert_query(const TensorView& view, const RowId& row, Real* to) const {
    convert(view, sequence(row.batch).query_at(view, row.query, row.head), to, 1);
  }

  // i' of section 4: where query i stands among the keys.
  static std::int64_t position(const AttentionProblem& p, const Sequence& s, std::int64_t query) {
    return p.align == Align::bottom_right ? query + s.in_use.end - s.queries : query;
  }

  // Keys j with i' - window_left <= j <= i' + window_right, j <= i' where causal, of those in use.
  Range visible(std::int64_t batch, std::int64_t query) const {
    const Sequence& s = sequence(batch);
    const std::int64_t at = position(problem, s, query);
    const std::int64_t open = s.queries + s.in_use.end;  // as far as any key is from any query
    std::int64_t first = s.in_use.begin, last = s.in_use.end - 1;
    if (problem.window_left >= 0) first = std::max(first, at - std::min(problem.window_left, open));
    if (problem.window_right >= 0) last = std::min(last, at + std::min(problem.window_right, open));
    if (problem.causal) last = std::min(last, at);
    return last < first ? Range{} : Range{first, last + 1};
  }

  // tanh of the softcap; the score's slope is 1 - its square.
  Real capped(Real dot) const { return std::tanh(dot * scale / static_cast<Real>(problem.softcap)); }

  Real score(const RowId& row, std::int64_t key, Real dot) const {
    Real s = problem.softcap != 0 ? static_cast<Real>(problem.softcap) * capped(dot) : dot * scale;
    if (problem.bias) s += static_cast<Real>(element(args.bias, row.batch, row.head, row.query, key));
    if (problem.alibi != AlibiKind::none) {
      const TensorView& slopes = args.alibi_slopes;
      const std::int64_t at = problem.alibi == AlibiKind::per_head
                                  ? row.head * slopes.stride[0]
                                  : row.batch * slopes.stride[0] + row.head * slopes.stride[1];
      s -= static_cast<Real>(load_element(slopes.dtype, slopes.data, at)) *
           static_cast<Real>(std::abs(position(problem, sequence(row.batch), row.query) - key));
    }
    if (problem.mask != MaskKind::none) {
      if (key >= args.mask.shape[3]) return static_cast<Real>(-kInfinity);
      const double m = element(args.mask, row.batch, row.head, row.query, key);
      const bool hidden = problem.mask == MaskKind::boolean ? m == 0 : m == -kInfinity;
      if (hidden) return static_cast<Real>(-kInfinity);  // select: a NaN in K stays where it is
      if (problem.mask == MaskKind::additive) s += static_cast<Real>(m);
    }
    return rounded<Real, Store>(s);
  }

  [[nodiscard]] Real sink(std::int64_t head) const {
    return static_cast<Real>(load_element(args.sinks.dtype, args.sinks.data, head * args.sinks.stride[0]));
  }

  // exp(sink - largest): an infinite sink takes all of the weight, whatever the scores below it.
  [[nodiscard]] Real sink_weight(std::int64_t head, Real largest) const {
    return sink(head) == largest ? Real{1} : std::exp(sink(head) - largest);
  }

  static Real probability(Real score, const RowStatistics<Real>& row) {
    return rounded<Real, Store>(std::exp(score - row.largest) / row.sum);
  }

  // Scores become probabilities; a score of -inf stays, as the mark of what takes no part.
  RowStatistics<Real> softmax(std::int64_t head, Real* scores, std::int64_t count) const {
    RowStatistics<Real> row;
    bool any = false;  // a key whose score is not -inf; NaN counts
    for (std::int64_t j = 0; j < count; ++j) {
      any = any || takes_part(scores[j]);
      if (scores[j] > row.largest) row.largest = scores[j];
    }
    if (!any) return row;
    for (std::int64_t j = 0; j < count; ++j) row.sum += std::exp(scores[j] - row.largest);
    row.lse = row.largest + std::log(row.sum);
    if (problem.sinks) {
      const Real keys = row.largest;  // a sink far above them would overflow, measured from there
      row.largest = std::max(keys, sink(head));
      row.sum = row.sum * std::exp(keys - row.largest) + sink_weight(head, row.largest);
    }
    for (std::int64_t j = 0; j < count; ++j) {
      if (takes_part(scores[j])) scores[j] = probability(scores[j], row);
    }
    return row;
  }

  // A weight or an entry of dP as dropout leaves it.
  static Real dropped(Real value, double factor) {
    return rounded<Real, Store>(rounded<Real, Store>(value) * static_cast<Real>(factor));
  }

  // What a score's gradient is where P, dP and delta = rowsum(out * dout) are these.
  static Real score_gradient(Real weight, Real product, Real delta) {
    return weight * (rounded<Real, Store>(product) - delta);
  }
  // And what the gradient of scale * q k is; `dot` is q k, which only a softcap needs.
  Real product_gradient(Real weight, Real product, Real delta, Real dot) const {
    Real slope = score_gradient(weight, product, delta);
    if (problem.softcap != 0) {
      const Real t = capped(dot);
      slope *= 1 - t * t;
    }
    return rounded<Real, Store>(slope);
  }
};

// compute.template operator()<Store>() in the dtype of q, which sums in fp32.
template <class T, class Compute>
Result<T> in_plain_arithmetic(DType dtype, const Compute& compute) {
  switch (dtype) {
    case DType::f32: return compute.template operator()<float>();
    case DType::f16: return compute.template operator()<float16>();
    case DType::bf16: return compute.template operator()<bfloat16>();
    default:
      return Status::unsupported("oracle: plain arithmetic is defined for f32, f16 and bf16, q is " +
                                 std::string(name(dtype)));
  }
}

}  // namespace headwise::oracle
