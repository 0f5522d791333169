// Inputs: what they are made of, that they are the same everywhere, and that buffers notice writes
// beside their tensors.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "attention/mask.h"
#include "lab/inputs.h"
#include "lab/random.h"
#include "lab/safetensors.h"

namespace headwise::lab {
namespace {

const std::string kCapturedFile = HEADWISE_DATA_DIR "/captured/all-minilm-l6-v2.safetensors";

Device& cpu() { return **device({}); }

AttentionProblem sizes(std::int64_t batch, std::int64_t heads, std::int64_t kv_heads, std::int64_t seq,
                       std::int64_t head_dim, DType dtype = DType::f32) {
  return {.dtype = dtype,
          .kv_dtype = dtype,
          .batch = batch,
          .heads = heads,
          .kv_heads = kv_heads,
          .seq_q = seq,
          .seq_kv = seq,
          .head_dim = head_dim,
          .head_dim_v = head_dim,
          .lse = true};
}

Inputs make(const AttentionProblem& problem, const InputSpec& spec = {}) {
  return check(make_inputs(problem, spec, cpu()));
}

double at(const TensorView& view, std::int64_t b, std::int64_t s, std::int64_t h, std::int64_t d) {
  return load_element(view.dtype, view.data,
                      b * view.stride[0] + s * view.stride[1] + h * view.stride[2] + d * view.stride[3]);
}

std::vector<double> values(const TensorView& view) {
  std::vector<double> out;
  for (std::int64_t b = 0; b < view.shape[0]; ++b) {
    for (std::int64_t s = 0; s < view.shape[1]; ++s) {
      for (std::int64_t h = 0; h < view.shape[2]; ++h) {
        for (std::int64_t d = 0; d < view.shape[3]; ++d) out.push_back(at(view, b, s, h, d));
      }
    }
  }
  return out;
}

TEST(Random, PhiloxHasThePublishedWords) {
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, RowsAreWordsOfPhiloxInOrder) {
  const RandomRow row{.seed = 0x123456789abcdef0, .tensor = 2, .batch = 3, .position = 1000, .head = 7};
  std::array<std::int32_t, 300> all{}, part{};
  uniform_row(row, 300, all.data());
  for (std::uint32_t c = 0; c < 300; ++c) {
    const auto words = philox({c / 4, 1000, 3, 2U << 24 | 7U}, {0x9abcdef0, 0x12345678});
    ASSERT_EQ(all[c], static_cast<std::int32_t>(words[c % 4]) >> 7 | 1) << c;
  }
  uniform_row(row, 77, part.data());
  EXPECT_TRUE(std::equal(part.begin(), part.begin() + 77, all.begin()));
}

// What every machine must draw; computed once, in Python, from the table and Philox.
TEST(Random, NormalRowsAreTheSameOnEveryMachine) {
  std::array<std::int32_t, 6> row{};
  normal_row({.seed = 1}, 6, row.data());
  EXPECT_EQ(row,
            (std::array<std::int32_t, 6>{-20600871, -21002281, -3633341, -9346471, -7473205, -19227461}));
}

TEST(Random, NormalHasTheMomentsOfANormal) {
  constexpr int kRows = 4000, kRow = 256;
  std::array<std::int32_t, kRow> row{};
  double sum = 0, squares = 0, cubes = 0, fourths = 0, largest = 0, product = 0;
  int beyond2 = 0;
  for (std::uint32_t i = 0; i < kRows; ++i) {
    normal_row({.seed = 5, .position = i}, kRow, row.data());
    double before = 0;
    for (const std::int32_t steps : row) {
      const double x = steps * kRandomStep;
      sum += x, squares += x * x, cubes += x * x * x, fourths += x * x * x * x;
      product += x * before;
      before = x;
      largest = std::max(largest, std::abs(x));
      beyond2 += std::abs(x) > 2;
      ASSERT_NE(steps, 0);
    }
  }
  constexpr double kCount = 1.0 * kRows * kRow;  // a million: standard errors are about a thousandth
  EXPECT_NEAR(sum / kCount, 0, 0.005);
  EXPECT_NEAR(squares / kCount, 1, 0.007);
  EXPECT_NEAR(cubes / kCount, 0, 0.02);
  EXPECT_NEAR(fourths / kCount, 3, 0.05);
  EXPECT_NEAR(product / kCount, 0, 0.005);
  EXPECT_NEAR(beyond2 / kCount, 0.0455, 0.001);
  EXPECT_GT(largest, 4.0);
  EXPECT_LE(largest, 4.16);
}

TEST(Random, UniformFillsItsInterval) {
  std::array<std::int32_t, 256> row{};
  std::array<int, 16> histogram{};
  for (std::uint32_t i = 0; i < 4000; ++i) {
    uniform_row({.seed = 5, .position = i}, 256, row.data());
    for (const std::int32_t steps : row) {
      const double x = steps * kRandomStep;
      ASSERT_TRUE(x >= -1 && x < 1 && x != 0);
      ++histogram[static_cast<std::size_t>((x + 1) * 8)];
    }
  }
  for (const int count : histogram) EXPECT_NEAR(count, 64000, 1000);  // four standard errors
}

TEST(Inputs, TensorsAreFilledAndDiffer) {
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
    for (const InputKind kind : {InputKind::normal, InputKind::uniform}) {
      const Inputs inputs = make(sizes(2, 4, 2, 70, 24, dtype), {.kind = kind});
      const AttentionArgs& args = inputs.args();
      std::map<double, int> seen;
      for (const TensorView* view : {&args.q, &args.k, &args.v}) {
        EXPECT_EQ(view->dtype, dtype);
        for (const double value : values(*view)) {
          ASSERT_TRUE(std::isfinite(value) && value != 0) << name(dtype);
          ++seen[value];
        }
      }
      // f32 has 2^24 values a tensor: repeated rows, heads or batches would show at once.
      if (dtype == DType::f32) {
        EXPECT_GT(seen.size(), 2U * 70 * 24 * 8 * 99 / 100);
      }
      for (const double value : values(args.out)) ASSERT_TRUE(std::isnan(value));
    }
  }
}

TEST(Inputs, ValuesDependOnTheirPlaceAlone) {
  const InputSpec bare{.seed = 9, .plant = false};
  const Inputs big = make(sizes(3, 6, 6, 90, 20), bare);
  const Inputs small = make(sizes(2, 4, 2, 41, 12), bare);
  InputSpec scattered = bare;
  scattered.layout = Layout::bhsd;
  scattered.row_padding = 5;
  scattered.offset = 3;
  const Inputs other = make(sizes(3, 6, 6, 90, 20), scattered);
  InputSpec reseeded = bare;
  reseeded.seed = 10;
  EXPECT_NE(values(make(sizes(3, 6, 6, 90, 20), reseeded).args().q), values(big.args().q));
  EXPECT_EQ(other.args().q.stride, (std::array<std::int64_t, 4>{6 * 90 * 25, 25, 90 * 25, 1}));
  for (const auto member : {&AttentionArgs::q, &AttentionArgs::k, &AttentionArgs::v}) {
    const TensorView &a = big.args().*member, &b = small.args().*member;
    EXPECT_EQ(values(a), values(other.args().*member));
    for (std::int64_t h = 0; h < b.shape[2]; ++h) EXPECT_EQ(at(a, 1, 40, h, 11), at(b, 1, 40, h, 11));
  }
}

TEST(Inputs, NarrowDtypesAreTheRoundedWideOnes) {
  const InputSpec spec{.seed = 4, .plant = false};
  const std::vector<double> wide = values(make(sizes(1, 2, 2, 50, 16, DType::f64), spec).args().k);
  const std::vector<double> single = values(make(sizes(1, 2, 2, 50, 16, DType::f32), spec).args().k);
  const std::vector<double> half = values(make(sizes(1, 2, 2, 50, 16, DType::f16), spec).args().k);
  const std::vector<double> brain = values(make(sizes(1, 2, 2, 50, 16, DType::bf16), spec).args().k);
  for (std::size_t i = 0; i < wide.size(); ++i) {
    ASSERT_EQ(single[i], static_cast<double>(static_cast<float>(wide[i])));
    ASSERT_EQ(half[i], to_double(from_double<float16>(wide[i])));
    ASSERT_EQ(brain[i], to_double(from_double<bfloat16>(wide[i])));
  }
}

TEST(Inputs, PlantedKeysDominateTheirRows) {
  for (const InputKind kind : {InputKind::normal, InputKind::uniform}) {
    for (const bool causal : {false, true}) {
      AttentionProblem p = sizes(1, 4, 2, 1100, 64, DType::f16);
      p.causal = causal;
      const Inputs inputs = make(p, {.kind = kind});
      const AttentionArgs& args = inputs.args();
      ASSERT_GE(inputs.planted().size(), 2U * 16);
      std::map<std::pair<std::int64_t, std::int64_t>, double> share;  // of planted keys, by (head, query)
      for (const Plant& plant : inputs.planted()) {
        const auto score = [&](std::int64_t key) {
          double dot = 0;
          for (std::int64_t c = 0; c < 64; ++c) {
            dot +=
                at(args.q, 0, plant.row.query, plant.row.head, c) * at(args.k, 0, key, plant.row.head / 2, c);
          }
          return dot * p.scale();
        };
        const KeyRange range = key_range(p, plant.row.query);
        ASSERT_EQ(plant.visible, plant.key >= range.begin && plant.key < range.end);
        double sum = 0;
        for (std::int64_t key = range.begin; key < range.end; ++key) sum += std::exp(score(key));
        const double part =
            std::exp(score(plant.key)) / (sum + (plant.visible ? 0 : std::exp(score(plant.key))));
        if (plant.visible) share[{plant.row.head, plant.row.query}] += part;
        EXPECT_GT(part, 0.15) << plant.row.head << " " << plant.row.query << " " << plant.key;
        for (std::int64_t c = 0; c < 64; ++c)
          ASSERT_LE(std::abs(at(args.k, 0, plant.key, plant.row.head / 2, c)), 16.01);
      }
      for (const auto& [row, part] : share) EXPECT_GT(part, 0.6);
    }
  }
}

TEST(Inputs, PlantsStandWhereFaultsHide) {
  AttentionProblem p = sizes(1, 2, 1, 2048, 16);
  p.causal = true;
  p.window_left = 700;
  std::set<std::int64_t> keys;
  int last_allowed = 0, forbidden_right = 0, forbidden_left = 0, first_allowed = 0, edges = 0;
  for (const Plant& plant : plants(p)) {
    EXPECT_TRUE(keys.insert(plant.key).second) << "key " << plant.key << " is taken twice";
    const KeyRange range = key_range(p, plant.row.query);
    last_allowed += plant.key == range.end - 1;
    forbidden_right += plant.key == range.end;
    forbidden_left += plant.key == range.begin - 1;
    first_allowed += plant.key == range.begin;
    edges += plant.visible && (plant.key % 64 == 0 || plant.key % 64 == 63 || plant.key % 512 == 1);
  }
  EXPECT_GE(last_allowed, 12);
  EXPECT_GE(forbidden_right, 10);
  EXPECT_GE(forbidden_left, 5);
  EXPECT_GE(first_allowed, 5);
  EXPECT_GE(edges, 12);
  EXPECT_TRUE(keys.contains(2047));
}

TEST(Inputs, PlantingLeavesSmallAndOddProblemsFinite) {
  for (const std::int64_t seq : {0, 1, 2, 3, 65}) {
    for (const std::int64_t head_dim : {1, 2, 576}) {
      AttentionProblem p = sizes(2, 2, 1, seq, head_dim, DType::f16);
      p.softmax_scale = head_dim == 2 ? -2.0F : 0.0F;
      const Inputs inputs = make(p);
      for (const TensorView* view : {&inputs.args().k, &inputs.args().v}) {
        for (const double value : values(*view)) ASSERT_TRUE(std::isfinite(value) && value != 0);
      }
    }
  }
}

TEST(Inputs, GuardsNoticeEveryWriteBesideATensor) {
  AttentionProblem p = sizes(1, 2, 2, 5, 7);
  for (const std::int64_t offset : {0, 1}) {
    InputSpec spec{.offset = offset};
    for (const auto member : {&AttentionArgs::q, &AttentionArgs::k, &AttentionArgs::v, &AttentionArgs::out,
                              &AttentionArgs::lse}) {
      for (const bool behind : {false, true}) {
        Inputs inputs = make(p, spec);
        ASSERT_TRUE(check_guards(inputs).ok());
        const TensorView& view = inputs.args().*member;
        view.as<float>()[behind ? view.elements() : -1] = 0;
        EXPECT_FALSE(check_guards(inputs).ok()) << behind;
      }
    }
  }
  Inputs inputs = make(p, {.row_padding = 1});
  ASSERT_TRUE(check_guards(inputs).ok());
  inputs.args().out.as<float>()[7] = 0;
  EXPECT_NE(check_guards(inputs).message().find("query 0, head 0"), std::string::npos);
  ASSERT_TRUE(poison(inputs).ok());
  EXPECT_TRUE(check_guards(inputs).ok());
}

AttentionProblem backward(AttentionProblem p) {
  p.direction = Direction::backward;
  return p;
}

TEST(Inputs, BackwardHasGradientsInsteadOfOutAndLse) {
  AttentionProblem p = sizes(2, 4, 2, 30, 12, DType::bf16);
  p.head_dim_v = 20;
  p.seq_kv = 41;
  const InputSpec spec{.seed = 3};
  const Inputs forward = make(p, spec);
  const Inputs inputs = make(backward(p), spec);
  for (const AttentionArgs& args : {inputs.args(), inputs.host_args()}) {
    EXPECT_FALSE(args.out.present() || args.lse.present());
    EXPECT_EQ(args.dout.shape, forward.args().out.shape);
    EXPECT_EQ(args.dq.shape, args.q.shape);
    EXPECT_EQ(args.dk.shape, args.k.shape);
    EXPECT_EQ(args.dv.shape, args.v.shape);
  }
  EXPECT_FALSE(forward.args().dout.present() || forward.args().dq.present());
  for (const auto member : {&AttentionArgs::q, &AttentionArgs::k, &AttentionArgs::v})
    EXPECT_EQ(values(inputs.args().*member), values(forward.args().*member));
  EXPECT_EQ(inputs.planted().size(), forward.planted().size());
  std::set<double> seen;
  for (const double value : values(inputs.args().dout)) {
    ASSERT_TRUE(std::isfinite(value) && value != 0);
    seen.insert(value);
  }
  EXPECT_GT(seen.size(), 500U);
  EXPECT_NE(at(inputs.args().dout, 0, 0, 0, 0), at(inputs.args().q, 0, 0, 0, 0));
  for (const auto member : {&AttentionArgs::dq, &AttentionArgs::dk, &AttentionArgs::dv}) {
    for (const double value : values(inputs.args().*member)) ASSERT_TRUE(std::isnan(value));
  }
  // dout is the same whatever q, k and v are, a real model's among them.
  AttentionProblem real = backward(check(captured_problem(kCapturedFile, 2)));
  const Inputs captured = make(real, {.kind = InputKind::captured, .file = kCapturedFile, .layer = 2});
  const Inputs normal = make(real);
  EXPECT_EQ(values(captured.args().dout), values(normal.args().dout));
  EXPECT_NE(values(captured.args().k), values(normal.args().k));
}

TEST(Inputs, GradientsAreGuardedAndPoisoned) {
  const AttentionProblem p = backward(sizes(1, 2, 2, 5, 7));
  const auto tensors = {&AttentionArgs::q,  &AttentionArgs::k,  &AttentionArgs::v, &AttentionArgs::dout,
                        &AttentionArgs::dq, &AttentionArgs::dk, &AttentionArgs::dv};
  for (const auto member : tensors) {
    for (const bool behind : {false, true}) {
      Inputs inputs = make(p, {.offset = 1});
      ASSERT_TRUE(check_guards(inputs).ok());
      const TensorView& view = inputs.args().*member;
      view.as<float>()[behind ? view.elements() : -1] = 0;
      EXPECT_FALSE(check_guards(inputs).ok()) << behind;
    }
  }
  Inputs inputs = make(p, {.row_padding = 1});
  for (const auto& [member, text] :
       {std::pair{&AttentionArgs::dq, "dq was written: padding behind batch 0, query 0"},
        std::pair{&AttentionArgs::dk, "dk was written: padding behind batch 0, key 0"},
        std::pair{&AttentionArgs::dv, "dv was written: padding behind batch 0, key 0"}}) {
    auto* data = (inputs.args().*member).as<float>();
    data[7] = data[3] = 0;
    EXPECT_NE(check_guards(inputs).message().find(text), std::string::npos) << check_guards(inputs).message();
    ASSERT_TRUE(poison(inputs).ok());
    EXPECT_TRUE(check_guards(inputs).ok());
    EXPECT_TRUE(std::isnan(data[3]));
  }
}

TEST(Inputs, PoisonForgetsTheLastContender) {
  Inputs inputs = make(sizes(1, 2, 2, 5, 7));
  inputs.args().out.as<float>()[3] = 1;
  inputs.args().lse.as<float>()[3] = 1;
  ASSERT_TRUE(poison(inputs).ok());
  EXPECT_TRUE(std::isnan(inputs.args().out.as<float>()[3]));
  EXPECT_TRUE(std::isnan(inputs.args().lse.as<float>()[3]));
}

TEST(Inputs, PaddingOfInputsIsNan) {
  const Inputs inputs = make(sizes(1, 2, 2, 5, 7), {.row_padding = 2});
  for (const TensorView* view : {&inputs.args().q, &inputs.args().k, &inputs.args().v}) {
    EXPECT_TRUE(std::isnan(view->as<float>()[7]) && std::isnan(view->as<float>()[8]) &&
                !std::isnan(view->as<float>()[9]));
  }
}

TEST(Inputs, CapturedValuesAreTheFilesOwn) {
  AttentionProblem p = check(captured_problem(kCapturedFile, 2));
  EXPECT_EQ(to_string(p), to_string(AttentionProblem{.dtype = DType::f16,
                                                     .kv_dtype = DType::f16,
                                                     .heads = 12,
                                                     .kv_heads = 12,
                                                     .seq_q = 256,
                                                     .seq_kv = 256,
                                                     .head_dim = 32,
                                                     .head_dim_v = 32}));
  EXPECT_EQ(check(captured_layers(kCapturedFile)), (std::vector<int>{0, 2, 5}));
  const SafeTensors file = check(SafeTensors::open(kCapturedFile));
  std::vector<float16> expected(256 * 12 * 32);
  const InputSpec spec{.kind = InputKind::captured, .file = kCapturedFile, .layer = 2};
  InputSpec bare = spec;
  bare.plant = false;
  const Inputs inputs = make(p, bare);
  EXPECT_TRUE(inputs.planted().empty());
  const auto& args = inputs.args();
  for (const auto& [tensor, view] :
       {std::pair{"layer.2.q", &args.q}, std::pair{"layer.2.k", &args.k}, std::pair{"layer.2.v", &args.v}}) {
    check(file.read(*file.find(tensor), 0, expected.size() * 2, expected.data()));
    EXPECT_EQ(std::memcmp(view->data, expected.data(), expected.size() * 2), 0) << tensor;
  }

  // Planting leaves all heads but the last as they are.
  const Inputs planted = make(p, spec);
  EXPECT_GE(planted.planted().size(), 8U);
  const std::vector<double> real = values(args.k), changed = values(planted.args().k);
  std::int64_t others = 0, last = 0;
  for (std::size_t i = 0; i < real.size(); ++i) (i / 32 % 12 == 11 ? last : others) += real[i] != changed[i];
  EXPECT_EQ(others, 0);
  EXPECT_GT(last, 8 * 16);

  // A prefix; queries that stand at its end are its last tokens.
  p.dtype = p.kv_dtype = DType::f32;
  p.seq_q = 3;
  p.seq_kv = 100;
  p.align = Align::bottom_right;
  const Inputs end = make(p, spec);
  p.align = Align::top_left;
  const Inputs start = make(p, spec);
  EXPECT_EQ(at(end.args().q, 0, 0, 5, 6), at(args.q, 0, 97, 5, 6));
  EXPECT_EQ(at(start.args().q, 0, 2, 5, 6), at(args.q, 0, 2, 5, 6));
  EXPECT_EQ(at(end.args().v, 0, 99, 5, 6), at(args.v, 0, 99, 5, 6));
}

TEST(Inputs, CapturedCasesBeyondTheFileAreUnsupported) {
  const AttentionProblem good = check(captured_problem(kCapturedFile, 0));
  const InputSpec spec{.kind = InputKind::captured, .file = kCapturedFile, .layer = 0};
  const auto status = [&](AttentionProblem p) { return make_inputs(p, spec, cpu()).status(); };
  EXPECT_TRUE(status(good).ok());
  for (const auto& [field, value] :
       {std::pair{&AttentionProblem::batch, 2}, std::pair{&AttentionProblem::heads, 24},
        std::pair{&AttentionProblem::kv_heads, 6}, std::pair{&AttentionProblem::head_dim, 16},
        std::pair{&AttentionProblem::head_dim_v, 64}, std::pair{&AttentionProblem::seq_kv, 257},
        std::pair{&AttentionProblem::seq_q, 512}}) {
    AttentionProblem p = good;
    p.*field = value;
    EXPECT_EQ(status(p).code(), StatusCode::unsupported) << value;
    EXPECT_NE(status(p).message().find(std::to_string(value)), std::string::npos) << status(p).message();
  }
  InputSpec missing = spec;
  missing.layer = 1;
  EXPECT_NE(make_inputs(good, missing, cpu()).status().message().find("layer.1.q"), std::string::npos);
  missing.file = "/nowhere/x.safetensors";
  EXPECT_EQ(make_inputs(good, missing, cpu()).status().code(), StatusCode::unavailable);
}

TEST(Inputs, SpecsAreText) {
  for (const char* text : {"normal", "uniform", "captured:a/b:c.safetensors:12"}) {
    const Result<InputSpec> spec = parse_input_spec(text);
    ASSERT_TRUE(spec.ok()) << text;
    EXPECT_EQ(to_string(*spec), text);
  }
  for (const char* text : {"", "gauss", "captured", "captured:", "captured:x", "captured:x:", "captured:x:-1",
                           "captured::1", "captured:x:1b"}) {
    EXPECT_EQ(parse_input_spec(text).status().code(), StatusCode::invalid_argument) << text;
  }
  EXPECT_NE(parse_input_spec("norml").status().message().find("did you mean 'normal'"), std::string::npos);
}

TEST(Inputs, RefusesWhatItCannotMake) {
  AttentionProblem p = sizes(1, 1, 1, 4, 4);
  p.kv_dtype = DType::int8;
  EXPECT_EQ(make_inputs(p, {}, cpu()).status().code(), StatusCode::unsupported);
  p = sizes(1, 1, 1, 4, 4);
  EXPECT_EQ(make_inputs(p, {.row_padding = -1}, cpu()).status().code(), StatusCode::invalid_argument);
}

TEST(Inputs, BytesAreCountedBeforeAnythingIsAllocated) {
  AttentionProblem p = sizes(2, 4, 2, 10, 8);
  // q, k, v, out and lse, each with two guard bands.
  EXPECT_EQ(input_bytes(p), 4U * (2 * 10 * 8 * (4 + 2 + 2 + 4) + 2 * 4 * 10) + 5 * 2 * kGuardBytes);
  EXPECT_EQ(input_bytes(p), make(p).device_bytes());
  // q, k, v, dout, dq, dk and dv.
  EXPECT_EQ(input_bytes(backward(p)), 4U * 2 * 10 * 8 * (2 * (4 + 2 + 2) + 4) + 7 * 2 * kGuardBytes);
  EXPECT_EQ(input_bytes(backward(p)), make(backward(p)).device_bytes());
  p.seq_q = p.seq_kv = std::int64_t{1} << 58;
  EXPECT_EQ(input_bytes(p), SIZE_MAX);
  const Result<Inputs> inputs = make_inputs(p, {}, cpu());
  EXPECT_FALSE(inputs.ok());
}

// A device whose memory is its own: its addresses are never read on the host.
class FarDevice : public Device {
 public:
  std::map<void*, std::size_t> blocks;
  [[nodiscard]] DeviceId id() const override { return {DeviceKind::cuda, 0}; }
  [[nodiscard]] std::string description() const override { return "far"; }
  [[nodiscard]] std::string_view isa() const override { return "far"; }
  [[nodiscard]] bool has(std::string_view /*feature*/) const override { return false; }
  [[nodiscard]] int max_threads() const override { return 1; }
  [[nodiscard]] std::size_t last_level_cache_bytes() const override { return 0; }
  Result<void*> allocate(std::size_t bytes) override {
    void* data = ::operator new(bytes, std::align_val_t{256});
    blocks[data] = bytes;
    return data;
  }
  void deallocate(void* data) noexcept override {
    blocks.erase(data);
    ::operator delete(data, std::align_val_t{256});
  }
  Status copy_from_host(void* target, const void* source, std::size_t bytes) override {
    std::memcpy(target, source, bytes);
    return {};
  }
  Status copy_to_host(void* target, const void* source, std::size_t bytes) override {
    std::memcpy(target, source, bytes);
    return {};
  }
  MemoryUse memory() override { return {}; }
  void reset_peak() override {}
  Status synchronize(void* /*stream*/) override { return {}; }
  [[nodiscard]] std::string_view timer() const override { return "none"; }
  Result<double> time_ms(const TimedWork& /*work*/, int /*repeats*/, void* /*stream*/) override {
    return Status::unavailable("far: no timer");
  }
  Status flush_cache(void* /*stream*/) override { return {}; }
  ClockReading clocks() override { return {}; }
};

TEST(Inputs, OtherDevicesGetCopies) {
  FarDevice far;
  const AttentionProblem p = sizes(1, 2, 1, 30, 8, DType::bf16);
  {
    Inputs inputs = check(make_inputs(p, {.row_padding = 2}, far));
    const Inputs here = make(p, {.row_padding = 2});
    EXPECT_EQ(far.blocks.size(), 5U);
    EXPECT_EQ(inputs.args().q.device, far.id());
    EXPECT_EQ(inputs.host_args().q.device, DeviceId{});
    EXPECT_NE(inputs.args().k.data, inputs.host_args().k.data);
    EXPECT_EQ(values(inputs.args().k), values(here.args().k));
    EXPECT_EQ(values(inputs.host_args().k), values(here.args().k));

    inputs.args().out.as<bfloat16>()[2] = from_double<bfloat16>(5);
    inputs.args().lse.as<float>()[1] = 6;
    EXPECT_TRUE(std::isnan(at(inputs.host_args().out, 0, 0, 0, 2)));
    ASSERT_TRUE(inputs.fetch_outputs().ok());
    EXPECT_EQ(at(inputs.host_args().out, 0, 0, 0, 2), 5);
    EXPECT_EQ(inputs.host_args().lse.as<float>()[1], 6);
    EXPECT_TRUE(check_guards(inputs).ok());
    inputs.args().v.as<bfloat16>()[-1] = {};
    EXPECT_NE(check_guards(inputs).message().find("before v"), std::string::npos);
  }
  EXPECT_TRUE(far.blocks.empty());

  Inputs gradients = check(make_inputs(backward(p), {}, far));
  EXPECT_EQ(far.blocks.size(), 7U);
  gradients.args().dk.as<bfloat16>()[2] = from_double<bfloat16>(5);
  EXPECT_TRUE(std::isnan(at(gradients.host_args().dk, 0, 0, 0, 2)));
  ASSERT_TRUE(gradients.fetch_outputs().ok());
  EXPECT_EQ(at(gradients.host_args().dk, 0, 0, 0, 2), 5);
  EXPECT_EQ(values(gradients.args().dout), values(make(backward(p)).args().dout));
}

}  // namespace
}  // namespace headwise::lab
