// Queries and keys whose attention looks like a trained model's: the first keys are sinks, mass decays with
// distance, a few far keys get large logits, and heads differ by kind. All of it comes from q and k alone, so
// any kernel that takes q and k takes it; values are integers until they are rounded to the dtype once.
// docs/measuring.md ("Structured inputs") has the formula and what it leads to.
//
// A row of head_dim elements has three parts, from the first channel on: pairs that turn with the position
// (head_dim / 4 of them), signs that tell keys apart, and one last channel for sinks.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "headwise/attention.h"

namespace headwise::lab {

enum class HeadKind : std::uint8_t {
  local,  // the last few keys
  sink,   // mostly the first keys, the rest wide round its own place
  match,  // two far keys, shared by 32 queries, and the last few
  dense,  // the first keys and all others evenly
};
inline constexpr int kHeadKinds = 4;
inline constexpr std::int64_t kSinkKeys = 4;
HeadKind head_kind(std::int64_t head);  // query heads take turns
std::string_view name(HeadKind kind);

// Where a query stands among the keys: as `align` says; where nothing says it and there are fewer queries
// than keys, they are the last tokens.
std::int64_t query_place(const AttentionProblem& problem, std::int64_t query);

// One query, or what decides its values.
struct StructuredQuery {
  std::uint64_t seed = 0;
  std::int64_t batch = 0, place = 0, head = 0;
  std::int64_t kv_head = 0;  // that it reads: matches are with this head's keys
  std::int64_t seq_kv = 0;   // bounds the matches of queries that stand beyond the keys
};

// In steps of kRandomStep (random.h), as all generated rows; odd, so never zero. head_dim 1 to 1024.
void structured_query_row(const StructuredQuery& query, std::int64_t head_dim, std::int32_t* values);
void structured_key_row(std::uint64_t seed, std::int64_t batch, std::int64_t position, std::int64_t kv_head,
                        std::int64_t head_dim, std::int32_t* values);

// Keys below seq_kv that a query of this place may give much mass: sinks, matches, and those round it.
// Ascending, each once.
std::vector<std::int64_t> heavy_keys(const StructuredQuery& query);

}  // namespace headwise::lab
