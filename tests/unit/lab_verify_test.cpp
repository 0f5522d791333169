// The pass rule: a correct implementation passes with room to spare, and small faults do not, whatever
// the inputs, the length and the dtype.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "attention/mask.h"
#include "lab/verify.h"

namespace headwise::lab {
namespace {

const std::string kCapturedFile = HEADWISE_DATA_DIR "/captured/all-minilm-l6-v2.safetensors";

Device& cpu() { return **device({}); }

enum class Fault {
  none,
  drop_last_key,
  drop_first_key,
  read_forbidden_key,
  swap_two_values,
  wrong_align,
  no_rescale,
  wrong_kv_head,
  scale_off,
  lse_off,
  lse_untouched,
  lse_base_two,
  one_nan,
  one_infinity,
  row_untouched,
  value_of_neighbour_batch,
};

struct Mutant {
  Fault fault = Fault::none;
  std::int64_t drop = -1;  // this key as well, where it may be seen
};

// Attention in fp32 as a simple kernel does it (flash: key by key, rescaling), for the rows listed;
// `mutant` says what it gets wrong.
class SimpleAttention {
 public:
  SimpleAttention(const Inputs& inputs, Mutant mutant)
      : args_(inputs.host_args()), p_(inputs.problem()), mutant_(mutant) {
    for (const auto& [view, values] :
         {std::pair{&args_.q, &q_}, std::pair{&args_.k, &k_}, std::pair{&args_.v, &v_}}) {
      for (std::int64_t i = 0; i < view->elements(); ++i) {
        values->push_back(static_cast<float>(load_element(view->dtype, view->data, i)));
      }
    }
    scale_ = p_.scale() * (mutant.fault == Fault::scale_off ? 1.01F : 1.0F);
  }

  void run(const std::vector<oracle::RowId>& rows) {
    for (const oracle::RowId& row : rows) run_row(row);
    const oracle::RowId& some = rows[rows.size() / 2];
    const std::int64_t at = start(args_.out, some.batch, some.query, some.head);
    const float last = static_cast<float>(p_.head_dim_v - 1);
    const auto put = [&](double value) {
      store_element(p_.dtype, args_.out.data, at + static_cast<std::int64_t>(last), value);
    };
    if (mutant_.fault == Fault::one_nan) put(std::nan(""));
    if (mutant_.fault == Fault::one_infinity) put(std::numeric_limits<double>::infinity());
    if (mutant_.fault == Fault::row_untouched) {
      for (std::int64_t x = 0; x < p_.head_dim_v; ++x)
        store_element(p_.dtype, args_.out.data, at + x, std::nan(""));
    }
  }

 private:
  static std::int64_t start(const TensorView& view, std::int64_t b, std::int64_t s, std::int64_t h) {
    return b * view.stride[0] + s * view.stride[1] + h * view.stride[2];
  }

  [[nodiscard]] std::vector<std::int64_t> keys(const oracle::RowId& row) const {
    AttentionProblem p = p_;
    if (mutant_.fault == Fault::wrong_align) {
      p.align = p.align == Align::top_left ? Align::bottom_right : Align::top_left;
    }
    const KeyRange range = key_range(p, row.query);
    std::vector<std::int64_t> keys;
    for (std::int64_t j = range.begin; j < range.end; ++j) {
      if (mutant_.fault == Fault::drop_last_key && j == range.end - 1) continue;
      if (mutant_.fault == Fault::drop_first_key && j == range.begin) continue;
      if (j != mutant_.drop) keys.push_back(j);
    }
    if (mutant_.fault == Fault::read_forbidden_key && range.end < p_.seq_kv) keys.push_back(range.end);
    return keys;
  }

