// The score of one pair of query and key with every feature, and whether dropout keeps it: what naive and
// naive_backward share.
#pragma once

#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "attention/dropout.h"
#include "attention/sequence.h"

namespace headwise::cpu::scalar {

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Rows of queries of all sequences, numbered so that with a causal mask the last see the most keys. The
// product may only overflow where there are no heads, and then nobody uses it.
inline std::int64_t query_rows(const AttentionProblem& p) noexcept {
  if (p.varlen) return p.total_q;
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(p.batch) * static_cast<std::uint64_t>(p.seq_q));
}

// Whose a row of packed sequences is: the last that begins at or before it, since empty ones begin there too.
inline std::int64_t packed_sequence(const TensorView& cu_seqlens, std::int64_t row) noexcept {
  std::int64_t first = 0;
  std::int64_t last = cu_seqlens.shape[0] - 2;
  while (first < last) {
    const std::int64_t middle = first + (last - first + 1) / 2;
    if (index_at(cu_seqlens, middle) <= row) {
      first = middle;
    } else {
      last = middle - 1;
    }
  }
  return first;
}

// A sequence and what its queries may see.
struct Place {
  std::int64_t index = 0;
  Sequence sequence;
  Band band;

  Place(const AttentionArgs& args, const AttentionProblem& p, std::int64_t sequence_index) noexcept
      : index(sequence_index), sequence(sequence_of(args, p, sequence_index)), band(band_of(p, sequence)) {}
  // The inverse of query_of().
  [[nodiscard]] std::int64_t row_of(const AttentionProblem& p, std::int64_t query) const noexcept {
    return p.varlen ? sequence.row_q + query : query * p.batch + index;
  }
  [[nodiscard]] std::int64_t query_of(const AttentionProblem& p, std::int64_t row) const noexcept {
    return p.varlen ? row - sequence.row_q : row / p.batch;
  }
};

inline Place place_of_row(const AttentionArgs& args, const AttentionProblem& p, std::int64_t row) noexcept {
  return {args, p, p.varlen ? packed_sequence(args.cu_seqlens_q, row) : row % p.batch};
}

// Elements to (sequence, head, query, key 0) of bias, mask or dbias.
inline std::int64_t broadcast_row(const TensorView& t, std::int64_t sequence, std::int64_t head,
                                  std::int64_t query) noexcept {
  return (t.shape[0] == 1 ? 0 : sequence * t.stride[0]) + (t.shape[1] == 1 ? 0 : head * t.stride[1]) +
         (t.shape[2] == 1 ? 0 : query * t.stride[2]);
}

// In eight sums side by side: one alone would wait for each addition, and its rounding errors would add up.
template <class Sum, class T>
Sum dot(const T* a, const T* b, std::int64_t channels) noexcept {
  constexpr int kLanes = 8;
  Sum sums[kLanes] = {};
  std::int64_t d = 0;
  for (; d + kLanes <= channels; d += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane)
      sums[lane] += Sum{to_float(a[d + lane])} * to_float(b[d + lane]);
  }
  Sum rest = 0;
  for (; d < channels; ++d) rest += Sum{to_float(a[d])} * to_float(b[d]);
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7])) + rest;
}

struct Score {
  float value = kMinusInfinity;  // -inf: the pair takes no part, and nothing of its key may be read
  float slope = 0;               // of the softcap: d value / d (scale * q k)
};

// One query of one head, and its keys.
template <class T>
class QueryRow {
 public:
  QueryRow(const AttentionArgs& args, const AttentionProblem& p, const Place& place, std::int64_t head,
           std::int64_t query) noexcept
      : args_(args),
        p_(p),
        place_(place),
        head_(head),
        query_(query),
        kv_head_(head / (p.heads / p.kv_heads)),
        scale_(p.scale()),
        q_(row(args.q)) {
    if (p.alibi != AlibiKind::none) {
      const TensorView& slopes = args.alibi_slopes;
      const bool each = p.alibi == AlibiKind::per_batch_head;
      alibi_slope_ = slopes.as<const float>()[each ? place.index * slopes.stride[0] + head * slopes.stride[1]
                                                   : head * slopes.stride[0]];
    }
    if (p.bias) bias_ = broadcast_row(args.bias, place.index, head, query);
    if (p.mask != MaskKind::none) mask_ = broadcast_row(args.mask, place.index, head, query);
    if (p.dropout_p > 0) threshold_ = dropout_threshold(p.dropout_p);
  }

