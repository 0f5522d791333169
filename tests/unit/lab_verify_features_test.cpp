// The pass rule where sequences are packed, paged or padded and scores have features: plain arithmetic
// passes, and what leaves a feature out or reads it wrongly does not.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "attention/sequence.h"
#include "lab/inputs.h"
#include "lab/verify.h"

namespace headwise::lab {
namespace {

Device& cpu() { return **device({}); }

AttentionProblem problem(const std::string& features) {
  return check(parse_problem("heads=4 kv_heads=2 head_dim=16 head_dim_v=24 lse=1 " + features));
}
AttentionProblem backward_problem(const std::string& features) {
  AttentionProblem p = problem(features);
  p.direction = Direction::backward;
  p.lse = false;
  p.dbias = p.bias;
  p.dsinks = p.sinks;
  return p;
}

std::int32_t& index(const TensorView& view, std::int64_t i) { return view.as<std::int32_t>()[i]; }

// A contender that computes plain attention of these arguments, which may be wrong ones, and writes the
// results into the inputs' outputs.
class PlainContender {
 public:
  explicit PlainContender(Inputs& inputs)
      : args(inputs.host_args()), problem(inputs.problem()), inputs_(inputs) {}

  AttentionArgs args;
  AttentionProblem problem;

  void run() {
    check(poison(inputs_));
    return problem.direction == Direction::backward ? run_backward() : run_forward();
  }

 private:
  void put(const TensorView& view, std::int64_t at, const std::vector<double>& rows, std::size_t row) {
    const auto n = static_cast<std::size_t>(view.shape[3]);
    for (std::size_t c = 0; c < n; ++c)
      store_element(view.dtype, view.data, at + static_cast<std::int64_t>(c), rows[row * n + c]);
  }

  void run_forward() {
    std::vector<oracle::RowId> rows;
    const AttentionProblem& real = inputs_.problem();
    const AttentionArgs& outputs = inputs_.host_args();
    for (std::int64_t b = 0; b < real.batch; ++b) {
      for (std::int64_t h = 0; h < real.heads; ++h) {
        for (std::int64_t i = 0; i < sequence_of(args, problem, b).seq_q; ++i) rows.push_back({b, h, i});
      }
    }
    const oracle::Rows plain = check(oracle::plain(args, problem, rows, 2));
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const Sequence s = sequence_of(args, problem, rows[r].batch);
      const TensorView &out = outputs.out, &lse = outputs.lse;
      put(out, query_offset(out, s, rows[r].query, rows[r].head), plain.out, r);
      lse.as<float>()[s.item_q * lse.stride[0] + rows[r].head * lse.stride[1] +
                      (s.row_q + rows[r].query) * lse.stride[2]] = static_cast<float>(plain.lse[r]);
    }
  }

  void run_backward() {
    const oracle::GradientRows rows = gradient_rows_to_verify(inputs_.problem(), 100, 2, inputs_.host_args());
    const oracle::Gradients plain = check(oracle::plain_backward(args, problem, rows, 2));
    const AttentionArgs& outputs = inputs_.host_args();
    for (std::size_t r = 0; r < rows.queries.size(); ++r) {
      const auto& [batch, head, query] = rows.queries[r];
      const Sequence s = sequence_of(outputs, inputs_.problem(), batch);
      const TensorView& dq = outputs.dq;
      put(dq, query_offset(dq, s, query, head), plain.dq, r);
    }
    for (std::size_t r = 0; r < rows.keys.size(); ++r) {
      const auto& [batch, kv_head, key] = rows.keys[r];
      const Sequence s = sequence_of(outputs, inputs_.problem(), batch);
      put(outputs.dk, key_offset(outputs.dk, inputs_.problem(), s, key, kv_head), plain.dk, r);
      put(outputs.dv, key_offset(outputs.dv, inputs_.problem(), s, key, kv_head), plain.dv, r);
    }
    const oracle::ScoreGradients sums = check(oracle::plain_backward_scores(args, problem, 2));
    for (std::size_t i = 0; i < sums.dbias.size(); ++i)
      outputs.dbias.as<float>()[i] = static_cast<float>(sums.dbias[i]);
    for (std::size_t i = 0; i < sums.dsinks.size(); ++i)
      outputs.dsinks.as<float>()[i] = static_cast<float>(sums.dsinks[i]);
  }

