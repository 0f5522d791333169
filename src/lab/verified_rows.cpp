// Which rows of a result are verified: all, or as many as the time allows.
#include <algorithm>
#include <array>
#include <tuple>

#include "attention/sequence.h"
#include "core/parallel_for.h"
#include "lab/random.h"
#include "lab/verify.h"

namespace headwise::lab {
namespace {

constexpr std::int64_t kLeastRowsPerHead = 64;
constexpr std::array<std::uint32_t, 2> kRowKey = {0x726f7773, 0};  // "rows"

// Truth and plain together, one thread: per pair the exponentials and roundings, and the products
// (measured 57 to 80 ns a pair at head_dim 64 on a 2024 server core; this says 91).
double seconds_per_pair(const AttentionProblem& p) {
  return 1e-9 * (40 + 0.2 * 2 * static_cast<double>(p.head_dim + p.head_dim_v));
}

// The same of gradients, by what a pair is needed for. Measured, all rows: 111, 167 and 293 ns at head_dim
// 32, 64 and 128; the statistics alone: 43, 58 and 85.
struct GradientSeconds {
  double statistics, query, key;  // of a row of statistics, of dq, of dk and dv, a pair
  explicit GradientSeconds(const AttentionProblem& p) {
    const auto channels = static_cast<double>(p.head_dim + p.head_dim_v);
    statistics = 1e-9 * (30 + 0.22 * channels);
    query = 1e-9 * (35 + 0.50 * channels);
    key = 1e-9 * (15 + 0.45 * channels);
  }
};

bool row_less(const oracle::RowId& a, const oracle::RowId& b) {
  return std::tie(a.batch, a.head, a.query) < std::tie(b.batch, b.head, b.query);
}
bool row_equal(const oracle::RowId& a, const oracle::RowId& b) { return !row_less(a, b) && !row_less(b, a); }

bool key_less(const oracle::KeyRowId& a, const oracle::KeyRowId& b) {
  return std::tie(a.batch, a.kv_head, a.key) < std::tie(b.batch, b.kv_head, b.key);
}
bool key_equal(const oracle::KeyRowId& a, const oracle::KeyRowId& b) {
  return !key_less(a, b) && !key_less(b, a);
}

// `count` different positions of `length`, ascending: those at tile edges first, then random ones. The stream
// tells heads apart.
std::vector<std::int64_t> sampled_positions(std::int64_t length, std::int64_t count,
                                            std::array<std::uint32_t, 2> stream) {
  if (length <= 0) return {};
  std::vector<std::int64_t> positions{0, length - 1};
  for (const std::int64_t edge : {64, 128, 512, 1024, 4096, 16384}) {
    for (const std::int64_t position : {edge - 1, edge, edge + 1}) {
      if (position < length) positions.push_back(position);
    }
  }
  const std::int64_t tail = (length - 1) / 64 * 64;  // the last tile, often a short one
  positions.push_back(tail);
  if (tail > 0) positions.push_back(tail - 1);
  // Evenly cut strata with a random place in each: no large stretch stays unseen.
  const std::int64_t strata = std::max<std::int64_t>(1, count - static_cast<std::int64_t>(positions.size()));
  for (std::int64_t i = 0; i < strata; ++i) {
    const std::int64_t begin = i * length / strata, end = (i + 1) * length / strata;
    if (end <= begin) continue;
    const std::uint32_t word = philox({static_cast<std::uint32_t>(i), stream[0], stream[1], 0}, kRowKey)[0];
    positions.push_back(begin + static_cast<std::int64_t>(word) % (end - begin));
  }
  std::sort(positions.begin(), positions.end());
  positions.erase(std::unique(positions.begin(), positions.end()), positions.end());
  for (std::int64_t position = 0; static_cast<std::int64_t>(positions.size()) < std::min(count, length);
       ++position) {
    const auto at = std::lower_bound(positions.begin(), positions.end(), position);
    if (at == positions.end() || *at != position) positions.insert(at, position);
  }
  return positions;
}

// `count` of `length`, or all: what fits into the time, but at least the least.
std::int64_t fitting(std::int64_t length, double seconds, double seconds_of_all) {
  if (seconds_of_all <= seconds) return length;
  const auto fits = static_cast<std::int64_t>(static_cast<double>(length) * seconds / seconds_of_all);
  return std::min(length, std::max(kLeastRowsPerHead, fits));
}

// Rows of queries of every head, the planted ones among them: `per_head` of a sequence, or all it has.
std::vector<oracle::RowId> query_rows(const AttentionProblem& p, std::int64_t per_head,
                                      const AttentionArgs& host_args) {
  std::vector<oracle::RowId> rows;
  for (std::int64_t batch = 0; batch < p.batch; ++batch) {
    const std::int64_t seq_q = sequence_of(host_args, p, batch).seq_q;
    for (std::int64_t head = 0; head < p.heads; ++head) {
      if (per_head >= seq_q) {
        for (std::int64_t query = 0; query < seq_q; ++query) rows.push_back({batch, head, query});
        continue;
      }
      const auto stream = static_cast<std::uint32_t>(batch * p.heads + head);
      for (const std::int64_t query : sampled_positions(seq_q, per_head, {stream, 0}))
        rows.push_back({batch, head, query});
    }
  }
  if (per_head < p.seq_q) {
    for (const Plant& plant : plants(p, host_args)) rows.push_back(plant.row);
    std::sort(rows.begin(), rows.end(), row_less);
    rows.erase(std::unique(rows.begin(), rows.end(), row_equal), rows.end());
  }
  return rows;
}

// (batch, kv head) pairs as batch * kv_heads + kv_head, ascending: the first, the last, and random ones
// between.
std::vector<std::int64_t> sampled_pairs(const AttentionProblem& p, std::int64_t count) {
  const std::int64_t total = p.batch * p.kv_heads;
  std::vector<std::int64_t> pairs{0, total - 1};
  for (std::uint32_t i = 0; static_cast<std::int64_t>(pairs.size()) < std::min(count, total); ++i) {
    const std::uint32_t word = philox({i, 0, 2, 0}, kRowKey)[0];
    std::int64_t pair = static_cast<std::int64_t>(word) % total;
    while (std::find(pairs.begin(), pairs.end(), pair) != pairs.end()) pair = (pair + 1) % total;
    pairs.push_back(pair);
  }
  std::sort(pairs.begin(), pairs.end());
  pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
  return pairs;
}

// Of the keys in use.
std::vector<oracle::KeyRowId> key_rows(const AttentionProblem& p, std::int64_t pair_count,
                                       std::int64_t per_pair, const AttentionArgs& host_args) {
  std::vector<oracle::KeyRowId> rows;
  if (p.seq_kv <= 0 || p.kv_heads <= 0) return rows;
  const std::vector<std::int64_t> pairs = sampled_pairs(p, pair_count);
  for (const std::int64_t pair : pairs) {
    const std::int64_t batch = pair / p.kv_heads, kv_head = pair % p.kv_heads;
    const KeyRange keys = sequence_of(host_args, p, batch).keys;
    const std::int64_t length = keys.end - keys.begin;
    if (per_pair >= length) {
      for (std::int64_t key = keys.begin; key < keys.end; ++key) rows.push_back({batch, kv_head, key});
      continue;
    }
    for (const std::int64_t key : sampled_positions(length, per_pair, {static_cast<std::uint32_t>(pair), 1}))
      rows.push_back({batch, kv_head, keys.begin + key});
  }
  if (per_pair < p.seq_kv) {
    const std::int64_t shared = p.heads / p.kv_heads;
    for (const Plant& plant : plants(p, host_args)) {
      const oracle::KeyRowId row{plant.row.batch, plant.row.head / shared, plant.key};
      if (std::binary_search(pairs.begin(), pairs.end(), row.batch * p.kv_heads + row.kv_head))
        rows.push_back(row);
    }
    std::sort(rows.begin(), rows.end(), key_less);
    rows.erase(std::unique(rows.begin(), rows.end(), key_equal), rows.end());
  }
  return rows;
}

int resolve(int threads) { return threads > 0 ? threads : core::available_threads(); }

}  // namespace

std::vector<oracle::RowId> rows_to_verify(const AttentionProblem& p, double seconds, int threads,
                                          const AttentionArgs& host_args) {
  if (p.batch <= 0 || p.heads <= 0 || p.seq_q <= 0) return {};
  const double all = cost(p).pairs * seconds_per_pair(p) / resolve(threads);
  return query_rows(p, fitting(p.seq_q, seconds, all), host_args);
}

double gradient_reference_seconds(const AttentionProblem& p, double seconds, int threads) {
  const GradientSeconds each(p);
  const double pairs = cost(p).pairs / resolve(threads);
  const double all = pairs * (each.query + each.key);
  if (all <= seconds) return all;
  const double heads =
      std::min(1.0, 2.0 / static_cast<double>(p.batch * p.kv_heads));  // of which keys are named
  const auto part = [](std::int64_t length) {
    return std::min(1.0, static_cast<double>(2 * kLeastRowsPerHead) / static_cast<double>(length));
  };
  const double least =
      pairs * (heads * (each.statistics + part(p.seq_kv) * each.key) + part(p.seq_q) * each.query);
  return std::max(seconds, least);
}

oracle::GradientRows gradient_rows_to_verify(const AttentionProblem& p, double seconds, int threads,
                                             const AttentionArgs& host_args) {
  if (p.batch <= 0 || p.heads <= 0) return {};
  const GradientSeconds each(p);
  const std::int64_t kv_pairs = p.batch * p.kv_heads;
  const double pairs = cost(p).pairs / resolve(threads);
  if (pairs * (each.query + each.key) <= seconds)
    return {query_rows(p, p.seq_q, host_args), key_rows(p, kv_pairs, p.seq_kv, host_args)};
  // A quarter for dq. Of keys, first as many heads as can have their statistics and the least rows, then
  // rows.
  const std::int64_t queries = fitting(p.seq_q, seconds / 4, pairs * each.query);
  const double least_share =
      std::min(1.0, static_cast<double>(kLeastRowsPerHead) / static_cast<double>(p.seq_kv));
  const double of_pair = pairs / static_cast<double>(kv_pairs) * (each.statistics + each.key * least_share);
  const auto fits = static_cast<std::int64_t>(std::min(0.75 * seconds / of_pair, 1e9));
  const std::int64_t chosen = std::clamp<std::int64_t>(fits, std::min<std::int64_t>(2, kv_pairs), kv_pairs);
  const double spare = 0.75 * seconds - pairs * each.statistics;
  const std::int64_t keys =
      chosen < kv_pairs ? kLeastRowsPerHead : fitting(p.seq_kv, std::max(0.0, spare), pairs * each.key);
  return {p.seq_q > 0 ? query_rows(p, queries, host_args) : std::vector<oracle::RowId>{},
          key_rows(p, chosen, keys, host_args)};
}

}  // namespace headwise::lab
