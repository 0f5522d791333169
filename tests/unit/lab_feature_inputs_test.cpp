// Inputs of every feature: that the library reads from the tensors the problem they were made for, that what
// nobody may see holds NaN, and that masks, lengths and pages have what kernels get wrong.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "attention/sequence.h"
#include "lab/feature_inputs.h"
#include "lab/inputs.h"
#include "lab/sequence_inputs.h"

namespace headwise::lab {
namespace {

Device& cpu() { return **device({}); }

AttentionProblem problem(const std::string& features) {
  return check(parse_problem("dtype=f32 heads=4 kv_heads=2 head_dim=16 head_dim_v=24 " + features));
}
Inputs make(const AttentionProblem& p, const InputSpec& spec = {}) {
  return check(make_inputs(p, spec, cpu()));
}

const std::vector<std::string>& feature_texts() {
  static const std::vector<std::string> texts{
      "batch=2 seq_q=70 seq_kv=70",
      "batch=2 seq_q=70 seq_kv=90 mask=bool mask_axes=bhq",
      "batch=3 seq_q=70 seq_kv=300 mask=bool mask_axes=b",
      "batch=2 seq_q=5 seq_kv=600 mask=additive mask_axes=hq causal=1 align=bottom_right",
      "batch=2 seq_q=70 seq_kv=90 mask=additive",
      "batch=2 seq_q=70 seq_kv=90 bias=1 bias_axes=hq alibi=per_batch_head align=top_left",
      "batch=2 seq_q=33 seq_kv=90 bias=1 sinks=1 softcap=20 alibi=per_head align=bottom_right lse=1",
      "batch=4 seq_q=50 seq_kv=50 varlen=1 causal=1 align=bottom_right lse=1 dropout_p=0.1",
      "batch=5 seq_q=20 seq_kv=90 varlen=1 mask=bool mask_axes=bq bias=1 bias_axes=b",
      "batch=5 seq_q=20 seq_kv=90 lengths=1 causal=1 align=bottom_right",
      "batch=5 seq_q=20 seq_kv=90 starts=1",
      "batch=5 seq_q=20 seq_kv=90 starts=1 lengths=1 mask=bool mask_axes=q",
      "batch=3 seq_q=1 seq_kv=128 page_size=16 lengths=1 causal=1 align=bottom_right",
      "batch=3 seq_q=7 seq_kv=96 page_size=32",
      "batch=4 seq_q=7 seq_kv=96 page_size=8 starts=1 lengths=1 varlen=1 alibi=per_head align=bottom_right",
  };
  return texts;
}

double at(const TensorView& view, std::int64_t offset) { return load_element(view.dtype, view.data, offset); }

TEST(FeatureInputs, TheLibraryReadsTheProblemFromTheTensors) {
  for (const std::string& text : feature_texts()) {
    SCOPED_TRACE(text);
    const AttentionProblem p = problem(text);
    for (const InputSpec& spec :
         {InputSpec{}, InputSpec{.layout = Layout::bhsd, .row_padding = 3, .offset = 1}}) {
      const Inputs inputs = make(p, spec);
      EXPECT_TRUE(check_guards(inputs).ok());
      const AttentionProblem& made = inputs.problem();
      const Result<AttentionProblem> read = make_problem(inputs.args(), {.softmax_scale = p.softmax_scale,
                                                                         .causal = p.causal,
                                                                         .align = p.align,
                                                                         .softcap = p.softcap,
                                                                         .dropout_p = p.dropout_p,
                                                                         .page_size = p.page_size});
      ASSERT_TRUE(read.ok()) << read.status().message();
      AttentionProblem expected = made;
      expected.pointer_alignment = read->pointer_alignment;
      EXPECT_EQ(to_string(*read), to_string(expected));
    }
  }
}

TEST(FeatureInputs, BytesAreThoseOfAllTensors) {
  for (const std::string& text : feature_texts()) {
    const AttentionProblem p = problem(text);
    EXPECT_EQ(input_bytes(p), make(p).device_bytes()) << text;
  }
}

// Slots of K that some sequence uses, as offsets of their rows; and whether the mask hides their key from
// all.
struct Slots {
  std::set<std::int64_t> used, hidden;
  explicit Slots(const Inputs& inputs) {
    const AttentionProblem& p = inputs.problem();
    const AttentionArgs& args = inputs.host_args();
    const std::int64_t shared = p.heads / p.kv_heads;
    for (std::int64_t b = 0; b < p.batch; ++b) {
      const Sequence s = sequence_of(args, p, b);
      for (std::int64_t kv_head = 0; kv_head < p.kv_heads; ++kv_head) {
        for (std::int64_t j = s.keys.begin; j < s.keys.end; ++j) {
          const std::int64_t offset = key_offset(args.k, p, s, j, kv_head);
          EXPECT_TRUE(used.insert(offset).second) << "two keys in one slot";
          bool seen = p.mask == MaskKind::none;
          for (std::int64_t h = kv_head * shared; h < (kv_head + 1) * shared; ++h) {
            for (std::int64_t q = 0; q < p.seq_q; ++q)
              seen = seen || !ScoreRow(args, p, {b, h, q}, {}).hidden(j);
          }
          if (!seen) hidden.insert(offset);
        }
      }
    }
  }
};

TEST(FeatureInputs, SlotsThatNobodySeesHoldNan) {
  for (const std::string& text : feature_texts()) {
    SCOPED_TRACE(text);
    const Inputs inputs = make(problem(text));
    const Slots slots(inputs);
    for (const TensorView* view : {&inputs.host_args().k, &inputs.host_args().v}) {
      for (std::int64_t row = 0; row < view->elements() / view->shape[3]; ++row) {
        const std::int64_t k_offset = row * inputs.problem().head_dim;
        const bool nan = !slots.used.contains(k_offset) || slots.hidden.contains(k_offset);
        for (std::int64_t c = 0; c < view->shape[3]; ++c)
          ASSERT_EQ(std::isnan(at(*view, row * view->shape[3] + c)), nan) << row;
      }
    }
    for (std::int64_t i = 0; i < inputs.host_args().q.elements(); ++i)
      ASSERT_TRUE(std::isfinite(at(inputs.host_args().q, i)));
  }
}

TEST(FeatureInputs, HiddenKeysKeepTheirValuesOnRequest) {
  const AttentionProblem p = problem("batch=2 seq_q=20 seq_kv=600 mask=bool mask_axes=hq");
  const Inputs nan = make(p);
  EXPECT_GE(Slots(nan).hidden.size(), 2U * 2 * 130);
  const Inputs finite = make(p, {.hidden_nan = false});
  for (std::int64_t i = 0; i < finite.host_args().k.elements(); ++i)
    ASSERT_TRUE(std::isfinite(at(finite.host_args().k, i)));
}

TEST(FeatureInputs, PackedSequencesAreUnequalAndSumToTheTotals) {
  for (const std::int64_t batch : {0, 1, 2, 3, 8, 40}) {
    for (const std::int64_t longest : {0, 1, 2, 100}) {
      for (const std::int64_t share : {0, 1, 2, 3}) {
        if (batch == 0 && longest > 0) continue;
        AttentionProblem p = problem("varlen=1 batch=" + std::to_string(batch) +
                                     " seq_q=" + std::to_string(longest) + " seq_kv=7");
        if (batch == 0) p.seq_kv = 0;
        if (share > 0 && batch > 0) p.total_q = longest + (batch - 1) * longest * (share - 1) / 2;
        p = completed(p);
        SCOPED_TRACE(to_string(p));
        ASSERT_TRUE(check_sequences(p).ok()) << check_sequences(p).message();
        const std::vector<std::int32_t> offsets = check(make_sequences(p, 3)).cu_seqlens_q;
        ASSERT_EQ(offsets.size(), static_cast<std::size_t>(batch + 1));
        EXPECT_EQ(offsets.front(), 0);
        EXPECT_EQ(offsets.back(), p.total_q);
        std::vector<std::int64_t> lengths;
        for (std::size_t i = 1; i < offsets.size(); ++i) lengths.push_back(offsets[i] - offsets[i - 1]);
        for (const std::int64_t length : lengths) EXPECT_TRUE(length >= 0 && length <= longest);
        const std::set<std::int64_t> different(lengths.begin(), lengths.end());
        if (batch > 0) {
          EXPECT_EQ(*different.rbegin(), longest);
        }
        if (batch >= 3 && share == 0) {
          EXPECT_LE(*different.begin(), 1);
        }
        if (batch == 40 && longest == 100 && share == 0) {
          EXPECT_GE(different.size(), 20U);
        }
      }
    }
  }
  const AttentionProblem same = completed(problem("varlen=1 batch=6 seq_q=50 seq_kv=50"));
  const SequenceArrays arrays = check(make_sequences(same, 1));
  EXPECT_EQ(arrays.cu_seqlens_q, arrays.cu_seqlens_kv);
  EXPECT_NE(arrays.cu_seqlens_q, check(make_sequences(same, 2)).cu_seqlens_q);
  const SequenceArrays other =
      check(make_sequences(completed(problem("varlen=1 batch=6 seq_q=50 seq_kv=51")), 1));
  EXPECT_NE(other.cu_seqlens_q, other.cu_seqlens_kv);
}

TEST(FeatureInputs, RefusesWhatNoTensorsCouldBe) {
  const auto message = [](const std::string& text) {
    const Status status = make_inputs(problem(text), {}, cpu()).status();
    EXPECT_EQ(status.code(), StatusCode::invalid_argument) << text;
    return status.message();
  };
  EXPECT_NE(message("batch=3 seq_q=10 seq_kv=10 varlen=1 total_q=31").find("total_q: expected 10 to 30"),
            std::string::npos);
  EXPECT_NE(message("batch=3 seq_q=10 seq_kv=10 varlen=1 total_kv=9").find("total_kv: expected 10 to 30"),
            std::string::npos);
  EXPECT_NE(message("batch=3 seq_q=10 seq_kv=10 varlen=1 lengths=1").find("lengths: expected 0"),
            std::string::npos);
  EXPECT_NE(message("batch=3 seq_q=10 seq_kv=10 varlen=1 starts=1").find("starts: expected 0"),
            std::string::npos);
  EXPECT_NE(message("batch=3 seq_q=10 seq_kv=10 page_size=4").find("multiple of page_size 4"),
            std::string::npos);
  EXPECT_NE(message("batch=3 seq_q=10 seq_kv=12 page_size=4 pages=8").find("pages: 8 of page_size 4"),
            std::string::npos);
  EXPECT_NE(
      message("batch=3 seq_q=10 seq_kv=12 page_size=4 varlen=1 total_kv=20").find("total_kv: expected 0"),
      std::string::npos);
  const InputSpec captured{.kind = InputKind::captured, .file = "x", .layer = 0};
  EXPECT_EQ(make_inputs(problem("batch=1 seq_q=4 seq_kv=4 varlen=1"), captured, cpu()).status().code(),
            StatusCode::unsupported);
}

TEST(FeatureInputs, CachesReachFromEmptyToFull) {
  const AttentionProblem p = problem("batch=6 seq_q=1 seq_kv=512 lengths=1 starts=1 page_size=16");
  const Inputs inputs = make(p);
  const AttentionArgs& args = inputs.host_args();
  std::set<std::int64_t> lengths, pages;
  bool empty = false, padded = false, cut = false, ascending = true;
  std::int64_t last = -1;
  for (std::int64_t b = 0; b < p.batch; ++b) {
    const Sequence s = sequence_of(args, inputs.problem(), b);
    lengths.insert(s.keys.end);
    empty = empty || s.keys.end <= 1;
    padded = padded || s.keys.begin >= 16;
    cut = cut || s.keys.end % 16 != 0;
    for (std::int64_t slot = 0; slot < 32; ++slot) {
      const std::int64_t page = s.pages[slot * s.page_stride];
      const bool used = slot * 16 < s.keys.end && (slot + 1) * 16 > s.keys.begin;
      EXPECT_EQ(page >= 0 && page < inputs.problem().pages, used) << b << " " << slot;
      if (!used) continue;
      EXPECT_TRUE(pages.insert(page).second);
      ascending = ascending && page > last;
      last = page;
    }
  }
  EXPECT_EQ(*lengths.rbegin(), 512);
  EXPECT_GE(lengths.size(), 4U);
  EXPECT_TRUE(empty && padded && cut);
  EXPECT_FALSE(ascending);
  EXPECT_LT(static_cast<std::int64_t>(pages.size()), inputs.problem().pages);
  // Without lengths, one of the sequences begins where it ends.
  const SequenceArrays arrays =
      check(make_sequences(completed(problem("batch=6 seq_q=1 seq_kv=512 starts=1")), 1));
  EXPECT_EQ(std::count(arrays.starts_kv.begin(), arrays.starts_kv.end(), 512), 1);
}

// Values belong to a key's place in its sequence, wherever that lies.
TEST(FeatureInputs, PackedAndPagedRowsAreThoseOfThePlainBatch) {
  const InputSpec bare{.plant = false};
  const Inputs plain = make(problem("batch=4 seq_q=48 seq_kv=96"), bare);
  for (const char* text :
       {"batch=4 seq_q=48 seq_kv=96 varlen=1", "batch=4 seq_q=48 seq_kv=96 lengths=1 starts=1",
        "batch=4 seq_q=48 seq_kv=96 lengths=1 page_size=16 varlen=1"}) {
    const Inputs other = make(problem(text), bare);
    const AttentionArgs &args = other.host_args(), &expected = plain.host_args();
    for (std::int64_t b = 0; b < 4; ++b) {
      const Sequence s = sequence_of(args, other.problem(), b),
                     all = sequence_of(expected, plain.problem(), b);
      for (std::int64_t i = 0; i < s.seq_q; ++i) {
        ASSERT_EQ(at(args.q, query_offset(args.q, s, i, 3) + 5),
                  at(expected.q, query_offset(expected.q, all, i, 3) + 5));
      }
      for (std::int64_t j = s.keys.begin; j < s.keys.end; ++j) {
        ASSERT_EQ(at(args.v, key_offset(args.v, other.problem(), s, j, 1) + 7),
                  at(expected.v, key_offset(expected.v, plain.problem(), all, j, 1) + 7));
      }
    }
  }
}

TEST(FeatureInputs, MasksHideKeysBlocksAndRows) {
  for (const char* axes : {"bhq", "q", "hq", "bh", "h", "b", "none"}) {
    SCOPED_TRACE(axes);
    const std::string text = std::string("batch=3 seq_q=200 seq_kv=700 mask_axes=") + axes;
    const AttentionProblem boolean = problem(text + " mask=bool"),
                           additive = problem(text + " mask=additive");
    const Inputs inputs = make(boolean), added = make(additive);
    const TensorView &mask = inputs.host_args().mask, &values = added.host_args().mask;
    ASSERT_EQ(mask.elements(), values.elements());
    std::int64_t hidden = 0, whole_rows = 0, longest_run = 0;
    const std::int64_t rows = mask.elements() / 700;
    std::set<std::uint64_t> patterns;
    for (std::int64_t row = 0; row < rows; ++row) {
      std::int64_t run = 0, in_row = 0;
      std::uint64_t pattern = 0;
      for (std::int64_t j = 0; j < 700; ++j) {
        const bool seen = mask.as<unsigned char>()[row * 700 + j] == 1;
        const float value = values.as<float>()[row * 700 + j];
        ASSERT_EQ(seen, std::isfinite(value));
        ASSERT_TRUE(!seen || std::abs(value) < 1);
        run = seen ? 0 : run + 1;
        in_row += seen ? 0 : 1;
        longest_run = std::max(longest_run, run == 700 ? 0 : run);
        pattern = pattern * 31 + static_cast<std::uint64_t>(seen ? j : 0);
      }
      hidden += in_row;
      whole_rows += in_row == 700 ? 1 : 0;
      patterns.insert(pattern);
    }
    const bool has_whole = std::string(axes) != "none";
    EXPECT_EQ(whole_rows > 0, has_whole);
    EXPECT_LT(2 * whole_rows, std::max<std::int64_t>(rows, 2));
    EXPECT_GE(longest_run, 128);
    const double part = static_cast<double>(hidden) / static_cast<double>(mask.elements());
    EXPECT_GT(part, 0.3);
    EXPECT_LT(part, 0.7);
    EXPECT_EQ(static_cast<std::int64_t>(patterns.size()), rows - std::max<std::int64_t>(0, whole_rows - 1));
  }
}

TEST(FeatureInputs, MasksMayBeShorterThanTheKeys) {
  const Inputs inputs = make(problem("batch=2 seq_q=20 seq_kv=90 mask=bool mask_axes=q"), {.mask_short = 30});
  EXPECT_EQ(inputs.args().mask.shape, (std::array<std::int64_t, 4>{1, 1, 20, 60}));
  EXPECT_EQ(make_problem(inputs.args())->mask_axes, kAxisQueries);
  for (std::int64_t j = 60; j < 90; ++j) EXPECT_TRUE(std::isnan(at(inputs.host_args().k, j * 2 * 16))) << j;
}

TEST(FeatureInputs, SlopesSinksAndDropoutHaveTheirValues) {
  const Inputs inputs =
      make(problem("batch=2 seq_q=8 seq_kv=64 alibi=per_batch_head align=top_left sinks=1 dropout_p=0.25"));
  const float* slopes = inputs.args().alibi_slopes.as<float>();
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(slopes[i] >= 1.0F / 256 && slopes[i] <= 0.625F) << slopes[i];
  EXPECT_GT(slopes[0], slopes[3]);
  EXPECT_NE(slopes[0], slopes[4]);
  const float* sinks = inputs.args().sinks.as<float>();
  EXPECT_EQ((std::set<float>(sinks, sinks + 4).size()), 4U);
  for (int h = 0; h < 4; ++h) EXPECT_NEAR(sinks[h], 3.5, 4.2);
  EXPECT_GT(inputs.args().dropout_seed, std::uint64_t{1} << 32);
  EXPECT_EQ(inputs.args().dropout_seed, inputs.host_args().dropout_seed);
  EXPECT_NE(inputs.args().dropout_seed, make(inputs.problem(), {.seed = 2}).args().dropout_seed);
}

// Probability of a key in its row, sinks counted, from the formula.
double probability(const Inputs& inputs, const oracle::RowId& row, std::int64_t key) {
  const AttentionProblem& p = inputs.problem();
  const AttentionArgs& args = inputs.host_args();
  const Sequence s = sequence_of(args, p, row.batch);
  const Band band = band_of(p, s);
  const KeyRange range = key_range(band, row.query);
  const ScoreRow scores(args, p, row, band);
  double sum = p.sinks ? std::exp(at(args.sinks, row.head)) : 0, own = 0;
  for (std::int64_t j = range.begin; j < range.end; ++j) {
    if (scores.hidden(j)) continue;
    const std::int64_t q = query_offset(args.q, s, row.query, row.head);
    const std::int64_t k = key_offset(args.k, p, s, j, row.head / (p.heads / p.kv_heads));
    double dot = 0;
    for (std::int64_t c = 0; c < p.head_dim; ++c) dot += at(args.q, q + c) * at(args.k, k + c);
    const double weight = std::exp(scores.score(dot * static_cast<double>(p.scale()), j));
    sum += weight;
    if (j == key) own = weight;
  }
  return own / sum;
}

TEST(FeatureInputs, PlantedKeysDominateOrAreForbidden) {
  for (const std::string& text : feature_texts()) {
    SCOPED_TRACE(text);
    const Inputs inputs = make(problem(text));
    const AttentionProblem& p = inputs.problem();
    int visible = 0, strong = 0, masked = 0;
    std::set<std::pair<std::int64_t, std::int64_t>> taken;
    for (const Plant& plant : inputs.planted()) {
      const Sequence s = sequence_of(inputs.host_args(), p, plant.row.batch);
      const Band band = band_of(p, s);
      const KeyRange range = key_range(band, plant.row.query);
      const ScoreRow scores(inputs.host_args(), p, plant.row, band);
      const bool inside = plant.key >= range.begin && plant.key < range.end;
      ASSERT_TRUE(plant.key >= s.keys.begin && plant.key < s.keys.end);
      EXPECT_EQ(plant.visible, inside && !scores.hidden(plant.key));
      const std::int64_t offset = key_offset(inputs.host_args().k, p, s, plant.key, plant.row.head / 2);
      EXPECT_TRUE(std::isfinite(at(inputs.host_args().k, offset)));
      EXPECT_TRUE(taken.emplace(plant.row.head / 2, offset).second);
      masked += !plant.visible && inside;
      visible += plant.visible;
      strong += plant.visible && probability(inputs, plant.row, plant.key) > 0.05;
    }
    EXPECT_GE(visible, 4);
    EXPECT_GE(strong, visible * 7 / 10);  // keys planted for other rows take some of it
    EXPECT_TRUE(masked >= 1 || (p.mask_axes & kAxisQueries) == 0);
  }
}

TEST(FeatureInputs, BackwardHasGradientsOfBiasAndSinks) {
  const AttentionProblem p =
      problem("direction=backward batch=2 seq_q=9 seq_kv=12 bias=1 bias_axes=hq sinks=1 dbias=1 dsinks=1");
  for (const std::int64_t padding : {0, 2}) {
    Inputs inputs = make(p, {.row_padding = padding});
    const AttentionArgs& args = inputs.args();
    EXPECT_EQ(args.dbias.shape, args.bias.shape);
    EXPECT_EQ(args.dbias.stride, args.bias.stride);
    EXPECT_EQ(args.dsinks.shape, args.sinks.shape);
    EXPECT_TRUE(std::isnan(args.dbias.as<float>()[0]) && std::isnan(args.dsinks.as<float>()[3]));
    EXPECT_TRUE(std::isfinite(args.bias.as<float>()[0]));
    EXPECT_TRUE(check_guards(inputs).ok());
    args.dsinks.as<float>()[4] = 0;
    EXPECT_NE(check_guards(inputs).message().find("behind dsinks"), std::string::npos);
    ASSERT_TRUE(poison(inputs).ok());
    if (padding == 0) continue;
    args.dbias.as<float>()[13] = 0;
    EXPECT_NE(check_guards(inputs).message().find("rows of dbias"), std::string::npos);
  }
  AttentionProblem without = p;
  without.dbias = without.dsinks = false;
  const Inputs inputs = make(without);
  EXPECT_FALSE(inputs.args().dbias.present() || inputs.args().dsinks.present());
}

TEST(FeatureInputs, CostCountsTheSequencesAsTheyAre) {
  for (const std::string& text : feature_texts()) {
    SCOPED_TRACE(text);
    const Inputs inputs = make(problem(text), {.seed = 3});
    const AttentionProblem& p = inputs.problem();
    double pairs = 0;
    std::int64_t queries = 0, keys = 0;
    for (std::int64_t b = 0; b < p.batch; ++b) {
      const Sequence s = sequence_of(inputs.host_args(), p, b);
      queries += s.seq_q;
      keys += s.keys.end - s.keys.begin;
      for (std::int64_t i = 0; i < s.seq_q; ++i) {
        for (std::int64_t j = s.keys.begin; j < s.keys.end; ++j) {
          const KeyRange range = key_range(band_of(p, s), i);
          pairs += j >= range.begin && j < range.end ? 4 : 0;
        }
      }
    }
    const Cost actual = actual_cost(problem(text), 3);
    EXPECT_EQ(actual.pairs, pairs);
    EXPECT_EQ(actual.flops, pairs * 2 * (16 + 24));
    const auto real = [](std::int64_t n) { return static_cast<double>(n); };
    double read = real(queries) * 4 * 16 * 4 + real(keys) * 2 * (16 + 24) * 4;
    read += real(inputs.args().bias.elements()) * 4;
    read += real(inputs.args().mask.elements()) * (p.mask == MaskKind::boolean ? 1 : 4);
    EXPECT_EQ(actual.bytes_read, read);
    EXPECT_LE(actual.pairs, cost(p).pairs);
  }
}

}  // namespace
}  // namespace headwise::lab
