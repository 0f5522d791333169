#include "lab/planting.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <utility>

#include "attention/mask.h"
#include "core/parallel_for.h"
#include "lab/random.h"
#include "lab/structured.h"

namespace headwise::lab {
namespace {

constexpr std::int64_t kRowsPerHead = 16;
constexpr std::int64_t kSampledKeys = 256;
constexpr double kLogitMargin = 2;
constexpr double kMarginStep = 0.25;
constexpr double kLargestElement = 16;
constexpr std::array<std::uint32_t, 2> kPlantKey = {0x706c616e, 0x74};  // "plan", "t"

// Round places first, so that short and long cases share them; then random ones.
std::vector<std::int64_t> planted_queries(const AttentionProblem& p, std::uint32_t group) {
  std::vector<std::int64_t> queries;
  const auto add = [&](std::int64_t query) {
    if (query < 0 || query >= p.seq_q) return;
    if (std::find(queries.begin(), queries.end(), query) == queries.end()) queries.push_back(query);
  };
  for (const std::int64_t query : {p.seq_q - 1, std::int64_t{0}, std::int64_t{63}, std::int64_t{64},
                                   std::int64_t{511}, std::int64_t{512}, p.seq_q / 2}) {
    add(query);
  }
  for (std::uint32_t i = 0; i < 64 && static_cast<std::int64_t>(queries.size()) < kRowsPerHead; ++i) {
    const auto words = philox({i, group, 0, 0}, kPlantKey);
    add(static_cast<std::int64_t>((std::uint64_t{words[1]} << 32 | words[0]) %
                                  static_cast<std::uint64_t>(p.seq_q)));
  }
  return queries;
}

// Near a multiple of 64 or 512 within [range.begin, range.end), or -1.
std::int64_t tile_edge(const KeyRange& range, std::uint32_t n, std::uint32_t group) {
  const auto words = philox({n, group, 1, 0}, kPlantKey);
  const std::int64_t tile = n % 5 < 2 || range.end - range.begin < 1024 ? 64 : 512;
  const std::int64_t beside = std::array<std::int64_t, 5>{-1, 0, -1, 0, 1}[n % 5];
  const std::int64_t first = range.begin / tile + 1;  // multiples of the tile beyond the range's begin
  const std::int64_t count = range.end / tile - first + 1;
  if (count <= 0) return -1;
  const std::int64_t key = (first + static_cast<std::int64_t>(words[0]) % count) * tile + beside;
  return key >= range.begin && key < range.end ? key : -1;
}

class GroupPlanner {
 public:
  GroupPlanner(const AttentionProblem& problem, std::int64_t batch, std::int64_t kv_head,
               std::vector<Plant>& out)
      : problem_(problem), batch_(batch), kv_head_(kv_head), out_(out) {}

  void run() {
    const auto group = static_cast<std::uint32_t>(batch_ * problem_.kv_heads + kv_head_);
    const std::vector<std::int64_t> queries = planted_queries(problem_, group);
    const std::int64_t shared = problem_.heads / problem_.kv_heads;
    const auto count = static_cast<std::int64_t>(queries.size());
    const std::int64_t rows = std::min(kRowsPerHead, count * shared);
    for (std::int64_t n = 0; n < rows; ++n) {
      const std::int64_t query = queries[static_cast<std::size_t>(n % count)];
      const std::int64_t head = kv_head_ * shared + (n + n / count) % shared;
      plant_row({batch_, head, query}, static_cast<std::uint32_t>(2 * n), group);
    }
  }

 private:
  void plant_row(const oracle::RowId& row, std::uint32_t n, std::uint32_t group) {
    const KeyRange range = key_range(problem_, row.query);
    if (range.empty()) return;
    claim(row, range.end - 1, true);
    claim(row, range.end, false);
    claim(row, range.begin - 1, false);
    claim(row, range.begin, true);
    claim(row, tile_edge(range, n, group), true);
    claim(row, tile_edge(range, n + 1, group), true);
  }

  void claim(const oracle::RowId& row, std::int64_t key, bool visible) {
    if (key < 0 || key >= problem_.seq_kv || !taken_.insert(key).second) return;
    out_.push_back({row, key, visible});
  }

