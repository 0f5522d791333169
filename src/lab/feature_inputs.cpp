#include "lab/feature_inputs.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <vector>

#include "core/parallel_for.h"
#include "core/try.h"
#include "lab/input_tensors.h"
#include "lab/random.h"
#include "lab/sequence_inputs.h"

namespace headwise::lab {
namespace {

constexpr std::uint32_t kTensorBias = 4, kTensorMask = 5, kTensorSinks = 6, kTensorSlopes = 7;
constexpr std::int64_t kBlock = 64;  // queries and keys of a hidden block

// Draws of a mask, by what they decide: second word of the counter.
enum Draw : std::uint32_t { kHiddenKeys, kHiddenBlocks, kHiddenRows, kUnseenKeys, kUnseenRun, kWholeRows };

// Which keys a mask hides. Axes that broadcast come as 0, so that a value belongs to its element.
class MaskPattern {
 public:
  MaskPattern(const AttentionProblem& p, std::uint64_t seed)
      : p_(p),
        axes_(p.mask_axes),
        key_{static_cast<std::uint32_t>(seed) ^ 0x6d61736b, static_cast<std::uint32_t>(seed >> 32)} {}

  // hidden[j] for the keys of one row of the mask.
  void row(std::int64_t b, std::int64_t h, std::int64_t q, std::vector<bool>& hidden) const {
    if (whole(b, h, q)) return hidden.assign(hidden.size(), true);
    const auto keys = static_cast<std::int64_t>(hidden.size());
    const std::uint32_t plane = plane_of(b, h);
    std::array<std::uint32_t, 4> bytes{};
    bool block = false;
    for (std::int64_t j = 0; j < keys; ++j) {
      if (j % 16 == 0) bytes = draw(kHiddenKeys, plane, q, j / 16);
      if (j % kBlock == 0 && p_.seq_kv >= 2 * kBlock)
        block = draw(kHiddenBlocks, plane, q / kBlock, j / kBlock)[0] < 1U << 30;
      hidden[static_cast<std::size_t>(j)] = block || byte_of(bytes, j) < 32;
    }
    add_unseen(b, hidden);
  }

 private:
  // Of the 16 that decide keys j / 16 * 16 and on.
  static std::uint32_t byte_of(const std::array<std::uint32_t, 4>& words, std::int64_t j) {
    return words[static_cast<std::size_t>(j % 16 / 4)] >> (j % 4 * 8) & 255U;
  }
  [[nodiscard]] bool varies(unsigned axis) const { return (axes_ & axis) != 0; }
  [[nodiscard]] std::uint32_t plane_of(std::int64_t b, std::int64_t h) const {
    return static_cast<std::uint32_t>(b * p_.heads + h);
  }
  [[nodiscard]] std::array<std::uint32_t, 4> draw(Draw what, std::uint32_t plane, std::int64_t a,
                                                  std::int64_t b) const {
    return philox({static_cast<std::uint32_t>(a), what, plane, static_cast<std::uint32_t>(b)}, key_);
  }
  [[nodiscard]] std::int64_t below(std::int64_t count, Draw what, std::uint32_t plane) const {
    return static_cast<std::int64_t>(draw(what, plane, 0, 0)[1]) % count;
  }

  // Keys that no query of the sequence sees, whatever its head.
  void add_unseen(std::int64_t b, std::vector<bool>& hidden) const {
    const auto keys = static_cast<std::int64_t>(hidden.size());
    const auto sequence = static_cast<std::uint32_t>(b);
    std::array<std::uint32_t, 4> bytes{};
    for (std::int64_t j = 0; p_.seq_kv >= 16 && j < keys; ++j) {
      if (j % 16 == 0) bytes = draw(kUnseenKeys, sequence, 0, j / 16);
      if (byte_of(bytes, j) < 8) hidden[static_cast<std::size_t>(j)] = true;
    }
    const std::int64_t run = p_.seq_kv >= 512 ? 130 : p_.seq_kv >= 192 ? 70 : 0;
    if (run == 0) return;
    const std::int64_t first = p_.seq_kv / 8 + below(p_.seq_kv / 4, kUnseenRun, sequence);
    for (std::int64_t j = first; j < std::min(first + run, keys); ++j)
      hidden[static_cast<std::size_t>(j)] = true;
  }

