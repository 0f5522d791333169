// Problems with features whose slots of K and V are unused, hidden or seen by some queries alone.
#pragma once

#include <string>
#include <vector>

#include "headwise/headwise.h"
#include "lab/inputs.h"
#include "support/run_kernel.h"
#include "support/sight.h"

namespace headwise::numerics {

inline bool has_features(const FeatureSet& f, const AttentionProblem& p) {
  return ((p.window_left < 0 && p.window_right < 0) || f.window) && (p.softcap == 0 || f.softcap) &&
         (p.alibi == AlibiKind::none || f.alibi) && (!p.sinks || f.sinks) && (!p.bias || f.bias) &&
         (p.mask == MaskKind::none || f.mask) && (p.dropout_p == 0 || f.dropout) && (!p.varlen || f.varlen) &&
         (!(p.lengths || p.starts) || f.lengths) && (p.page_size == 0 || f.paged);
}

// Those that the kernel has all features of, in its dtype.
inline std::vector<AttentionProblem> featured_problems(const KernelInfo& kernel,
                                                       const std::vector<std::string>& texts) {
  std::vector<AttentionProblem> all;
  for (const std::string& text : texts) {
    AttentionProblem p = check(parse_problem(text));
    p.dtype = kernel.traits.dtype;
    p.kv_dtype = kernel.traits.kv_dtype;
    p.direction = kernel.traits.direction;
    if (p.threads == 0) p.threads = 1;  // waking others takes longer than these problems
    if (p.direction == Direction::backward) p.lse = false;
    if (has_features(kernel.features, p)) all.push_back(p);
  }
  return all;
}

// Some slots of K and V are nobody's: beside the keys in use, on spare pages, outside all windows, hidden.
inline std::vector<std::string> unseen_slots() {
  std::vector<std::string> texts{
      "batch=3 seq_q=9 seq_kv=70 heads=4 kv_heads=2 lengths=1",
      "batch=3 seq_q=9 seq_kv=70 heads=4 kv_heads=2 starts=1 causal=1 align=bottom_right",
      "batch=4 seq_q=1 seq_kv=600 heads=4 kv_heads=2 lengths=1 starts=1 threads=3",
      "batch=3 seq_q=9 seq_kv=96 heads=4 kv_heads=2 page_size=16 lengths=1 causal=1 align=bottom_right",
      "batch=3 seq_q=9 seq_kv=96 heads=4 kv_heads=2 page_size=3 lengths=1 starts=1 softcap=3 sinks=1",
      "batch=4 seq_q=20 seq_kv=128 heads=4 kv_heads=2 page_size=64 varlen=1 lengths=1 window_left=7 "
      "align=bottom_right",
      "seq_q=9 seq_kv=70 heads=2 causal=1 align=top_left",
      "seq_q=9 seq_kv=600 heads=4 kv_heads=2 causal=1 align=bottom_right window_left=5",
      "batch=2 seq_q=40 seq_kv=300 heads=2 window_left=3 window_right=2 align=top_left bias=1 "
      "alibi=per_head",
      "batch=4 seq_q=9 seq_kv=70 heads=4 kv_heads=2 varlen=1 mask=bool mask_axes=bh dropout_p=0.5"};
  for (const char* kind : {"bool", "additive"}) {
    for (const char* axes : {"", "b", "h", "q", "bh", "bq", "hq", "bhq"}) {
      const std::string mask = std::string(" mask=") + kind + (*axes != 0 ? " mask_axes=" : "") + axes;
      texts.push_back("batch=2 seq_q=7 seq_kv=260 heads=4 kv_heads=2" + mask);
      texts.push_back(
          "batch=3 seq_q=50 seq_kv=64 heads=6 kv_heads=2 page_size=16 lengths=1 causal=1 "
          "align=bottom_right bias=1" +
          mask);
    }
  }
  for (std::string& text : texts) text += " head_dim=20 head_dim_v=13 lse=1";
  return texts;
}

// Some are seen by some queries, or some heads, alone.
inline std::vector<std::string> partly_seen_slots() {
  std::vector<std::string> texts{
      "seq_q=60 seq_kv=60 heads=4 kv_heads=2 causal=1",
      "batch=2 seq_q=30 seq_kv=90 heads=2 kv_heads=1 window_left=7 window_right=3 align=bottom_right bias=1 "
      "bias_axes=hq",
      "batch=2 seq_q=20 seq_kv=70 heads=4 kv_heads=2 mask=bool mask_axes=bhq softcap=5",
      "batch=2 seq_q=20 seq_kv=70 heads=4 kv_heads=2 mask=additive mask_axes=hq bias=1 sinks=1",
      "batch=2 seq_q=20 seq_kv=70 heads=4 kv_heads=2 mask=additive mask_axes=h bias=1 bias_axes=bq "
      "alibi=per_head align=top_left",
      "batch=3 seq_q=20 seq_kv=70 heads=4 kv_heads=2 varlen=1 causal=1 align=bottom_right mask=additive "
      "mask_axes=bq",
      "batch=3 seq_q=20 seq_kv=96 heads=2 kv_heads=1 page_size=16 lengths=1 starts=1 causal=1 "
      "align=bottom_right mask=bool mask_axes=q dropout_p=0.3",
      "batch=2 seq_q=1 seq_kv=700 heads=4 kv_heads=2 mask=additive mask_axes=bh bias=1 bias_axes=b"};
  for (std::string& text : texts) text += " head_dim=20 head_dim_v=13 lse=1";
  return texts;
}

struct PlantedKey {
  std::int64_t batch = 0, kv_head = 0, key = 0;
};

// At the ends and in the middle, of the first and the last sequence and head.
inline std::vector<PlantedKey> planted_keys(const AttentionProblem& p) {
  const std::int64_t b = p.batch - 1, h = p.kv_heads - 1;
  return {{0, 0, 0}, {b, h, p.seq_kv / 3}, {0, 0, p.seq_kv / 2 + 1}, {b, h, p.seq_kv - 1}};
}

inline bool seen_by(const lab::Inputs& inputs, const oracle::RowId& row, const PlantedKey& key) {
  const AttentionProblem& p = inputs.problem();
  return row.batch == key.batch && row.head / (p.heads / p.kv_heads) == key.kv_head &&
         test::sees(inputs.args(), p, row, key.key);
}

}  // namespace headwise::numerics