  void run_row(const oracle::RowId& row) {
    const std::int64_t shared = p_.heads / p_.kv_heads;
    const std::int64_t kv_head =
        mutant_.fault == Fault::wrong_kv_head ? row.head % p_.kv_heads : row.head / shared;
    const float* q = q_.data() + start(args_.q, row.batch, row.query, row.head);
    float largest = -std::numeric_limits<float>::infinity(), sum = 0;
    std::vector<float> out(static_cast<std::size_t>(p_.head_dim_v));
    for (const std::int64_t j : keys(row)) {
      const float* k = k_.data() + start(args_.k, row.batch, j, kv_head);
      float dot = 0;
      for (std::int64_t c = 0; c < p_.head_dim; ++c) dot += q[c] * k[c];
      const float score = dot * scale_;
      const float next = std::max(largest, score);
      const float keep = mutant_.fault == Fault::no_rescale && sum > 0 ? 1 : std::exp(largest - next);
      const float weight = std::exp(score - next);
      largest = next;
      sum = sum * keep + weight;
      const std::int64_t half = p_.seq_kv / 2;
      std::int64_t value = j;
      if (mutant_.fault == Fault::swap_two_values && (j == half || j == half + 1)) value = 2 * half + 1 - j;
      const std::int64_t batch =
          mutant_.fault == Fault::value_of_neighbour_batch ? (row.batch + 1) % p_.batch : row.batch;
      const float* v = v_.data() + start(args_.v, batch, value, kv_head);
      for (std::int64_t x = 0; x < p_.head_dim_v; ++x) {
        float& o = out[static_cast<std::size_t>(x)];
        o = o * keep + weight * v[x];
      }
    }
    const std::int64_t at = start(args_.out, row.batch, row.query, row.head);
    for (std::int64_t x = 0; x < p_.head_dim_v; ++x) {
      store_element(p_.dtype, args_.out.data, at + x, sum > 0 ? out[static_cast<std::size_t>(x)] / sum : 0);
    }
    float lse = largest + std::log(sum);
    if (mutant_.fault == Fault::lse_off) lse += 1e-3F;
    if (mutant_.fault == Fault::lse_base_two) lse /= std::log(2.0F);
    if (mutant_.fault != Fault::lse_untouched) {
      args_.lse.as<float>()[(row.batch * p_.heads + row.head) * p_.seq_q + row.query] = lse;
    }
  }

  const AttentionArgs& args_;
  const AttentionProblem& p_;
  Mutant mutant_;
  float scale_;
  std::vector<float> q_, k_, v_;  // packed, as the tests' tensors are
};

class Bench {
 public:
  Bench(const AttentionProblem& problem, const InputSpec& spec, double seconds = 0.01)
      : inputs_(check(make_inputs(problem, spec, cpu()))),
        reference_(check(make_reference(inputs_, seconds, 2))) {}

  Verdict verdict(Mutant mutant) {
    check(poison(inputs_));
    SimpleAttention(inputs_, mutant).run(reference_.rows);
    return verify(inputs_, reference_);
  }
  bool passes(Fault fault) { return verdict({fault}).passed(); }
  [[nodiscard]] const Inputs& inputs() const { return inputs_; }
  [[nodiscard]] Inputs& inputs() { return inputs_; }
  [[nodiscard]] const Reference& reference() const { return reference_; }

