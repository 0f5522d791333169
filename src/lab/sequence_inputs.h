// Index arrays of a case: how long its sequences are, where they begin, and on which pages their keys lie. A
// function of problem and seed alone, so that costs are known before any tensor is made.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "headwise/attention.h"

namespace headwise::lab {

// Empty where the problem has no such array.
struct SequenceArrays {
  std::vector<std::int32_t> cu_seqlens_q, cu_seqlens_kv;  // [batch + 1]
  std::vector<std::int32_t> lengths_kv, starts_kv;        // [batch]
  std::vector<std::int32_t> block_table;                  // [batch, pages_a_sequence()]
};

// What a problem leaves open and its tensors decide. With varlen, a total of 0 becomes that of sequences
// which are half as long as the longest on average: longest + (batch - 1) * ceil(longest / 2). With
// page_size, pages of 0 becomes what batch * seq_kv keys take and a sixteenth more, at least one: spare
// pages.
AttentionProblem completed(AttentionProblem problem);

// Of a completed problem: totals that such sequences can have, whole pages, features that exclude each other.
Status check_sequences(const AttentionProblem& problem);

inline std::int64_t pages_a_sequence(const AttentionProblem& p) {
  return p.page_size > 0 ? p.seq_kv / p.page_size : 0;
}

// Of a completed and checked problem. Lengths are unequal, the longest is seq_q or seq_kv, they sum to the
// totals; of three sequences or more one has no or one token (unless the totals leave no room for that), and
// sequences as many and as long in q and in kv are the same. lengths_kv reach from 0 to seq_kv, which one
// has; starts_kv lie in the first half of the keys. Pages come in shuffled order; entries of the table beside
// a sequence's keys in use are no page. Fails where there are fewer pages than these keys take.
Result<SequenceArrays> make_sequences(const AttentionProblem& problem, std::uint64_t seed);

// Smallest and largest of what differs: "q 1..60, kv 0..90", "kv 0..512, starts 3..200"; empty where nothing
// does.
std::string lengths_text(const AttentionProblem& problem, std::uint64_t seed);

// cost() by the lengths that make_sequences() gives, where cost() has an upper bound. With starts_kv, cost of
// the keys from there on. Masks and biases count as what make_inputs() makes them of. Where no such sequences
// can be made, cost().
Cost actual_cost(const AttentionProblem& problem, std::uint64_t seed);

}  // namespace headwise::lab