  const AttentionProblem& problem_;
  std::int64_t batch_;
  std::int64_t kv_head_;
  std::vector<Plant>& out_;
  std::set<std::int64_t> taken_;
};

std::int64_t row_start(const TensorView& view, std::int64_t batch, std::int64_t position, std::int64_t head) {
  return batch * view.stride[0] + position * view.stride[1] + head * view.stride[2];
}

double dot(const TensorView& q, std::int64_t q_at, const TensorView& k, std::int64_t k_at) {
  double sum = 0;
  for (std::int64_t c = 0; c < q.shape[3]; ++c) {
    sum += load_element(q.dtype, q.data, q_at + c) * load_element(k.dtype, k.data, k_at + c);
  }
  return sum;
}

// Keys of the range that a sample would miss and that matter.
std::vector<std::int64_t> standing_out(const AttentionProblem& p, const InputSpec& spec,
                                       const oracle::RowId& row, const KeyRange& range) {
  if (spec.kind != InputKind::structured) return {};
  std::vector<std::int64_t> keys = heavy_keys({spec.seed, row.batch, query_place(p, row.query), row.head,
                                               row.head / (p.heads / p.kv_heads), p.seq_kv});
  std::erase_if(keys, [&](std::int64_t key) { return key < range.begin || key >= range.end; });
  return keys;
}

// Logarithm of the summed exponentials of the row's scores: of those that stand out, and of all others from
// at most kSampledKeys of them.
double estimated_lse(const AttentionArgs& args, const AttentionProblem& p, const InputSpec& spec,
                     const oracle::RowId& row, double scale) {
  const KeyRange range = key_range(p, row.query);
  const std::int64_t kv_head = row.head / (p.heads / p.kv_heads);
  const std::int64_t count = range.end - range.begin;
  const std::int64_t samples = std::min(count, kSampledKeys);
  const std::int64_t q_at = row_start(args.q, row.batch, row.query, row.head);
  const std::vector<std::int64_t> certain = standing_out(p, spec, row, range);
  std::vector<double> sampled, exact;
  double largest = -HUGE_VAL;
  const auto score = [&](std::int64_t key) {
    const double value = scale * dot(args.q, q_at, args.k, row_start(args.k, row.batch, key, kv_head));
    largest = std::max(largest, value);
    return value;
  };
  for (const std::int64_t key : certain) exact.push_back(score(key));
  for (std::int64_t i = 0; i < samples; ++i) {
    const std::int64_t key = range.begin + i * count / samples;
    if (!std::binary_search(certain.begin(), certain.end(), key)) sampled.push_back(score(key));
  }
  const auto sum = [&](const std::vector<double>& scores) {
    double total = 0;
    for (const double value : scores) total += std::exp(value - largest);
    return total;
  };
  const auto others = static_cast<double>(count) - static_cast<double>(exact.size());
  const double weight = sampled.empty() ? 0 : others / static_cast<double>(sampled.size());
  return largest + std::log(sum(exact) + sum(sampled) * weight);
}

void write_plant(const AttentionArgs& args, const AttentionProblem& p, const Plant& plant, double scale,
                 double target) {
  const std::int64_t kv_head = plant.row.head / (p.heads / p.kv_heads);
  const std::int64_t q_at = row_start(args.q, plant.row.batch, plant.row.query, plant.row.head);
  double largest = 0;
  for (std::int64_t c = 0; c < args.q.shape[3]; ++c) {
    largest = std::max(largest, std::abs(load_element(args.q.dtype, args.q.data, q_at + c)));
  }
  const double per_unit = scale * dot(args.q, q_at, args.q, q_at);  // score of the key 1 * q
  if (per_unit != 0) {
    const double limit = kLargestElement / largest;
    const double factor = std::clamp(target / per_unit, -limit, limit);
    const std::int64_t k_at = row_start(args.k, plant.row.batch, plant.key, kv_head);
    for (std::int64_t c = 0; c < args.k.shape[3]; ++c) {
      const double value = factor * load_element(args.q.dtype, args.q.data, q_at + c);
      store_element(args.k.dtype, args.k.data, k_at + c, value);
    }
  }
  const std::int64_t v_at = row_start(args.v, plant.row.batch, plant.key, kv_head);
  for (std::int64_t c = 0; c < args.v.shape[3]; ++c) {
    store_element(args.v.dtype, args.v.data, v_at + c, 2 * load_element(args.v.dtype, args.v.data, v_at + c));
  }
}

struct PlantingJob {
  const AttentionArgs& args;
  const AttentionProblem& problem;
  const InputSpec& spec;
  std::vector<std::span<const Plant>> groups;  // one a (batch, kv head): they share no key
};

void plant_group(void* context, std::int64_t index, int /*worker*/) {
  const auto& job = *static_cast<const PlantingJob*>(context);
  const std::span<const Plant> group = job.groups[static_cast<std::size_t>(index)];
  const double scale = job.problem.scale();
  std::vector<double> targets;
  double lse = 0;
  int in_row = 0;  // plants of a row stand side by side
  for (std::size_t i = 0; i < group.size(); ++i) {
    const oracle::RowId& row = group[i].row;
    const bool same = i > 0 && row.query == group[i - 1].row.query && row.head == group[i - 1].row.head;
    in_row = same ? in_row + 1 : 0;
    if (!same) lse = estimated_lse(job.args, job.problem, job.spec, row, scale);
    targets.push_back(lse + kLogitMargin - kMarginStep * in_row);
  }
  for (std::size_t i = 0; i < group.size(); ++i)
    write_plant(job.args, job.problem, group[i], scale, targets[i]);
}

}  // namespace

std::vector<Plant> plants(const AttentionProblem& problem) {
  std::vector<Plant> out;
  if (problem.seq_q <= 0 || problem.seq_kv <= 0) return out;
  for (std::int64_t batch = 0; batch < problem.batch; ++batch) {
    for (std::int64_t kv_head = 0; kv_head < problem.kv_heads; ++kv_head) {
      GroupPlanner(problem, batch, kv_head, out).run();
    }
  }
  return out;
}

void plant_values(const AttentionArgs& host_args, const AttentionProblem& problem, const InputSpec& spec,
                  std::span<const Plant> planted) {
  PlantingJob job{host_args, problem, spec, {}};
  const std::int64_t shared = problem.heads / problem.kv_heads;
  std::size_t first = 0;
  for (std::size_t i = 1; i <= planted.size(); ++i) {
    const bool ends = i == planted.size() || planted[i].row.batch != planted[first].row.batch ||
                      planted[i].row.head / shared != planted[first].row.head / shared;
    if (!ends) continue;
    job.groups.push_back(planted.subspan(first, i - first));
    first = i;
  }
  core::parallel_for(static_cast<std::int64_t>(job.groups.size()), core::available_threads(), plant_group,
                     &job);
}

}  // namespace headwise::lab