 private:
  Inputs inputs_;
  Reference reference_;
};

AttentionProblem sizes(std::int64_t heads, std::int64_t kv_heads, std::int64_t seq_q, std::int64_t seq_kv,
                       DType dtype, std::int64_t head_dim = 32) {
  return {.dtype = dtype,
          .kv_dtype = dtype,
          .batch = 1,
          .heads = heads,
          .kv_heads = kv_heads,
          .seq_q = seq_q,
          .seq_kv = seq_kv,
          .head_dim = head_dim,
          .head_dim_v = head_dim,
          .lse = true};
}

void expect_sound(Bench& bench) {
  const Verdict good = bench.verdict({});
  EXPECT_TRUE(good.passed()) << good.reason;
  EXPECT_LT(good.error_max, 0.8 * good.limit_max);
  EXPECT_LT(good.error_rms, 0.8 * good.limit_rms);
  EXPECT_GT(good.rows_verified, 0);
}

using Size = std::tuple<std::int64_t, DType>;
class PassRule : public ::testing::TestWithParam<Size> {};

TEST_P(PassRule, FullAttention) {
  const auto [seq, dtype] = GetParam();
  Bench bench(sizes(4, 2, seq, seq, dtype), {});
  expect_sound(bench);
  for (const Fault fault :
       {Fault::drop_last_key, Fault::drop_first_key, Fault::swap_two_values, Fault::no_rescale,
        Fault::wrong_kv_head, Fault::scale_off, Fault::one_nan, Fault::one_infinity, Fault::row_untouched,
        Fault::lse_untouched, Fault::lse_base_two}) {
    EXPECT_FALSE(bench.passes(fault)) << static_cast<int>(fault);
  }
  EXPECT_EQ(bench.passes(Fault::lse_off), dtype != DType::f32);  // below what rounded scores cost
}

TEST_P(PassRule, CausalAttention) {
  const auto [seq, dtype] = GetParam();
  AttentionProblem p = sizes(4, 2, seq, seq + 70, dtype);
  p.causal = true;
  for (const Align align : {Align::top_left, Align::bottom_right}) {
    p.align = align;
    Bench bench(p, {.kind = align == Align::top_left ? InputKind::uniform : InputKind::normal});
    expect_sound(bench);
    for (const Fault fault : {Fault::drop_last_key, Fault::drop_first_key, Fault::read_forbidden_key,
                              Fault::wrong_align, Fault::no_rescale, Fault::wrong_kv_head}) {
      // The last top-left query sees none of the last 70 keys, the last bottom-right one all of them.
      EXPECT_FALSE(bench.passes(fault)) << static_cast<int>(fault) << " " << name(align);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, PassRule,
                         ::testing::Combine(::testing::Values(64, 300, 1024, 4096),
                                            ::testing::Values(DType::f32, DType::f16, DType::bf16)),
                         [](const auto& info) {
                           return std::string(name(std::get<1>(info.param))) + "_" +
                                  std::to_string(std::get<0>(info.param));
                         });

TEST(PassRuleCaptured, FindsFaultsInRealInput) {
  for (const int layer : {0, 2, 5}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      for (const std::int64_t seq : {64, 256}) {
        for (const bool causal : {false, true}) {
          AttentionProblem p = check(captured_problem(kCapturedFile, layer));
          p.dtype = p.kv_dtype = dtype;
          p.seq_q = p.seq_kv = seq;
          p.causal = causal;
          p.lse = true;
          SCOPED_TRACE(std::to_string(layer) + " " + to_string(p));
          Bench bench(p, {.kind = InputKind::captured, .file = kCapturedFile, .layer = layer});
          expect_sound(bench);
          for (const Fault fault :
               {Fault::drop_last_key, Fault::swap_two_values, Fault::no_rescale, Fault::scale_off,
                Fault::one_nan, Fault::row_untouched, Fault::lse_untouched}) {
            EXPECT_FALSE(bench.passes(fault)) << static_cast<int>(fault);
          }
          if (causal) {
            EXPECT_FALSE(bench.passes(Fault::read_forbidden_key));
          }
          if (dtype == DType::f32) {
            EXPECT_FALSE(bench.passes(Fault::lse_off));
          }
        }
      }
    }
  }
}

TEST(PassRulePlants, LosingAnyPlantedKeyFails) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Bench bench(sizes(4, 1, 2000, 2000, dtype, 64), {});
    std::set<std::int64_t> keys;
    for (const Plant& plant : bench.inputs().planted()) keys.insert(plant.key);
    ASSERT_GE(keys.size(), 20U);
    for (const std::int64_t key : keys) EXPECT_FALSE(bench.verdict({.drop = key}).passed()) << key;
  }
}

TEST(PassRuleRare, OneLostKeyInSixteenThousandFails) {
  Bench bench(sizes(1, 1, 16384, 16384, DType::bf16, 64), {});
  EXPECT_TRUE(bench.passes(Fault::none));
  EXPECT_FALSE(bench.passes(Fault::drop_last_key));
  EXPECT_FALSE(bench.passes(Fault::drop_first_key));
}

TEST(Verify, NeighboursInTheBatchAreTold) {
  AttentionProblem p = sizes(2, 2, 30, 30, DType::f32);
  p.batch = 3;
  Bench bench(p, {});
  EXPECT_TRUE(bench.passes(Fault::none));
  EXPECT_FALSE(bench.passes(Fault::value_of_neighbour_batch));
}

TEST(Verify, ReportsWhatItSaw) {
  Bench bench(sizes(2, 2, 100, 100, DType::f32), {}, 10);
  EXPECT_EQ(bench.reference().rows.size(), 200U);
  const Verdict good = bench.verdict({});
  EXPECT_EQ(good.rows_verified, 200);
  EXPECT_TRUE(good.reason.empty());
  EXPECT_GT(good.error_max, 0);
  EXPECT_GT(good.plain_max, 0);
  EXPECT_GE(good.error_max, good.error_rms);
  EXPECT_GE(good.limit_max, 2 * good.plain_max);
  EXPECT_GE(good.limit_rms, 1.5 * good.plain_rms);
  EXPECT_GT(good.lse_error, 0);

  // One wrong element names its row.
  float* out = bench.inputs().args().out.as<float>();
  out[(57 * 2 + 1) * 32 + 4] += 0.5F;
  Verdict bad = verify(bench.inputs(), bench.reference());
  EXPECT_FALSE(bad.passed());
  EXPECT_NEAR(bad.error_max, 0.5, 1e-4);
  EXPECT_EQ(bad.worst.query, 57);
  EXPECT_EQ(bad.worst.head, 1);
  EXPECT_NE(bad.reason.find("query 57, head 1"), std::string::npos) << bad.reason;
  out[(57 * 2 + 1) * 32 + 4] -= 0.5F;
  EXPECT_TRUE(verify(bench.inputs(), bench.reference()).passed());

  out[-1] = 0;  // correct, but it wrote beside its tensor
  bad = verify(bench.inputs(), bench.reference());
  EXPECT_FALSE(bad.passed());
  EXPECT_NE(bad.reason.find("before out"), std::string::npos);
}

TEST(Verify, NonFiniteValuesMustStandWhereTruthHasThem) {
  Bench bench(sizes(1, 1, 10, 10, DType::f32), {.plant = false}, 10);
  AttentionArgs args = bench.inputs().args();
  args.v.as<float>()[3] = std::numeric_limits<float>::infinity();  // key 0, channel 3: every row
  AttentionProblem p = bench.inputs().problem();
  const Reference reference = check(make_reference(args, p, rows_to_verify(p), 1));
  SimpleAttention(bench.inputs(), {}).run(reference.rows);
  EXPECT_TRUE(judge(reference, args).passed()) << judge(reference, args).reason;
  args.out.as<float>()[3] = 1;
  EXPECT_FALSE(judge(reference, args).passed());
  args.out.as<float>()[3] = -std::numeric_limits<float>::infinity();
  EXPECT_FALSE(judge(reference, args).passed());
}

TEST(Verify, RowsWithoutKeysMustBeZero) {
  AttentionProblem p = sizes(1, 1, 10, 4, DType::f32);
  p.causal = true;
  p.align = Align::bottom_right;
  Bench bench(p, {}, 10);
  EXPECT_TRUE(bench.passes(Fault::none)) << bench.verdict({}).reason;
  bench.inputs().args().lse.as<float>()[0] = -1e30F;
  EXPECT_FALSE(verify(bench.inputs(), bench.reference()).passed());
}

TEST(RowsToVerify, TakesAllWhereThatIsCheap) {
  const AttentionProblem p = sizes(3, 3, 50, 50, DType::f32);
  const std::vector<oracle::RowId> rows = rows_to_verify(p);
  EXPECT_EQ(rows.size(), 150U);
}

TEST(RowsToVerify, SamplesEdgesPlantsAndTheRest) {
  AttentionProblem p = sizes(4, 2, 16384, 16384, DType::f32, 64);
  p.batch = 2;
  const std::vector<oracle::RowId> rows = rows_to_verify(p, 0.001, 2);
  std::set<std::tuple<std::int64_t, std::int64_t, std::int64_t>> seen;
  std::map<std::pair<std::int64_t, std::int64_t>, int> per_head;
  for (const oracle::RowId& row : rows) {
    EXPECT_TRUE(seen.emplace(row.batch, row.head, row.query).second) << "twice";
    ++per_head[{row.batch, row.head}];
  }
  EXPECT_EQ(per_head.size(), 8U);
  for (const auto& [head, count] : per_head) {
    EXPECT_GE(count, 64);
    EXPECT_LE(count, 100);
  }
  for (const std::int64_t edge : {0, 63, 64, 511, 512, 513, 16320, 16383})
    EXPECT_TRUE(seen.contains({1, 3, edge})) << edge;
  for (const Plant& plant : plants(p))
    EXPECT_TRUE(seen.contains({plant.row.batch, plant.row.head, plant.row.query}));
  // No stretch of a thousand rows stays unseen.
  for (std::int64_t begin = 0; begin < 16384; begin += 1024) {
    const auto next = seen.lower_bound({0, 1, begin});
    EXPECT_TRUE(next != seen.end() && std::get<1>(*next) == 1 && std::get<2>(*next) < begin + 1024) << begin;
  }
  EXPECT_GT(rows_to_verify(p, 5, 2).size(), rows.size());
}

}  // namespace
}  // namespace headwise::lab
