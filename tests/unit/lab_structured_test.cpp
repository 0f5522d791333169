// Structured inputs: what heads attend to, and that values are the same everywhere.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "attention/mask.h"
#include "headwise/kernels.h"
#include "lab/inputs.h"
#include "lab/random.h"
#include "lab/runner.h"
#include "lab/structured.h"

namespace headwise::lab {
namespace {

Device& cpu() { return **device({}); }

AttentionProblem sizes(std::int64_t heads, std::int64_t kv_heads, std::int64_t seq, std::int64_t head_dim,
                       DType dtype = DType::f32) {
  return {.dtype = dtype,
          .kv_dtype = dtype,
          .batch = 1,
          .heads = heads,
          .kv_heads = kv_heads,
          .seq_q = seq,
          .seq_kv = seq,
          .head_dim = head_dim,
          .head_dim_v = head_dim,
          .causal = true};
}

Inputs make(const AttentionProblem& problem, InputKind kind = InputKind::structured, bool plant = false) {
  return check(make_inputs(problem, {.kind = kind, .plant = plant}, cpu()));
}

double at(const TensorView& view, std::int64_t b, std::int64_t s, std::int64_t h, std::int64_t c) {
  return load_element(view.dtype, view.data,
                      b * view.stride[0] + s * view.stride[1] + h * view.stride[2] + c * view.stride[3]);
}

// Attention probabilities of one row in fp64, over all keys; forbidden ones get 0.
std::vector<double> probabilities(const Inputs& inputs, std::int64_t query, std::int64_t head) {
  const AttentionProblem& p = inputs.problem();
  const AttentionArgs& args = inputs.host_args();
  const KeyRange range = key_range(p, query);
  const std::int64_t kv_head = head / (p.heads / p.kv_heads);
  const auto* q = args.q.as<float>() + query * args.q.stride[1] + head * args.q.stride[2];
  std::vector<double> weights(static_cast<std::size_t>(p.seq_kv), 0);
  double largest = -HUGE_VAL, sum = 0;
  for (std::int64_t key = range.begin; key < range.end; ++key) {
    const auto* k = args.k.as<float>() + key * args.k.stride[1] + kv_head * args.k.stride[2];
    double dot = 0;
    for (std::int64_t c = 0; c < p.head_dim; ++c)
      dot += static_cast<double>(q[c]) * static_cast<double>(k[c]);
    double& score = weights[static_cast<std::size_t>(key)];
    score = dot / std::sqrt(static_cast<double>(p.head_dim));
    largest = std::max(largest, score);
  }
  for (std::int64_t key = range.begin; key < range.end; ++key) {
    double& weight = weights[static_cast<std::size_t>(key)];
    weight = std::exp(weight - largest);
    sum += weight;
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

double entropy(const std::vector<double>& weights) {
  double nats = 0;
  for (const double weight : weights) nats -= weight > 0 ? weight * std::log(weight) : 0;
  return nats;
}

// Means over rows spread evenly.
struct Profile {
  double entropy = 0;
  double first = 0;  // mass of the first four keys
  double near = 0;   // of the last sixteen
  double far = 0;    // of all but these
};

Profile profile(const Inputs& inputs, std::int64_t head, std::int64_t rows = 128) {
  Profile mean;
  const std::int64_t seq = inputs.problem().seq_q;
  for (std::int64_t n = 0; n < rows; ++n) {
    const std::int64_t query = (2 * n + 1) * seq / (2 * rows);
    const std::vector<double> weights = probabilities(inputs, query, head);
    mean.entropy += entropy(weights) / static_cast<double>(rows);
    for (std::int64_t key = 0; key <= query; ++key) {
      const double part = weights[static_cast<std::size_t>(key)] / static_cast<double>(rows);
      (key < 4 ? mean.first : key > query - 16 ? mean.near : mean.far) += part;
    }
  }
  return mean;
}

TEST(Structured, EveryKindOfHeadHasTheEntropyOfARealOne) {
  for (const std::int64_t head_dim : {32, 64, 128}) {
    for (const std::int64_t seq : {128, 512, 4096}) {
      for (const bool planted : {false, true}) {
        const Inputs inputs =
            make(sizes(kHeadKinds, kHeadKinds, seq, head_dim), InputKind::structured, planted);
        double overall = 0;
        for (std::int64_t head = 0; head < kHeadKinds; ++head) {
          const double nats = profile(inputs, head).entropy;
          overall += nats / kHeadKinds;
          EXPECT_GT(nats, 0.3) << name(head_kind(head)) << " at " << seq << " x " << head_dim << planted;
          EXPECT_LT(nats, 3.0) << name(head_kind(head)) << " at " << seq << " x " << head_dim << planted;
        }
        EXPECT_GT(overall, 0.3);
        EXPECT_LT(overall, 3.0);
      }
      const Inputs normal = make(sizes(1, 1, seq, head_dim), InputKind::normal);
      EXPECT_GT(profile(normal, 0).entropy, 3.0) << seq << " x " << head_dim;
    }
  }
}

TEST(Structured, KindsAttendToWhatTheirNamesSay) {
  for (const std::int64_t head_dim : {32, 128}) {
    const Inputs inputs = make(sizes(8, 2, 2048, head_dim));  // one key head for all kinds
    std::array<Profile, kHeadKinds> kinds;
    for (std::int64_t head = 4; head < 8; ++head)
      kinds[static_cast<std::size_t>(head - 4)] = profile(inputs, head);
    const auto& [local, sink, match, dense] = kinds;
    EXPECT_GT(local.near, 0.8);
    EXPECT_LT(local.first, 0.05);
    EXPECT_GT(sink.first, 0.5);
    EXPECT_GT(sink.near, 0.05);
    EXPECT_GT(match.far, 0.5);
    EXPECT_GT(dense.first, 0.5);
    EXPECT_GT(dense.far, 0.2);
    EXPECT_LT(dense.near, 0.1);
    EXPECT_GT(dense.entropy, local.entropy);
  }
}

TEST(Structured, MassDecaysWithDistance) {
  const Inputs inputs = make(sizes(1, 1, 1024, 64));
  std::array<double, 4> mass{};  // at distances 0..3, 4..15, 16..63, 64..255
  for (std::int64_t query = 300; query < 1024; query += 9) {
    const std::vector<double> weights = probabilities(inputs, query, 0);
    for (std::int64_t distance = 0; distance < 256; ++distance) {
      mass[distance < 4    ? 0
           : distance < 16 ? 1
           : distance < 64 ? 2
                           : 3] += weights[static_cast<std::size_t>(query - distance)];
    }
  }
  EXPECT_GT(mass[0], mass[1]);
  EXPECT_GT(mass[1], mass[2]);
  EXPECT_GT(mass[2] / 48, mass[3] / 192);  // of one key
}

TEST(Structured, MatchesAreFewFarAndShared) {
  const AttentionProblem p = sizes(4, 4, 2048, 64);
  const Inputs inputs = make(p);
  int far = 0, heavy = 0, shared = 0, foreseen = 0;
  constexpr std::int64_t kHead = 2;
  for (std::int64_t block = 8; block < 64; ++block) {
    std::map<std::int64_t, int> strongest;
    for (const std::int64_t within : {0, 13, 31}) {
      const std::vector<double> weights = probabilities(inputs, block * 32 + within, kHead);
      const auto top = std::max_element(weights.begin(), weights.begin() + block * 32 - 32);
      heavy += *top > 0.1;
      ++strongest[top - weights.begin()];
    }
    const auto most = std::max_element(strongest.begin(), strongest.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    shared += most->second >= 2;
    far += most->first < block * 32 - 64;
    const std::vector<std::int64_t> known = heavy_keys({1, 0, block * 32, kHead, kHead, p.seq_kv});
    foreseen += std::binary_search(known.begin(), known.end(), most->first);
  }
  EXPECT_GT(heavy, 3 * 56 * 3 / 4);
  EXPECT_GT(shared, 40);
  EXPECT_GT(far, 40);
  EXPECT_GT(foreseen, 40);
}

// The formula of docs/measuring.md, evaluated by another program in floating point. The sink channel's
// logarithm goes by straight lines.
TEST(Structured, RowsAreWhatTheFormulaSays) {
  constexpr std::int64_t kDim = 11;
  std::array<std::int32_t, kDim> row{};
  const auto expect = [&](const std::array<double, kDim>& values, double sink_tolerance) {
    for (std::size_t c = 0; c < kDim; ++c)
      EXPECT_NEAR(row[c] * kRandomStep, values[c], c + 1 < kDim ? 2e-4 : sink_tolerance) << c;
  };
  structured_key_row(1, 1, 2, 1, kDim, row.data());
  expect({-0.0375, 2.1802, 1.8909, -0.1261, 1.5777, 1.588, -1.5269, -1.7436, -1.5709, 1.5239, 4}, 1e-4);
  const std::array<std::array<double, kDim>, kHeadKinds> queries{
      {{-16.9417, 0.367, 11.5094, 12.5876, 1.3746, 0.1104, -1.8818, 0.0917, -1.6404, -1.5145, 0.2062},
       {-7.4762, -0.2009, 4.492, 5.6324, -0.407, 0.4738, 0.6156, -0.0957, -1.7436, -0.2161, 3.341},
       {-13.973, 0.0532, 9.3365, 9.7117, 2.4096, 2.3476, 14.7249, 14.4567, 13.0095, -14.3259, 3.0696},
       {0.3693, -0.1095, 1.2828, 0.2601, -1.642, 0.7281, -1.909, -1.2967, -0.3136, -1.2087, 2.6945}}};
  for (std::int64_t head = 0; head < kHeadKinds; ++head) {
    structured_query_row({.seed = 1, .batch = 1, .place = 100, .head = head, .kv_head = 0, .seq_kv = 200},
                         kDim, row.data());
    expect(queries[static_cast<std::size_t>(head)], head == 0 ? 1e-4 : 0.03);
  }
}

TEST(Structured, RowsAreTheSameOnEveryMachine) {
  std::array<std::int32_t, 6> row{};
  structured_query_row({.seed = 3, .batch = 2, .place = 70, .head = 6, .kv_head = 1, .seq_kv = 90}, 6,
                       row.data());
  EXPECT_EQ(row, (std::array<std::int32_t, 6>{-8071579, -374717011, 299119403, 39949, 323911507, 30910891}));
  structured_key_row(3, 2, 1, 1, 6, row.data());
  EXPECT_EQ(row, (std::array<std::int32_t, 6>{23544495, 23864489, -29327625, 29095155, 26034581, 67108865}));
}

TEST(Structured, EveryHeadDimAndTypeIsFiniteAndNeverZero) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const std::int64_t head_dim : {1, 2, 3, 4, 5, 7, 40, 192, 256, 576}) {
      for (const bool plant : {false, true}) {
        AttentionProblem p = sizes(4, 1, 70, head_dim, dtype);
        p.seq_q = 75;
        p.align = Align::bottom_right;  // the first five stand before all keys
        p.batch = 2;
        const Inputs inputs = make(p, InputKind::structured, plant);
        for (const TensorView* view : {&inputs.args().q, &inputs.args().k, &inputs.args().v}) {
          for (std::int64_t i = 0; i < view->elements(); ++i) {
            const double value = load_element(dtype, view->data, i);
            ASSERT_TRUE(std::isfinite(value) && value != 0) << name(dtype) << " " << head_dim << " " << i;
          }
        }
      }
    }
  }
}

TEST(Structured, LongerCasesBeginWithShorterOnes) {
  const Inputs longer = make(sizes(4, 2, 300, 24)), shorter = make(sizes(4, 2, 190, 24));
  for (const auto member : {&AttentionArgs::q, &AttentionArgs::k, &AttentionArgs::v}) {
    const TensorView &a = longer.args().*member, &b = shorter.args().*member;
    for (std::int64_t s = 0; s < 190; ++s) {
      for (std::int64_t h = 0; h < b.shape[2]; ++h) {
        for (std::int64_t c = 0; c < 24; ++c) ASSERT_EQ(at(a, 0, s, h, c), at(b, 0, s, h, c));
      }
    }
  }
}

TEST(Structured, QueriesStandWhereAlignPutsThem) {
  const Inputs prefill = make(sizes(4, 2, 300, 24));
  AttentionProblem p = sizes(4, 2, 300, 24);
  p.seq_q = 3;
  const auto first_place = [&] {
    const Inputs inputs = make(p);
    for (std::int64_t place = 0; place < 298; ++place) {
      bool same = true;
      for (std::int64_t h = 0; h < 4; ++h) {
        for (std::int64_t c = 0; c < 24; ++c) {
          same = same && at(inputs.args().q, 0, 2, h, c) == at(prefill.args().q, 0, place + 2, h, c);
        }
      }
      if (same) return place;
    }
    return std::int64_t{-1};
  };
  p.align = Align::bottom_right;
  EXPECT_EQ(first_place(), 297);
  p.align = Align::top_left;
  EXPECT_EQ(first_place(), 0);
  p.align = Align::unspecified;  // they need not say where nothing depends on it
  p.causal = false;
  EXPECT_EQ(first_place(), 297);
}

TEST(Structured, SeedBatchAndHeadsDiffer) {
  AttentionProblem p = sizes(8, 2, 40, 16);
  p.batch = 2;
  const Inputs inputs = make(p);
  const Inputs reseeded =
      check(make_inputs(p, {.kind = InputKind::structured, .seed = 2, .plant = false}, cpu()));
  const TensorView &q = inputs.args().q, &k = inputs.args().k;
  for (std::int64_t c = 0; c < 16; ++c) {
    EXPECT_NE(at(q, 0, 33, 0, c), at(reseeded.args().q, 0, 33, 0, c));
    EXPECT_NE(at(k, 0, 33, 0, c), at(reseeded.args().k, 0, 33, 0, c));
    EXPECT_NE(at(q, 0, 33, 0, c), at(q, 0, 33, 4, c));  // heads of one kind
    EXPECT_NE(at(q, 0, 33, 0, c), at(q, 1, 33, 0, c));
    EXPECT_NE(at(k, 0, 33, 0, c), at(k, 1, 33, 0, c));
    EXPECT_NE(at(k, 0, 33, 0, c), at(k, 0, 33, 1, c));
  }
}

// A planted key has a share of its row that no rounding reaches (bf16: 2^-9), in every kind of head.
TEST(Structured, PlantedKeysDominateTheirRows) {
  for (const auto& [kv_heads, seq, head_dim] :
       {std::array<std::int64_t, 3>{8, 1100, 64}, {2, 1100, 64}, {4, 200, 128}, {1, 2048, 32}}) {
    const Inputs inputs = make(sizes(8, kv_heads, seq, head_dim), InputKind::structured, true);
    ASSERT_GE(inputs.planted().size(), 16U);
    std::map<std::pair<std::int64_t, std::int64_t>, double> share;
    for (const Plant& plant : inputs.planted()) {
      if (!plant.visible) continue;
      const double part =
          probabilities(inputs, plant.row.query, plant.row.head)[static_cast<std::size_t>(plant.key)];
      EXPECT_GT(part, 0.02) << name(head_kind(plant.row.head)) << " " << plant.row.query << " " << plant.key;
      share[{plant.row.head, plant.row.query}] += part;
    }
    double mean = 0;
    for (const auto& [row, part] : share) mean += part / static_cast<double>(share.size());
    EXPECT_GT(mean, 0.6);
  }
}

class Collector final : public Observer {
 public:
  void begin_case(std::size_t, std::size_t, const Case&, double) override {}
  void phase(std::string_view, std::string_view) override {}
  Status rows(std::span<const Row> some) override {
    all.insert(all.end(), some.begin(), some.end());
    return {};
  }
  void end_case() override {}
  std::vector<Row> all;
};

TEST(Structured, EveryKernelOfThisMachinePasses) {
  setenv("HEADWISE_DATA", HEADWISE_DATA_DIR, 1);
  const auto line = [](const std::vector<Word>& words) { return Words{words, "test"}; };
  const std::vector<Words> lines{
      line({{"seq", "65,300"}, {"causal", "0,1"}, {"heads", "8"}, {"kv-heads", "2"}, {"head-dim", "64"}}),
      line({{"seq", "700"}, {"causal", "1"}, {"heads", "4"}, {"head-dim", "128"}}),
      line({{"seq-q", "1"}, {"seq-kv", "1500"}, {"batch", "2"}, {"heads", "8"}, {"kv-heads", "2"}}),
      line({{"seq-q", "40"},
            {"seq-kv", "333"},
            {"causal", "1"},
            {"align", "top_left,bottom_right"},
            {"heads", "4"}})};
  Result<std::vector<Case>> cases =
      make_cases(lines, {{"inputs", "structured"}, {"dtype", "f32,f16,bf16"}, {"baseline", "none"}});
  ASSERT_TRUE(cases.ok()) << cases.status().message();
  Collector collector;
  check(run_cases(*cases, {.run = "test", .measured = false}, collector));
  std::size_t passed = 0;
  for (const Row& row : collector.all) {
    if (row.status == row_status::kUnsupported) continue;
    EXPECT_EQ(row.status, row_status::kOk) << row.case_id << ": " << row.contender << ": " << row.reason;
    EXPECT_EQ(row.inputs, "structured");
    ++passed;
  }
  EXPECT_GE(passed, 3U * 8);  // the portable kernel takes all of them
}

}  // namespace
}  // namespace headwise::lab
