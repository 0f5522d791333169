// The examples of docs/attention.md, compiled and run: tests/unit/attention_page_test.py finds each block of
// that page in this file.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "headwise/headwise.h"

namespace headwise {
namespace {

class AttentionPage : public ::testing::Test {
 protected:
  static constexpr std::int64_t batch = 2, seq = 12, heads = 4, kv_heads = 2, head_dim = 16;
  std::vector<float> q = normal(batch * seq * heads * head_dim),
                     k = normal(batch * seq * kv_heads * head_dim),
                     v = normal(batch * seq * kv_heads * head_dim),
                     out = std::vector<float>(q.size(), kUnwritten);
  AttentionArgs args{.q = contiguous(q.data(), {batch, seq, heads, head_dim}),
                     .k = contiguous(k.data(), {batch, seq, kv_heads, head_dim}),
                     .v = contiguous(v.data(), {batch, seq, kv_heads, head_dim}),
                     .out = contiguous(out.data(), {batch, seq, heads, head_dim})};
  static constexpr float kUnwritten = -77.0F;

  static std::vector<float> normal(std::int64_t count) {
    static std::mt19937_64 generator(42);
    std::normal_distribution<float> distribution;
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = distribution(generator);
    return values;
  }
  // Element of out.
  [[nodiscard]] float at(std::int64_t b, std::int64_t i, std::int64_t h, std::int64_t d) const {
    return out[static_cast<std::size_t>(((b * seq + i) * heads + h) * head_dim + d)];
  }
  // Element of v that head h reads.
  [[nodiscard]] float value(std::int64_t b, std::int64_t j, std::int64_t h, std::int64_t d) const {
    return v[static_cast<std::size_t>(((b * seq + j) * kv_heads + h / (heads / kv_heads)) * head_dim + d)];
  }
  std::vector<float> plain() {  // what these tensors give without any option
    std::vector<float> result(out.size());
    AttentionArgs call{.q = args.q, .k = args.k, .v = args.v, .out = args.out};
    call.out.data = result.data();
    EXPECT_TRUE(attention(call).ok());
    return result;
  }
};

TEST_F(AttentionPage, Causal) {
  Status status = attention(args, {.causal = true});
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(at(1, 0, 3, 5), value(1, 0, 3, 5));  // one key has all the weight
}

TEST_F(AttentionPage, Window) {
  Status status = attention(args, {.causal = true, .align = Align::bottom_right, .window_left = 3});
  ASSERT_TRUE(status.ok()) << status.message();
  const std::vector<float> before = out;
  for (std::int64_t b = 0; b < batch; ++b) {  // keys that left the window of the last query
    for (std::int64_t j = 0; j + 4 < seq; ++j)
      v[static_cast<std::size_t>((b * seq + j) * kv_heads * head_dim)] = 1e9F;
  }
  ASSERT_TRUE(attention(args, {.causal = true, .align = Align::bottom_right, .window_left = 3}).ok());
  EXPECT_EQ(at(0, seq - 1, 0, 0), before[static_cast<std::size_t>((seq - 1) * heads * head_dim)]);
}

TEST_F(AttentionPage, Masks) {
  std::vector<unsigned char> keep(batch * seq, 1);  // true: attend
  keep[0] = 0;
  args.mask = contiguous(keep.data(), DType::boolean, {batch, 1, 1, seq});
  Status status = attention(args);
  ASSERT_TRUE(status.ok()) << status.message();

  const std::vector<float> by_boolean = out;
  std::vector<float> additive(batch * seq, 0.0F);
  additive[0] = -std::numeric_limits<float>::infinity();
  args.mask = contiguous(additive.data(), {batch, 1, 1, seq});
  ASSERT_TRUE(attention(args).ok());
  EXPECT_EQ(out, by_boolean);
  EXPECT_NE(out, plain());
}

TEST_F(AttentionPage, Bias) {
  std::vector<float> bias(heads * seq * seq, 0.25F);
  bias[0] = 3.0F;
  args.bias = contiguous(bias.data(), {1, heads, seq, seq});
  Status status = attention(args);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_GT(std::abs(at(0, 0, 0, 0) - plain()[0]), 1e-4F);
  EXPECT_NEAR(at(0, 1, 0, 0), plain()[heads * head_dim],
              1e-5F);  // the same number everywhere changes nothing
}

TEST_F(AttentionPage, Alibi) {
  const std::vector<float> slopes = standard_alibi_slopes(heads);
  args.alibi_slopes = contiguous(slopes.data(), {heads});
  Status status = attention(args, {.causal = true});
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(at(0, 0, 0, 0), value(0, 0, 0, 0));
  EXPECT_NE(out, plain());
}

TEST_F(AttentionPage, Softcap) {
  Status status = attention(args, {.softmax_scale = 0.2F, .softcap = 30.0F});
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_NE(out, plain());
}

TEST_F(AttentionPage, Sinks) {
  std::vector<float> sinks(heads, 0.5F), lse(batch * heads * seq);
  args.sinks = contiguous(sinks.data(), {heads});
  args.lse = contiguous(lse.data(), {batch, heads, seq});
  Status status = attention(args);
  ASSERT_TRUE(status.ok()) << status.message();
  const float share = 1 / (1 + std::exp(0.5F - lse[0]));
  EXPECT_NEAR(at(0, 0, 0, 0), share * plain()[0], 1e-5F);
}

TEST_F(AttentionPage, Dropout) {
  args.dropout_seed = 42;
  args.dropout_offset = 7;  // layer or step: another offset, other keys
  Status status = attention(args, {.dropout_p = 0.1F});
  ASSERT_TRUE(status.ok()) << status.message();
  const std::vector<float> first = out;
  ASSERT_TRUE(attention(args, {.dropout_p = 0.1F}).ok());
  EXPECT_EQ(out, first);
  args.dropout_offset = 8;
  ASSERT_TRUE(attention(args, {.dropout_p = 0.1F}).ok());
  EXPECT_NE(out, first);
}

TEST_F(AttentionPage, Packed) {
  // Sequences of 5, 0, 7 and 12 tokens, one behind the other: as many rows as the batch above has.
  const std::vector<std::int32_t> offsets = {0, 5, 5, 12, 24};
  AttentionArgs packed{.q = contiguous(q.data(), {1, 24, heads, head_dim}),
                       .k = contiguous(k.data(), {1, 24, kv_heads, head_dim}),
                       .v = contiguous(v.data(), {1, 24, kv_heads, head_dim}),
                       .out = contiguous(out.data(), {1, 24, heads, head_dim}),
                       .cu_seqlens_q = contiguous(offsets.data(), {5}),
                       .cu_seqlens_kv = contiguous(offsets.data(), {5})};
  Status status = attention(packed, {.causal = true, .align = Align::top_left});
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(at(0, 0, 0, 0), value(0, 0, 0, 0));
  EXPECT_EQ(at(0, 5, 0, 0), value(0, 5, 0, 0));
}

TEST_F(AttentionPage, Padding) {
  const std::vector<std::int32_t> starts = {0, 4};    // the second sequence is padded on the left,
  const std::vector<std::int32_t> lengths = {9, 12};  // the first on the right
  args.starts_kv = contiguous(starts.data(), {batch});
  args.lengths_kv = contiguous(lengths.data(), {batch});
  Status status = attention(args);
  ASSERT_TRUE(status.ok()) << status.message();
  const std::vector<float> before = out;
  v[static_cast<std::size_t>(9 * kv_heads * head_dim)] = std::nanf("");   // sequence 0, key 9
  v[static_cast<std::size_t>(15 * kv_heads * head_dim)] = std::nanf("");  // sequence 1, key 3
  ASSERT_TRUE(attention(args).ok());
  EXPECT_EQ(out, before);
}

TEST_F(AttentionPage, DecodeWithACache) {
  const std::int64_t capacity = 64;
  std::vector<float> k_cache(batch * capacity * kv_heads * head_dim), v_cache(k_cache.size());
  std::vector<std::int32_t> lengths(batch, 0);
  const RotaryTables tables = *make_rotary_tables(capacity, head_dim);

  // A token of every sequence: its q, k and v as projections give them.
  std::vector<float> q_new = normal(batch * heads * head_dim), k_new = normal(batch * kv_heads * head_dim);
  std::vector<float> v_new = normal(batch * kv_heads * head_dim), out_new(q_new.size());
  AttentionArgs token{.q = contiguous(q_new.data(), {batch, 1, heads, head_dim}),
                      .k = contiguous(k_cache.data(), {batch, capacity, kv_heads, head_dim}),
                      .v = contiguous(v_cache.data(), {batch, capacity, kv_heads, head_dim}),
                      .out = contiguous(out_new.data(), {batch, 1, heads, head_dim}),
                      .lengths_kv = contiguous(lengths.data(), {batch})};

  // Queries first: their positions are the lengths before the append.
  const Rotary rotary = tables.rotary(RotaryLayout::halves);
  check(apply_rotary({.x = token.q, .out = token.q, .rotary = rotary, .positions = token.lengths_kv}));
  check(append_to_cache({.k_new = contiguous(k_new.data(), {batch, 1, kv_heads, head_dim}),
                         .v_new = contiguous(v_new.data(), {batch, 1, kv_heads, head_dim}),
                         .k_cache = token.k,
                         .v_cache = token.v,
                         .lengths_kv = token.lengths_kv,
                         .lengths_out = token.lengths_kv,
                         .rotary = rotary}));
  check(attention(token, {.causal = true, .align = Align::bottom_right}));
  EXPECT_EQ(lengths, (std::vector<std::int32_t>{1, 1}));
  EXPECT_EQ(out_new[0], v_new[0]);
}

TEST_F(AttentionPage, PagedCache) {
  // Pages of 4 keys; the first sequence has 10 keys on pages 5, 0 and 2, the second 3 on page 4.
  const std::int64_t pages = 6, page_size = 4;
  std::vector<float> k_pages = normal(pages * page_size * kv_heads * head_dim), v_pages = k_pages;
  const std::vector<std::int32_t> block_table = {5, 0, 2, 4, -1, -1}, lengths = {10, 3};
  AttentionArgs paged{.q = contiguous(q.data(), {batch, 1, heads, head_dim}),
                      .k = contiguous(k_pages.data(), {pages, page_size, kv_heads, head_dim}),
                      .v = contiguous(v_pages.data(), {pages, page_size, kv_heads, head_dim}),
                      .out = contiguous(out.data(), {batch, 1, heads, head_dim}),
                      .lengths_kv = contiguous(lengths.data(), {batch}),
                      .block_table = contiguous(block_table.data(), {batch, 3})};
  Status status = attention(paged, {.page_size = page_size});
  ASSERT_TRUE(status.ok()) << status.message();
  const std::vector<float> before = out;
  v_pages[0] = 1e9F;  // page 0 is the first sequence's
  ASSERT_TRUE(attention(paged, {.page_size = page_size}).ok());
  EXPECT_NE(out[0], before[0]);
  EXPECT_EQ(out[heads * head_dim], before[heads * head_dim]);
}

TEST_F(AttentionPage, Merge) {
  std::vector<float> out_a(out.size()), out_b(out.size()), lse_a(batch * heads * seq), lse_b(lse_a.size());
  const auto part = [&](std::int64_t first, std::int64_t count, std::vector<float>& part_out,
                        std::vector<float>& lse) {
    AttentionArgs call = args;
    for (TensorView* tensor : {&call.k, &call.v}) {
      tensor->data = tensor->as<float>() + first * tensor->stride[1];
      tensor->shape[1] = count;
    }
    call.out.data = part_out.data();
    call.lse = contiguous(lse.data(), {batch, heads, seq});
    check(attention(call));
    return PartialResult{call.out, call.lse};
  };
  const std::array<PartialResult, 2> parts = {part(0, 8, out_a, lse_a), part(8, 4, out_b, lse_b)};
  Status status = merge_partials(parts, args.out);
  ASSERT_TRUE(status.ok()) << status.message();
  const std::vector<float> whole = plain();
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], whole[i], 1e-5F) << i;
}

TEST_F(AttentionPage, OtherLayouts) {
  const std::vector<float> before = plain();
  // q is [batch, heads, seq, head_dim] in memory: the shape stays BSHD, the strides tell.
  args.q.stride = {heads * seq * head_dim, head_dim, seq * head_dim, 1};
  Status status = attention(args);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_NE(out, before);
}

}  // namespace
}  // namespace headwise