  [[nodiscard]] bool whole(std::int64_t b, std::int64_t h, std::int64_t q) const {
    if (varies(kAxisQueries)) {
      if (p_.seq_q < 4) return false;
      return q == below(p_.seq_q, kWholeRows, plane_of(b, h)) ||
             draw(kHiddenRows, plane_of(b, h), q, 0)[0] < 1U << 28;
    }
    if (varies(kAxisHeads))
      return p_.heads >= 4 && h == below(p_.heads, kWholeRows, static_cast<std::uint32_t>(b));
    return varies(kAxisBatch) && p_.batch >= 3 && b == below(p_.batch, kWholeRows, 0);
  }

  const AttentionProblem& p_;
  unsigned axes_;
  std::array<std::uint32_t, 2> key_;
};

struct ScoreJob {
  const TensorView& view;
  const AttentionProblem& problem;
  const InputSpec& spec;
};

// Index of a row among all of [batch, heads, queries].
struct ScorePlace {
  std::int64_t b, h, q, at;
  ScorePlace(const TensorView& view, std::int64_t index)
      : b(index / (view.shape[1] * view.shape[2])),
        h(index / view.shape[2] % view.shape[1]),
        q(index % view.shape[2]),
        at(b * view.stride[0] + h * view.stride[1] + q * view.stride[2]) {}
  [[nodiscard]] RandomRow random(std::uint64_t seed, std::uint32_t tensor) const {
    return {seed, tensor, static_cast<std::uint32_t>(b), static_cast<std::uint32_t>(q),
            static_cast<std::uint32_t>(h)};
  }
};

void fill_mask_row(void* context, std::int64_t index, int /*worker*/) {
  const auto& job = *static_cast<const ScoreJob*>(context);
  const ScorePlace place(job.view, index);
  const auto keys = static_cast<std::size_t>(job.view.shape[3]);
  std::vector<bool> hidden(keys);
  MaskPattern(job.problem, job.spec.seed).row(place.b, place.h, place.q, hidden);
  if (job.problem.mask == MaskKind::boolean) {
    auto* to = job.view.as<unsigned char>() + place.at;
    for (std::size_t j = 0; j < keys; ++j) to[j] = hidden[j] ? 0 : 1;
    return;
  }
  std::vector<std::int32_t> steps(keys);
  uniform_row(place.random(job.spec.seed, kTensorMask), job.view.shape[3], steps.data());
  float* to = job.view.as<float>() + place.at;
  for (std::size_t j = 0; j < keys; ++j) {
    to[j] = hidden[j] ? -std::numeric_limits<float>::infinity()
                      : static_cast<float>(steps[j]) * static_cast<float>(kRandomStep);
  }
}

void fill_bias_row(void* context, std::int64_t index, int /*worker*/) {
  const auto& job = *static_cast<const ScoreJob*>(context);
  const ScorePlace place(job.view, index);
  std::vector<std::int32_t> steps(static_cast<std::size_t>(job.view.shape[3]));
  normal_row(place.random(job.spec.seed, kTensorBias), job.view.shape[3], steps.data());
  float* to = job.view.as<float>() + place.at;
  for (std::size_t j = 0; j < steps.size(); ++j)
    to[j] = static_cast<float>(steps[j]) * static_cast<float>(kRandomStep);
}

void fill_scores(const TensorView& view, const AttentionProblem& p, const InputSpec& spec,
                 void (*fill)(void*, std::int64_t, int)) {
  ScoreJob job{view, p, spec};
  const std::int64_t rows = view.shape[0] * view.shape[1] * view.shape[2];
  const int threads = view.elements() < 100'000 ? 1 : core::available_threads();
  core::parallel_for(rows, threads, fill, &job);
}

// 2^-1 to 2^-8 over the heads, times 1 to 5/4.
void fill_slopes(const TensorView& view, const AttentionProblem& p, std::uint64_t seed) {
  const std::int64_t sequences = view.rank == 2 ? view.shape[0] : 1;
  std::vector<std::int32_t> steps(static_cast<std::size_t>(p.heads));
  for (std::int64_t b = 0; b < sequences; ++b) {
    uniform_row({.seed = seed, .tensor = kTensorSlopes, .batch = static_cast<std::uint32_t>(b)}, p.heads,
                steps.data());
    for (std::int64_t h = 0; h < p.heads; ++h) {
      const auto uniform =
          static_cast<float>(steps[static_cast<std::size_t>(h)]) * static_cast<float>(kRandomStep);
      const int exponent = -1 - static_cast<int>(7 * h / std::max<std::int64_t>(1, p.heads - 1));
      view.as<float>()[b * p.heads + h] = std::ldexp(1.125F + 0.125F * uniform, exponent);
    }
  }
}

void fill_sinks(const TensorView& view, const AttentionProblem& p, std::uint64_t seed) {
  std::vector<std::int32_t> steps(static_cast<std::size_t>(p.heads));
  normal_row({.seed = seed, .tensor = kTensorSinks}, p.heads, steps.data());
  const float middle = 0.5F * static_cast<float>(std::bit_width(static_cast<std::uint64_t>(p.seq_kv)));
  for (std::size_t h = 0; h < steps.size(); ++h)
    view.as<float>()[h] = middle + static_cast<float>(steps[h]) * static_cast<float>(kRandomStep);
}

// Keys that the mask hides from every query of the heads that share a kv head.
class Unseen {
 public:
  Unseen(const AttentionArgs& host, const AttentionProblem& p) : mask_(host.mask), p_(p) {}

