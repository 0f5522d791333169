#include "lab/structured.h"

#include <algorithm>
#include <array>
#include <bit>

#include "lab/random.h"

namespace headwise::lab {
namespace {

#include "lab/structured_tables.inc"

constexpr std::int32_t kOne = 1 << 24;  // 1.0 in steps
constexpr int kPeriods = 64;
constexpr std::int64_t kMaxRow = 1024;
constexpr std::uint32_t kQueryTensor = 0, kKeyTensor = 1, kMatchTensor = 3;  // 2 is V
constexpr std::int64_t kMatchBlock = 32;  // queries that share their matches
constexpr std::size_t kMatches = 2;
constexpr std::int64_t kNear = 24;

// Keys: amplitude of the turning pairs 2, of the signs 3/2, of the sink channel 8, 4, 4, 2 at the first keys.
constexpr std::int64_t kPairAmplitude = 2;
constexpr std::int64_t kSinkAmplitude = 8;
constexpr std::array<std::int32_t, kSinkKeys> kSinkShape{8 * kOne, 4 * kOne, 4 * kOne, 2 * kOne};

// Logits in quarters: of a key at distance 0 by the turning pairs; of a match by the signs; of the first
// sink, which grows with the logarithm of the place where `grows`, as the mass of the keys does that it
// outweighs.
struct Gains {
  std::int64_t pairs, match, sink;
  bool grows;
};
constexpr std::array<Gains, kHeadKinds> kGains{{
    {80, 0, 0, false},   // local
    {36, 0, 15, true},   // sink
    {68, 72, 10, true},  // match
    {0, 0, 8, true},     // dense
}};

struct Parts {
  explicit Parts(std::int64_t head_dim)
      : pairs(head_dim / 4), signs(head_dim - 2 * pairs - 1), sink(head_dim - 1) {}
  std::int64_t pairs;
  std::int64_t signs;  // from channel 2 * pairs on
  std::int64_t sink;   // its channel
};

// sqrt(value) * 2^16, rounded down.
std::int64_t root_16(std::int64_t value) {
  const std::int64_t target = value << 32;
  std::int64_t root = 0;
  for (std::int64_t bit = std::int64_t{1} << 22; bit > 0; bit >>= 1) {  // value up to 1024: root up to 2^21
    if ((root + bit) * (root + bit) <= target) root += bit;
  }
  return root;
}

// ln(value) * 2^16, by straight lines between powers of two: at most 0.06 below.
std::int64_t log_16(std::uint64_t value) {
  const int power = std::bit_width(value) - 1;
  const auto beyond = static_cast<std::int64_t>(((value - (std::uint64_t{1} << power)) << 16) >> power);
  constexpr std::int64_t kLog2 = 45426;  // ln 2 * 2^16
  return ((std::int64_t{power} << 16) + beyond) * kLog2 >> 16;
}

// Steps of the sine of angle / 2^32 turns.
std::int64_t sine(std::uint32_t angle) {
  std::uint32_t within = angle & 0x3fffffff;
  if ((angle >> 30 & 1) != 0) within = 0x40000000 - within;
  const std::uint32_t segment = within >> 22;
  const std::int64_t fraction = within & ((1U << 22) - 1);
  const std::int64_t low = kSine[segment];
  const std::int64_t value = low + ((kSine[segment + 1] - low) * fraction >> 22);
  return angle >> 31 != 0 ? -value : value;
}

// Adds amplitude (in steps) times cosine and sine of each pair's angle at the place.
void add_pairs(const Parts& parts, std::int64_t place, std::int64_t amplitude, std::int32_t* values) {
  for (std::int64_t p = 0; p < parts.pairs; ++p) {
    const std::uint32_t angle = kTurns[p * kPeriods / parts.pairs] * static_cast<std::uint32_t>(place);
    values[2 * p] += static_cast<std::int32_t>(amplitude * sine(angle + 0x40000000) >> 24);
    values[2 * p + 1] += static_cast<std::int32_t>(amplitude * sine(angle) >> 24);
  }
}

RandomRow key_noise(std::uint64_t seed, std::int64_t batch, std::int64_t position, std::int64_t kv_head) {
  return {seed, kKeyTensor, static_cast<std::uint32_t>(batch), static_cast<std::uint32_t>(position),
          static_cast<std::uint32_t>(kv_head)};
}

// The block's draw falls on keys before it, so every query of the block may see them under a causal mask. The
// first block has none.
std::vector<std::int64_t> matches(const StructuredQuery& query) {
  const std::int64_t block = query.place / kMatchBlock;
  if (block < 1 || query.seq_kv < 1) return {};
  const auto words =
      philox({0, static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(query.batch),
              kMatchTensor << 24 | static_cast<std::uint32_t>(query.head)},
             {static_cast<std::uint32_t>(query.seed), static_cast<std::uint32_t>(query.seed >> 32)});
  std::vector<std::int64_t> keys;
  for (std::size_t m = 0; m < kMatches; ++m) {
    const auto before = static_cast<std::uint64_t>(block * kMatchBlock);
    keys.push_back(std::min(static_cast<std::int64_t>(words[m] * before >> 32), query.seq_kv - 1));
  }
  return keys;
}

void add_match(const StructuredQuery& query, const Parts& parts, std::int64_t key, std::int64_t amplitude,
               std::int64_t head_dim, std::int32_t* values) {
  std::array<std::int32_t, kMaxRow> noise;
  normal_row(key_noise(query.seed, query.batch, key, query.kv_head), head_dim, noise.data());
  const auto step = static_cast<std::int32_t>(amplitude);
  for (std::int64_t c = 2 * parts.pairs; c < parts.sink; ++c) values[c] += noise[c] < 0 ? -step : step;
}

void make_odd(std::int64_t count, std::int32_t* values) {
  for (std::int64_t c = 0; c < count; ++c) values[c] |= 1;
}

}  // namespace

HeadKind head_kind(std::int64_t head) { return static_cast<HeadKind>(head % kHeadKinds); }

std::string_view name(HeadKind kind) {
  switch (kind) {
    case HeadKind::local: return "local";
    case HeadKind::sink: return "sink";
    case HeadKind::match: return "match";
    case HeadKind::dense: return "dense";
  }
  return "unknown";
}

std::int64_t query_place(const AttentionProblem& problem, std::int64_t query) {
  if (problem.align != Align::unspecified) return query + problem.query_offset();
  return query + std::max<std::int64_t>(problem.seq_kv - problem.seq_q, 0);
}

void structured_query_row(const StructuredQuery& query, std::int64_t head_dim, std::int32_t* values) {
  const Parts parts(head_dim);
  const Gains& gains = kGains[static_cast<std::size_t>(query.head % kHeadKinds)];
  const std::int64_t root = root_16(head_dim);  // logits are q k / sqrt(head_dim)
  normal_row({query.seed, kQueryTensor, static_cast<std::uint32_t>(query.batch),
              static_cast<std::uint32_t>(query.place), static_cast<std::uint32_t>(query.head)},
             head_dim, values);
  for (std::int64_t c = 0; c < 2 * parts.pairs; ++c) values[c] >>= 1;
  values[parts.sink] >>= 3;

  // Each of n pairs gives amplitude * 2 / sqrt(head_dim); 2^(24 - 16 - 2) makes steps of quarters and roots.
  if (parts.pairs > 0) {
    add_pairs(parts, query.place, gains.pairs * root * 64 / (parts.pairs * kPairAmplitude), values);
  }
  // Each of n signs gives amplitude * 3/2 / sqrt(head_dim).
  if (gains.match > 0 && parts.signs > 0) {
    const std::int64_t amplitude = gains.match * root * 64 * 2 / (parts.signs * 3);
    for (const std::int64_t key : matches(query)) add_match(query, parts, key, amplitude, head_dim, values);
  }
  const auto seen = static_cast<std::uint64_t>(std::max<std::int64_t>(query.place, 0) + 1);
  const std::int64_t logit = (gains.sink << 14) + (gains.grows ? log_16(seen) : 0);  // * 2^16
  values[parts.sink] += static_cast<std::int32_t>(logit * root / kSinkAmplitude >> 8);
  make_odd(head_dim, values);
}

void structured_key_row(std::uint64_t seed, std::int64_t batch, std::int64_t position, std::int64_t kv_head,
                        std::int64_t head_dim, std::int32_t* values) {
  const Parts parts(head_dim);
  normal_row(key_noise(seed, batch, position, kv_head), head_dim, values);
  for (std::int64_t c = 0; c < 2 * parts.pairs; ++c) values[c] >>= 3;
  for (std::int64_t c = 2 * parts.pairs; c < parts.sink; ++c) {
    values[c] = (values[c] >> 3) + (values[c] < 0 ? -3 * kOne / 2 : 3 * kOne / 2);
  }
  values[parts.sink] >>= 2;
  add_pairs(parts, position, kPairAmplitude * kOne, values);
  // Without noise: whole heads depend on these few numbers.
  if (position < kSinkKeys) values[parts.sink] = kSinkShape[static_cast<std::size_t>(position)];
  make_odd(head_dim, values);
}

std::vector<std::int64_t> heavy_keys(const StructuredQuery& query) {
  std::vector<std::int64_t> keys;
  keys.reserve(kSinkKeys + 2 * kNear + 1 + kMatches);
  for (std::int64_t key = 0; key < kSinkKeys; ++key) keys.push_back(key);
  for (std::int64_t key = query.place - kNear; key <= query.place + kNear; ++key) keys.push_back(key);
  for (const std::int64_t key : matches(query)) keys.push_back(key);
  std::erase_if(keys, [&](std::int64_t key) { return key < 0 || key >= query.seq_kv; });
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  return keys;
}

}  // namespace headwise::lab
