#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <tuple>
#include <variant>

#include "attention/fields.h"
#include "attention/kernel.h"
#include "headwise/attention.h"
#include "support/parsed.h"

namespace headwise {
namespace {

std::string parse_error(std::string_view text) {
  const Result<AttentionProblem> problem = parse_problem(text);
  if (problem.ok()) return "parsed: " + to_string(*problem);
  EXPECT_EQ(problem.status().code(), StatusCode::invalid_argument);
  return problem.status().message();
}

TEST(Problem, TableHasEveryField) {
  // Does not compile when the aggregate gains a field: then the table gets a line, and this a name.
  const AttentionProblem problem;
  const auto& [direction, dtype, kv_dtype, batch, heads, kv_heads, seq_q, seq_kv, head_dim, head_dim_v,
               softmax_scale, causal, align, window_left, window_right, softcap, alibi, sinks, bias,
               bias_axes, mask, mask_axes, dropout_p, varlen, total_q, total_kv, lengths, starts, pages,
               page_size, lse, dbias, dsinks, pointer_alignment, threads, deterministic, batch_invariant] =
      problem;
  (void)std::tie(direction, dtype, kv_dtype, batch, heads, kv_heads, seq_q, seq_kv, head_dim, head_dim_v,
                 softmax_scale, causal, align, window_left, window_right, softcap, alibi, sinks, bias,
                 bias_axes, mask, mask_axes, dropout_p, varlen, total_q, total_kv, lengths, starts, pages,
                 page_size, lse, dbias, dsinks, pointer_alignment, threads, deterministic, batch_invariant);
  EXPECT_EQ(problem_fields().size(), 37U);
  std::set<std::string_view> names;
  for (const Field& field : problem_fields()) names.insert(field.name);
  EXPECT_EQ(names.size(), problem_fields().size());
}

TEST(Problem, PrintsSizesAlwaysAndTheRestWhereItDiffers) {
  EXPECT_EQ(to_string(AttentionProblem{}),
            "dtype=f32 batch=1 heads=1 kv_heads=1 seq_q=0 seq_kv=0 head_dim=64 head_dim_v=64");
  AttentionProblem p = {.dtype = DType::bf16, .kv_dtype = DType::bf16, .heads = 8, .seq_q = 3, .seq_kv = 5};
  p.softmax_scale = 0.1F;
  p.causal = true;
  p.align = Align::bottom_right;
  p.window_left = 1024;
  p.mask = MaskKind::boolean;
  p.mask_axes = kAxisBatch | kAxisQueries;
  EXPECT_EQ(
      to_string(p),
      "dtype=bf16 batch=1 heads=8 kv_heads=1 seq_q=3 seq_kv=5 head_dim=64 head_dim_v=64 softmax_scale=0.1 "
      "causal=1 align=bottom_right window_left=1024 mask=bool mask_axes=bq");
}

TEST(Problem, ParsesWhatItPrintsForEveryField) {
  // Each field alone away from its default, then all together.
  const std::string_view text =
      "direction=backward dtype=f16 kv_dtype=e4m3 batch=2 heads=6 kv_heads=3 seq_q=7 seq_kv=9 head_dim=80 "
      "head_dim_v=48 "
      "softmax_scale=-0.25 causal=1 align=top_left window_left=4 window_right=0 softcap=30 "
      "alibi=per_batch_head sinks=1 "
      "bias=1 bias_axes=h mask=additive mask_axes=bhq dropout_p=0.1 varlen=1 total_q=11 total_kv=13 "
      "lengths=1 starts=1 pages=17 "
      "page_size=16 lse=1 dbias=1 dsinks=1 pointer_alignment=2 threads=5 deterministic=1 batch_invariant=1";
  const AttentionProblem all = parsed(text);
  EXPECT_EQ(to_string(all), text);
  const AttentionProblem none;
  for (const Field& field : problem_fields()) {
    EXPECT_FALSE(equal_value(field, all, none))
        << field.name << " is at its default, so the text above misses it";
    AttentionProblem one;
    std::visit([&](auto member) { one.*member = all.*member; }, field.member);
    EXPECT_EQ(parsed(to_string(one)), one) << field.name;
    EXPECT_NE(hash(one), hash(none)) << field.name;
  }
}

TEST(Problem, UnsetSizesFollowTheirPartners) {
  const AttentionProblem p = parsed("dtype=bf16 heads=8 head_dim=128");
  EXPECT_EQ(p.kv_dtype, DType::bf16);
  EXPECT_EQ(p.kv_heads, 8);
  EXPECT_EQ(p.head_dim_v, 128);
  const AttentionProblem q = parsed("head_dim_v=32 kv_heads=2 kv_dtype=int8 heads=8 dtype=bf16");
  EXPECT_EQ(q.kv_dtype, DType::int8);
  EXPECT_EQ(q.kv_heads, 2);
  EXPECT_EQ(q.head_dim_v, 32);
  EXPECT_EQ(parsed("mask_axes=none bias_axes=qb").bias_axes, kAxisBatch | kAxisQueries);
}

TEST(Problem, ParseErrorsNameTheWord) {
  struct Bad {
    std::string_view text;
    std::string_view expected;
  };
  for (const auto& [text, expected] : {
           Bad{"batch=2 windw_left=3",
               "'windw_left=3': there is no field 'windw_left'; did you mean 'window_left'"},
           Bad{"temperature=1", "there is no field 'temperature'"},
           Bad{"batch=2 batch=2", "batch is given twice"},
           Bad{"causal", "'causal': expected causal=value"},
           Bad{"=3", "'=3'"},
           Bad{"batch=", "'batch=': expected an integer"},
           Bad{"batch=2x", "'batch=2x': expected an integer"},
           Bad{"batch=99999999999999999999", "expected an integer"},
           Bad{"batch=-1", "batch: expected an integer from 0 to 281474976710656, got -1"},
           Bad{"head_dim=0", "head_dim: expected an integer from 1 to 576, got 0"},
           Bad{"head_dim=577", "from 1 to 576, got 577"},
           Bad{"window_left=-2", "window_left: expected an integer from -1"},
           Bad{"softmax_scale=nan", "softmax_scale: expected a finite number, got nan"},
           Bad{"softmax_scale=inf", "softmax_scale: expected a finite number, got inf"},
           Bad{"softcap=-1", "softcap: expected a finite number >= 0, got -1"},
           Bad{"softcap=1e99", "expected a number"},
           Bad{"dropout_p=1", "dropout_p: expected a number from 0 up to, not including, 1, got 1"},
           Bad{"causal=yes", "'causal=yes': expected 0 or 1"},
           Bad{"align=botom_right", "did you mean 'bottom_right'"},
           Bad{"dtype=bf61", "did you mean 'bf16'"},
           Bad{"mask_axes=bx", "expected none or letters of bhq"},
           Bad{"mask_axes=", "expected none or letters of bhq"},
           Bad{"pointer_alignment=32", "pointer_alignment: expected an integer from 1 to 16, got 32"},
       }) {
    EXPECT_NE(parse_error(text).find(expected), std::string::npos) << text << " -> " << parse_error(text);
  }
  EXPECT_TRUE(parse_problem("").ok());
}

TEST(Problem, HashTreatsEqualProblemsEqually) {
  AttentionProblem zero;
  AttentionProblem negative_zero;
  negative_zero.softcap = -0.0F;
  ASSERT_EQ(zero, negative_zero);
  EXPECT_EQ(hash(zero), hash(negative_zero));
  std::set<std::size_t> hashes;
  for (int batch = 0; batch < 32; ++batch) {
    for (int seq = 0; seq < 32; ++seq) hashes.insert(hash({.batch = batch, .seq_q = seq, .seq_kv = seq}));
  }
  EXPECT_EQ(hashes.size(), 32U * 32U);
}

TEST(Problem, ScaleDefaultsToTheRootOfHeadDim) {
  EXPECT_EQ(AttentionProblem{.head_dim = 64}.scale(), 0.125F);
  EXPECT_EQ(AttentionProblem{.head_dim = 3}.scale(), static_cast<float>(1 / std::sqrt(3.0)));
  EXPECT_EQ((AttentionProblem{.head_dim = 64, .softmax_scale = -2.0F}.scale()), -2.0F);
}

TEST(Validate, AcceptsTheUsual) {
  for (const std::string_view text :
       {"seq_q=4 seq_kv=4 causal=1", "seq_q=4 seq_kv=5 causal=1 align=top_left", "batch=0 seq_q=1 seq_kv=1",
        "heads=0 kv_heads=0", "seq_q=0 seq_kv=0", "heads=12 kv_heads=4 head_dim=576 head_dim_v=1",
        "dtype=f64", "varlen=1 batch=3 total_q=9 total_kv=9 seq_q=5 seq_kv=5", "seq_q=4 seq_kv=5"}) {
    EXPECT_TRUE(validate(parsed(text)).ok()) << text << ": " << validate(parsed(text)).message();
  }
}

TEST(Validate, NamesWhatIsWrong) {
  struct Bad {
    std::string_view text;
    std::string_view expected;
  };
  for (const auto& [text, expected] : {
           Bad{"heads=8 kv_heads=3", "kv_heads: expected a divisor of heads (8), got 3"},
           Bad{"heads=8 kv_heads=0", "kv_heads: expected a divisor"},
           Bad{"seq_q=4 seq_kv=5 causal=1",
               "align: required with causal, because seq_q 4 differs from seq_kv 5"},
           Bad{"seq_q=4 seq_kv=5 window_left=2", "align: required with window_left"},
           Bad{"seq_q=4 seq_kv=5 window_right=2", "align: required with window_right"},
           Bad{"seq_q=4 seq_kv=5 alibi=per_head", "align: required with alibi_slopes"},
           Bad{"seq_q=4 seq_kv=4 lengths=1 causal=1", "seq_q and seq_kv may differ in each sequence"},
           Bad{"dtype=int32", "dtype: expected f32"},
           Bad{"kv_dtype=bool", "kv_dtype: expected f32"},
           Bad{"pointer_alignment=12", "pointer_alignment: expected 1, 2, 4, 8 or 16, got 12"},
           Bad{"mask_axes=b", "mask_axes: expected none"},
           Bad{"bias_axes=b", "bias_axes: expected none"},
           Bad{"pages=4", "page_size: expected at least 1"},
           Bad{"total_q=4", "varlen: expected 1"},
           Bad{"batch=1000000000 seq_q=1000000000 heads=1 head_dim=64",
               "q: its sizes 1000000000 x 1000000000"},
           Bad{"batch=1 heads=64 seq_q=1000000000 seq_kv=1000000000", "the score matrix: its sizes"},
       }) {
    const Status status = validate(parsed(text));
    EXPECT_EQ(status.code(), StatusCode::invalid_argument) << text;
    EXPECT_NE(status.message().find(expected), std::string::npos) << text << " -> " << status.message();
  }
  AttentionProblem p;
  p.softcap = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NE(validate(p).message().find("softcap: expected a finite number >= 0, got nan"), std::string::npos);
  p = {.batch = -1};
  EXPECT_NE(validate(p).message().find("batch: expected an integer from 0"), std::string::npos);
}

TEST(SupportsFeatures, GivesTheFirstReason) {
  const Traits traits;  // f32, forward
  const FeatureSet none;
  const auto reason = [&](std::string_view text) {
    return supports_features(parsed(text), traits, none).reason;
  };
  EXPECT_EQ(reason("causal=1 lse=1"), "");
  EXPECT_EQ(reason("dtype=bf16"), "dtype bf16: this kernel is f32");
  EXPECT_EQ(reason("kv_dtype=int8"), "kv_dtype int8: this kernel is f32");
  EXPECT_EQ(reason("direction=backward"), "direction backward: this kernel is forward");
  EXPECT_EQ(reason("window_left=0 softcap=3"), "window: this kernel has none");
  EXPECT_EQ(reason("window_right=3"), "window: this kernel has none");
  EXPECT_EQ(reason("softcap=3"), "softcap: this kernel has none");
  EXPECT_EQ(reason("alibi=per_head"), "alibi_slopes: this kernel has none");
  EXPECT_EQ(reason("sinks=1"), "sinks: this kernel has none");
  EXPECT_EQ(reason("bias=1"), "bias: this kernel has none");
  EXPECT_EQ(reason("mask=bool"), "mask: this kernel has none");
  EXPECT_EQ(reason("dropout_p=0.5"), "dropout_p: this kernel has none");
  EXPECT_EQ(reason("varlen=1"), "cu_seqlens: this kernel has none");
  EXPECT_EQ(reason("lengths=1"), "lengths_kv: this kernel has none");
  EXPECT_EQ(reason("page_size=16"), "block_table: this kernel has none");
  const FeatureSet all{true, true, true, true, true, true, true, true, true, true};
  const AttentionProblem everything = parsed(
      "window_left=1 softcap=3 alibi=per_head sinks=1 bias=1 mask=bool dropout_p=0.5 varlen=1 lengths=1 "
      "page_size=16");
  EXPECT_TRUE(supports_features(everything, traits, all).ok());
}

}  // namespace
}  // namespace headwise
