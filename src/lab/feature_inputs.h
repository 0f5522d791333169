// Values of what changes scores (mask, bias, ALiBi slopes, sinks), of index arrays, and NaN in all of K and V
// that no query may see. All host tensors, their views set.
//
// A mask hides an eighth of the keys at random; a quarter of its 64 x 64 blocks (of 128 keys or more); a run
// of keys for every query (70 of 192 keys or more, 130 of 512 or more) and one in 32 besides (of 16 keys or
// more); and whole rows: of a mask with queries one in 16 (of 4 queries or more), else with heads one of 4 or
// more, else with a batch one of 3 or more. Additive: -inf there, else uniform in (-1, 1).
// A bias is standard normal, ALiBi slopes fall from 1/2 to about 1/256 over the heads, times up to 5/4; sinks
// are standard normal plus half the bits of seq_kv, about what the keys' own sum is.
#pragma once

#include <cmath>
#include <cstdint>

#include "attention/sequence.h"
#include "lab/inputs.h"
#include "oracle/oracle.h"

namespace headwise::lab {

Status fill_indices(const AttentionArgs& host, const AttentionProblem& problem, const InputSpec& spec);
void fill_features(const AttentionArgs& host, const AttentionProblem& problem, const InputSpec& spec);

// NaN in the rows of K and V beside the keys in use and, with spec.hidden_nan, in those whose keys the mask
// hides from every query of the heads that share them. Pages that are not in use are left as they are.
void poison_unseen(const AttentionArgs& host, const AttentionProblem& problem, const InputSpec& spec);

// A row of scores beside the products: what is added, and what is hidden.
struct ScoreRow {
  const AttentionArgs& args;
  const AttentionProblem& problem;
  oracle::RowId row;
  std::int64_t place;  // i' of the query

  ScoreRow(const AttentionArgs& host, const AttentionProblem& p, const oracle::RowId& id, const Band& band)
      : args(host), problem(p), row(id), place(id.query + band.offset) {}
  // By the mask; lengths, windows and the like are key_range()'s.
  [[nodiscard]] bool hidden(std::int64_t key) const;
  // By bias, ALiBi and an additive mask, of a key that is not hidden.
  [[nodiscard]] double added(std::int64_t key) const;
  // Of softmax_scale * dot: softcap, then what is added.
  [[nodiscard]] double score(double scaled_dot, std::int64_t key) const {
    const double cap = problem.softcap;
    return (cap != 0 ? cap * std::tanh(scaled_dot / cap) : scaled_dot) + added(key);
  }
};

}  // namespace headwise::lab
