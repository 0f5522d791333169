// Axes of what attention has beside its sizes: features of scores, lengths within a batch, pages.
#include <array>
#include <optional>

#include "lab/axis_tables.h"

namespace headwise::lab {
namespace {

using D = Draft&;
using V = const std::string&;
using C = const Case&;

constexpr std::string_view kKeysAlone = "keys";
constexpr std::string_view kAxisLetters = "bhq";  // bit 0, 1, 2 of BroadcastAxes
constexpr std::array<std::string_view, 3> kAlibi{"none", "per_head", "per_batch_head"};  // of AlibiKind

// "hq" or "keys" to BroadcastAxes; empty where it is neither.
std::optional<std::uint8_t> parse_axes(std::string_view text) {
  if (text == kKeysAlone) return std::uint8_t{0};
  std::uint8_t axes = 0;
  for (const char letter : text) {
    const std::size_t axis = kAxisLetters.find(letter);
    if (axis == std::string_view::npos) return {};
    axes = static_cast<std::uint8_t>(axes | (1U << axis));
  }
  return axes == 0 ? std::optional<std::uint8_t>() : axes;
}

Status set_softcap(D d, V v) {
  const float cap = core::parse_number<float>(v).value_or(-1);
  if (cap < 0) return wrong_value(v, "a number from 0 (off)");
  d.result.problem.softcap = cap;
  return {};
}

Status set_alibi(D d, V v) {
  for (std::size_t i = 0; i < kAlibi.size(); ++i) {
    if (v == kAlibi[i]) d.result.problem.alibi = static_cast<AlibiKind>(i);
  }
  return {};
}

Status set_bias(D d, V v) {
  AttentionProblem& p = d.result.problem;
  p.bias = v != "none";
  p.bias_axes = 0;
  if (!p.bias) return {};
  const std::optional<std::uint8_t> axes = parse_axes(v);
  if (!axes) return wrong_value(v, "none, keys, or letters of bhq (batch, heads, queries)");
  p.bias_axes = *axes;
  return {};
}

Status set_mask(D d, V v) {
  AttentionProblem& p = d.result.problem;
  p.mask = MaskKind::none;
  p.mask_axes = 0;
  if (v == "none") return {};
  const std::size_t colon = v.find(':');
  const std::string_view kind = std::string_view(v).substr(0, colon);
  const std::optional<std::uint8_t> axes =
      colon == std::string::npos ? std::nullopt : parse_axes(std::string_view(v).substr(colon + 1));
  if ((kind != "boolean" && kind != "additive") || !axes) {
    return wrong_value(v,
                       "none, boolean:AXES or additive:AXES, with AXES keys or letters of bhq (batch, heads, "
                       "queries)");
  }
  p.mask = kind == "boolean" ? MaskKind::boolean : MaskKind::additive;
  p.mask_axes = *axes;
  return {};
}

Status set_dropout(D d, V v) {
  const float probability = core::parse_number<float>(v).value_or(-1);
  if (probability < 0 || probability >= 1) return wrong_value(v, "a probability from 0 to below 1");
  d.result.problem.dropout_p = probability;
  return {};
}

std::vector<Axis> score_axes() {
  return {
      {"softcap",
       AxisType::number,
       "0",
       "scores become softcap * tanh(score / softcap); 0: off",
       {},
       0,
       set_softcap,
       [](C c) { return c.problem.softcap == 0 ? "" : core::shortest(c.problem.softcap); }},
      {"alibi",
       AxisType::choice,
       "none",
       "slopes that distance between query and key costs",
       {kAlibi.begin(), kAlibi.end()},
       0,
       set_alibi,
       [](C c) { return alibi_text(c.problem); }},
      {"sinks",
       AxisType::boolean,
       "0",
       "a logit a head that joins the denominator",
       {},
       0,
       [](D d, V v) {
         d.result.problem.sinks = to_boolean(v);
         return Status();
       },
       [](C c) { return std::string(c.problem.sinks ? "1" : ""); }},
      {"bias",
       AxisType::text,
       "none",
       "f32 values added to the scores; what they differ by beside keys: letters of bhq (batch, heads, "
       "queries), or keys for nothing else",
       {},
       0,
       set_bias,
       [](C c) { return bias_text(c.problem); }},
      {"mask",
       AxisType::text,
       "none",
       "keys hidden one by one, and whole rows and blocks of them: boolean:AXES or additive:AXES (f32), AXES "
       "as of bias",
       {},
       0,
       set_mask,
       [](C c) { return mask_text(c.problem); }},
      {"dropout",
       AxisType::number,
       "0",
       "probability with which a weight is dropped, by a generator of the seed",
       {},
       0,
       set_dropout,
       [](C c) { return c.problem.dropout_p == 0 ? "" : core::shortest(c.problem.dropout_p); }},
  };
}

std::vector<Axis> length_axes() {
  return {
      {"varlen",
       AxisType::boolean,
       "0",
       "sequences of unequal lengths, their rows packed (cu_seqlens); seq is the longest, they have half of "
       "it "
       "on average",
       {},
       0,
       [](D d, V v) {
         d.result.problem.varlen = to_boolean(v);
         return Status();
       },
       [](C c) { return std::string(c.problem.varlen ? "1" : ""); }},
      {"lengths",
       AxisType::boolean,
       "0",
       "keys in use end at a length of each sequence's own, up to seq-kv",
       {},
       0,
       [](D d, V v) {
         d.result.problem.lengths = to_boolean(v);
         return Status();
       },
       [](C c) { return std::string(c.problem.lengths ? "1" : ""); }},
      {"starts",
       AxisType::boolean,
       "0",
       "keys in use begin at a place of each sequence's own (left padding)",
       {},
       0,
       [](D d, V v) {
         d.result.problem.starts = to_boolean(v);
         return Status();
       },
       [](C c) { return std::string(c.problem.starts ? "1" : ""); }},
      {"page-size",
       AxisType::integer,
       "0",
       "keys a page of a paged cache, whose pages lie in shuffled order; seq-kv must be a multiple; 0: not "
       "paged",
       {},
       0,
       [](D d, V v) {
         d.result.problem.page_size = to_integer(v);
         return Status();
       },
       [](C c) { return c.problem.page_size == 0 ? "" : shown(c.problem.page_size); }},
  };
}

std::string axes_text(std::uint8_t axes) {
  std::string letters;
  for (std::size_t axis = 0; axis < kAxisLetters.size(); ++axis) {
    if (((axes >> axis) & 1U) != 0) letters += kAxisLetters[axis];
  }
  return letters.empty() ? std::string(kKeysAlone) : letters;
}

}  // namespace

std::vector<Axis> feature_axes() {
  std::vector<Axis> table = score_axes();
  const std::vector<Axis> lengths = length_axes();
  table.insert(table.end(), lengths.begin(), lengths.end());
  return table;
}

std::string alibi_text(const AttentionProblem& p) {
  return p.alibi == AlibiKind::none ? "" : std::string(kAlibi[static_cast<std::size_t>(p.alibi)]);
}

std::string bias_text(const AttentionProblem& p) { return p.bias ? axes_text(p.bias_axes) : ""; }

std::string mask_text(const AttentionProblem& p) {
  if (p.mask == MaskKind::none) return "";
  return (p.mask == MaskKind::boolean ? "boolean:" : "additive:") + axes_text(p.mask_axes);
}

}  // namespace headwise::lab
