#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "attention/mask.h"
#include "headwise/attention.h"
#include "support/parsed.h"

namespace headwise {
namespace {

TEST(Cost, FullAttention) {
  const Cost c =
      cost(parsed("batch=2 heads=8 kv_heads=2 seq_q=16 seq_kv=32 head_dim=64 head_dim_v=128 lse=1"));
  EXPECT_EQ(c.pairs, 2.0 * 8 * 16 * 32);
  EXPECT_EQ(c.flops, 2.0 * (64 + 128) * c.pairs);
  EXPECT_EQ(c.bytes_read, 4.0 * (2 * 16 * 8 * 64 + 2 * 32 * 2 * (64 + 128)));
  EXPECT_EQ(c.bytes_written, 4.0 * (2 * 16 * 8 * 128 + 2 * 8 * 16));
  EXPECT_EQ(c.least_bytes(), c.bytes_read + c.bytes_written);
}

TEST(Cost, DTypesCountTheirOwnBytes) {
  const Cost c = cost(parsed("dtype=bf16 kv_dtype=int8 heads=4 seq_q=3 seq_kv=5"));
  EXPECT_EQ(c.bytes_read, 2.0 * 3 * 4 * 64 + 1.0 * 5 * 4 * 128);
  EXPECT_EQ(c.bytes_written, 2.0 * 3 * 4 * 64);
}

TEST(Cost, MaskAndBiasCountAsFarAsTheyVary) {
  const std::string_view plain = "batch=2 heads=4 seq_q=3 seq_kv=5";
  const double base = cost(parsed(plain)).bytes_read;
  const auto extra = [&](const std::string& words) {
    return cost(parsed(std::string(plain) + " " + words)).bytes_read - base;
  };
  EXPECT_EQ(extra("mask=bool"), 5);
  EXPECT_EQ(extra("mask=bool mask_axes=bq"), 2 * 3 * 5);
  EXPECT_EQ(extra("mask=additive mask_axes=bhq"), 4 * 2 * 4 * 3 * 5);
  EXPECT_EQ(extra("bias=1 bias_axes=h"), 4 * 4 * 5);
}

TEST(Cost, PackedRowsCountTheirTotals) {
  const Cost c =
      cost(parsed("varlen=1 batch=2 heads=1 seq_q=6 seq_kv=9 total_q=7 total_kv=11 align=top_left causal=1"));
  EXPECT_EQ(c.bytes_read, 4.0 * 64 * (7 + 2 * 11));
  EXPECT_EQ(c.pairs, 2.0 * (1 + 2 + 3 + 4 + 5 + 6));  // as if both were the longest: an upper bound
}

TEST(Cost, BackwardReadsAndWritesMore) {
  const Cost c = cost(parsed("direction=backward heads=2 seq_q=4 seq_kv=6 head_dim=8 head_dim_v=16"));
  const double q = 4.0 * 4 * 2 * 8;
  const double out = 4.0 * 4 * 2 * 16;
  const double kv = 4.0 * 6 * 2 * (8 + 16);
  const double lse = 4.0 * 4 * 2;
  EXPECT_EQ(c.flops, 2.5 * 2 * (8 + 16) * 2 * 4 * 6);
  EXPECT_EQ(c.bytes_read, q + kv + 2 * out + lse);
  EXPECT_EQ(c.bytes_written, q + kv);
}

// Longer than the property test's problems, against one key range a query.
TEST(Cost, LongSequencesMatchTheirRanges) {
  for (const std::string_view text : {"seq_q=5000 seq_kv=7001 causal=1 align=bottom_right window_left=1000",
                                      "seq_q=7001 seq_kv=5000 causal=1 align=bottom_right",
                                      "seq_q=7001 seq_kv=5000 align=top_left window_left=100 window_right=77",
                                      "seq_q=9000 seq_kv=100 align=top_left window_left=8000"}) {
    const AttentionProblem p = parsed(text);
    std::int64_t pairs = 0;
    for (std::int64_t i = 0; i < p.seq_q; ++i) {
      const KeyRange range = key_range(p, i);
      if (!range.empty()) pairs += range.end - range.begin;
    }
    EXPECT_EQ(cost(p).pairs, static_cast<double>(pairs)) << text;
  }
}

TEST(Cost, HugeSequencesAreImmediateAndExact) {
  const double n = 1U << 30;
  EXPECT_EQ(cost(parsed("seq_q=1073741824 seq_kv=1073741824 causal=1")).pairs, n * (n + 1) / 2);
  // Each of the two sums is 2^59 and more; their difference still has every bit.
  EXPECT_EQ(cost(parsed("seq_q=1073741824 seq_kv=1073741824 causal=1 window_left=0")).pairs, n);
  EXPECT_EQ(cost(parsed("seq_q=0 seq_kv=0")).flops, 0);
}

TEST(KeyRange, WidestWindowsDoNotOverflow) {
  AttentionProblem p = parsed("seq_q=10 seq_kv=4 align=bottom_right");
  p.window_left = p.window_right = INT64_MAX;
  for (std::int64_t i = 0; i < p.seq_q; ++i) {
    EXPECT_EQ(key_range(p, i).begin, 0);
    EXPECT_EQ(key_range(p, i).end, 4);
  }
}

TEST(QueryRange, IsTheInverseOfKeyRange) {
  for (const std::int64_t offset : {-7, 0, 3}) {
    for (const std::int64_t left : {std::int64_t{-1}, std::int64_t{0}, std::int64_t{4}, INT64_MAX}) {
      for (const std::int64_t right : {std::int64_t{-1}, std::int64_t{0}, std::int64_t{5}, INT64_MAX}) {
        const Band band{{2, 11}, offset, left, right};
        for (std::int64_t key = 0; key < 13; ++key) {
          const QueryRange queries = query_range(band, 9, key);
          for (std::int64_t i = 0; i < 9; ++i) {
            const KeyRange keys = key_range(band, i);
            EXPECT_EQ(i >= queries.begin && i < queries.end, key >= keys.begin && key < keys.end)
                << "offset " << offset << " left " << left << " right " << right << " key " << key
                << " query " << i;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace headwise
