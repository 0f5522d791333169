// Attention over all keys, from attention over parts of them: what ring attention, context parallelism and
// split caches end with.
//
//   std::array<headwise::PartialResult, 2> parts = {{{out_a, lse_a}, {out_b, lse_b}}};
//   headwise::Status status = headwise::merge_partials(parts, out, lse);
#pragma once

#include <span>

#include "headwise/attention.h"

namespace [[gnu::visibility("default")]] headwise {

// What attention() gave for some queries over some of their keys.
struct PartialResult {
  TensorView out;  // [batch, seq_q, heads, head_dim_v]; f32, f16 or bf16, whatever the merged out is
  TensorView lse;  // f32 [batch, heads, seq_q]: natural log, as attention() writes it (without sinks)
};

// Merges results of the same queries over disjoint sets of keys, in order of the span, in fp32:
//
//   lse = log(sum_i exp(lse_i)),  out = sum_i exp(lse_i - lse) out_i
//
// with the largest lse_i taken out of the exponentials first (Milakov and Gimelshein 2018, arXiv:1805.02867;
// merging partial attention: Dao et al. 2022, arXiv:2205.14135). The same bits come out whatever the threads.
//
//   out    [batch, seq_q, heads, head_dim_v], f32, f16 or bf16
//   lse    optional, f32 [batch, heads, seq_q]
//   sinks  optional, f32 [heads]: a logit a head that joins the denominator of out once; lse stays without
//   it. Give the
//          sinks here and to none of the partial calls.
//
// A partial whose lse is -inf saw no key and adds nothing, whatever its out holds. Where all are -inf, or
// there is no partial: out 0, lse -inf, with sinks too. An lse of +inf or NaN gives what the formula gives:
// out NaN, lse +inf or NaN.
//
// out and lse may be the very views of a partial's out and lse (same memory, dtype and strides): merging in
// place. Any other shared memory is an error. Of `execution`, threads and executor are read.
//
// Errors, nothing written then: invalid_argument (shapes, dtypes, shared memory), unsupported (memory of a
// device that is no CPU).
Status merge_partials(std::span<const PartialResult> partials, const TensorView& out,
                      const TensorView& lse = {}, const TensorView& sinks = {},
                      const Execution& execution = {});

}  // namespace headwise
