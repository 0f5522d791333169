// Bad masks, biases, slopes, sinks, scales, packed rows, lengths and pages.
#include "faults/call.h"

namespace headwise::test {
namespace {

class BadFeatures : public ::testing::TestWithParam<Fault> {};
TEST_P(BadFeatures, IsRefusedByName) { expect_refused(GetParam()); }

const Fault kScores[] = {
    {"MaskRank", [](Call& c) { c.args.mask = contiguous(c.floats.data(), {4, 6}); },
     "mask: expected rank 4 [batch or 1, heads or 1, seq_q or 1, seq_kv or fewer], got rank 2"},
    {"MaskBatch", [](Call& c) { c.args.mask = contiguous(c.floats.data(), {3, 1, 4, 6}); },
     "mask.shape[0]: expected 2 (batch of q, or 1 to broadcast), got 3"},
    {"MaskHeads", [](Call& c) { c.args.mask = contiguous(c.floats.data(), {1, 2, 4, 6}); },
     "mask.shape[1]: expected 4 (heads of q, or 1 to broadcast), got 2"},
    {"MaskQueries", [](Call& c) { c.args.mask = contiguous(c.floats.data(), {1, 1, 3, 6}); },
     "mask.shape[2]: expected 4 (seq_q, or 1 to broadcast), got 3"},
    {"MaskLong", [](Call& c) { c.args.mask = contiguous(c.floats.data(), {1, 1, 4, 7}); },
     "mask.shape[3]: expected 6 (seq_kv, or fewer: keys behind them are hidden), got 7"},
    {"MaskInteger", [](Call& c) { c.args.mask = contiguous(c.integers.data(), {1, 1, 4, 6}); },
     "mask.dtype: expected bool, f32, f16, bf16, f64, got int32"},
    {"MaskNull", [](Call& c) { c.args.mask = contiguous(static_cast<bool*>(nullptr), {1, 1, 4, 6}); },
     "mask: expected memory"},
    {"MaskElsewhere",
     [](Call& c) { c.args.mask = contiguous(c.floats.data(), {1, 1, 4, 6}, {DeviceKind::cuda, 0}); },
     "mask.device: expected cpu, got cuda:0"},
    {"MaskStride",
     [](Call& c) { c.args.mask = contiguous(c.floats.data(), {1, 1, 4, 6}), c.args.mask.stride[3] = 4; },
     "mask.stride[3]: expected 1"},
    {"BiasBool", [](Call& c) { c.args.bias = contiguous(c.floats.data(), DType::boolean, {1, 1, 4, 6}); },
     "bias.dtype: expected f32, f16, bf16, f64, got bool"},
    {"BiasShort", [](Call& c) { c.args.bias = contiguous(c.floats.data(), {2, 4, 4, 1}); },
     "bias.shape[3]: expected 6"},
    {"AlibiHeads", [](Call& c) { c.args.alibi_slopes = contiguous(c.floats.data(), {3}); },
     "alibi_slopes.shape[0]: expected 4 (heads of q), got 3"},
    {"AlibiBatch", [](Call& c) { c.args.alibi_slopes = contiguous(c.floats.data(), {1, 4}); },
     "alibi_slopes.shape[0]: expected 2 (batch of q), got 1"},
    {"AlibiRank", [](Call& c) { c.args.alibi_slopes = contiguous(c.floats.data(), {2, 4, 1}); },
     "alibi_slopes: expected rank 1 [heads] or [batch, heads], got rank 3"},
    {"AlibiWithoutAlign", [](Call& c) { c.args.alibi_slopes = contiguous(c.floats.data(), {4}); },
     "align: required with alibi_slopes"},
    {"SinksHeads", [](Call& c) { c.args.sinks = contiguous(c.floats.data(), {2}); },
     "sinks.shape[0]: expected 4 (heads of q), got 2"},
    {"SinksDType", [](Call& c) { c.args.sinks = contiguous(c.integers.data(), {4}); },
     "sinks.dtype: expected f32, got int32"},
    {"SinksUnaligned",
     [](Call& c) {
       c.args.sinks = contiguous(reinterpret_cast<char*>(c.floats.data()) + 1, DType::f32, {4});
     },
     "sinks.data: expected an address that is a multiple of 4"},
    {"ScaleOfPlainQ", [](Call& c) { c.args.q_scale = contiguous(c.floats.data(), {1}); },
     "q_scale: expected only with a quantised dtype (e4m3, int8), but q is f32"},
    {"ScaleOfPlainK", [](Call& c) { c.args.k_scale = contiguous(c.floats.data(), {1}); }, "but k is f32"},
    {"ScaleOfPlainV", [](Call& c) { c.args.v_scale = contiguous(c.floats.data(), {1}); }, "but v is f32"},
};
INSTANTIATE_TEST_SUITE_P(Scores, BadFeatures, ::testing::ValuesIn(kScores), fault_name);

// Both sequences' rows packed into one batch: q [1, 8, ...], k and v [1, 12, ...].
void pack(Call& c) {
  c.args.q = contiguous(c.q.data(), {1, 8, 4, 8});
  c.args.out = contiguous(c.out.data(), {1, 8, 4, 16});
  c.args.k = contiguous(c.k.data(), {1, 12, 2, 8});
  c.args.v = contiguous(c.v.data(), {1, 12, 2, 16});
  c.args.lse = contiguous(c.lse.data(), {1, 4, 8});
  c.args.cu_seqlens_q = c.indices({0, 3, 8});
  c.args.cu_seqlens_kv = c.indices({0, 12, 12}, 8);
}
std::function<void(Call&)> packed(const std::function<void(Call&)>& then) {
  return [then](Call& c) {
    pack(c);
    then(c);
  };
}

const Fault kPacked[] = {
    {"FirstIsNotZero", packed([](Call& c) { c.integers[0] = 1; }), "cu_seqlens_q[0]: expected 0, got 1"},
    {"NotMonotone", packed([](Call& c) { c.integers[1] = 9; }),
     "cu_seqlens_q[2]: expected at least 9 (the entry before), got 8"},
    {"NegativeEntry", packed([](Call& c) { c.integers[9] = -1; }),
     "cu_seqlens_kv[1]: expected at least 0 (the entry before), got -1"},
    {"LastIsNotTotal", packed([](Call& c) { c.integers[2] = 7; }),
     "cu_seqlens_q[2]: expected 8 (rows of q), got 7"},
    {"LastOfKeys", packed([](Call& c) { c.integers[10] = 13; }),
     "cu_seqlens_kv[2]: expected 12 (rows of k), got 13"},
    {"SequencesDiffer", packed([](Call& c) { c.args.cu_seqlens_kv = c.indices({0, 4, 8, 12}, 8); }),
     "cu_seqlens_kv.shape[0]: expected 3 (sequences of cu_seqlens_q, plus 1), got 4"},
    {"OffsetsEmpty", packed([](Call& c) { c.args.cu_seqlens_q = c.indices({}); }),
     "cu_seqlens_q.shape[0]: expected at least 1 (sequences + 1), got 0"},
    {"OffsetsOfFloats", packed([](Call& c) { c.args.cu_seqlens_q.dtype = DType::f32; }),
     "cu_seqlens_q.dtype: expected int32, got f32"},
    {"OffsetsRank", packed([](Call& c) { c.args.cu_seqlens_q = contiguous(c.integers.data(), {1, 3}); }),
     "cu_seqlens_q: expected rank 1 [sequences + 1], got rank 2"},
    {"OffsetsNull", packed([](Call& c) { c.args.cu_seqlens_q.data = nullptr; }),
     "cu_seqlens_q: expected memory"},
    {"OffsetsStride", packed([](Call& c) { c.args.cu_seqlens_q.stride[0] = 2; }),
     "cu_seqlens_q.stride[0]: expected 1"},
    {"RowsNotPacked",
     [](Call& c) {
       c.args.cu_seqlens_q = c.indices({0, 4, 8}), c.args.cu_seqlens_kv = c.indices({0, 6, 12}, 8);
     },
     "q.shape[0]: expected 1 (rows of all sequences are packed when cu_seqlens_q is given), got 2"},
    {"KeysAlone", packed([](Call& c) { c.args.cu_seqlens_q = {}; }),
     "cu_seqlens_q: missing; expected with cu_seqlens_kv"},
    {"QueriesAlone", packed([](Call& c) { c.args.cu_seqlens_kv = {}; }),
     "cu_seqlens_kv: missing; expected with cu_seqlens_q"},
    {"LengthsToo", packed([](Call& c) { c.args.lengths_kv = c.indices({1, 1}, 16); }),
     "lengths_kv: not with cu_seqlens_kv"},
    {"StartsToo", packed([](Call& c) { c.args.starts_kv = c.indices({1, 1}, 16); }),
     "starts_kv: not with cu_seqlens_kv"},
    {"PagesToo", packed([](Call& c) { c.args.block_table = contiguous(c.integers.data(), {2, 1}); }),
     "block_table: not with cu_seqlens_kv"},
    {"CausalWithoutAlign", packed([](Call& c) { c.options.causal = true; }), "align: required with causal"},
    {"LseOfBatch", packed([](Call& c) { c.args.lse = contiguous(c.lse.data(), {2, 4, 4}); }),
     "lse.shape[0]: expected 1 (as q.shape[0]), got 2"},
};
INSTANTIATE_TEST_SUITE_P(Packed, BadFeatures, ::testing::ValuesIn(kPacked), fault_name);

// Six pages of two keys; sequence 0 uses three of them, sequence 1 one and a half.
void page(Call& c) {
  c.args.k = contiguous(c.k.data(), {6, 2, 2, 8});
  c.args.v = contiguous(c.v.data(), {6, 2, 2, 16});
  c.indices({5, 0, 1, 2, 3, -1});
  c.args.block_table = contiguous(c.integers.data(), {2, 3});
  c.args.lengths_kv = c.indices({6, 3}, 8);
  c.options.page_size = 2;
}
std::function<void(Call&)> paged(const std::function<void(Call&)>& then) {
  return [then](Call& c) {
    page(c);
    then(c);
  };
}

const Fault kPaged[] = {
    {"PageTooHigh", paged([](Call& c) { c.integers[1] = 6; }),
     "block_table[0, 1]: expected a page from 0 to 5, got 6"},
    {"PageNegative", paged([](Call& c) { c.integers[4] = -1; }),
     "block_table[1, 1]: expected a page from 0 to 5, got -1"},
    {"LengthTooLong", paged([](Call& c) { c.integers[8] = 7; }),
     "lengths_kv[0]: expected 0 to 6 (keys there is room for), got 7"},
    {"LengthNegative", paged([](Call& c) { c.integers[9] = -1; }), "lengths_kv[1]: expected 0 to 6"},
    {"LengthsOfOtherBatch", paged([](Call& c) { c.args.lengths_kv.shape[0] = 1; }),
     "lengths_kv.shape[0]: expected 2 (batch of q), got 1"},
    {"TableOfOtherBatch", paged([](Call& c) { c.args.block_table.shape[0] = 1; }),
     "block_table.shape[0]: expected 2 (batch of q), got 1"},
    {"TableRank", paged([](Call& c) { c.args.block_table = c.indices({0, 1}); }),
     "block_table: expected rank 2 [batch, pages of a sequence], got rank 1"},
    {"PageSizeUnset", paged([](Call& c) { c.options.page_size = 0; }),
     "page_size: expected at least 1 because block_table is given, got 0"},
    {"PageSizeNegative", paged([](Call& c) { c.options.page_size = -2; }), "page_size: expected at least 1"},
    {"PageSizeOfK", paged([](Call& c) { c.options.page_size = 4; }),
     "k.shape[1]: expected 4 (page_size), got 2"},
    {"PageSizeAlone", [](Call& c) { c.options.page_size = 16; },
     "block_table: missing; expected with page_size 16"},
    {"TooManyPages", paged([](Call& c) {
       c.args.block_table.shape[1] = std::int64_t{1} << 62;
       c.args.block_table.stride[0] = 0;
     }),
     "block_table: shape [2, 4611686018427387904] has more elements"},
    {"LengthTooLongUnpaged", [](Call& c) { c.args.lengths_kv = c.indices({6, 7}); },
     "lengths_kv[1]: expected 0 to 6 (keys there is room for), got 7"},
    {"StartsOfOtherBatch", [](Call& c) { c.args.starts_kv = c.indices({1}); },
     "starts_kv.shape[0]: expected 2 (batch of q), got 1"},
    {"StartsNegative", [](Call& c) { c.args.starts_kv = c.indices({0, -1}); },
     "starts_kv[1]: expected 0 to 6 (where the keys in use end), got -1"},
    {"StartsBehindLengths",
     [](Call& c) { c.args.lengths_kv = c.indices({6, 3}), c.args.starts_kv = c.indices({6, 4}, 8); },
     "starts_kv[1]: expected 0 to 3 (where the keys in use end), got 4"},
    {"DropoutOffset", [](Call& c) { c.args.dropout_offset = std::uint64_t{1} << 32; },
     "dropout_offset: expected below 2^32, got 4294967296"},
    {"LengthsUnpagedWithoutAlign",
     [](Call& c) { c.args.lengths_kv = c.indices({6, 5}), c.options.causal = true; },
     "align: required with causal"},
};
INSTANTIATE_TEST_SUITE_P(Paged, BadFeatures, ::testing::ValuesIn(kPaged), fault_name);

TEST(Features, DescribeTheProblem) {
  Call call;
  call.args.mask = contiguous(call.floats.data(), DType::boolean, {2, 1, 4, 6});
  call.args.bias = contiguous(call.floats.data(), {1, 4, 1, 6});
  call.args.alibi_slopes = contiguous(call.floats.data(), {2, 4});
  call.args.sinks = contiguous(call.floats.data(), {4});
  call.options.align = Align::top_left;
  const Result<AttentionProblem> p = make_problem(call.args, call.options);
  ASSERT_TRUE(p.ok()) << p.status().message();
  EXPECT_EQ(p->mask, MaskKind::boolean);
  EXPECT_EQ(p->mask_axes, kAxisBatch | kAxisQueries);
  EXPECT_TRUE(p->bias);
  EXPECT_EQ(p->bias_axes, kAxisHeads);
  EXPECT_EQ(p->alibi, AlibiKind::per_batch_head);
  EXPECT_TRUE(p->sinks);
  EXPECT_TRUE(p->lse);
}

TEST(Features, PackedRowsGiveSequencesAndLongest) {
  Call call;
  pack(call);
  const Result<AttentionProblem> p = make_problem(call.args, call.options);
  ASSERT_TRUE(p.ok()) << p.status().message();
  EXPECT_TRUE(p->varlen);
  EXPECT_EQ(p->batch, 2);
  EXPECT_EQ(p->seq_q, 5);
  EXPECT_EQ(p->seq_kv, 12);
  EXPECT_EQ(p->total_q, 8);
  EXPECT_EQ(p->total_kv, 12);
}

TEST(Features, OffsetsOnADeviceAreNotRead) {
  Call call;
  pack(call);
  for (TensorView* view : {&call.args.q, &call.args.k, &call.args.v, &call.args.out, &call.args.lse,
                           &call.args.cu_seqlens_q, &call.args.cu_seqlens_kv}) {
    view->device = {DeviceKind::cuda, 0};
  }
  call.args.cu_seqlens_q.data = reinterpret_cast<void*>(std::uintptr_t{0x1000});  // a read here would crash
  call.args.cu_seqlens_kv.data = reinterpret_cast<void*>(std::uintptr_t{0x2000});
  const Result<AttentionProblem> p = make_problem(call.args, call.options);
  ASSERT_TRUE(p.ok()) << p.status().message();
  EXPECT_EQ(p->seq_q, 8);  // the longest sequence there could be
  EXPECT_EQ(p->seq_kv, 12);
}

TEST(Features, PagesGiveTheRoomOfASequence) {
  Call call;
  page(call);
  const Result<AttentionProblem> p = make_problem(call.args, call.options);
  ASSERT_TRUE(p.ok()) << p.status().message();
  EXPECT_EQ(p->seq_kv, 6);
  EXPECT_EQ(p->pages, 6);
  EXPECT_EQ(p->page_size, 2);
  EXPECT_TRUE(p->lengths);
}

TEST(Features, QuantisedKeysTakeScales) {
  Call call;
  call.args.k.dtype = call.args.v.dtype = DType::int8;
  call.args.k_scale = contiguous(call.floats.data(), {2});
  call.args.v_scale = contiguous(call.floats.data(), {1});
  const Result<AttentionProblem> p = make_problem(call.args, call.options);
  ASSERT_TRUE(p.ok()) << p.status().message();
  EXPECT_EQ(p->kv_dtype, DType::int8);
  call.args.k_scale.shape[0] = 3;
  EXPECT_NE(make_problem(call.args, call.options).status().message().find("k_scale.shape[0]: expected 2"),
            std::string::npos);
}

}  // namespace
}  // namespace headwise::test
