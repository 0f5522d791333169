#include "headwise/merge.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>

#include "attention/host_tensors.h"
#include "core/parallel_for.h"
#include "core/try.h"

namespace headwise {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

Status of_partial(std::size_t index, const Status& status) {
  if (status.ok()) return {};
  return {status.code(), "partials[" + std::to_string(index) + "]." + status.message()};
}

Status check_lse(const Argument& lse, const Argument& out) {
  HEADWISE_TRY(check_host_tensor(lse, 3, "[batch, heads, seq_q]", {DType::f32}));
  HEADWISE_TRY(check_extent(lse, 0, out.extent(0), "batch of out"));
  HEADWISE_TRY(check_extent(lse, 1, out.extent(2), "heads of out"));
  return check_extent(lse, 2, out.extent(1), "seq_q of out");
}

Status check_partial(const PartialResult& partial, const Argument& merged) {
  const Argument out{"out", partial.out};
  HEADWISE_TRY(
      check_host_tensor(out, 4, "[batch, seq_q, heads, head_dim_v]", {DType::f32, DType::f16, DType::bf16}));
  HEADWISE_TRY(check_extents_as(out, {"the merged out", merged.view}));
  return check_lse({"lse", partial.lse}, merged);
}

// A partial may be merged in place as a whole view; anything else that is written is apart from it.
Status check_apart(const PartialResult& partial, const TensorView& out, const TensorView& lse) {
  const Argument partial_out{"out", partial.out};
  const Argument partial_lse{"lse", partial.lse};
  if (!same_view(partial.out, out)) HEADWISE_TRY(check_no_overlap(partial_out, {"the merged out", out}));
  HEADWISE_TRY(check_no_overlap(partial_lse, {"the merged out", out}));
  HEADWISE_TRY(check_no_overlap(partial_out, {"the merged lse", lse}));
  return same_view(partial.lse, lse) ? Status() : check_no_overlap(partial_lse, {"the merged lse", lse});
}

Status check_arguments(std::span<const PartialResult> partials, const TensorView& out_view,
                       const TensorView& lse_view, const TensorView& sinks_view) {
  const Argument out{"out", out_view};
  const Argument lse{"lse", lse_view};
  const Argument sinks{"sinks", sinks_view};
  HEADWISE_TRY(
      check_host_tensor(out, 4, "[batch, seq_q, heads, head_dim_v]", {DType::f32, DType::f16, DType::bf16}));
  HEADWISE_TRY(check_writable(out));
  if (lse_view.present()) {
    HEADWISE_TRY(check_lse(lse, out));
    HEADWISE_TRY(check_writable(lse));
    HEADWISE_TRY(check_no_overlap(lse, out));
  }
  if (sinks_view.present()) {
    HEADWISE_TRY(check_host_tensor(sinks, 1, "[heads]", {DType::f32}));
    HEADWISE_TRY(check_extent(sinks, 0, out.extent(2), "heads of out"));
    HEADWISE_TRY(check_no_overlap(out, sinks));
    HEADWISE_TRY(check_no_overlap(lse, sinks));
  }
  for (std::size_t i = 0; i < partials.size(); ++i) {
    HEADWISE_TRY(of_partial(i, check_partial(partials[i], out)));
    HEADWISE_TRY(of_partial(i, check_apart(partials[i], out_view, lse_view)));
  }
  return {};
}

struct Merge {
  std::span<const PartialResult> partials;
  TensorView out, lse, sinks;
  std::int64_t rows_per_task = 1;

