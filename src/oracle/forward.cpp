// The formula, row by row: scores of the visible keys, softmax, weighted sum of V. Rows that share
// K and V are computed together, so that a block of keys is converted once for all of them; no
// result depends on how rows are grouped or on threads.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <new>
#include <numeric>
#include <string>
#include <type_traits>

#include "core/parallel_for.h"
#include "oracle/oracle.h"

namespace headwise::oracle {
namespace {

constexpr std::int64_t kKeyBlock = 32;
constexpr std::int64_t kMaxGroup = 64;  // rows computed together
constexpr std::int64_t kScoresPerWorker = std::int64_t{1} << 20;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Actual sizes come from the tensors; the problem's sizes are only maxima.
struct Sizes {
  std::int64_t batch, seq_q, seq_kv, heads, kv_heads, head_dim, head_dim_v;
};

Sizes sizes_of(const AttentionArgs& args) {
  return {args.q.shape[0], args.q.shape[1], args.k.shape[1], args.q.shape[2],
          args.k.shape[2], args.q.shape[3], args.v.shape[3]};
}

bool is_float(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

Status check_features(const AttentionProblem& p) {
  const auto no = [](const char* what) { return Status::unsupported(std::string("oracle: ") + what); };
  if (p.direction != Direction::forward) return no("direction backward: only forward is written down");
  if (p.dropout_p > 0) return no("dropout_p: not written down");
  if (p.varlen) return no("cu_seqlens: not written down; pass the sequences one by one");
  if (p.lengths) return no("lengths_kv: not written down; pass the sequences one by one");
  if (p.page_size > 0 || p.pages > 0) return no("block_table: not written down");
  return {};
}

// `exact`: each extent as given; else 1 (broadcast) is fine too, save for the last.
Status check_view(const char* what, const TensorView& view, const std::array<std::int64_t, 4>& shape,
                  bool exact) {
  if (view.device.kind != DeviceKind::cpu) {
    return Status::invalid_argument(std::string("oracle: ") + what + " must be in host memory, is on " +
                                    to_string(view.device));
  }
  bool fits = view.rank == 4;
  for (std::size_t i = 0; i < 4; ++i) {
    fits = fits && (view.shape[i] == shape[i] || (!exact && i < 3 && view.shape[i] == 1));
  }
  if (fits) return {};
  std::string message = std::string("oracle: ") + what + " must have shape";
  for (const std::int64_t extent : shape) message.append(" ").append(std::to_string(extent));
  message += ", has";
  for (int i = 0; i < view.rank; ++i) {
    message.append(" ").append(std::to_string(view.shape[static_cast<std::size_t>(i)]));
  }
  return Status::invalid_argument(message);
}

Status check_optional(const AttentionArgs& args, const AttentionProblem& p, const Sizes& s) {
  const std::array<std::int64_t, 4> scores{s.batch, s.heads, s.seq_q, s.seq_kv};
  if (p.bias) {
    if (Status status = check_view("bias", args.bias, scores, false); !status.ok()) return status;
    if (!is_float(args.bias.dtype)) return Status::unsupported("oracle: bias must be f64, f32, f16 or bf16");
  }
  if (p.mask != MaskKind::none) {
    if (Status status = check_view("mask", args.mask, scores, false); !status.ok()) return status;
    const bool fits =
        p.mask == MaskKind::boolean ? args.mask.dtype == DType::boolean : is_float(args.mask.dtype);
    if (!fits) return Status::invalid_argument("oracle: mask has a dtype that is not its kind's");
  }
  if (p.alibi != AlibiKind::none &&
      (args.alibi_slopes.rank == 0 ||
       args.alibi_slopes.shape[static_cast<std::size_t>(args.alibi_slopes.rank - 1)] != s.heads)) {
    return Status::invalid_argument("oracle: alibi_slopes must have shape heads or batch heads");
  }
  if (p.sinks && (args.sinks.rank != 1 || args.sinks.shape[0] != s.heads)) {
    return Status::invalid_argument("oracle: sinks must have shape heads");
  }
  return {};
}

Status check(const AttentionArgs& args, const AttentionProblem& p, std::span<const RowId> rows) {
  if (Status status = check_features(p); !status.ok()) return status;
  const Sizes s = sizes_of(args);
  if (Status status = check_view("q", args.q, {s.batch, s.seq_q, s.heads, s.head_dim}, true); !status.ok())
    return status;
  if (Status status = check_view("k", args.k, {s.batch, s.seq_kv, s.kv_heads, s.head_dim}, true);
      !status.ok())
    return status;
  if (Status status = check_view("v", args.v, {s.batch, s.seq_kv, s.kv_heads, s.head_dim_v}, true);
      !status.ok())
    return status;
  if (!is_float(args.q.dtype) || !is_float(args.k.dtype) || !is_float(args.v.dtype)) {
    return Status::unsupported("oracle: q, k and v must be f64, f32, f16 or bf16");
  }
  if (s.kv_heads <= 0 || s.heads % s.kv_heads != 0) {
    return Status::invalid_argument("oracle: heads " + std::to_string(s.heads) +
                                    " must be a multiple of kv_heads " + std::to_string(s.kv_heads));
  }
  const bool placed = p.causal || p.window_left >= 0 || p.window_right >= 0 || p.alibi != AlibiKind::none;
  if (placed && p.align == Align::unspecified && s.seq_q != s.seq_kv) {
    return Status::invalid_argument("oracle: align is required where seq_q and seq_kv differ");
  }
  for (const RowId& row : rows) {
    if (row.batch < 0 || row.batch >= s.batch || row.head < 0 || row.head >= s.heads || row.query < 0 ||
        row.query >= s.seq_q) {
      return Status::invalid_argument("oracle: row (batch " + std::to_string(row.batch) + ", head " +
                                      std::to_string(row.head) + ", query " + std::to_string(row.query) +
                                      ") is outside the tensors");
    }
  }
  return check_optional(args, p, s);
}

// Element (a, b, c, d) of a view; extents of 1 broadcast.
double element(const TensorView& view, std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d) {
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

// The innermost row at (batch, position, head), as Real, with `step` between the results.
template <class Real>
void convert(const TensorView& view, std::int64_t batch, std::int64_t position, std::int64_t head, Real* to,
             std::int64_t step) {
  const std::int64_t at = batch * view.stride[0] + position * view.stride[1] + head * view.stride[2];
  const std::int64_t n = view.shape[3];
  switch (view.dtype) {
    case DType::f64: return convert_run(view.as<const double>() + at, view.stride[3], n, to, step);
    case DType::f32: return convert_run(view.as<const float>() + at, view.stride[3], n, to, step);
    case DType::f16: return convert_run(view.as<const float16>() + at, view.stride[3], n, to, step);
    case DType::bf16: return convert_run(view.as<const bfloat16>() + at, view.stride[3], n, to, step);
    default: return;  // refused by check()
  }
}

// out[r][j] = q[r] . k[j] for kRows rows and kKeyBlock keys; k is transposed, [head_dim][kKeyBlock].
// Each sum runs over the channels in order.
template <class Real, int kRows>
void dot_block(const Real* q, const Real* k, std::int64_t head_dim, Real* out) {
  constexpr int kLanes = 128 / kRows / static_cast<int>(sizeof(Real));
  for (std::int64_t j = 0; j < kKeyBlock; j += kLanes) {
    Real sum[kRows][kLanes] = {};
    for (std::int64_t c = 0; c < head_dim; ++c) {
      const Real* row = k + c * kKeyBlock + j;
      for (int r = 0; r < kRows; ++r) {
        for (int lane = 0; lane < kLanes; ++lane) sum[r][lane] += q[r * head_dim + c] * row[lane];
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int lane = 0; lane < kLanes; ++lane) out[r * kKeyBlock + j + lane] = sum[r][lane];
    }
  }
}

template <class Real>
void add_scaled(Real weight, const Real* __restrict v, std::int64_t count, Real* __restrict out) {
  for (std::int64_t x = 0; x < count; ++x) out[x] += weight * v[x];
}

// Real is what sums are kept in; scores, probabilities and output are rounded to Store.
template <class Real, class Store>
Real rounded(Real value) {
  if constexpr (std::is_same_v<Real, Store>)
    return value;
  else
    return static_cast<Real>(to_double(from_double<Store>(value)));
}

struct Range {
  std::int64_t begin = 0, end = 0;
};

template <class Real, class Store>
struct Attention {
  const AttentionArgs& args;
  const AttentionProblem& problem;
  std::span<const RowId> rows;
  Rows& results;
  Sizes size;
  Real scale;
  std::vector<std::int64_t> order;        // rows, those that share K and V side by side
  std::vector<std::int64_t> group_begin;  // in `order`; one more than there are groups
  std::int64_t group_rows = 1;
  struct Scratch {
    std::vector<Real> q, scores, out, block, dots;
    std::vector<Range> ranges;
  };
  std::vector<Scratch> scratch;

  // i' of section 4: where query i stands among the keys.
  std::int64_t position(std::int64_t query) const {
    return problem.align == Align::bottom_right ? query + size.seq_kv - size.seq_q : query;
  }

  // Keys j with i' - window_left <= j <= i' + window_right, j <= i' where causal, 0 <= j < seq_kv.
  Range visible(std::int64_t query) const {
    const std::int64_t at = position(query);
    const std::int64_t open = size.seq_q + size.seq_kv;  // as far as any key is from any query
    std::int64_t first = 0, last = size.seq_kv - 1;
    if (problem.window_left >= 0) first = std::max(first, at - std::min(problem.window_left, open));
    if (problem.window_right >= 0) last = std::min(last, at + std::min(problem.window_right, open));
    if (problem.causal) last = std::min(last, at);
    return last < first ? Range{} : Range{first, last + 1};
  }

  Real score(const RowId& row, std::int64_t key, Real dot) const {
    Real s = dot * scale;
    if (problem.softcap != 0)
      s = static_cast<Real>(problem.softcap) * std::tanh(s / static_cast<Real>(problem.softcap));
    if (problem.bias) s += static_cast<Real>(element(args.bias, row.batch, row.head, row.query, key));
    if (problem.alibi != AlibiKind::none) {
      const TensorView& slopes = args.alibi_slopes;
      const std::int64_t at = problem.alibi == AlibiKind::per_head
                                  ? row.head * slopes.stride[0]
                                  : row.batch * slopes.stride[0] + row.head * slopes.stride[1];
      s -= static_cast<Real>(load_element(slopes.dtype, slopes.data, at)) *
           static_cast<Real>(std::abs(position(row.query) - key));
    }
    if (problem.mask != MaskKind::none) {
      const double m = element(args.mask, row.batch, row.head, row.query, key);
      const bool hidden = problem.mask == MaskKind::boolean ? m == 0 : m == -kInfinity;
      if (hidden) return static_cast<Real>(-kInfinity);  // select: a NaN in K stays where it is
      if (problem.mask == MaskKind::additive) s += static_cast<Real>(m);
    }
    return rounded<Real, Store>(s);
  }

  // Scores become probabilities; returns the log of the sum of exp(scores), -inf for no key.
  Real softmax(std::int64_t head, Real* scores, std::int64_t count) const {
    Real largest = static_cast<Real>(-kInfinity);
    bool any = false;  // a key whose score is not -inf; NaN counts
    for (std::int64_t j = 0; j < count; ++j) {
      any = any || scores[j] != static_cast<Real>(-kInfinity);
      if (scores[j] > largest) largest = scores[j];
    }
    if (!any) return static_cast<Real>(-kInfinity);
    Real sum = 0;
    for (std::int64_t j = 0; j < count; ++j) sum += std::exp(scores[j] - largest);
    const Real lse = largest + std::log(sum);
    if (problem.sinks) {
      sum += std::exp(
          static_cast<Real>(load_element(args.sinks.dtype, args.sinks.data, head * args.sinks.stride[0])) -
          largest);
    }
    for (std::int64_t j = 0; j < count; ++j) {
      // A key of score -inf takes no part: -inf stays as the mark by which its V row is skipped.
      if (scores[j] == static_cast<Real>(-kInfinity)) continue;
      scores[j] = rounded<Real, Store>(std::exp(scores[j] - largest) / sum);
    }
    return lse;
  }

  void compute_scores(Scratch& w, std::int64_t first, std::int64_t count, Range keys) const {
    const RowId& lead = rows[static_cast<std::size_t>(order[static_cast<std::size_t>(first)])];
    const std::int64_t kv_head = lead.head / (size.heads / size.kv_heads);
    for (std::int64_t j0 = keys.begin; j0 < keys.end; j0 += kKeyBlock) {
      const std::int64_t j1 = std::min(j0 + kKeyBlock, keys.end);
      for (std::int64_t j = j0; j < j1; ++j)
        convert(args.k, lead.batch, j, kv_head, w.block.data() + (j - j0), kKeyBlock);
      std::int64_t r = 0;
      for (; r + 4 <= count; r += 4) {
        dot_block<Real, 4>(w.q.data() + r * size.head_dim, w.block.data(), size.head_dim,
                           w.dots.data() + r * kKeyBlock);
      }
      for (; r < count; ++r) {
        dot_block<Real, 1>(w.q.data() + r * size.head_dim, w.block.data(), size.head_dim,
                           w.dots.data() + r * kKeyBlock);
      }
      for (r = 0; r < count; ++r) {
        const RowId& row = rows[static_cast<std::size_t>(order[static_cast<std::size_t>(first + r)])];
        const Range range = w.ranges[static_cast<std::size_t>(r)];
        Real* scores = w.scores.data() + r * size.seq_kv;
        for (std::int64_t j = std::max(j0, range.begin); j < std::min(j1, range.end); ++j) {
          scores[j] = score(row, j, w.dots[static_cast<std::size_t>(r * kKeyBlock + j - j0)]);
        }
      }
    }
  }

  void sum_values(Scratch& w, std::int64_t first, std::int64_t count, Range keys) const {
    const RowId& lead = rows[static_cast<std::size_t>(order[static_cast<std::size_t>(first)])];
    const std::int64_t kv_head = lead.head / (size.heads / size.kv_heads);
    const std::int64_t dv = size.head_dim_v;
    std::fill_n(w.out.begin(), count * dv, Real{0});
    for (std::int64_t j0 = keys.begin; j0 < keys.end; j0 += kKeyBlock) {
      const std::int64_t j1 = std::min(j0 + kKeyBlock, keys.end);
      for (std::int64_t j = j0; j < j1; ++j)
        convert(args.v, lead.batch, j, kv_head, w.block.data() + (j - j0) * dv, 1);
      for (std::int64_t r = 0; r < count; ++r) {
        const Range range = w.ranges[static_cast<std::size_t>(r)];
        const Real* weights = w.scores.data() + r * size.seq_kv;
        for (std::int64_t j = std::max(j0, range.begin); j < std::min(j1, range.end); ++j) {
          if (weights[j] == static_cast<Real>(-kInfinity)) continue;
          add_scaled(weights[j], w.block.data() + (j - j0) * dv, dv, w.out.data() + r * dv);
        }
      }
    }
  }

  void run_group(std::int64_t group, Scratch& w) const {
    const std::int64_t first = group_begin[static_cast<std::size_t>(group)];
    const std::int64_t count = group_begin[static_cast<std::size_t>(group) + 1] - first;
    Range keys{size.seq_kv, 0};  // that some row of the group sees
    for (std::int64_t r = 0; r < count; ++r) {
      const RowId& row = rows[static_cast<std::size_t>(order[static_cast<std::size_t>(first + r)])];
      const Range range = visible(row.query);
      w.ranges[static_cast<std::size_t>(r)] = range;
      if (range.begin < range.end) keys = {std::min(keys.begin, range.begin), std::max(keys.end, range.end)};
      convert(args.q, row.batch, row.query, row.head, w.q.data() + r * size.head_dim, 1);
    }
    compute_scores(w, first, count, keys);
    for (std::int64_t r = 0; r < count; ++r) {
      const auto index = static_cast<std::size_t>(order[static_cast<std::size_t>(first + r)]);
      const Range range = w.ranges[static_cast<std::size_t>(r)];
      results.lse[index] =
          softmax(rows[index].head, w.scores.data() + r * size.seq_kv + range.begin, range.end - range.begin);
    }
    sum_values(w, first, count, keys);
    for (std::int64_t r = 0; r < count; ++r) {
      const std::int64_t index = order[static_cast<std::size_t>(first + r)];
      for (std::int64_t x = 0; x < size.head_dim_v; ++x) {
        results.out[static_cast<std::size_t>(index * size.head_dim_v + x)] =
            rounded<Real, Store>(w.out[static_cast<std::size_t>(r * size.head_dim_v + x)]);
      }
    }
  }

  // Sorted by (batch, kv head, query) and cut where K and V change or a group is full.
  void make_groups(int threads) {
    const std::int64_t shared = size.heads / size.kv_heads;
    order.resize(rows.size());
    std::iota(order.begin(), order.end(), std::int64_t{0});
    const auto key = [&](std::int64_t i) {
      const RowId& row = rows[static_cast<std::size_t>(i)];
      return std::array<std::int64_t, 4>{row.batch, row.head / shared, row.query, row.head};
    };
    std::sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return key(a) < key(b); });
    const auto total = static_cast<std::int64_t>(rows.size());
    group_rows = std::clamp(total / (4 * threads), std::int64_t{4}, kMaxGroup);
    group_rows = std::min(
        group_rows, std::max(std::int64_t{4}, kScoresPerWorker / std::max<std::int64_t>(size.seq_kv, 1)));
    for (std::int64_t i = 0; i < total; ++i) {
      const auto here = key(order[static_cast<std::size_t>(i)]);
      const bool full = !group_begin.empty() && i - group_begin.back() >= group_rows;
      const auto before = i > 0 ? key(order[static_cast<std::size_t>(i - 1)]) : here;
      if (i == 0 || full || here[0] != before[0] || here[1] != before[1]) group_begin.push_back(i);
    }
    group_begin.push_back(total);
  }

  void run(int threads) {
    results.out.assign(rows.size() * static_cast<std::size_t>(size.head_dim_v), 0);
    results.lse.assign(rows.size(), -kInfinity);
    if (rows.empty()) return;
    make_groups(threads);
    const std::int64_t groups = static_cast<std::int64_t>(group_begin.size()) - 1;
    threads = static_cast<int>(std::min<std::int64_t>(threads, groups));
    scratch.resize(static_cast<std::size_t>(threads));
    for (Scratch& w : scratch) reserve(w);  // here: an exception must not leave a thread of parallel_for
    core::parallel_for(
        groups, threads,
        [](void* context, std::int64_t group, int worker) {
          auto& self = *static_cast<Attention*>(context);
          self.run_group(group, self.scratch[static_cast<std::size_t>(worker)]);
        },
        this);
  }

  void reserve(Scratch& w) const {
    const auto n = static_cast<std::size_t>(group_rows);
    w.q.resize(n * static_cast<std::size_t>(size.head_dim));
    w.scores.resize(n * static_cast<std::size_t>(size.seq_kv));
    w.out.resize(n * static_cast<std::size_t>(size.head_dim_v));
    w.block.resize(static_cast<std::size_t>(kKeyBlock * std::max(size.head_dim, size.head_dim_v)));
    w.dots.resize(n * static_cast<std::size_t>(kKeyBlock));
    w.ranges.resize(n);
  }
};

template <class Real, class Store>
Result<Rows> compute(const AttentionArgs& args, const AttentionProblem& problem, std::span<const RowId> rows,
                     int threads) {
  if (Status status = check(args, problem, rows); !status.ok()) return status;
  const Sizes size = sizes_of(args);
  // The default is the exact root: a kernel's rounding of it is the kernel's own error.
  const double scale = problem.softmax_scale ? static_cast<double>(*problem.softmax_scale)
                                             : 1 / std::sqrt(static_cast<double>(size.head_dim));
  try {
    Rows results;
    Attention<Real, Store> attention{args, problem, rows, results, size, static_cast<Real>(scale),
                                     {},   {},      1,    {}};
    attention.run(threads);
    return results;
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory("oracle: no memory for " + std::to_string(rows.size()) + " rows of " +
                                 std::to_string(size.seq_kv) + " keys");
  }
}

}  // namespace

Result<Rows> forward(const AttentionArgs& args, const AttentionProblem& problem, std::span<const RowId> rows,
                     int threads) {
  return compute<double, double>(args, problem, rows, threads);
}

Result<Rows> plain(const AttentionArgs& args, const AttentionProblem& problem, std::span<const RowId> rows,
                   int threads) {
  switch (args.q.dtype) {
    case DType::f32: return compute<float, float>(args, problem, rows, threads);
    case DType::f16: return compute<float, float16>(args, problem, rows, threads);
    case DType::bf16: return compute<float, bfloat16>(args, problem, rows, threads);
    default:
      return Status::unsupported("oracle: plain arithmetic is defined for f32, f16 and bf16, q is " +
                                 std::string(name(args.q.dtype)));
  }
}

}  // namespace headwise::oracle