  Inputs& inputs_;
};

using Fault = std::function<void(PlainContender&)>;

struct Expected {
  std::string features;
  std::vector<std::pair<std::string, Fault>> faults;
};

class Features : public ::testing::TestWithParam<DType> {
 protected:
  static void expect(AttentionProblem p, const std::vector<std::pair<std::string, Fault>>& faults,
                     double seconds = 1.0) {
    SCOPED_TRACE(to_string(p));
    p.dtype = p.kv_dtype = GetParam();
    Inputs inputs = check(make_inputs(p, {}, cpu()));
    const Reference reference = check(make_reference(inputs, seconds, 2));
    EXPECT_GT(reference.rows.size() + reference.gradient_rows.keys.size(), 0U);
    PlainContender good(inputs);
    good.run();
    const Verdict verdict = verify(inputs, reference);
    EXPECT_TRUE(verdict.passed()) << verdict.reason;
    for (const auto& [name, fault] : faults) {
      // Index arrays and features are the inputs' own memory: each fault gets inputs of its own.
      Inputs wrong = check(make_inputs(p, {}, cpu()));
      PlainContender contender(wrong);
      fault(contender);
      contender.run();
      for (const auto view :
           {&AttentionArgs::out, &AttentionArgs::lse, &AttentionArgs::dq, &AttentionArgs::dk,
            &AttentionArgs::dv, &AttentionArgs::dbias, &AttentionArgs::dsinks}) {
        const TensorView &from = wrong.host_args().*view, &to = inputs.host_args().*view;
        if (from.present())
          std::memcpy(to.data, from.data, static_cast<std::size_t>(from.elements()) * size_of(from.dtype));
      }
      EXPECT_FALSE(verify(inputs, reference).passed()) << name;
    }
  }
};

const std::pair<std::string, Fault> kNoMask{"mask left out", [](PlainContender& c) {
                                              c.problem.mask = MaskKind::none;
                                              c.problem.mask_axes = 0;
                                            }};
const std::pair<std::string, Fault> kNoBias{"bias left out",
                                            [](PlainContender& c) { c.problem.bias = false; }};
const std::pair<std::string, Fault> kNoAlibi{"ALiBi left out",
                                             [](PlainContender& c) { c.problem.alibi = AlibiKind::none; }};
const std::pair<std::string, Fault> kNoSinks{"sinks left out",
                                             [](PlainContender& c) { c.problem.sinks = false; }};

TEST_P(Features, Masks) {
  const Fault unseen_key =
      [](PlainContender& c) {  // the mask of the last planted key it leaves is turned off
        for (std::int64_t i = c.args.mask.elements() - 1; i >= 0; --i) {
          if (c.args.mask.as<unsigned char>()[i] == 0) continue;
          c.args.mask.as<unsigned char>()[i] = 0;
          return;
        }
      };
  expect(problem("batch=2 seq_q=70 seq_kv=300 mask=bool mask_axes=bhq"),
         {kNoMask, {"mask of another head", [](PlainContender& c) { c.args.mask.stride[1] = 0; }}});
  expect(problem("batch=3 seq_q=9 seq_kv=200 mask=bool mask_axes=b"),
         {kNoMask, {"a key is lost", unseen_key}});
  expect(problem("batch=1 seq_q=40 seq_kv=200 mask=additive mask_axes=hq causal=1 align=bottom_right"),
         {kNoMask, {"additive values left out", [](PlainContender& c) {
                      for (std::int64_t i = 0; i < c.args.mask.elements(); ++i) {
                        float& value = c.args.mask.as<float>()[i];
                        if (std::isfinite(value)) value = 0;
                      }
                    }}});
}

TEST_P(Features, Scores) {
  expect(problem("batch=2 seq_q=30 seq_kv=100 bias=1 bias_axes=hq sinks=1 softcap=8"),
         {kNoBias, kNoSinks, {"softcap left out", [](PlainContender& c) { c.problem.softcap = 0; }}});
  expect(problem("batch=2 seq_q=30 seq_kv=100 alibi=per_batch_head align=bottom_right"),
         {kNoAlibi,
          {"wrong place", [](PlainContender& c) { c.problem.align = Align::top_left; }},
          {"slopes of the first sequence", [](PlainContender& c) { c.args.alibi_slopes.stride[0] = 0; }}});
  expect(problem("batch=2 seq_q=30 seq_kv=100 dropout_p=0.2"),
         {{"another seed", [](PlainContender& c) { ++c.args.dropout_seed; }},
          {"offset left out", [](PlainContender& c) { c.args.dropout_offset = 0; }},
          {"no dropout", [](PlainContender& c) { c.problem.dropout_p = 0; }}});
}

TEST_P(Features, PackedSequences) {
  expect(problem("batch=4 seq_q=60 seq_kv=90 varlen=1 causal=1 align=bottom_right"),
         {{"a sequence begins too late",
           [](PlainContender& c) {
             for (std::int64_t b = 1; b < c.problem.batch; ++b) {
               std::int32_t& begin = index(c.args.cu_seqlens_q, b);
               if (begin < c.problem.total_q) ++begin;
             }
           }},
          {"keys of the next sequence", [](PlainContender& c) { ++index(c.args.cu_seqlens_kv, 2); }},
          {"wrong align", [](PlainContender& c) { c.problem.align = Align::top_left; }}});
  expect(problem("batch=5 seq_q=50 seq_kv=50 varlen=1 bias=1 bias_axes=b mask=bool mask_axes=bq sinks=1"),
         {kNoBias, kNoMask, kNoSinks});
}

TEST_P(Features, Caches) {
  // Of the sequences with queries, the one with most keys.
  const auto longest = [](const PlainContender& c) {
    std::int64_t at = 0, most = -1;
    for (std::int64_t b = 0; b < c.problem.batch; ++b) {
      const Sequence s = sequence_of(c.args, c.problem, b);
      if (s.seq_q == 0 || s.keys.end - s.keys.begin <= most) continue;
      at = b;
      most = s.keys.end - s.keys.begin;
    }
    return at;
  };
  const std::pair<std::string, Fault> lost{
      "last key is lost", [&](PlainContender& c) { --index(c.args.lengths_kv, longest(c)); }};
  const std::pair<std::string, Fault> beyond{"reads beyond", [&](PlainContender& c) {
                                               const std::int64_t b = (longest(c) + 1) % c.problem.batch;
                                               ++index(c.args.lengths_kv, b);
                                             }};
  const std::pair<std::string, Fault> padding{
      "reads padding", [&](PlainContender& c) { --index(c.args.starts_kv, longest(c)); }};
  expect(problem("batch=2 seq_q=4 seq_kv=150 lengths=1 causal=1 align=bottom_right"), {lost, beyond});
  expect(problem("batch=2 seq_q=4 seq_kv=150 lengths=1 starts=1"), {lost, beyond, padding});
  expect(problem("batch=2 seq_q=3 seq_kv=160 page_size=16 lengths=1 causal=1 align=bottom_right"),
         {lost, beyond, {"pages in another order", [](PlainContender& c) {
                           std::swap(index(c.args.block_table, 0), index(c.args.block_table, 10));
                         }}});
  expect(problem("batch=4 seq_q=9 seq_kv=64 page_size=8 lengths=1 starts=1 varlen=1"), {lost, padding});
}

TEST_P(Features, SampledRowsOfManySequences) {
  expect(problem("batch=6 seq_q=700 seq_kv=700 varlen=1 causal=1 align=bottom_right"),
         {{"another sequence",
           [](PlainContender& c) {
             for (std::int64_t i = 1; i < 6; ++i) --index(c.args.cu_seqlens_kv, i);
           }}},
         0.001);
}

TEST_P(Features, Gradients) {
  const Fault scaled_bias = [](PlainContender& c) {
    for (std::int64_t i = 0; i < c.args.bias.elements(); ++i) c.args.bias.as<float>()[i] *= 1.05F;
  };
  expect(backward_problem("batch=2 seq_q=30 seq_kv=60 bias=1 bias_axes=hq sinks=1 softcap=15"),
         {{"scaled bias", scaled_bias}});
  expect(backward_problem(
             "batch=4 seq_q=30 seq_kv=60 varlen=1 bias=1 bias_axes=b alibi=per_head align=top_left"),
         {kNoAlibi});
  expect(backward_problem("batch=3 seq_q=30 seq_kv=200 lengths=1 starts=1 mask=bool mask_axes=bq"),
         {kNoMask});
}

// Nobody else looks at these.
TEST_P(Features, GradientsOfBiasAndSinksAreVerified) {
  AttentionProblem p = backward_problem("batch=2 seq_q=30 seq_kv=60 bias=1 bias_axes=q sinks=1");
  p.dtype = p.kv_dtype = GetParam();
  Inputs inputs = check(make_inputs(p, {}, cpu()));
  const Reference reference = check(make_reference(inputs, 1, 2));
  PlainContender contender(inputs);
  for (const auto& [view, name] :
       {std::pair{&AttentionArgs::dbias, "dbias"}, std::pair{&AttentionArgs::dsinks, "dsinks"}}) {
    for (const float wrong : {1.0F, std::nanf("")}) {
      contender.run();
      EXPECT_TRUE(verify(inputs, reference).passed()) << verify(inputs, reference).reason;
      (inputs.host_args().*view).as<float>()[2] += wrong;
      const Verdict verdict = verify(inputs, reference);
      EXPECT_FALSE(verdict.passed());
      EXPECT_EQ(verdict.reason.find(name), 0U) << verdict.reason;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Features, ::testing::Values(DType::f32, DType::bf16),
                         [](const auto& info) { return std::string(name(info.param)); });

}  // namespace
}  // namespace headwise::lab