  [[nodiscard]] std::vector<bool> of(std::int64_t sequence, std::int64_t kv_head) const {
    std::vector<bool> unseen(static_cast<std::size_t>(p_.seq_kv), true);
    const std::int64_t shared = p_.heads / p_.kv_heads;
    const std::int64_t b = mask_.shape[0] == 1 ? 0 : sequence;
    const std::int64_t first = mask_.shape[1] == 1 ? 0 : kv_head * shared;
    const std::int64_t heads = mask_.shape[1] == 1 ? 1 : shared;
    for (std::int64_t h = first; h < first + heads; ++h) {
      for (std::int64_t q = 0; q < mask_.shape[2]; ++q) {
        const std::int64_t at = b * mask_.stride[0] + h * mask_.stride[1] + q * mask_.stride[2];
        for (std::int64_t j = 0; j < mask_.shape[3]; ++j) {
          if (!hides(at + j)) unseen[static_cast<std::size_t>(j)] = false;
        }
      }
    }
    return unseen;
  }

 private:
  [[nodiscard]] bool hides(std::int64_t at) const {
    if (p_.mask == MaskKind::boolean) return mask_.as<const unsigned char>()[at] == 0;
    return mask_.as<const float>()[at] == -std::numeric_limits<float>::infinity();
  }
  const TensorView& mask_;
  const AttentionProblem& p_;
};

void poison_row(const TensorView& view, std::int64_t at) {
  const std::size_t size = size_of(view.dtype);
  std::memset(view.as<std::byte>() + static_cast<std::size_t>(at) * size, kPoison,
              static_cast<std::size_t>(view.shape[3]) * size);
}

struct UnseenJob {
  const AttentionArgs& host;
  const AttentionProblem& problem;
  bool hidden;  // by the mask, too
};

// One (sequence, kv head).
void poison_head(void* context, std::int64_t index, int /*worker*/) {
  const auto& job = *static_cast<const UnseenJob*>(context);
  const AttentionProblem& p = job.problem;
  const std::int64_t kv_head = index % p.kv_heads;
  const Sequence s = sequence_of(job.host, p, index / p.kv_heads);
  const bool in_place =
      s.pages == nullptr && !p.varlen;  // slots beside the keys in use are the sequence's own
  std::vector<bool> unseen;
  if (job.hidden) unseen = Unseen(job.host, p).of(index / p.kv_heads, kv_head);
  for (std::int64_t j = in_place ? 0 : s.keys.begin; j < (in_place ? p.seq_kv : s.keys.end); ++j) {
    const bool beside = j < s.keys.begin || j >= s.keys.end;
    if (!beside && (unseen.empty() || !unseen[static_cast<std::size_t>(j)])) continue;
    poison_row(job.host.k, key_offset(job.host.k, p, s, j, kv_head));
    poison_row(job.host.v, key_offset(job.host.v, p, s, j, kv_head));
  }
}

// Element of a tensor [batch or 1, heads or 1, queries or 1, keys].
std::int64_t score_offset(const TensorView& view, const oracle::RowId& row, std::int64_t key) {
  const std::array<std::int64_t, 3> at{row.batch, row.head, row.query};
  std::int64_t offset = key;
  for (std::size_t axis = 0; axis < at.size(); ++axis)
    offset += view.shape[axis] == 1 ? 0 : at[axis] * view.stride[axis];
  return offset;
}

}  // namespace

Status fill_indices(const AttentionArgs& host, const AttentionProblem& p, const InputSpec& spec) {
  Result<SequenceArrays> arrays = make_sequences(p, spec.seed);
  if (!arrays) return arrays.status();
  for (const auto& [view, values] :
       {std::pair{&host.cu_seqlens_q, &arrays->cu_seqlens_q},
        std::pair{&host.cu_seqlens_kv, &arrays->cu_seqlens_kv},
        std::pair{&host.lengths_kv, &arrays->lengths_kv}, std::pair{&host.starts_kv, &arrays->starts_kv},
        std::pair{&host.block_table, &arrays->block_table}})
    if (view->present()) std::copy(values->begin(), values->end(), view->as<std::int32_t>());
  return {};
}

void fill_features(const AttentionArgs& host, const AttentionProblem& p, const InputSpec& spec) {
  if (host.mask.present()) fill_scores(host.mask, p, spec, fill_mask_row);
  if (host.bias.present()) fill_scores(host.bias, p, spec, fill_bias_row);
  if (host.alibi_slopes.present()) fill_slopes(host.alibi_slopes, p, spec.seed);
  if (host.sinks.present()) fill_sinks(host.sinks, p, spec.seed);
}

void poison_unseen(const AttentionArgs& host, const AttentionProblem& p, const InputSpec& spec) {
  const bool by_mask = spec.hidden_nan && p.mask != MaskKind::none;
  if (!by_mask && !p.lengths && !p.starts) return;
  UnseenJob job{host, p, by_mask};
  core::parallel_for(p.batch * p.kv_heads, core::available_threads(), poison_head, &job);
}

bool ScoreRow::hidden(std::int64_t key) const {
  if (problem.mask == MaskKind::none) return false;
  if (key >= args.mask.shape[3]) return true;
  const std::int64_t at = score_offset(args.mask, row, key);
  if (problem.mask == MaskKind::boolean) return args.mask.as<const unsigned char>()[at] == 0;
  return load_element(args.mask.dtype, args.mask.data, at) == -std::numeric_limits<double>::infinity();
}

double ScoreRow::added(std::int64_t key) const {
  double sum = 0;
  if (args.bias.present())
    sum += load_element(args.bias.dtype, args.bias.data, score_offset(args.bias, row, key));
  if (problem.mask == MaskKind::additive && args.mask.present())
    sum += load_element(args.mask.dtype, args.mask.data, score_offset(args.mask, row, key));
  if (args.alibi_slopes.present()) {
    const TensorView& slopes = args.alibi_slopes;
    const std::int64_t at = slopes.rank == 2 ? row.batch * slopes.stride[0] + row.head * slopes.stride[1]
                                             : row.head * slopes.stride[0];
    const double distance = std::abs(static_cast<double>(place - key));
    sum -= load_element(slopes.dtype, slopes.data, at) * distance;
  }
  return sum;
}

}  // namespace headwise::lab
