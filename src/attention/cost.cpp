// FLOPs and bytes of a problem, counted by the mask exactly as it stands. With varlen and lengths
// the sizes of the problem are maxima, so the cost is an upper bound.
#include <algorithm>

#include "attention/mask.h"
#include "headwise/attention.h"

namespace headwise {
namespace {

__extension__ using Wide = __int128;  // sums of 2^48 terms of up to 2^48

// Sum over i in [0, count) of clamp(i + shift, 0, limit).
Wide sum_of_clamped(std::int64_t count, std::int64_t shift, std::int64_t limit) {
  const std::int64_t rising = std::clamp<std::int64_t>(-shift, 0, count);  // first i with i + shift >= 0
  const std::int64_t flat =
      std::clamp<std::int64_t>(limit - shift, 0, count);  // first i with i + shift >= limit
  const Wide sum = static_cast<Wide>(count - flat) * limit;
  const Wide first = static_cast<Wide>(rising) + shift;
  const Wide last = static_cast<Wide>(flat) - 1 + shift;
  return sum + (first + last) * (flat - rising) / 2;
}

// Keys seen by all queries of one head: key_range() summed in closed form, its ends being clamped
// lines. The range is never negative, so the difference of the sums is the sum of differences.
Wide pairs_of_head(const AttentionProblem& p) {
  const std::int64_t right = p.causal ? 0 : p.window_right;
  const std::int64_t offset = p.query_offset();
  Wide pairs = static_cast<Wide>(p.seq_q) * p.seq_kv;
  if (right >= 0) pairs = sum_of_clamped(p.seq_q, offset + right + 1, p.seq_kv);
  if (p.window_left >= 0) pairs -= sum_of_clamped(p.seq_q, offset - p.window_left, p.seq_kv);
  return pairs;
}

double broadcast_elements(const AttentionProblem& p, unsigned axes) {
  double elements = static_cast<double>(p.seq_kv);
  if ((axes & kAxisBatch) != 0) elements *= static_cast<double>(p.batch);
  if ((axes & kAxisHeads) != 0) elements *= static_cast<double>(p.heads);
  if ((axes & kAxisQueries) != 0) elements *= static_cast<double>(p.seq_q);
  return elements;
}

}  // namespace

Cost cost(const AttentionProblem& problem) {
  const AttentionProblem& p = problem;
  const auto real = [](std::int64_t n) { return static_cast<double>(n); };
  const bool backward = p.direction == Direction::backward;
  const double rows_q = p.varlen ? real(p.total_q) : real(p.batch) * real(p.seq_q);
  // A paged cache is read as far as the sequences reach, not as far as it has pages.
  const double rows_kv = p.varlen && p.total_kv > 0 ? real(p.total_kv) : real(p.batch) * real(p.seq_kv);
  const auto size = static_cast<double>(size_of(p.dtype));
  const auto kv_size = static_cast<double>(size_of(p.kv_dtype));

  const double q_bytes = rows_q * real(p.heads) * real(p.head_dim) * size;
  const double out_bytes = rows_q * real(p.heads) * real(p.head_dim_v) * size;
  const double kv_bytes = rows_kv * real(p.kv_heads) * real(p.head_dim + p.head_dim_v) * kv_size;
  const double lse_bytes = rows_q * real(p.heads) * static_cast<double>(sizeof(float));
  double feature_bytes = 0;
  if (p.mask != MaskKind::none) {
    feature_bytes += broadcast_elements(p, p.mask_axes) * (p.mask == MaskKind::boolean ? 1 : size);
  }
  if (p.bias) feature_bytes += broadcast_elements(p, p.bias_axes) * size;

  Cost result;
  result.pairs = static_cast<double>(pairs_of_head(p)) * real(p.batch) * real(p.heads);
  result.flops = 2 * real(p.head_dim + p.head_dim_v) * result.pairs * (backward ? 2.5 : 1.0);
  result.bytes_read = q_bytes + kv_bytes + feature_bytes;
  result.bytes_written = out_bytes + (p.lse ? lse_bytes : 0);
  if (backward) {  // reads out, its gradient and lse as well; writes the gradients of q, k and v
    result.bytes_read += 2 * out_bytes + lse_bytes;
    result.bytes_written = q_bytes + kv_bytes;
  }
  return result;
}

}  // namespace headwise