  [[nodiscard]] KeyRange keys() const noexcept { return key_range(place_.band, query_); }
  // This query's row of q, out, dout or dq.
  [[nodiscard]] T* row(const TensorView& t) const noexcept {
    const Sequence& s = place_.sequence;
    return t.as<T>() + s.item_q * t.stride[0] + (s.row_q + query_) * t.stride[1] + head_ * t.stride[2];
  }
  [[nodiscard]] float& lse() const noexcept {
    const TensorView& t = args_.lse;
    const Sequence& s = place_.sequence;
    return t.as<float>()[s.item_q * t.stride[0] + head_ * t.stride[1] + (s.row_q + query_) * t.stride[2]];
  }
  // A key's row of k or v.
  [[nodiscard]] const T* key_row(const TensorView& t, std::int64_t key) const noexcept {
    return t.as<const T>() + key_offset(t, p_, place_.sequence, key, kv_head_);
  }
  [[nodiscard]] float sink() const noexcept {
    return p_.sinks ? args_.sinks.as<const float>()[head_ * args_.sinks.stride[0]] : kMinusInfinity;
  }

  // Of a key in keys().
  [[nodiscard]] Score score(std::int64_t key) const noexcept {
    const float masked = mask(key);
    if (masked == kMinusInfinity) return {};
    Score s{scale_ * dot<float>(q_, key_row(args_.k, key), p_.head_dim), 1};
    if (p_.softcap != 0) {
      const float t = std::tanh(s.value / p_.softcap);
      s = {p_.softcap * t, 1 - t * t};
    }
    if (p_.bias)
      s.value += static_cast<float>(
          load_element(args_.bias.dtype, args_.bias.data, bias_ + key * args_.bias.stride[3]));
    if (p_.alibi != AlibiKind::none)
      s.value -= alibi_slope_ * static_cast<float>(std::abs(query_ + place_.band.offset - key));
    s.value += masked;
    return s;
  }

  [[nodiscard]] bool kept(std::int64_t key) noexcept {
    if (threshold_ == 0) return true;
    const std::int64_t block = key / kDropoutLanes;
    if (block != block_) {
      const std::int64_t plane = place_.index * p_.heads + head_;
      words_ = philox({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(query_),
                       static_cast<std::uint32_t>(plane), static_cast<std::uint32_t>(args_.dropout_offset)},
                      args_.dropout_seed);
      block_ = block;
    }
    const auto lane = static_cast<std::uint32_t>(key % kDropoutLanes);
    return ((words_[lane / 2] >> (16 * (lane % 2))) & 0xffffU) >= threshold_;
  }

 private:
  // What the mask adds: -inf where it hides the key.
  [[nodiscard]] float mask(std::int64_t key) const noexcept {
    if (p_.mask == MaskKind::none) return 0;
    const TensorView& t = args_.mask;
    if (key >= t.shape[3]) return kMinusInfinity;
    const std::int64_t at = mask_ + key * t.stride[3];
    if (p_.mask == MaskKind::boolean) return t.as<const unsigned char>()[at] != 0 ? 0 : kMinusInfinity;
    return static_cast<float>(load_element(t.dtype, t.data, at));
  }

  const AttentionArgs& args_;
  const AttentionProblem& p_;
  const Place& place_;
  std::int64_t head_, query_, kv_head_;
  float scale_;
  const T* q_;
  float alibi_slope_ = 0;
  std::int64_t bias_ = 0, mask_ = 0;  // broadcast_row()
  std::uint32_t threshold_ = 0;
  std::int64_t block_ = -1;  // of keys, whose lanes are in words_
  std::array<std::uint32_t, 4> words_{};
};

}  // namespace headwise::cpu::scalar
