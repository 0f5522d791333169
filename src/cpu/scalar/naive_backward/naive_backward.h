// The gradients of attention pair by pair from the formula, with every feature: the portable fallback. With P
// the probabilities, the sink counted, and c what dropout multiplies kept weights with:
//   delta = dout . out = sum P dP, dP = kept c (dout . v), dS = P (dP - delta)
//   dv = sum kept c P dout, dq = scale sum dS slope k, dk = scale sum dS slope q, dbias = sum dS,
//   dsink = - sum P of the sink * delta
// A row of each gradient is one task, which computes again the pairs that it sums: so no sum depends on who
// runs beside it, and workspace is three numbers a row of queries. dP and delta are summed in double: where
// one key has most of the weight, dS is their difference, and they are nearly the same.
#pragma once

#include <algorithm>

#include "attention/kernel.h"
#include "core/parallel_for.h"
#include "cpu/kernels.h"
#include "cpu/scalar/naive/score.h"
#include "cpu/schedule.h"

namespace headwise::cpu::scalar {

struct RowStatistics {
  float lse = kMinusInfinity;  // -inf: the row saw no key and has no part in any gradient
  float factor = 1;            // P = factor * exp(score - lse)
  double delta = 0;
};

// Which places of block_table use a page, as lists of places in ascending order; -1 ends one. A page may
// serve several sequences.
struct PageUses {
  std::int64_t* first;  // [pages]
  std::int64_t* next;   // [batch, pages of a sequence]
};

// Elements of dbias that one task sums.
inline constexpr std::int64_t kBiasBlock = 16;

// Where things lie in workspace.
struct BackwardLayout {
  std::size_t page_uses, scratch, worker, bytes;

  explicit BackwardLayout(const AttentionProblem& p) noexcept {
    const auto count = [](std::int64_t n) { return static_cast<std::size_t>(n); };
    page_uses = line_up(count(query_rows(p)) * count(p.heads) * sizeof(RowStatistics));
    const std::int64_t places = p.page_size > 0 ? (p.seq_kv + p.page_size - 1) / p.page_size : 0;
    const std::size_t links = p.page_size > 0 ? count(p.pages) + count(p.batch) * count(places) : 0;
    scratch = page_uses + line_up(links * sizeof(std::int64_t));
    worker = line_up(std::max(count(p.head_dim + p.head_dim_v) * sizeof(float), kBiasBlock * sizeof(double)));
    bytes = scratch + worker * count(p.threads);
  }
};

struct BackwardCall {
  const AttentionArgs& args;
  const AttentionProblem& p;
  BackwardLayout layout;
  unsigned char* workspace;
  float kept_scale;
  PageUses uses{};

