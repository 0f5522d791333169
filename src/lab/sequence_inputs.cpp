#include "lab/sequence_inputs.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <string>

#include "attention/mask.h"
#include "core/try.h"
#include "lab/random.h"

namespace headwise::lab {
namespace {

constexpr std::int64_t kLargestIndex = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kSpareShare = 16;
// Streams of draws, so that arrays do not follow each other.
enum Stream : std::uint32_t { kPackedQueries, kPackedKeys, kLengths, kStarts, kPages };

class Draws {
 public:
  Draws(std::uint64_t seed, Stream stream)
      : key_{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)}, stream_(stream) {}
  // From 0 to count - 1; count up to 2^32.
  std::int64_t below(std::int64_t count) {
    constexpr std::uint32_t kTag = 0x73657173;  // "seqs"
    const std::uint32_t word = philox({next_++, stream_, kTag, 0}, key_)[0];
    return static_cast<std::int64_t>(std::uint64_t{word} * static_cast<std::uint64_t>(count) >> 32);
  }

 private:
  std::array<std::uint32_t, 2> key_;
  std::uint32_t stream_;
  std::uint32_t next_ = 0;
};

// Which of the sequences is the longest, and which has no or one token (-1: none).
struct Extremes {
  std::int64_t longest = 0, tiny = -1;
  Extremes(std::int64_t count, Draws& draws) : longest(draws.below(count)) {
    if (count >= 3) tiny = (longest + 1 + draws.below(count - 1)) % count;
  }
};

// `count` lengths that sum to `total`, one of them `longest`.
std::vector<std::int64_t> packed_lengths(std::int64_t count, std::int64_t longest, std::int64_t total,
                                         Draws draws) {
  if (count == 0) return {};
  const Extremes extremes(count, draws);
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(count), 0), weights(lengths.size(), 0);
  const auto at = [](std::int64_t index) { return static_cast<std::size_t>(index); };
  lengths[at(extremes.longest)] = longest;
  std::int64_t rest = total - longest;
  if (extremes.tiny >= 0) {
    lengths[at(extremes.tiny)] = std::min(draws.below(2), rest);
    rest -= lengths[at(extremes.tiny)];
  }
  for (std::int64_t i = 0; i < count; ++i) {
    if (i != extremes.longest && i != extremes.tiny) weights[at(i)] = 1 + draws.below(1 << 16);
  }
  const std::int64_t sum = std::reduce(weights.begin(), weights.end());
  std::int64_t left = rest;
  for (std::size_t i = 0; sum > 0 && i < lengths.size(); ++i) {
    const std::int64_t share = std::min(longest, rest * weights[i] / sum);  // rest below 2^31, weights 2^16
    lengths[i] += share;
    left -= share;
  }
  for (const bool tiny_too : {false, true}) {
    for (std::int64_t i = 0; i < count; ++i) {
      if (i == extremes.tiny && !tiny_too) continue;
      const std::int64_t more = std::min(left, longest - lengths[at(i)]);
      lengths[at(i)] += more;
      left -= more;
    }
  }
  return lengths;
}

std::vector<std::int32_t> offsets_of(const std::vector<std::int64_t>& lengths) {
  std::vector<std::int32_t> offsets{0};
  for (const std::int64_t length : lengths)
    offsets.push_back(offsets.back() + static_cast<std::int32_t>(length));
  return offsets;
}

// Lengths in use of a cache: any up to the room there is.
std::vector<std::int32_t> cache_lengths(std::int64_t count, std::int64_t longest, Draws draws) {
  if (count == 0) return {};
  const Extremes extremes(count, draws);
  std::vector<std::int32_t> lengths;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t drawn =
        draws.below(i == extremes.tiny ? std::min<std::int64_t>(2, longest + 1) : longest + 1);
    lengths.push_back(static_cast<std::int32_t>(i == extremes.longest ? longest : drawn));
  }
  return lengths;
}

// Left padding: in the first half of the keys. Without lengths, which have a sequence without keys
// themselves, the tiny one of three or more begins where it ends.
std::vector<std::int32_t> cache_starts(const AttentionProblem& p, const std::vector<std::int32_t>& ends,
                                       Draws draws) {
  if (p.batch == 0) return {};
  const Extremes extremes(p.batch, draws);
  std::vector<std::int32_t> starts;
  for (std::int64_t i = 0; i < p.batch; ++i) {
    const std::int64_t end = p.lengths ? ends[static_cast<std::size_t>(i)] : p.seq_kv;
    const std::int64_t half = end / 2;
    const std::int64_t start = half == 0 ? 0 : 1 + draws.below(half);
    starts.push_back(static_cast<std::int32_t>(!p.lengths && i == extremes.tiny ? end : start));
  }
  return starts;
}