  void rows(std::int64_t task) const;
  void head(std::int64_t b, std::int64_t i, std::int64_t h) const;
  void channels(std::int64_t b, std::int64_t i, std::int64_t h, float largest, float denominator) const;
};

float lse_at(const TensorView& lse, std::int64_t b, std::int64_t h, std::int64_t i) {
  return lse.as<const float>()[b * lse.stride[0] + h * lse.stride[1] + i * lse.stride[2]];
}

void* row_at(const TensorView& out, std::int64_t b, std::int64_t i, std::int64_t h, std::int64_t channel) {
  const std::int64_t at = b * out.stride[0] + i * out.stride[1] + h * out.stride[2] + channel;
  return out.as<char>() + at * static_cast<std::int64_t>(size_of(out.dtype));
}

// out of one row of one head, from the largest lse and the sum of exp(lse_i - largest), sink included.
void Merge::channels(std::int64_t b, std::int64_t i, std::int64_t h, float largest, float denominator) const {
  constexpr std::int64_t kBlock = 512;
  std::array<float, kBlock> sums;
  for (std::int64_t begin = 0; begin < out.shape[3]; begin += kBlock) {
    const std::int64_t count = std::min(kBlock, out.shape[3] - begin);
    std::fill_n(sums.begin(), count, 0.0F);
    for (const PartialResult& partial : partials) {
      const float lse_i = lse_at(partial.lse, b, h, i);
      if (lse_i == -kInfinity) continue;
      const float weight = std::exp(lse_i - largest);
      with_type_of(partial.out.dtype, [&]<class T>(T) {
        const T* const row = static_cast<const T*>(row_at(partial.out, b, i, h, begin));
        for (std::int64_t d = 0; d < count; ++d)
          sums[static_cast<std::size_t>(d)] += weight * to_float(row[d]);
      });
    }
    with_type_of(out.dtype, [&]<class T>(T) {
      T* const row = static_cast<T*>(row_at(out, b, i, h, begin));
      for (std::int64_t d = 0; d < count; ++d)
        row[d] = from_double<T>(sums[static_cast<std::size_t>(d)] / denominator);
    });
  }
}

void Merge::head(std::int64_t b, std::int64_t i, std::int64_t h) const {
  float largest = -kInfinity;
  bool any = false;
  bool nan = false;
  for (const PartialResult& partial : partials) {
    const float lse_i = lse_at(partial.lse, b, h, i);
    any = any || lse_i != -kInfinity;
    nan = nan || std::isnan(lse_i);
    largest = std::max(largest, lse_i);  // keeps its first argument beside a NaN
  }
  float sum = 0;
  for (const PartialResult& partial : partials) sum += std::exp(lse_at(partial.lse, b, h, i) - largest);
  // Without a key the sums are empty and stay 0 over any denominator that is not.
  float denominator = any ? sum : 1.0F;
  if (any && sinks.present()) denominator += std::exp(sinks.as<const float>()[h] - largest);
  channels(b, i, h, largest, denominator);
  // Last, because lse may be the view of a partial's.
  if (!lse.present()) return;
  float merged = any ? largest + std::log(sum) : -kInfinity;
  if (largest == kInfinity && !nan) merged = kInfinity;  // where inf - inf stands in the sum
  lse.as<float>()[b * lse.stride[0] + h * lse.stride[1] + i * lse.stride[2]] = merged;
}

void Merge::rows(std::int64_t task) const {
  const std::int64_t last = std::min((task + 1) * rows_per_task, out.shape[0] * out.shape[1]);
  for (std::int64_t row = task * rows_per_task; row < last; ++row) {
    for (std::int64_t h = 0; h < out.shape[2]; ++h) head(row / out.shape[1], row % out.shape[1], h);
  }
}

}  // namespace

Status merge_partials(std::span<const PartialResult> partials, const TensorView& out, const TensorView& lse,
                      const TensorView& sinks, const Execution& execution) {
  HEADWISE_TRY(check_threads(execution));
  HEADWISE_TRY(check_arguments(partials, out, lse, sinks));
  // Where neither has elements, even the number of rows may be beyond 64 bits.
  if (Argument{"", out}.empty() && Argument{"", lse}.empty()) return {};
  constexpr std::int64_t kElementsPerTask = 1 << 14;
  const std::int64_t rows = out.shape[0] * out.shape[1];
  const std::int64_t row = std::max<std::int64_t>(1, out.shape[2] * out.shape[3]);
  Merge merge{partials, out, lse, sinks, std::max<std::int64_t>(1, kElementsPerTask / row)};
  const int threads = threads_for(execution, out.elements() * static_cast<std::int64_t>(partials.size()));
  core::parallel_for(
      (rows - 1) / merge.rows_per_task + 1, threads,
      [](void* context, std::int64_t task, int) { static_cast<const Merge*>(context)->rows(task); }, &merge,
      execution.executor);
  return {};
}

}  // namespace headwise
