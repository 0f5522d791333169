// From which length one contender is faster than the baseline.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "core/text.h"
#include "lab/insights_rows.h"
#include "lab/insights_steps.h"

namespace headwise::lab {
namespace {

enum class Standing : std::uint8_t { slower, unclear, faster };

// One length of a family.
struct Point {
  std::int64_t length = 0;
  Ratio ratio;  // above 1: the contender is faster
  Standing standing = Standing::unclear;
};

Standing standing_of(const Ratio& ratio) {
  if (ratio.interval.low > 1) return Standing::faster;
  return ratio.interval.high < 1 ? Standing::slower : Standing::unclear;
}

// Cases that differ only in the number of keys (and of queries with it, where both are the same).
struct Family {
  std::map<std::int64_t, const ComparableRows*> by_length;
};

// "seq-q" of "seq-q=1" and, as axes are also called, of "seq_q=1".
std::string name_of_word(std::string_view word) {
  std::string name(word.substr(0, word.find('=')));
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

// The case's words without its lengths, and what else sets rows apart.
std::string family_key(const ComparableRows& group) {
  const Row& row = *group.rows.front();
  std::string key = row.seq_q == row.seq_kv ? "prefill" : fmt::format("{} queries", row.seq_q);
  for (const std::string_view word : core::split_words(group.case_id)) {
    const std::string name = name_of_word(word);
    if (name != "seq" && name != "seq-q" && name != "seq-kv") key += fmt::format(" {}", word);
  }
  return fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n{}", key, row.device, row.direction, row.threads, row.timer,
                     row.regime, row.cache);
}

// Words that the family's text tells in its own way, or that are the same for everybody.
bool told(std::string_view word, bool threads_vary) {
  static constexpr std::string_view kTold[] = {"dtype",      "kv-dtype", "heads",  "kv-heads",
                                               "head-dim",   "seq",      "seq-q",  "seq-kv",
                                               "head-dim-v", "align",    "causal", "direction"};
  const std::string name = name_of_word(word);
  return std::find(std::begin(kTold), std::end(kTold), name) != std::end(kTold) || word == "inputs=normal" ||
         word == "batch=1" || (name == "threads" && !threads_vary);
}

std::string family_text(const ComparableRows& group, bool threads_vary) {
  const Row& row = *group.rows.front();
  std::string text = row.seq_q == row.seq_kv ? "prefill" : row.seq_q == 1 ? "decoding" : "";
  if (text.empty()) text = fmt::format("{} queries", row.seq_q);
  if (row.direction != "forward") text += ", " + row.direction;
  if (row.causal && row.seq_q != 1) text += ", causal";
  text += row.kv_heads == row.heads ? fmt::format(", {} heads", row.heads)
                                    : fmt::format(", {} heads on {}", row.heads, row.kv_heads);
  text += row.head_dim_v == row.head_dim ? fmt::format(" of {}", row.head_dim)
                                         : fmt::format(" of {} and {}", row.head_dim, row.head_dim_v);
  text += ", " + dtype_text(row);
  for (const std::string_view word : core::split_words(group.case_id)) {
    if (told(word, threads_vary)) continue;
    const std::size_t sign = word.find('=');
    text += sign == std::string_view::npos
                ? fmt::format(", {}", word)
                : fmt::format(", {} {}", name_of_word(word), word.substr(sign + 1));
  }
  return text;
}

// "128", "128 and 256", "128, 512 to 4096": neighbours among the lengths measured are drawn together.
std::string lengths_text(const std::vector<Point>& points, Standing wanted) {
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (points[i].standing != wanted) continue;
    std::size_t last = i;
    while (last + 1 < points.size() && points[last + 1].standing == wanted) ++last;
    parts.push_back(last == i       ? fmt::format("{}", points[i].length)
                    : last == i + 1 ? fmt::format("{} and {}", points[i].length, points[last].length)
                                    : fmt::format("{} to {}", points[i].length, points[last].length));
    i = last;
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

// "1.20x to 2.40x", over the lengths where the contender is faster.
std::string gain_text(const std::vector<Point>& points) {
  double low = 0, high = 0;
  for (const Point& point : points) {
    if (point.standing != Standing::faster) continue;
    low = low == 0 ? point.ratio.value : std::min(low, point.ratio.value);
    high = std::max(high, point.ratio.value);
  }
  return ratio_text(low) == ratio_text(high) ? ratio_text(low)
                                             : fmt::format("{} to {}", ratio_text(low), ratio_text(high));
}

// Where the ratio passes 1 between points a and b, on a line of log(ratio) over log(length).
double crossing(const Point& a, const Point& b) {
  const double from = std::log(a.ratio.value), to = std::log(b.ratio.value);
  const double x = std::log(static_cast<double>(a.length)), y = std::log(static_cast<double>(b.length));
  return std::exp(x + (y - x) * from / (from - to));
}

// Points [0, split) are of one kind and the rest of the other: where the ratio passes 1, if it does so once.
OptionalNumber interpolate(const std::vector<Point>& points) {
  OptionalNumber found;
  for (std::size_t i = 0; i + 1 < points.size(); ++i) {
    if ((points[i].ratio.value < 1) == (points[i + 1].ratio.value < 1)) continue;
    if (found) return {};
    found = crossing(points[i], points[i + 1]);
  }
  return found;
}

std::string span_text(const std::vector<Point>& points) {
  return fmt::format("{} to {}", points.front().length, points.back().length);
}

// "; slower at 64, within noise at 128": what the verdict has not told.
std::string rest_text(const std::vector<Point>& points) {
  std::string text;
  if (const std::string slower = lengths_text(points, Standing::slower); !slower.empty())
    text += fmt::format("slower at {}", slower);
  if (const std::string unclear = lengths_text(points, Standing::unclear); !unclear.empty())
    text += fmt::format("{}within noise at {}", text.empty() ? "" : ", ", unclear);
  return text;
}

// Fills kind, at, beyond, interpolated and verdict.
void judge(const std::vector<Point>& points, Crossover& c) {
  const auto is_faster = [](const Point& p) { return p.standing == Standing::faster; };
  const auto is_slower = [](const Point& p) { return p.standing == Standing::slower; };
  const auto faster = std::count_if(points.begin(), points.end(), is_faster);
  const bool first = is_faster(points.front()), last = is_faster(points.back());
  if (faster == static_cast<std::ptrdiff_t>(points.size())) {
    c.kind = CrossoverKind::everywhere;
    c.verdict = fmt::format("at every length measured ({}): {}", span_text(points), gain_text(points));
    return;
  }
  if (faster == 0) {
    c.kind = CrossoverKind::nowhere;
    c.verdict = fmt::format("at no length measured ({}): {}", span_text(points), rest_text(points));
    return;
  }
  const auto turns = [&] {
    int count = 0;
    for (std::size_t i = 0; i + 1 < points.size(); ++i)
      count += is_faster(points[i]) != is_faster(points[i + 1]) ? 1 : 0;
    return count;
  }();
  const std::string gain = gain_text(points);
  if (turns == 1 && last) {
    c.kind = CrossoverKind::from;
    c.at = std::find_if(points.begin(), points.end(), is_faster)->length;
    const auto slow = std::find_if(points.rbegin(), points.rend(), is_slower);
    if (slow != points.rend()) c.beyond = slow->length;
    c.verdict = fmt::format("from {} on: {}", *c.at, gain);
  } else if (turns == 1 && first) {
    c.kind = CrossoverKind::until;
    c.at = std::find_if(points.rbegin(), points.rend(), is_faster)->length;
    const auto slow = std::find_if(points.begin(), points.end(), is_slower);
    if (slow != points.end()) c.beyond = slow->length;
    c.verdict = fmt::format("up to {}: {}", *c.at, gain);
  } else {
    c.kind = CrossoverKind::mixed;
    c.verdict = fmt::format("not monotonically: at {} ({})", lengths_text(points, Standing::faster), gain);
  }
  if (c.kind != CrossoverKind::mixed) c.interpolated = interpolate(points);
  c.verdict += "; " + rest_text(points);
  if (c.interpolated) c.verdict += fmt::format("; equal near {:.0f} by interpolation", *c.interpolated);
}

// Who the contender is held against: the baseline's algorithm on its own instruction set, else the baseline.
// Peers are held against nobody: of theirs, the best meets the best kernel (best_of).
std::string opponent_of(const Row& contender, const Family& family) {
  if (is_peer(contender)) return "";
  std::string algorithm = "unfused", baseline;
  for (const auto& [length, group] : family.by_length) {
    for (const Row* row : group->rows) {
      if (row->baseline.empty()) continue;
      baseline = row->baseline;
      if (const Row* found = group->find(baseline); found != nullptr) algorithm = found->algorithm;
    }
  }
  if (contender.algorithm == algorithm || contender.contender == baseline) return "";
  std::string other = baseline;
  for (const auto& [length, group] : family.by_length) {
    for (const Row* row : group->rows) {
      if (row->algorithm != algorithm) continue;
      if (row->isa == contender.isa) return row->contender;
      if (other.empty()) other = row->contender;
    }
  }
  return other;
}

// The kernel, or the peer, of most lengths; of those, of the smallest geometric mean of time. nullptr: none.
const Row* best_of(const Family& family, bool peer) {
  struct Total {
    const Row* row = nullptr;
    int lengths = 0;
    double log_ms = 0;
  };
  std::map<std::string, Total> totals;
  for (const auto& [length, group] : family.by_length) {
    for (const Row* row : group->rows) {
      if (is_peer(*row) != peer) continue;
      Total& total = totals[row->contender];
      total.row = row;
      ++total.lengths;
      total.log_ms += std::log(*row->ms_median);
    }
  }
  const Total* best = nullptr;
  for (const auto& [ignored, total] : totals) {
    if (best == nullptr || total.lengths > best->lengths ||
        (total.lengths == best->lengths && total.log_ms < best->log_ms))
      best = &total;
  }
  return best == nullptr ? nullptr : best->row;
}

Crossover compare(const Row& contender, const std::string& opponent, const Family& family) {
  Crossover c;
  c.contender = contender.contender;
  c.baseline = opponent;
  std::vector<Point> points;
  for (const auto& [length, group] : family.by_length) {
    const Row* mine = group->find(contender.contender);
    const Row* other = group->find(opponent);
    if (mine == nullptr || other == nullptr) continue;
    const Ratio ratio = ratio_of(*other, *mine);
    points.push_back({length, ratio, standing_of(ratio)});
    c.lengths.push_back(length);
    c.rows.push_back(group->reference(*mine));
    c.rows.push_back(group->reference(*other));
  }
  if (points.size() > 1) judge(points, c);
  return c;
}

// A row of each, in the order in which they appear.
std::vector<const Row*> contenders_of(const Family& family) {
  std::vector<const Row*> contenders;
  std::set<std::string> seen;
  for (const auto& [length, group] : family.by_length) {
    for (const Row* row : group->rows) {
      if (seen.insert(row->contender).second) contenders.push_back(row);
    }
  }
  return contenders;
}

}  // namespace

std::vector<Crossover> crossovers_of(const std::vector<ComparableRows>& groups, const ShortNames& names) {
  std::vector<Family> families;
  std::map<std::string, std::size_t> places;
  std::set<std::int64_t> threads;
  for (const ComparableRows& group : groups) {
    if (group.rows.front()->threads > 0) threads.insert(group.rows.front()->threads);
    const auto [place, is_new] = places.emplace(family_key(group), families.size());
    if (is_new) families.emplace_back();
    families[place->second].by_length[group.rows.front()->seq_kv] = &group;
  }
  std::vector<Crossover> all;
  for (const Family& family : families) {
    const auto add = [&](const Row& row, const std::string& opponent) {
      Crossover one = compare(row, opponent, family);
      if (one.lengths.size() < 2) return;
      one.family = family_text(*family.by_length.begin()->second, threads.size() > 1);
      one.contender_name = names.of(one.contender);
      one.baseline_name = names.of(one.baseline);
      one.sentence = fmt::format("{}: {} is faster than {} {}.", one.family, one.contender_name,
                                 one.baseline_name, one.verdict);
      all.push_back(std::move(one));
    };
    const Row* kernel = best_of(family, false);
    const Row* peer = best_of(family, true);
    std::string met;
    for (const Row* row : contenders_of(family)) {
      const std::string opponent = opponent_of(*row, family);
      if (!opponent.empty()) add(*row, opponent);
      if (kernel != nullptr && row->contender == kernel->contender) met = opponent;
    }
    if (kernel != nullptr && peer != nullptr && met != peer->contender) add(*kernel, peer->contender);
  }
  return all;
}

}  // namespace headwise::lab