  [[nodiscard]] RowStatistics& statistics(std::int64_t row, std::int64_t head) const noexcept {
    return reinterpret_cast<RowStatistics*>(workspace)[row * p.heads + head];
  }
  template <class Sum>
  [[nodiscard]] Sum* scratch(int worker) const noexcept {
    return reinterpret_cast<Sum*>(workspace + layout.scratch +
                                  static_cast<std::size_t>(worker) * layout.worker);
  }
};

// What one pair adds to the gradients.
struct PairGradient {
  bool kept = false;
  float probability = 0;
  float weight = 0;   // kept c P: times dout, to dv
  double score = 0;   // dS: to dbias
  float product = 0;  // dS slope: times scale k, to dq; times scale q, to dk
};

// False where the pair takes no part.
template <class T>
bool pair_gradient(const BackwardCall& call, QueryRow<T>& row, std::int64_t key,
                   const RowStatistics& statistics, PairGradient& pair) noexcept {
  const Score s = row.score(key);
  if (s.value == kMinusInfinity) return false;
  const float p = statistics.factor * std::exp(s.value - statistics.lse);
  pair.kept = row.kept(key);
  pair.probability = p;
  pair.weight = pair.kept ? call.kept_scale * p : 0;
  const double dp = pair.kept
                        ? call.kept_scale * dot<double, T>(row.row(call.args.dout),
                                                           row.key_row(call.args.v, key), call.p.head_dim_v)
                        : 0;
  pair.score = p * (dp - statistics.delta);
  pair.product = static_cast<float>(pair.score) * s.slope;
  return true;
}

// P of the sink.
inline double sink_share(double sink, double lse) noexcept { return 1 / (1 + std::exp(lse - sink)); }

template <class T>
void add_scaled(float factor, const T* row, std::int64_t channels, float* sums) noexcept {
  for (std::int64_t d = 0; d < channels; ++d) sums[d] += factor * to_float(row[d]);
}

// What a row's lse and out say of it, computed anew where the row sees all the keys that they are of: f32 lse
// costs a probability a millionth where it is 16, and where one key has most of the weight, dS is what
// rounding left of dP - delta. Of keys that come in parts only forward's results know the whole.
template <class T>
RowStatistics row_statistics(const BackwardCall& call, QueryRow<T>& row) noexcept {
  const AttentionArgs& args = call.args;
  RowStatistics statistics{.lse = row.lse()};
  if (statistics.lse == kMinusInfinity) return statistics;
  const KeyRange keys = row.keys();
  double sum = 0;
  double delta = 0;
  for (std::int64_t j = keys.begin; j < keys.end; ++j) {
    PairGradient pair;  // of delta 0 and factor 1: dS is P dP
    if (!pair_gradient(call, row, j, {.lse = statistics.lse}, pair)) continue;
    sum += pair.probability;
    delta += pair.score;
  }
  const double keys_share = 1 - sink_share(row.sink(), statistics.lse);
  // Sixteen roundings of lse: forward's own sums, and keys elsewhere that would change no more than that.
  const double most = 0x1p-20 * std::max(1.0, std::abs(static_cast<double>(statistics.lse)));
  const bool all_keys = std::abs(sum - 1) <= most;
  const double factor = all_keys ? keys_share / sum : keys_share;
  statistics.factor = static_cast<float>(factor);
  statistics.delta =
      all_keys ? factor * delta : dot<double, T>(row.row(args.dout), row.row(args.out), call.p.head_dim_v);
  return statistics;
}

// A row of dq, and the row's statistics for the tasks behind this pass.
template <class T>
void query_task(void* context, std::int64_t index, int worker) {
  const auto& call = *static_cast<const BackwardCall*>(context);
  const AttentionArgs& args = call.args;
  const AttentionProblem& p = call.p;
  // Last queries first: with a causal mask they are the longest.
  const std::int64_t place_of_query = query_rows(p) - 1 - index / p.heads;
  const std::int64_t head = index % p.heads;
  const Place place = place_of_row(args, p, place_of_query);
  QueryRow<T> row(args, p, place, head, place.query_of(p, place_of_query));
  const RowStatistics statistics = row_statistics(call, row);
  call.statistics(place_of_query, head) = statistics;

  auto* const sums = call.scratch<float>(worker);
  std::fill(sums, sums + p.head_dim, 0.0F);
  const KeyRange keys = statistics.lse == kMinusInfinity ? KeyRange{} : row.keys();
  for (std::int64_t j = keys.begin; j < keys.end; ++j) {
    PairGradient pair;
    if (pair_gradient(call, row, j, statistics, pair))
      add_scaled(pair.product, row.key_row(args.k, j), p.head_dim, sums);
  }
  T* const dq = row.row(args.dq);
  for (std::int64_t d = 0; d < p.head_dim; ++d) dq[d] = from_double<T>(p.scale() * sums[d]);
}

// Adds to a row of dk and dv what the queries of a sequence make of this key.
template <class T>
void add_key(const BackwardCall& call, const Place& place, std::int64_t key, std::int64_t kv_head, float* dk,
             float* dv) {
  const AttentionProblem& p = call.p;
  const QueryRange queries = query_range(place.band, place.sequence.seq_q, key);
  const std::int64_t shared = p.heads / p.kv_heads;
  for (std::int64_t head = kv_head * shared; head < (kv_head + 1) * shared; ++head) {
    for (std::int64_t i = queries.begin; i < queries.end; ++i) {
      const RowStatistics& statistics = call.statistics(place.row_of(p, i), head);
      if (statistics.lse == kMinusInfinity) continue;
      QueryRow<T> row(call.args, p, place, head, i);
      PairGradient pair;
      if (!pair_gradient(call, row, key, statistics, pair)) continue;
      add_scaled(pair.product, row.row(call.args.q), p.head_dim, dk);
      if (pair.kept) add_scaled(pair.weight, row.row(call.args.dout), p.head_dim_v, dv);
    }
  }
}

// A row of dk and dv: of a key, a packed row or a slot of a page. Rows that no query sees come out as zeros.
template <class T>
void key_task(void* context, std::int64_t index, int worker) {
  const auto& call = *static_cast<const BackwardCall*>(context);
  const AttentionArgs& args = call.args;
  const AttentionProblem& p = call.p;
  const std::int64_t kv_head = index % p.kv_heads;
  const std::int64_t items = args.k.shape[0];
  const std::int64_t item = index / p.kv_heads % items;
  const std::int64_t row = index / p.kv_heads / items;  // first rows first: causal queries see them most
  auto* const dk = call.scratch<float>(worker);
  float* const dv = dk + p.head_dim;
  std::fill(dk, dv + p.head_dim_v, 0.0F);
  if (p.page_size > 0) {
    const std::int64_t places = args.block_table.shape[1];
    for (std::int64_t use = call.uses.first[item]; use >= 0; use = call.uses.next[use])
      add_key<T>(call, Place(args, p, use / places), use % places * p.page_size + row, kv_head, dk, dv);
  } else if (p.varlen) {
    const Place place(args, p, packed_sequence(args.cu_seqlens_kv, row));
    add_key<T>(call, place, row - place.sequence.row_kv, kv_head, dk, dv);
  } else {
    add_key<T>(call, Place(args, p, item), row, kv_head, dk, dv);
  }
  T* const to_dk = args.dk.as<T>() + offset(args.dk, item, row, kv_head);
  T* const to_dv = args.dv.as<T>() + offset(args.dv, item, row, kv_head);
  for (std::int64_t d = 0; d < p.head_dim; ++d) to_dk[d] = from_double<T>(p.scale() * dk[d]);
  for (std::int64_t d = 0; d < p.head_dim_v; ++d) to_dv[d] = from_double<T>(dv[d]);
}

// Which of `count` an axis of dbias at `place` stands for: one, or all where it broadcasts.
inline KeyRange summed_over(std::int64_t extent, std::int64_t place, std::int64_t count) noexcept {
  return extent == 1 ? KeyRange{0, count} : KeyRange{place, place + 1};
}

// kBiasBlock elements of a row of dbias.
template <class T>
void bias_task(void* context, std::int64_t index, int worker) {
  const auto& call = *static_cast<const BackwardCall*>(context);
  const AttentionProblem& p = call.p;
  const TensorView& to = call.args.dbias;
  const std::int64_t blocks = (to.shape[3] + kBiasBlock - 1) / kBiasBlock;
  const std::int64_t first = index % blocks * kBiasBlock;
  const KeyRange block{first, std::min(first + kBiasBlock, to.shape[3])};
  const std::int64_t query = index / blocks % to.shape[2];
  const std::int64_t head = index / blocks / to.shape[2] % to.shape[1];
  const std::int64_t sequence = index / blocks / to.shape[2] / to.shape[1];
  auto* const sums = call.scratch<double>(worker);
  std::fill(sums, sums + kBiasBlock, 0.0);
  const KeyRange sequences = summed_over(to.shape[0], sequence, p.batch);
  const KeyRange heads = summed_over(to.shape[1], head, p.heads);
  for (std::int64_t b = sequences.begin; b < sequences.end; ++b) {
    const Place place(call.args, p, b);
    KeyRange queries = summed_over(to.shape[2], query, place.sequence.seq_q);
    queries.end = std::min(queries.end, place.sequence.seq_q);
    for (std::int64_t h = heads.begin; h < heads.end; ++h) {
      for (std::int64_t i = queries.begin; i < queries.end; ++i) {
        const RowStatistics& statistics = call.statistics(place.row_of(p, i), h);
        if (statistics.lse == kMinusInfinity) continue;
        QueryRow<T> row(call.args, p, place, h, i);
        const KeyRange keys = intersect(row.keys(), block);
        for (std::int64_t j = keys.begin; j < keys.end; ++j) {
          PairGradient pair;
          if (pair_gradient(call, row, j, statistics, pair)) sums[j - first] += pair.score;
        }
      }
    }
  }
  const std::int64_t at = sequence * to.stride[0] + head * to.stride[1] + query * to.stride[2];
  for (std::int64_t j = block.begin; j < block.end; ++j)
    store_element(to.dtype, to.data, at + j * to.stride[3], sums[j - first]);
}

// One element of dsinks.
inline void sink_task(void* context, std::int64_t head, int /*worker*/) {
  const auto& call = *static_cast<const BackwardCall*>(context);
  const AttentionArgs& args = call.args;
  const double sink = args.sinks.as<const float>()[head * args.sinks.stride[0]];
  double sum = 0;
  for (std::int64_t row = 0; row < query_rows(call.p); ++row) {
    const RowStatistics& statistics = call.statistics(row, head);
    if (statistics.lse != kMinusInfinity) sum -= sink_share(sink, statistics.lse) * statistics.delta;
  }
  args.dsinks.as<float>()[head * args.dsinks.stride[0]] = static_cast<float>(sum);
}

// The pages that hold keys in use, from the last sequence and place to the first.
inline void find_page_uses(BackwardCall& call) noexcept {
  const AttentionProblem& p = call.p;
  const std::int64_t places = call.args.block_table.shape[1];
  call.uses.first = reinterpret_cast<std::int64_t*>(call.workspace + call.layout.page_uses);
  call.uses.next = call.uses.first + p.pages;
  std::fill(call.uses.first, call.uses.first + p.pages, -1);
  for (std::int64_t b = p.batch - 1; b >= 0; --b) {
    const Sequence s = sequence_of(call.args, p, b);
    if (s.keys.empty()) continue;
    for (std::int64_t place = (s.keys.end - 1) / p.page_size; place >= s.keys.begin / p.page_size; --place) {
      std::int64_t& first = call.uses.first[s.pages[place * s.page_stride]];
      call.uses.next[b * places + place] = first;
      first = b * places + place;
    }
  }
}

template <class T>
Status naive_backward_run(const AttentionArgs& args, const RunContext& context) noexcept {
  const AttentionProblem& p = context.problem;
  BackwardCall call{args, p, BackwardLayout(p), static_cast<unsigned char*>(context.workspace.data),
                    static_cast<float>(dropout_scale(p.dropout_p))};
  if (p.page_size > 0) find_page_uses(call);
  const auto pass = [&](std::int64_t count, core::Task task) {
    core::parallel_for(count, context.threads, task, &call, context.executor);
  };
  if (p.heads > 0) pass(query_rows(p) * p.heads, query_task<T>);
  if (p.kv_heads > 0) pass(args.k.shape[0] * args.k.shape[1] * p.kv_heads, key_task<T>);
  if (p.dbias) {
    const auto& extents = args.dbias.shape;
    pass(extents[0] * extents[1] * extents[2] * ((extents[3] + kBiasBlock - 1) / kBiasBlock), bias_task<T>);
  }
  if (p.dsinks) pass(p.heads, sink_task);
  return {};
}

template <class T>
constexpr Traits naive_backward_traits() {
  return {.direction = Direction::backward,
          .algorithm = "naive_backward",
          .isa = "scalar",
          .dtype = dtype_of<T>,
          .kv_dtype = dtype_of<T>,
          .nan_isolating = true};
}
inline constexpr Policy kNaiveBackwardPolicies[] = {{"row", 1, 1}};

inline std::size_t naive_backward_workspace(const AttentionProblem& p, const Policy& /*policy*/) {
  return BackwardLayout(p).bytes;
}

template <class T>
constexpr Kernel naive_backward_kernel(std::string_view id) {
  return {id,
          naive_backward_traits<T>(),
          kEveryFeature,
          kNaiveBackwardPolicies,
          naive_backward_workspace,
          naive_backward_run<T>};
}

}  // namespace headwise::cpu::scalar
