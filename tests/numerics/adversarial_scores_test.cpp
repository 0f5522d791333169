// Scores made against the shortcuts that a fast forward kernel may take: a maximum taken from the first keys
// and kept, products summed in a narrow type, work skipped or redone for a whole tile. Every forward kernel
// of the registry. Many such rows share a call, each with a pattern of its own: channel c of K holds the
// scores of a pattern, and a query with one value in channel c has them.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "headwise/headwise.h"
#include "lab/inputs.h"
#include "lab/verify.h"
#include "numerics/featured_case.h"
#include "support/run_kernel.h"
#include "support/sight.h"

namespace headwise::numerics {
namespace {

using oracle::RowId;

constexpr std::int64_t kKeys = 600;  // two chunks of 512 keys, several blocks of 64 and 256
constexpr std::int64_t kPlaces[] = {0, 62, 63, 254, 255, 510, 511, kKeys - 1};
constexpr std::int64_t kBlocks[] = {64, 256, 512};

// Channels of K. Those behind them are normal, and so are the queries there: ordinary scores.
constexpr std::int64_t kRamp = 0;               // j
constexpr std::int64_t kPlace = kRamp + 1;      // `unit` at one of kPlaces, else 0
constexpr std::int64_t kHidden = kPlace + 8;    // -unit below one of kBlocks, else 0
constexpr std::int64_t kOpposed = kHidden + 3;  // -unit below one of kBlocks, else unit
constexpr std::int64_t kCancel = kOpposed + 3;  // large; the last channel is equal
constexpr std::int64_t kOrdinary = kCancel + 1;

// The largest value that a tensor of the dtype takes here, and what stands in K: largest * unit is near the
// end of f32, in f16 of what two of its values can give.
struct Scale {
  double largest, unit;
};
Scale scale_of(DType dtype) { return dtype == DType::f16 ? Scale{6e4, 6e4} : Scale{3e38, 1}; }

struct Pattern {
  std::string name;
  std::string kind;  // rows of a kind are judged together: their honest errors are alike
  std::int64_t channel;
  double value;          // of the query in that channel
  bool one_key = false;  // all weight on one key, up to e^-30
};

std::vector<Pattern> patterns(DType dtype) {
  const auto [largest, unit] = scale_of(dtype);
  std::vector<Pattern> all;
  for (const double step : {1., 30., 100., 1000., -1., -30., -100., -1000.})
    all.push_back({"ramp " + std::to_string(step), "ramp", kRamp, step, std::abs(step) > 1});
  for (std::int64_t p = 0; p < 8; ++p) {
    const std::string name = "key " + std::to_string(kPlaces[p]);
    all.push_back({name + " large", "key", kPlace + p, 80 / unit, true});
    all.push_back({name + " largest", "key", kPlace + p, largest, true});
  }
  for (std::int64_t b = 0; b < 3; ++b) {
    const std::string name = "block " + std::to_string(kBlocks[b]);
    all.push_back({name + " low", "block", kHidden + b, 200 / unit});
    all.push_back({name + " lowest", "block", kHidden + b, largest});
    all.push_back({name + " low, then high", "block", kOpposed + b, 200 / unit});
    all.push_back({name + " lowest, then highest", "flat", kOpposed + b, largest});
  }
  // What is left of such a sum is one draw a row from its order, so plain's is taken over several.
  for (int i = 0; i < 8; ++i)
    all.push_back({"cancelling " + std::to_string(i), "cancelling", kCancel, 1000. - 11 * i});
  return all;
}

void set(const TensorView& t, std::int64_t s, std::int64_t h, std::int64_t d, double value) {
  store_element(t.dtype, t.data, s * t.stride[1] + h * t.stride[2] + d, value);
}

class AdversarialScores : public testing::TestWithParam<KernelInfo> {
 protected:
  void SetUp() override {
    if (const std::string why = cannot_run_here(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }
  static AttentionProblem problem_of(const std::string& text) {
    AttentionProblem problem = check(parse_problem(text + " softmax_scale=1 lse=1 threads=1"));
    problem.dtype = problem.kv_dtype = GetParam().traits.dtype;
    return problem;
  }
  static lab::Inputs inputs_of(const AttentionProblem& problem) {
    lab::Inputs inputs = check(lab::make_inputs(problem, {.plant = false, .hidden_nan = false}, cpu()));
    fill_channels(inputs.args());
    return inputs;
  }
  // K as above, and queries with ordinary scores alone.
  static void fill_channels(const AttentionArgs& args) {
    const double unit = scale_of(args.k.dtype).unit;
    std::mt19937_64 generator(7);
    std::normal_distribution<double> normal;
    const std::int64_t channels = args.k.shape[3];
    for (std::int64_t j = 0; j < args.k.shape[1]; ++j) {
      for (std::int64_t h = 0; h < args.k.shape[2]; ++h) {
        set(args.k, j, h, kRamp, static_cast<double>(j));
        for (std::int64_t p = 0; p < 8; ++p) set(args.k, j, h, kPlace + p, j == kPlaces[p] ? unit : 0);
        for (std::int64_t b = 0; b < 3; ++b) {
          set(args.k, j, h, kHidden + b, j < kBlocks[b] ? -unit : 0);
          set(args.k, j, h, kOpposed + b, j < kBlocks[b] ? -unit : unit);
        }
        const double large = 100 + 30 * normal(generator);
        for (const std::int64_t c : {kCancel, channels - 1}) set(args.k, j, h, c, large);
        for (std::int64_t c = kOrdinary; c < channels - 1; ++c) set(args.k, j, h, c, normal(generator));
      }
    }
    const double spread = 1 / std::sqrt(static_cast<double>(channels - kOrdinary));
    for (std::int64_t i = 0; i < args.q.shape[1]; ++i) {
      for (std::int64_t h = 0; h < args.q.shape[2]; ++h) {
        for (std::int64_t c = 0; c < channels; ++c)
          set(args.q, i, h, c, c < kOrdinary || c == channels - 1 ? 0 : spread * normal(generator));
      }
    }
  }
  static void give(const AttentionArgs& args, const RowId& row, const Pattern& pattern) {
    const std::int64_t last = args.q.shape[3] - 1;
    // Beside scores near 4e9 f32 keeps nothing of ordinary ones, fp64 does: such rows have none.
    for (std::int64_t c = kOrdinary; c < last && pattern.kind == "flat"; ++c)
      set(args.q, row.query, row.head, c, 0);
    set(args.q, row.query, row.head, pattern.channel, pattern.value);
    if (pattern.channel == kCancel) set(args.q, row.query, row.head, last, -pattern.value);
  }
  static void run_kernel(lab::Inputs& inputs) {
    ASSERT_TRUE(lab::poison(inputs).ok());
    const Status status = run(check(plan(inputs.problem(), {}, GetParam().id)), inputs.args());
    ASSERT_TRUE(status.ok()) << status.message();
  }
  // By the pass rule. Kernels of a dtype share truth: `name` says all that decides the inputs.
  static void expect_right(lab::Inputs& inputs, const std::vector<RowId>& rows, const std::string& name) {
    static std::map<std::string, lab::Reference> known;
    const std::string key = to_string(inputs.problem()) + name;
    auto found = known.find(key);
    if (found == known.end()) {
      lab::Reference made = check(lab::make_reference(inputs.host_args(), inputs.problem(), rows, 1));
      found = known.emplace(key, std::move(made)).first;
    }
    const lab::Verdict verdict = lab::judge(found->second, inputs.host_args());
    EXPECT_TRUE(verdict.passed()) << name << ": " << verdict.reason << "; error " << verdict.error_max
                                  << " limit " << verdict.limit_max;
  }
};

// Shapes of tiles: one row (the heads of a group), a few, more than a vector, several tiles; an odd head_dim.
const std::vector<std::string>& shapes() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> texts;
    for (const char* rows : {"seq_q=1 heads=8", "seq_q=4 heads=4", "seq_q=33 heads=2", "seq_q=100 heads=1"}) {
      for (const char* channels : {"head_dim=64", "head_dim=37"})
        texts.push_back(std::string(rows) + " kv_heads=1 seq_kv=600 " + channels);
    }
    return texts;
  }();
  return all;
}

// Calls in which the rows take these patterns in turn, ordinary rows between them, until each was had; rows
// of a kind of pattern are judged together.
template <class Judge>
void each_call(const AttentionProblem& p, const std::vector<Pattern>& all, const Judge& judge) {
  for (std::size_t next = 0; next < all.size();) {
    std::vector<std::pair<RowId, const Pattern*>> given;
    for (std::int64_t i = 0; i < p.seq_q && next < all.size(); ++i) {
      for (std::int64_t h = 0; h < p.heads && next < all.size(); ++h) {
        if (p.seq_q > 4 && (i + h) % 2 == 1) continue;
        given.emplace_back(RowId{0, h, i}, &all[next++]);
      }
    }
    judge(given);
  }
}

TEST_P(AdversarialScores, MaximaThatComeEarlyLateAndNever) {
  for (const std::string& shape : shapes()) {
    SCOPED_TRACE(shape);
    const AttentionProblem problem = problem_of(shape);
    const std::vector<Pattern> all = patterns(problem.dtype);
    each_call(problem, all, [&](const auto& given) {
      lab::Inputs inputs = inputs_of(problem);
      std::map<std::string, std::vector<RowId>> of_kind;
      for (const auto& [row, pattern] : given) {
        give(inputs.args(), row, *pattern);
        of_kind[pattern->kind].push_back(row);
      }
      run_kernel(inputs);
      for (const auto& [kind, rows] : of_kind) expect_right(inputs, rows, kind + given.front().second->name);
    });
  }
}

// Values whose sum over all keys is just within f32: the weights of a maximum that came late, counted from an
// earlier one, would take it beyond.
TEST_P(AdversarialScores, LargeValuesUnderOneKey) {
  for (const std::string& shape : shapes()) {
    SCOPED_TRACE(shape);
    const AttentionProblem problem = problem_of(shape);
    const double large = problem.dtype == DType::f16 ? 6e4 : 3e38 / kKeys;
    std::vector<Pattern> all = patterns(problem.dtype);
    std::erase_if(all, [](const Pattern& pattern) { return !pattern.one_key; });
    each_call(problem, all, [&](const auto& given) {
      lab::Inputs inputs = inputs_of(problem);
      const TensorView& v = inputs.args().v;
      for (std::int64_t j = 0; j < kKeys; ++j) {
        for (std::int64_t d = 0; d < v.shape[3]; ++d) set(v, j, 0, d, (j + d) % 2 == 0 ? large : -large);
      }
      std::vector<RowId> rows;
      for (const auto& [row, pattern] : given) {
        give(inputs.args(), row, *pattern);
        rows.push_back(row);
      }
      run_kernel(inputs);
      expect_right(inputs, rows, "large values, " + given.front().second->name);
    });
  }
}

// The value of the key that has all the weight is the output, however large it is.
TEST_P(AdversarialScores, LargestValueOfTheOneKey) {
  for (const char* shape : {"seq_q=1 heads=8 head_dim=64", "seq_q=33 heads=2 head_dim=37"}) {
    const AttentionProblem problem = problem_of(std::string(shape) + " kv_heads=1 seq_kv=600");
    const auto [largest, unit] = scale_of(problem.dtype);
    for (std::int64_t p = 0; p < 8; ++p) {
      SCOPED_TRACE(std::string(shape) + " key " + std::to_string(kPlaces[p]));
      lab::Inputs inputs = inputs_of(problem);
      const TensorView& v = inputs.args().v;
      for (std::int64_t d = 0; d < v.shape[3]; ++d) set(v, kPlaces[p], 0, d, d % 2 == 0 ? largest : -largest);
      const std::vector<RowId> rows{{0, 0, 0}, {0, 1, problem.seq_q - 1}};
      give(inputs.args(), rows[0], {"", "", kPlace + p, 80 / unit});
      give(inputs.args(), rows[1], {"", "", kPlace + p, largest});
      run_kernel(inputs);
      expect_right(inputs, rows, "largest value of " + std::to_string(kPlaces[p]));
    }
  }
}

// Products beyond the largest f16, sums of them within f32, and scores that the scale makes ordinary.
TEST_P(AdversarialScores, ProductsBeyondTheDtype) {
  for (const std::string& shape : shapes()) {
    SCOPED_TRACE(shape);
    AttentionProblem problem = problem_of(shape);
    const double large = problem.dtype == DType::f16 ? 1000 : 1e17;
    problem.softmax_scale = static_cast<float>(1 / (large * large * 8));
    lab::Inputs inputs = check(lab::make_inputs(problem, {.plant = false}, cpu()));
    for (const TensorView* t : {&inputs.args().q, &inputs.args().k}) {
      for (std::int64_t i = 0; i < t->elements(); ++i)
        store_element(t->dtype, t->data, i, large * load_element(t->dtype, t->data, i));
    }
    std::vector<RowId> rows = test::rows_of(inputs.args(), problem);
    rows.resize(std::min<std::size_t>(rows.size(), 24));
    run_kernel(inputs);
    expect_right(inputs, rows, "products beyond the dtype");
  }
}

// A row that needs the slow way must not take its neighbours along: each row's bits are its own.
TEST_P(AdversarialScores, OneRowOfATileChangesNoOther) {
  for (const std::string& shape : shapes()) {
    SCOPED_TRACE(shape);
    const AttentionProblem problem = problem_of(shape);
    lab::Inputs inputs = inputs_of(problem);
    const std::vector<RowId> rows = test::rows_of(inputs.args(), problem);
    run_kernel(inputs);
    const std::vector<std::string> ordinary = test::all_row_bits(inputs.args(), problem);
    const std::vector<Pattern> all = patterns(problem.dtype);
    // 44 patterns: all of them in small shapes, every fourth in large ones.
    for (std::size_t turn = 0; turn < all.size(); turn += rows.size() < 50 ? 1 : 4) {
      const Pattern& pattern = all[turn];
      const std::size_t changed = turn * 7 % rows.size();
      lab::Inputs others = inputs_of(problem);
      give(others.args(), rows[changed], pattern);
      run_kernel(others);
      const std::vector<std::string> bits = test::all_row_bits(others.args(), problem);
      for (std::size_t r = 0; r < rows.size(); ++r) {
        if (r == changed && pattern.kind == "cancelling") continue;  // by truth nothing changes
        ASSERT_EQ(bits[r] == ordinary[r], r != changed)
            << pattern.name << " in row " << changed << ", looked at row " << r;
      }
    }
  }
}

// The first keys are beyond the range of some rows of a tile, of all, or of the sequence, and would have the
// largest scores.
TEST_P(AdversarialScores, FirstBlocksOutOfSight) {
  std::vector<std::string> texts;
  for (const char* channels : {" head_dim=64", " head_dim=37"}) {
    texts.push_back(std::string("seq_q=600 seq_kv=600 causal=1 align=top_left window_left=20") + channels);
    texts.push_back(std::string("seq_q=100 seq_kv=600 causal=1 align=bottom_right window_left=40") +
                    channels);
    for (const char* rows : {"seq_q=1 heads=8", "seq_q=33 heads=2"})
      texts.push_back(std::string(rows) + " kv_heads=1 seq_kv=600 starts=1" + channels);
  }
  for (const std::string& text : texts) {
    AttentionProblem problem = problem_of(text);
    if (!has_features(GetParam().features, problem)) continue;
    for (const std::int64_t start : kBlocks) {
      if (!problem.starts && start != kBlocks[0]) continue;
      SCOPED_TRACE(text + " from " + std::to_string(start));
      lab::Inputs inputs = inputs_of(problem);
      if (problem.starts) inputs.args().starts_kv.as<std::int32_t>()[0] = static_cast<std::int32_t>(start);
      std::vector<RowId> rows;
      for (const std::int64_t i : {0, 19, 21, 47, 63, 64, 65, 90, 99, 255, 256, 300, 511, 512, 540, 599}) {
        if (i >= problem.seq_q) break;
        rows.push_back({0, i % problem.heads, i});
        give(inputs.args(), rows.back(), {"", "", kPlace, scale_of(problem.dtype).largest});
      }
      run_kernel(inputs);
      expect_right(inputs, rows, "out of sight below " + std::to_string(start));
    }
  }
}

// A mask tensor that hides the first blocks from every second row, by a value as low as -inf or as finite
// numbers go, and lifts the rest of some.
TEST_P(AdversarialScores, FirstBlocksUnderAMask) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (!GetParam().features.mask) GTEST_SKIP() << GetParam().id << " has no mask";
  for (const char* shape :
       {"seq_q=1 heads=8 head_dim=64 mask_axes=h", "seq_q=33 heads=2 head_dim=37 mask_axes=hq",
        "seq_q=100 heads=1 head_dim=64 mask_axes=hq"}) {
    for (const auto& [low, high] :
         {std::pair{-kInfinity, 0.0}, {-3e38, 0.0}, {-kInfinity, 3e38}, {-3e38, 3e38}}) {
      for (const std::int64_t block : kBlocks) {
        const std::string name =
            std::to_string(low) + " below " + std::to_string(block) + ", then " + std::to_string(high);
        SCOPED_TRACE(std::string(shape) + ": " + name);
        const AttentionProblem problem =
            problem_of(std::string(shape) + " kv_heads=1 seq_kv=600 mask=additive");
        lab::Inputs inputs = inputs_of(problem);
        const TensorView& mask = inputs.args().mask;
        test::each_element(mask, [&](std::int64_t at, auto, std::int64_t h, std::int64_t i, std::int64_t j) {
          store_element(mask.dtype, mask.data, at, (h + i) % 2 == 1 ? 0 : j < block ? low : high);
        });
        std::vector<RowId> rows;
        for (std::int64_t i = 0; i < problem.seq_q; i += problem.seq_q / 16 + 1) {
          for (std::int64_t h = 0; h < problem.heads; ++h) rows.push_back({0, h, i});
        }
        run_kernel(inputs);
        expect_right(inputs, rows, name);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, AdversarialScores, testing::ValuesIn(forward_kernels()),
                         [](const testing::TestParamInfo<KernelInfo>& info) {
                           return test_name(info.param.id);
                         });

}  // namespace
}  // namespace headwise::numerics
