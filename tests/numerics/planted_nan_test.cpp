// Values that are not finite, planted where no query, or only some, may see them: docs/design.md section 4,
// for every forward kernel of the registry with each of its features.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "headwise/headwise.h"
#include "lab/inputs.h"
#include "numerics/featured_case.h"
#include "oracle/oracle.h"
#include "support/run_kernel.h"
#include "support/sight.h"

namespace headwise::numerics {
namespace {

using oracle::RowId;
using test::score_offset;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

class PlantedNan : public testing::TestWithParam<KernelInfo> {
 protected:
  void SetUp() override {
    if (const std::string why = cannot_run_here(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }
  // Of those texts the problems that the kernel has all features of.
  static std::vector<AttentionProblem> problems(const std::vector<std::string>& texts) {
    return featured_problems(GetParam(), texts);
  }
  // All keys that a mask hides are finite, and no key is planted by the laboratory.
  static lab::Inputs made(const AttentionProblem& p) {
    return check(lab::make_inputs(p, {.plant = false, .hidden_nan = false}, cpu()));
  }
  static std::vector<std::string> bits_of(const lab::Inputs& inputs) {
    for (const TensorView& t : {inputs.args().out, inputs.args().lse})
      test::each_element(t, [&](std::int64_t at, auto...) { store_element(t.dtype, t.data, at, 12345); });
    const Status status = run(check(plan(inputs.problem(), {}, GetParam().id)), inputs.args());
    EXPECT_TRUE(status.ok()) << status.message();
    return test::all_row_bits(inputs.args(), inputs.problem());
  }
  // Of the outputs as they are, in up to 48 rows: what is not finite stands in the same places as in truth,
  // and the rest is near it (the pass rule has tests of its own).
  static void expect_truth(const lab::Inputs& inputs) {
    constexpr std::size_t kRows = 48;
    const AttentionArgs& args = inputs.args();
    const AttentionProblem& p = inputs.problem();
    std::vector<RowId> rows = test::rows_of(args, p);
    const std::size_t step = (rows.size() + kRows - 1) / kRows;
    for (std::size_t r = 0; r * step < rows.size(); ++r) rows[r] = rows[r * step];
    rows.resize((rows.size() + step - 1) / step);
    const oracle::Rows truth = check(oracle::forward(args, p, rows, 1));
    const double tolerance = p.dtype == DType::f32 ? 1e-4 : p.dtype == DType::f16 ? 2e-2 : 0.15;
    const auto near = [&](double x, double y) {
      return x == y || (std::isnan(x) && std::isnan(y)) || std::abs(x - y) <= tolerance;
    };
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const Sequence s = sequence_of(args, p, rows[r].batch);
      const std::int64_t at = query_offset(args.out, s, rows[r].query, rows[r].head);
      for (std::int64_t d = 0; d < p.head_dim_v; ++d) {
        const double should =
            truth.out[r * static_cast<std::size_t>(p.head_dim_v) + static_cast<std::size_t>(d)];
        const double is = load_element(p.dtype, args.out.data, at + d);
        ASSERT_TRUE(near(is, should))
            << text_of(rows[r]) << " channel " << d << ": " << is << ", truth " << should;
      }
      const double lse = static_cast<double>(args.lse.as<float>()[test::lse_offset(args, s, rows[r])]);
      ASSERT_TRUE(near(lse, truth.lse[r]))
          << text_of(rows[r]) << " lse " << lse << ", truth " << truth.lse[r];
    }
  }
  static std::string text_of(const RowId& row) {
    return "sequence " + std::to_string(row.batch) + " head " + std::to_string(row.head) + " query " +
           std::to_string(row.query);
  }
};

TEST_P(PlantedNan, SlotsThatNobodySeesChangeNoBit) {
  for (const AttentionProblem& p : problems(unseen_slots())) {
    for (const std::int64_t mask_short : {0, 9}) {
      if (mask_short > 0 && p.mask == MaskKind::none) continue;
      SCOPED_TRACE(to_string(p) + " mask_short=" + std::to_string(mask_short));
      const lab::Inputs inputs =
          check(lab::make_inputs(p, {.plant = false, .mask_short = mask_short}, cpu()));
      const test::SeenSlots slots(inputs.args(), inputs.problem());
      ASSERT_GT(slots.unseen(), 0);
      slots.fill_unseen(inputs.args(), 0);
      const std::vector<std::string> clean = bits_of(inputs);
      for (const double value : {kNaN, kInf, -kInf, 60000.0}) {
        slots.fill_unseen(inputs.args(), value);
        EXPECT_TRUE(bits_of(inputs) == clean) << value;
      }
    }
  }
}

// A row of K that is NaN, or infinite in one channel: its scores reach the rows that see it alone.
TEST_P(PlantedNan, KeysReachOnlyRowsThatSeeThem) {
  for (const AttentionProblem& p : problems(partly_seen_slots())) {
    SCOPED_TRACE(to_string(p));
    const std::vector<std::string> clean = bits_of(made(p));
    for (const PlantedKey& key : planted_keys(p)) {
      for (const double value : {kNaN, kInf, -kInf}) {
        const lab::Inputs inputs = made(p);
        const AttentionArgs& args = inputs.args();
        const Sequence s = sequence_of(args, inputs.problem(), key.batch);
        if (key.key < s.keys.begin || key.key >= s.keys.end) continue;
        const std::int64_t at = key_offset(args.k, inputs.problem(), s, key.key, key.kv_head);
        store_element(args.k.dtype, args.k.data, at, value);
        const std::vector<std::string> bits = bits_of(inputs);
        const std::vector<RowId> rows = test::rows_of(args, inputs.problem());
        for (std::size_t r = 0; r < rows.size(); ++r) {
          if (seen_by(inputs, rows[r], key)) continue;
          ASSERT_EQ(bits[r], clean[r]) << text_of(rows[r]) << " sees no key " << key.key << " of "
                                       << key.batch << " but changed with it: " << value;
        }
        expect_truth(inputs);
      }
    }
  }
}

// One channel of a row of V. Rows that see the key have it in that channel, and all others where the kernel
// isolates; no other channel changes anywhere.
TEST_P(PlantedNan, ValuesReachOnlyTheirChannelAndRows) {
  for (const AttentionProblem& p : problems(partly_seen_slots())) {
    if (p.dropout_p > 0) continue;  // a dropped weight may or may not meet its value
    SCOPED_TRACE(to_string(p));
    const lab::Inputs plain = made(p);
    const std::vector<std::string> clean = bits_of(plain);
    for (const PlantedKey& key : planted_keys(p)) {
      for (const double value : {kNaN, kInf}) {
        const lab::Inputs inputs = made(p);
        const AttentionArgs& args = inputs.args();
        const Sequence s = sequence_of(args, inputs.problem(), key.batch);
        if (key.key < s.keys.begin || key.key >= s.keys.end) continue;
        const std::int64_t channel = p.head_dim_v / 2;
        const std::int64_t at = key_offset(args.v, inputs.problem(), s, key.key, key.kv_head) + channel;
        store_element(args.v.dtype, args.v.data, at, value);
        const std::vector<std::string> bits = bits_of(inputs);
        const std::vector<RowId> rows = test::rows_of(args, inputs.problem());
        const std::size_t size = size_of(p.dtype);
        for (std::size_t r = 0; r < rows.size(); ++r) {
          const double x = load_element(p.dtype, bits[r].data(), channel);
          const bool seen = seen_by(inputs, rows[r], key);
          if (seen) {
            ASSERT_FALSE(std::isfinite(x)) << text_of(rows[r]) << " key " << key.key;
          } else if (GetParam().traits.nan_isolating) {
            ASSERT_EQ(bits[r], clean[r]) << text_of(rows[r]) << " key " << key.key;
          }
          std::string others = bits[r], before = clean[r];
          others.erase(static_cast<std::size_t>(channel) * size, size);
          before.erase(static_cast<std::size_t>(channel) * size, size);
          ASSERT_EQ(others, before) << text_of(rows[r]) << " key " << key.key;
        }
      }
    }
  }
}

// Elements of a bias, or of an additive mask, reach the rows that read them and may see their key.
TEST_P(PlantedNan, AddendsReachOnlyTheirRows) {
  for (const AttentionProblem& p : problems(partly_seen_slots())) {
    SCOPED_TRACE(to_string(p));
    const lab::Inputs first = made(p);
    const std::vector<std::string> clean = bits_of(first);
    for (TensorView AttentionArgs::* tensor : {&AttentionArgs::bias, &AttentionArgs::mask}) {
      if (!(first.args().*tensor).present() || (first.args().*tensor).dtype == DType::boolean) continue;
      for (const PlantedKey& key : planted_keys(p)) {
        for (const double value : {kNaN, kInf, -kInf}) {
          const lab::Inputs inputs = made(p);
          const AttentionArgs& args = inputs.args();
          const TensorView& t = args.*tensor;
          const RowId reader{key.batch, key.kv_head * (p.heads / p.kv_heads),
                             std::min<std::int64_t>(2, p.seq_q - 1)};
          const std::int64_t at = score_offset(t, reader, key.key);
          const bool hidden = tensor == &AttentionArgs::mask && test::hides(t, at);
          store_element(t.dtype, t.data, at, value);
          const bool hides = tensor == &AttentionArgs::mask && test::hides(t, at);
          const std::vector<std::string> bits = bits_of(inputs);
          const std::vector<RowId> rows = test::rows_of(args, inputs.problem());
          for (std::size_t r = 0; r < rows.size(); ++r) {
            const bool reads = score_offset(t, rows[r], key.key) == at;
            const bool sees = test::sees(args, inputs.problem(), rows[r], key.key) || (hides && !hidden);
            if (reads && sees) continue;
            ASSERT_EQ(bits[r], clean[r])
                << text_of(rows[r]) << " changed with " << value << " at key " << key.key;
          }
          expect_truth(inputs);
        }
      }
    }
  }
}

// Queries that are not finite reach their own row.
TEST_P(PlantedNan, QueriesReachOnlyTheirRow) {
  for (const AttentionProblem& p : problems(partly_seen_slots())) {
    SCOPED_TRACE(to_string(p));
    const std::vector<std::string> clean = bits_of(made(p));
    for (const double value : {kNaN, kInf}) {
      const lab::Inputs inputs = made(p);
      const AttentionArgs& args = inputs.args();
      const std::vector<RowId> rows = test::rows_of(args, inputs.problem());
      const std::size_t planted = rows.size() / 2;
      const Sequence s = sequence_of(args, inputs.problem(), rows[planted].batch);
      store_element(args.q.dtype, args.q.data,
                    query_offset(args.q, s, rows[planted].query, rows[planted].head), value);
      const std::vector<std::string> bits = bits_of(inputs);
      for (std::size_t r = 0; r < rows.size(); ++r) {
        if (r != planted) {
          ASSERT_EQ(bits[r], clean[r]) << text_of(rows[r]) << " " << value;
        }
      }
      expect_truth(inputs);
    }
  }
}

// +inf takes all the weight, so that out is 0; -inf takes none; lse has no sink in it.
TEST_P(PlantedNan, InfiniteSinks) {
  for (const AttentionProblem& p :
       problems({"batch=2 seq_q=20 seq_kv=90 heads=8 kv_heads=2 head_dim=20 sinks=1 lse=1",
                 "seq_q=20 seq_kv=15 heads=8 head_dim=20 sinks=1 lse=1 causal=1 align=bottom_right",
                 "seq_q=1 seq_kv=1100 heads=8 kv_heads=1 head_dim=20 sinks=1 lse=1 bias=1 softcap=3"})) {
    SCOPED_TRACE(to_string(p));
    const lab::Inputs inputs = made(p);
    const std::vector<std::string> clean = bits_of(inputs);
    float* sinks = inputs.args().sinks.as<float>();
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    sinks[0] = kInfinity;
    sinks[1] = -kInfinity;
    sinks[2] = std::numeric_limits<float>::quiet_NaN();
    sinks[3] = std::numeric_limits<float>::max();
    sinks[4] = std::numeric_limits<float>::lowest();
    const std::vector<std::string> bits = bits_of(inputs);
    const std::vector<RowId> rows = test::rows_of(inputs.args(), inputs.problem());
    for (std::size_t r = 0; r < rows.size(); ++r) {
      EXPECT_EQ(bits[r].substr(bits[r].size() - 4), clean[r].substr(bits[r].size() - 4)) << "lse";
      if (rows[r].head > 4) {
        EXPECT_EQ(bits[r], clean[r]) << text_of(rows[r]);
      }
      const double x = load_element(p.dtype, bits[r].data(), 0);
      if (rows[r].head == 0 || rows[r].head == 3) {
        EXPECT_EQ(x, 0) << text_of(rows[r]);
      }
    }
    expect_truth(inputs);
  }
}

TEST_P(PlantedNan, SlopesOfZeroAndBeyond) {
  for (const AttentionProblem& p : problems(
           {"batch=2 seq_q=20 seq_kv=20 heads=6 kv_heads=2 head_dim=20 alibi=per_head lse=1",
            "seq_q=9 seq_kv=130 heads=6 head_dim=20 alibi=per_head align=bottom_right causal=1 lse=1"})) {
    SCOPED_TRACE(to_string(p));
    const lab::Inputs inputs = made(p);
    const std::vector<std::string> clean = bits_of(inputs);
    float* slopes = inputs.args().alibi_slopes.as<float>();
    slopes[0] = 0;
    slopes[1] = -0.5F;
    slopes[2] = std::numeric_limits<float>::quiet_NaN();
    slopes[3] = std::numeric_limits<float>::infinity();  // 0 * inf where a query stands
    slopes[4] = 1e30F;
    const std::vector<std::string> bits = bits_of(inputs);
    const std::vector<RowId> rows = test::rows_of(inputs.args(), inputs.problem());
    for (std::size_t r = 0; r < rows.size(); ++r) {
      if (rows[r].head == 5) {
        EXPECT_EQ(bits[r], clean[r]) << text_of(rows[r]);
      }
    }
    expect_truth(inputs);
  }
}

// Infinite scores are capped like any, and NaN stays what it is.
TEST_P(PlantedNan, SoftcapOfWhatIsNotFinite) {
  for (const AttentionProblem& p : problems(
           {"seq_q=20 seq_kv=90 heads=2 head_dim=20 softcap=3 lse=1",
            "seq_q=20 seq_kv=90 heads=2 head_dim=20 softcap=3 softmax_scale=-0.5 lse=1",
            "seq_q=20 seq_kv=90 heads=2 head_dim=20 softcap=1e-30 lse=1",
            "seq_q=20 seq_kv=90 heads=2 head_dim=20 softcap=50 lse=1 causal=1 align=bottom_right bias=1"})) {
    SCOPED_TRACE(to_string(p));
    const lab::Inputs inputs = made(p);
    const TensorView& k = inputs.args().k;
    for (const auto& [key, value] : {std::pair{3, kInf}, std::pair{41, -kInf}, std::pair{77, kInf}})
      store_element(k.dtype, k.data, key * k.stride[1], value);
    bits_of(inputs);
    for (std::int64_t i = 0; i < p.seq_q; ++i)
      EXPECT_TRUE(
          std::isfinite(load_element(p.dtype, inputs.args().out.data, i * inputs.args().out.stride[1])));
    expect_truth(inputs);
    store_element(k.dtype, k.data, 76 * k.stride[1], kNaN);
    bits_of(inputs);
    expect_truth(inputs);
  }
}

// A row whose scores are all -inf has seen nothing, whatever made them so.
TEST_P(PlantedNan, ScoresOfMinusInfinity) {
  for (const AttentionProblem& p : problems(
           {"seq_q=20 seq_kv=600 heads=2 head_dim=20 lse=1",
            "seq_q=20 seq_kv=600 heads=2 head_dim=20 lse=1 bias=1 sinks=1",
            "seq_q=20 seq_kv=600 heads=2 head_dim=20 lse=1 causal=1 align=bottom_right mask=additive"})) {
    SCOPED_TRACE(to_string(p));
    const lab::Inputs inputs = made(p);
    const TensorView &q = inputs.args().q, &k = inputs.args().k;
    // Channel 0 of q is positive in even rows: they score -inf with the keys below 550, and then all.
    for (std::int64_t i = 0; i < p.seq_q * p.heads; ++i)
      store_element(q.dtype, q.data, i * p.head_dim, i / p.heads % 2 == 0 ? 1 : -1);
    for (const std::int64_t end : {550, 600}) {
      for (std::int64_t j = 0; j < end * p.kv_heads; ++j)
        store_element(k.dtype, k.data, j * p.head_dim, -kInf);
      bits_of(inputs);
      expect_truth(inputs);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, PlantedNan, testing::ValuesIn(forward_kernels()),
                         [](const testing::TestParamInfo<KernelInfo>& info) {
                           return test_name(info.param.id);
                         });

}  // namespace
}  // namespace headwise::numerics
