#include "lab/planting.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <utility>

#include "attention/sequence.h"
#include "core/parallel_for.h"
#include "lab/feature_inputs.h"
#include "lab/random.h"
#include "lab/structured.h"

namespace headwise::lab {
namespace {

constexpr std::int64_t kRowsPerHead = 16;
constexpr std::int64_t kSampledKeys = 256;
constexpr double kLogitMargin = 2;
constexpr double kMarginStep = 0.25;
constexpr double kLargestElement = 16;
constexpr double kMostPenalty = 12;  // by ALiBi: elements up to kLargestElement do not make up for more
constexpr std::array<std::uint32_t, 2> kPlantKey = {0x706c616e, 0x74};  // "plan", "t"

// Round places first, so that short and long cases share them; then random ones.
std::vector<std::int64_t> planted_queries(std::int64_t seq_q, std::uint32_t group) {
  std::vector<std::int64_t> queries;
  const auto add = [&](std::int64_t query) {
    if (query < 0 || query >= seq_q) return;
    if (std::find(queries.begin(), queries.end(), query) == queries.end()) queries.push_back(query);
  };
  for (const std::int64_t query : {seq_q - 1, std::int64_t{0}, std::int64_t{63}, std::int64_t{64},
                                   std::int64_t{511}, std::int64_t{512}, seq_q / 2}) {
    add(query);
  }
  for (std::uint32_t i = 0; i < 64 && seq_q > 0 && static_cast<std::int64_t>(queries.size()) < kRowsPerHead;
       ++i) {
    const auto words = philox({i, group, 0, 0}, kPlantKey);
    add(static_cast<std::int64_t>((std::uint64_t{words[1]} << 32 | words[0]) %
                                  static_cast<std::uint64_t>(seq_q)));
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

bool is_nan(const TensorView& view, std::int64_t at) {
  return std::isnan(load_element(view.dtype, view.data, at));
}

class GroupPlanner {
 public:
  GroupPlanner(const AttentionArgs& args, const AttentionProblem& problem, std::int64_t sequence,
               std::int64_t kv_head, std::vector<Plant>& out)
      : args_(args),
        problem_(problem),
        place_(sequence_of(args, problem, sequence)),
        sequence_(sequence),
        kv_head_(kv_head),
        out_(out) {}

  void run() {
    const auto group = static_cast<std::uint32_t>(sequence_ * problem_.kv_heads + kv_head_);
    const std::vector<std::int64_t> queries = planted_queries(place_.seq_q, group);
    const std::int64_t shared = problem_.heads / problem_.kv_heads;
    const auto count = static_cast<std::int64_t>(queries.size());
    const std::int64_t rows = std::min(kRowsPerHead, count * shared);
    for (std::int64_t n = 0; n < rows; ++n) {
      const std::int64_t query = queries[static_cast<std::size_t>(n % count)];
      const std::int64_t head = kv_head_ * shared + (n + n / count) % shared;
      plant_row({sequence_, head, query}, static_cast<std::uint32_t>(2 * n), group);
    }
  }

 private:
  void plant_row(const oracle::RowId& row, std::uint32_t n, std::uint32_t group) {
    const Band band = band_of(problem_, place_);
    const KeyRange range = key_range(band, row.query);
    if (range.empty()) return;
    const ScoreRow scores(args_, problem_, row, band);
    std::int64_t first = range.begin, last = range.end - 1;  // that the mask leaves
    while (first < last && scores.hidden(first)) ++first;
    while (last > first && scores.hidden(last)) --last;
    if (scores.hidden(first)) return;  // sees no key
    std::int64_t masked = first;
    while (masked <= last && !scores.hidden(masked)) ++masked;
    const auto claim_seen = [&](std::int64_t key) {
      if (key >= 0 && !scores.hidden(key) && scores.added(key) > -kMostPenalty) claim(row, key, true);
    };
    claim_seen(last);
    claim(row, range.end, false);
    claim(row, range.begin - 1, false);
    claim_seen(first);
    if (masked <= last) claim(row, masked, false);
    claim_seen(tile_edge(range, n, group));
    claim_seen(tile_edge(range, n + 1, group));
  }

  void claim(const oracle::RowId& row, std::int64_t key, bool visible) {
    if (key < place_.keys.begin || key >= place_.keys.end) return;
    // What nobody may see holds NaN, which tells more than any plant.
    if (!visible && problem_.mask != MaskKind::none &&
        is_nan(args_.k, key_offset(args_.k, problem_, place_, key, kv_head_)))
      return;
    if (taken_.insert(key).second) out_.push_back({row, key, visible});
  }

  const AttentionArgs& args_;
  const AttentionProblem& problem_;
  Sequence place_;
  std::int64_t sequence_;
  std::int64_t kv_head_;
  std::vector<Plant>& out_;
  std::set<std::int64_t> taken_;
};

double dot(const TensorView& q, std::int64_t q_at, const TensorView& k, std::int64_t k_at) {
  double sum = 0;
  for (std::int64_t c = 0; c < q.shape[3]; ++c) {
    sum += load_element(q.dtype, q.data, q_at + c) * load_element(k.dtype, k.data, k_at + c);
  }
  return sum;
}

// A planted row with all that its scores are made of.
struct PlantedRow {
  const AttentionArgs& args;
  const AttentionProblem& problem;
  oracle::RowId row;
  Sequence place;
  Band band;
  std::int64_t kv_head;
  std::int64_t q_at;
  double scale;

  PlantedRow(const AttentionArgs& host, const AttentionProblem& p, const oracle::RowId& id)
      : args(host),
        problem(p),
        row(id),
        place(sequence_of(host, p, id.batch)),
        band(band_of(p, place)),
        kv_head(id.head / (p.heads / p.kv_heads)),
        q_at(query_offset(host.q, place, id.query, id.head)),
        scale(p.scale()) {}

  [[nodiscard]] ScoreRow scores() const { return {args, problem, row, band}; }
  [[nodiscard]] std::int64_t key_at(const TensorView& view, std::int64_t key) const {
    return key_offset(view, problem, place, key, kv_head);
  }
};

// Keys of the range that a sample would miss and that matter.
std::vector<std::int64_t> standing_out(const PlantedRow& r, const InputSpec& spec, const KeyRange& range) {
  if (spec.kind != InputKind::structured) return {};
  AttentionProblem own = r.problem;
  own.seq_q = r.place.seq_q;
  own.seq_kv = r.place.keys.end;
  std::vector<std::int64_t> keys =
      heavy_keys({spec.seed, r.row.batch, query_place(own, r.row.query), r.row.head, r.kv_head, own.seq_kv});
  const ScoreRow scores = r.scores();
  std::erase_if(
      keys, [&](std::int64_t key) { return key < range.begin || key >= range.end || scores.hidden(key); });
  return keys;
}

// Logarithm of the summed exponentials of the row's scores, its sink's among them: of those that stand out,
// and of all others from at most kSampledKeys of them.
double estimated_lse(const PlantedRow& r, const InputSpec& spec) {
  const KeyRange range = key_range(r.band, r.row.query);
  const std::int64_t count = range.end - range.begin;
  const std::int64_t samples = std::min(count, kSampledKeys);
  const std::vector<std::int64_t> certain = standing_out(r, spec, range);
  const ScoreRow scores = r.scores();
  std::vector<double> sampled, exact;
  double largest = -HUGE_VAL;
  const auto score = [&](std::int64_t key) {
    if (scores.hidden(key)) return -HUGE_VAL;
    const double scaled = r.scale * dot(r.args.q, r.q_at, r.args.k, r.key_at(r.args.k, key));
    const double value = scores.score(scaled, key);
    largest = std::max(largest, value);
    return value;
  };
  for (const std::int64_t key : certain) exact.push_back(score(key));
  for (std::int64_t i = 0; i < samples; ++i) {
    const std::int64_t key = range.begin + i * count / samples;
    if (!std::binary_search(certain.begin(), certain.end(), key)) sampled.push_back(score(key));
  }
  const TensorView& sinks = r.args.sinks;
  const double sink =
      r.problem.sinks ? load_element(sinks.dtype, sinks.data, r.row.head * sinks.stride[0]) : -HUGE_VAL;
  largest = std::max(largest, sink);
  const auto sum = [&](const std::vector<double>& values) {
    double total = 0;
    for (const double value : values) total += std::exp(value - largest);
    return total;
  };
  const auto others = static_cast<double>(count) - static_cast<double>(exact.size());
  const double weight = sampled.empty() ? 0 : others / static_cast<double>(sampled.size());
  return largest + std::log(sum(exact) + sum(sampled) * weight + std::exp(sink - largest));
}

// scale * q k that gives the key this score, before what is added and the softcap; as near as the softcap
// allows.
double wanted_product(const PlantedRow& r, std::int64_t key, double target) {
  // A key that the mask hides from this row gets what would make it dominate if it were not.
  const ScoreRow scores = r.scores();
  const double wanted = scores.hidden(key) ? target : target - scores.added(key);
  const double cap = r.problem.softcap;
  if (cap == 0) return wanted;
  constexpr double kMostOfCap = 0.99;
  return cap * std::atanh(std::clamp(wanted / cap, -kMostOfCap, kMostOfCap));
}

void write_plant(const PlantedRow& r, const Plant& plant, double target) {
  const AttentionArgs& args = r.args;
  double largest = 0;
  for (std::int64_t c = 0; c < args.q.shape[3]; ++c) {
    largest = std::max(largest, std::abs(load_element(args.q.dtype, args.q.data, r.q_at + c)));
  }
  const double per_unit = r.scale * dot(args.q, r.q_at, args.q, r.q_at);  // score of the key 1 * q
  if (per_unit != 0) {
    const double limit = kLargestElement / largest;
    const double factor = std::clamp(wanted_product(r, plant.key, target) / per_unit, -limit, limit);
    const std::int64_t k_at = r.key_at(args.k, plant.key);
    for (std::int64_t c = 0; c < args.k.shape[3]; ++c) {
      const double value = factor * load_element(args.q.dtype, args.q.data, r.q_at + c);
      store_element(args.k.dtype, args.k.data, k_at + c, value);
    }
  }
  const std::int64_t v_at = r.key_at(args.v, plant.key);
  for (std::int64_t c = 0; c < args.v.shape[3]; ++c) {
    store_element(args.v.dtype, args.v.data, v_at + c, 2 * load_element(args.v.dtype, args.v.data, v_at + c));
  }
}

struct PlantingJob {
  const AttentionArgs& args;
  const AttentionProblem& problem;
  const InputSpec& spec;
  std::vector<std::span<const Plant>> groups;  // one a (sequence, kv head): they share no key
};

void plant_group(void* context, std::int64_t index, int /*worker*/) {
  const auto& job = *static_cast<const PlantingJob*>(context);
  const std::span<const Plant> group = job.groups[static_cast<std::size_t>(index)];
  std::vector<double> targets;
  double lse = 0;
  int in_row = 0;  // plants of a row stand side by side
  for (std::size_t i = 0; i < group.size(); ++i) {
    const oracle::RowId& row = group[i].row;
    const bool same = i > 0 && row.query == group[i - 1].row.query && row.head == group[i - 1].row.head;
    in_row = same ? in_row + 1 : 0;
    if (!same) lse = estimated_lse({job.args, job.problem, row}, job.spec);
    targets.push_back(lse + kLogitMargin - kMarginStep * in_row);
  }
  for (std::size_t i = 0; i < group.size(); ++i)
    write_plant({job.args, job.problem, group[i].row}, group[i], targets[i]);
}

}  // namespace

std::vector<Plant> plants(const AttentionProblem& problem, const AttentionArgs& host_args) {
  std::vector<Plant> out;
  if (problem.seq_q <= 0 || problem.seq_kv <= 0) return out;
  for (std::int64_t sequence = 0; sequence < problem.batch; ++sequence) {
    for (std::int64_t kv_head = 0; kv_head < problem.kv_heads; ++kv_head) {
      GroupPlanner(host_args, problem, sequence, kv_head, out).run();
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
