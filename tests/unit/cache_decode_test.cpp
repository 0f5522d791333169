// Decoding: prompts of several lengths and then token by token, keys and values appended to a cache with
// their rotation, attention over the cache. Each token's output is that of attention over the whole sequence
// at once.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "headwise/headwise.h"
#include "support/host_tensor.h"

namespace headwise {
namespace {

using test::HostTensor;

constexpr std::int64_t kBatch = 3, kTokens = 17, kHeads = 4, kKvHeads = 2, kHeadDim = 16, kHeadDimV = 12;
constexpr std::int64_t kPageSize = 4, kPagesOfASequence = 5, kCapacity = kPageSize * kPagesOfASequence;

struct Decode {
  DType dtype;
  bool paged;
  RotaryLayout layout;
};

std::string decode_name(const ::testing::TestParamInfo<Decode>& info) {
  return std::string(name(info.param.dtype)) + (info.param.paged ? "_paged" : "_contiguous") +
         (info.param.layout == RotaryLayout::halves ? "_halves" : "_interleaved");
}

class CacheDecode : public ::testing::TestWithParam<Decode> {
 protected:
  // Projections come in f32; the cache and attention have the dtype of the test.
  HostTensor q{DType::f32, {kBatch, kTokens, kHeads, kHeadDim}};
  HostTensor k{DType::f32, {kBatch, kTokens, kKvHeads, kHeadDim}};
  HostTensor v{DType::f32, {kBatch, kTokens, kKvHeads, kHeadDimV}};
  HostTensor whole{GetParam().dtype, {kBatch, kTokens, kHeads, kHeadDimV}};
  HostTensor k_cache{
      GetParam().dtype,
      {GetParam().paged ? 16 : kBatch, GetParam().paged ? kPageSize : kCapacity, kKvHeads, kHeadDim}};
  HostTensor v_cache{
      GetParam().dtype,
      {GetParam().paged ? 16 : kBatch, GetParam().paged ? kPageSize : kCapacity, kKvHeads, kHeadDimV}};
  RotaryTables tables = *make_rotary_tables(kCapacity, kHeadDim / 2);
  Rotary rotary = tables.rotary(GetParam().layout);
  std::vector<std::int32_t> lengths = {0, 0, 0};
  std::vector<std::int32_t> offsets = {0, 0, 0, 0};
  std::vector<std::int32_t> pages = {3, 14, 0, 7, 9, 1, 2, 15, 4, 5, 12, 6, 8, 10, 11};

  void SetUp() override {
    std::mt19937_64 generator(23);
    for (HostTensor* tensor : {&q, &k, &v}) tensor->fill_normal(generator);
    // What is in a fresh cache must reach no output.
    for (HostTensor* cache : {&k_cache, &v_cache}) cache->fill([](auto...) { return std::nan(""); });
    prefill_at_once();
  }
  // The whole of every sequence, without a cache.
  void prefill_at_once() {
    HostTensor q_turned(GetParam().dtype, q.view.shape);
    HostTensor k_turned(GetParam().dtype, k.view.shape);
    HostTensor v_rounded(GetParam().dtype, v.view.shape);
    v_rounded.fill([&](auto... at) { return v.get(at...); });
    ASSERT_TRUE(apply_rotary({.x = q.view, .out = q_turned.view, .rotary = rotary}).ok());
    ASSERT_TRUE(apply_rotary({.x = k.view, .out = k_turned.view, .rotary = rotary}).ok());
    const Status status = attention(
        {.q = q_turned.view, .k = k_turned.view, .v = v_rounded.view, .out = whole.view}, {.causal = true});
    ASSERT_TRUE(status.ok()) << status.message();
  }
  // Row r of the next rows of sequence b: as items of a batch, or packed.
  struct Place {
    std::int64_t item, row;
  };
  [[nodiscard]] Place place(std::size_t b, std::int64_t r) const {
    return GetParam().paged ? Place{0, offsets[b] + r} : Place{static_cast<std::int64_t>(b), r};
  }
  // The tokens of each sequence that come next.
  [[nodiscard]] std::unique_ptr<HostTensor> next(const HostTensor& all,
                                                 const std::vector<std::int32_t>& counts) const {
    const std::int64_t longest = *std::max_element(counts.begin(), counts.end());
    auto rows = std::make_unique<HostTensor>(
        DType::f32, std::array<std::int64_t, 4>{GetParam().paged ? 1 : kBatch,
                                                GetParam().paged ? offsets.back() : longest,
                                                all.view.shape[2], all.view.shape[3]});
    for (std::size_t b = 0; b < counts.size(); ++b) {
      for (std::int64_t r = 0; r < counts[b]; ++r) {
        for (std::int64_t h = 0; h < all.view.shape[2]; ++h) {
          for (std::int64_t d = 0; d < all.view.shape[3]; ++d)
            rows->set(place(b, r).item, place(b, r).row, h, d,
                      all.get(static_cast<std::int64_t>(b), lengths[b] + r, h, d));
        }
      }
    }
    return rows;
  }