// What an entry holds that belongs to no page: nobody may follow it.
std::int32_t rubbish(std::int64_t n) { return n % 2 == 0 ? -1 : std::numeric_limits<std::int32_t>::max(); }

Status fill_table(const AttentionProblem& p, Draws draws, SequenceArrays& arrays) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(p.pages));
  std::iota(order.begin(), order.end(), 0);
  for (std::int64_t i = p.pages - 1; i > 0; --i)
    std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(draws.below(i + 1))]);
  const std::int64_t slots = pages_a_sequence(p);
  std::size_t taken = 0;
  for (std::int64_t b = 0; b < p.batch; ++b) {
    const auto at = static_cast<std::size_t>(b);
    const std::int64_t end = p.lengths ? arrays.lengths_kv[at] : p.seq_kv;
    const std::int64_t begin = p.starts ? arrays.starts_kv[at] : 0;
    for (std::int64_t slot = 0; slot < slots; ++slot) {
      const bool used = (slot + 1) * p.page_size > begin && slot * p.page_size < end && begin < end;
      if (used && taken == order.size()) {
        return Status::invalid_argument("pages: " + std::to_string(p.pages) + " of page_size " +
                                        std::to_string(p.page_size) +
                                        " are fewer than the keys in use take; give more, or 0 for as many "
                                        "as needed");
      }
      arrays.block_table.push_back(used ? order[taken++] : rubbish(b + slot));
    }
  }
  return {};
}

std::int64_t default_total(std::int64_t batch, std::int64_t longest) {
  return batch <= 0 ? 0 : longest + (batch - 1) * ((longest + 1) / 2);
}

Status check_total(const char* name, std::int64_t total, const char* longest_name, std::int64_t longest,
                   std::int64_t batch) {
  if (total > kLargestIndex)
    return Status::unsupported(std::string("inputs: ") + name + ": index arrays count to 2^31 - 1, got " +
                               std::to_string(total));
  const std::int64_t least = batch > 0 ? longest : 0;
  if (total >= least && total <= batch * longest) return {};
  return Status::invalid_argument(
      std::string(name) + ": expected " + std::to_string(least) + " to " + std::to_string(batch * longest) +
      " (" + longest_name + " " + std::to_string(longest) + " is the longest of " + std::to_string(batch) +
      " sequences), got " + std::to_string(total) + "; give 0 for sequences half as long on average");
}

// By which cost() is off because mask and bias are f32 whatever the dtype.
double f32_features(const AttentionProblem& p) {
  const auto elements = [&](unsigned axes) {
    double count = static_cast<double>(p.seq_kv);
    if ((axes & kAxisBatch) != 0) count *= static_cast<double>(p.batch);
    if ((axes & kAxisHeads) != 0) count *= static_cast<double>(p.heads);
    if ((axes & kAxisQueries) != 0) count *= static_cast<double>(p.seq_q);
    return count;
  };
  const double more = 4 - static_cast<double>(size_of(p.dtype));
  return ((p.mask == MaskKind::additive ? elements(p.mask_axes) : 0) + (p.bias ? elements(p.bias_axes) : 0)) *
         more;
}

}  // namespace

AttentionProblem completed(AttentionProblem p) {
  if (p.varlen && p.total_q == 0) p.total_q = default_total(p.batch, p.seq_q);
  if (p.varlen && p.total_kv == 0 && p.page_size == 0) p.total_kv = default_total(p.batch, p.seq_kv);
  if (p.page_size > 0 && p.pages == 0) {
    const std::int64_t used = p.batch * pages_a_sequence(p);
    p.pages = used + std::max<std::int64_t>(1, used / kSpareShare);
  }
  return p;
}

Status check_sequences(const AttentionProblem& p) {
  if (p.varlen && p.page_size == 0 && (p.lengths || p.starts)) {
    return Status::invalid_argument(
        std::string(p.lengths ? "lengths" : "starts") +
        ": expected 0 with varlen, whose cu_seqlens_kv tells where sequences begin "
        "and end; give page_size for a paged cache");
  }
  if (p.page_size > 0 && p.seq_kv % p.page_size != 0) {
    return Status::invalid_argument(
        "seq_kv: expected a multiple of page_size " + std::to_string(p.page_size) +
        ", which a table of whole pages has room for, got " + std::to_string(p.seq_kv));
  }
  if (p.page_size > 0 && p.total_kv != 0) {
    return Status::invalid_argument("total_kv: expected 0 with page_size, whose keys are not packed, got " +
                                    std::to_string(p.total_kv));
  }
  if ((p.lengths || p.starts) && p.seq_kv > kLargestIndex)
    return Status::unsupported("inputs: seq_kv: index arrays count to 2^31 - 1, got " +
                               std::to_string(p.seq_kv));
  if (p.pages > kLargestIndex)
    return Status::unsupported("inputs: pages: index arrays count to 2^31 - 1, got " +
                               std::to_string(p.pages));
  if (!p.varlen) return {};
  HEADWISE_TRY(check_total("total_q", p.total_q, "seq_q", p.seq_q, p.batch));
  return p.page_size > 0 ? Status() : check_total("total_kv", p.total_kv, "seq_kv", p.seq_kv, p.batch);
}