  // Appends the next counts[b] tokens of each sequence and attends with their queries: packed rows over a
  // paged cache, or a batch over a contiguous one.
  void step(std::vector<std::int32_t> counts) {
    const bool paged = GetParam().paged;
    for (std::size_t b = 0; b < counts.size(); ++b) offsets[b + 1] = offsets[b] + counts[b];
    const auto q_rows = next(q, counts);
    const auto k_rows = next(k, counts);
    const auto v_rows = next(v, counts);
    std::vector<std::int32_t> before = lengths;
    const bool prompt = before == std::vector<std::int32_t>{0, 0, 0};
    const TensorView absent;
    const TensorView table = paged ? contiguous(pages.data(), {kBatch, kPagesOfASequence}) : absent;
    const TensorView cu_seqlens = paged ? contiguous(offsets.data(), {kBatch + 1}) : absent;
    const TensorView lengths_kv = contiguous(lengths.data(), {kBatch});
    Status status = append_to_cache({.k_new = k_rows->view,
                                     .v_new = v_rows->view,
                                     .k_cache = k_cache.view,
                                     .v_cache = v_cache.view,
                                     .lengths_kv = lengths_kv,
                                     .block_table = table,
                                     .counts_new = paged ? absent : contiguous(counts.data(), {kBatch}),
                                     .cu_seqlens_new = cu_seqlens,
                                     .lengths_out = lengths_kv,
                                     .rotary = rotary});
    ASSERT_TRUE(status.ok()) << status.message();
    HostTensor turned(GetParam().dtype, q_rows->view.shape);
    status = apply_rotary({.x = q_rows->view,
                           .out = turned.view,
                           .rotary = rotary,
                           .positions = contiguous(before.data(), {kBatch}),
                           .cu_seqlens = cu_seqlens});
    ASSERT_TRUE(status.ok()) << status.message();
    HostTensor out(GetParam().dtype, {turned.view.shape[0], turned.view.shape[1], kHeads, kHeadDimV});
    // Packed, a sequence's queries are its last tokens. Items of a batch are as long as the longest, so
    // prompts of several lengths stand at the top left.
    status = attention({.q = turned.view,
                        .k = k_cache.view,
                        .v = v_cache.view,
                        .out = out.view,
                        .cu_seqlens_q = cu_seqlens,
                        .lengths_kv = lengths_kv,
                        .block_table = table},
                       {.causal = true,
                        .align = prompt && !paged ? Align::top_left : Align::bottom_right,
                        .page_size = paged ? kPageSize : 0});
    ASSERT_TRUE(status.ok()) << status.message();
    for (std::size_t b = 0; b < counts.size(); ++b) {
      EXPECT_EQ(lengths[b], before[b] + counts[b]);
      for (std::int64_t r = 0; r < counts[b]; ++r) expect_row(b, before[b] + r, out, place(b, r));
    }
  }
  void expect_row(std::size_t sequence, std::int64_t token, const HostTensor& out, Place at) const {
    // One rounding to the dtype on either side, and sums of fp32 in another order.
    const double unit = GetParam().dtype == DType::f32   ? 0
                        : GetParam().dtype == DType::f16 ? 0x1p-10
                                                         : 0x1p-7;
    for (std::int64_t h = 0; h < kHeads; ++h) {
      for (std::int64_t d = 0; d < kHeadDimV; ++d) {
        const double expected = whole.get(static_cast<std::int64_t>(sequence), token, h, d);
        EXPECT_NEAR(out.get(at.item, at.row, h, d), expected, unit * std::abs(expected) + 2e-6)
            << "sequence " << sequence << ", token " << token << ", head " << h << ", channel " << d;
      }
    }
  }
};

TEST_P(CacheDecode, TokenByTokenIsTheWholeAtOnce) {
  for (std::int64_t token = 0; token < kTokens; ++token) step({1, 1, 1});
  EXPECT_EQ(lengths, (std::vector<std::int32_t>{17, 17, 17}));
}

TEST_P(CacheDecode, PromptsOfSeveralLengthsThenTokens) {
  step({6, 3, 5});
  for (int token = 0; token < 11; ++token) step({1, 1, 1});
  EXPECT_EQ(lengths, (std::vector<std::int32_t>{17, 14, 16}));
}

TEST_P(CacheDecode, SequencesWaitWhileOthersGrow) {
  step({4, 2, 7});
  step({1, 0, 1});
  step({0, 1, 0});
  if (GetParam().paged) step({3, 6, 0});
  step({1, 1, 1});
}

INSTANTIATE_TEST_SUITE_P(Cache, CacheDecode,
                         ::testing::Values(Decode{DType::f32, false, RotaryLayout::halves},
                                           Decode{DType::f32, true, RotaryLayout::interleaved},
                                           Decode{DType::f16, true, RotaryLayout::halves},
                                           Decode{DType::bf16, false, RotaryLayout::interleaved},
                                           Decode{DType::bf16, true, RotaryLayout::halves}),
                         decode_name);

}  // namespace
}  // namespace headwise