Result<SequenceArrays> make_sequences(const AttentionProblem& p, std::uint64_t seed) {
  SequenceArrays arrays;
  if (p.varlen) {
    arrays.cu_seqlens_q = offsets_of(packed_lengths(p.batch, p.seq_q, p.total_q, {seed, kPackedQueries}));
    const bool same = p.seq_q == p.seq_kv && p.total_q == p.total_kv;
    const Stream stream = same ? kPackedQueries : kPackedKeys;
    if (p.page_size == 0)
      arrays.cu_seqlens_kv = offsets_of(packed_lengths(p.batch, p.seq_kv, p.total_kv, {seed, stream}));
  }
  if (p.lengths) arrays.lengths_kv = cache_lengths(p.batch, p.seq_kv, {seed, kLengths});
  if (p.starts) arrays.starts_kv = cache_starts(p, arrays.lengths_kv, {seed, kStarts});
  if (p.page_size > 0) HEADWISE_TRY(fill_table(p, {seed, kPages}, arrays));
  return arrays;
}

std::string lengths_text(const AttentionProblem& problem, std::uint64_t seed) {
  const AttentionProblem p = completed(problem);
  const Result<SequenceArrays> arrays =
      check_sequences(p).ok() ? make_sequences(p, seed) : Status::invalid_argument("no such sequences");
  if (!arrays) return "";
  const auto lengths_of = [](const std::vector<std::int32_t>& offsets) {
    std::vector<std::int32_t> lengths;
    for (std::size_t i = 1; i < offsets.size(); ++i) lengths.push_back(offsets[i] - offsets[i - 1]);
    return lengths;
  };
  std::string text;
  for (const auto& [name, values] : {std::pair{"q", lengths_of(arrays->cu_seqlens_q)},
                                     {"kv", lengths_of(arrays->cu_seqlens_kv)},
                                     {"kv", arrays->lengths_kv},
                                     {"starts", arrays->starts_kv}}) {
    if (values.empty()) continue;
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    text += (text.empty() ? "" : ", ") + std::string(name) + " " + std::to_string(*least) + ".." +
            std::to_string(*most);
  }
  return text;
}

Cost actual_cost(const AttentionProblem& problem, std::uint64_t seed) {
  const AttentionProblem p = completed(problem);
  if (!p.varlen && !p.lengths && !p.starts) {
    Cost whole = cost(p);
    whole.bytes_read += f32_features(p);
    return whole;
  }
  const Result<SequenceArrays> arrays =
      check_sequences(p).ok() ? make_sequences(p, seed) : Status::invalid_argument("no such sequences");
  if (!arrays) return cost(p);
  double pairs = 0;
  AttentionProblem rows = p;  // as if the rows that are read were packed
  rows.varlen = true;
  rows.total_q = p.varlen ? p.total_q : p.batch * p.seq_q;
  rows.total_kv = 0;
  for (std::size_t b = 0; b < static_cast<std::size_t>(p.batch); ++b) {
    const std::vector<std::int32_t>&cu_q = arrays->cu_seqlens_q, &cu_kv = arrays->cu_seqlens_kv;
    const std::int64_t seq_q = p.varlen ? cu_q[b + 1] - cu_q[b] : p.seq_q;
    KeyRange keys{0, cu_kv.empty() ? p.seq_kv : cu_kv[b + 1] - cu_kv[b]};
    if (p.lengths) keys.end = arrays->lengths_kv[b];
    if (p.starts) keys.begin = arrays->starts_kv[b];
    const Band band = band_of(p, seq_q, keys);
    std::int64_t seen = 0;
    for (std::int64_t i = 0; i < seq_q; ++i) {
      const KeyRange range = key_range(band, i);
      if (!range.empty()) seen += range.end - range.begin;
    }
    pairs += static_cast<double>(seen) * static_cast<double>(p.heads);
    rows.total_kv += keys.end - keys.begin;
  }
  if (rows.total_kv == 0) rows.seq_kv = 0;  // a total of 0 would count as not given
  Cost actual = cost(rows);
  actual.flops = pairs * 2 * static_cast<double>(p.head_dim + p.head_dim_v) *
                 (p.direction == Direction::backward ? 2.5 : 1.0);
  actual.pairs = pairs;
  actual.bytes_read += f32_features(rows);
  return actual;
}

}  // namespace headwise::lab
