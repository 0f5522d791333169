// Axes: what a benchmark can vary. One table makes the command line's flags, the words of suite files, the
// cases they stand for, the words that name a case, and the help.
//
//   --seq 512..8192*2 --causal 0,1        as flags
//   seq=512..8192*2 causal=0,1            as a line of a suite
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "headwise/attention.h"
#include "lab/inputs.h"

namespace headwise::lab {

// One cell of a benchmark: a problem, where, on which inputs, and who is asked.
struct Case {
  AttentionProblem problem;  // threads resolved
  DeviceId device;
  InputSpec inputs;
  std::string inputs_text = "normal";  // as in words: "captured:2"
  std::vector<std::string> kernels;    // ids, algorithms or globs; empty: all made for the dtype; "none"
  std::vector<std::string> peers;      // names of peers/catalog.h
  std::string baseline = "unfused";    // algorithm, id or peer; "none"
  std::optional<float> threshold;      // pruning: keep probabilities from here on; nothing does it yet
  std::int64_t topk = 0;               // pruning: keep so many keys a row; 0: all; nothing does it yet
  std::string preset;  // name of presets.h that the words came from; not part of the case's name
  bool cold = false;   // caches are emptied before each timed call
};

// A case while its words are read: what is not given is taken from other words, or from a captured file.
struct Draft {
  Case result;
  std::int64_t seq = -1, seq_q = -1, seq_kv = -1, batch = -1;  // -1, or 0 below: not given
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0, head_dim_v = 0;
  int causal = -1;
  bool kv_dtype_given = false;
};

// Asks for pruned attention, which no kernel computes yet: its rows say so.
inline bool pruned(const Case& one) { return one.threshold.has_value() || one.topk > 0; }

enum class AxisType : std::uint8_t {
  integer,  // lists and ranges
  boolean,  // the flag alone is true
  number,   // lists
  choice,   // lists of the named values
  text,     // lists
  names,    // a list that is one value: not swept
};

struct Axis {
  std::string_view name;  // "seq-q": --seq-q, seq-q=
  AxisType type;
  std::string_view standard;  // the value when not given, in words
  std::string_view help;
  std::vector<std::string_view> choices;
  std::int64_t least = 0;  // integer: smallest value allowed
  Status (*apply)(Draft& draft, const std::string& value);
  std::string (*show)(const Case& one);  // the word's value; empty: as when not given
};

const std::vector<Axis>& axes();
const Axis* find_axis(std::string_view name);  // takes "seq_q" for "seq-q"; nullptr: none
std::vector<std::string_view> axis_names();

// "1,4", "512..8192*2", "128..1024+128" -> values as text. The message does not name the axis; callers do.
Result<std::vector<std::string>> expand_values(const Axis& axis, std::string_view text);

// Axis name and value text, in the order given.
using Word = std::pair<std::string, std::string>;

// Words of one product, and where they stand ("default.txt:4"; empty: the command line).
struct Words {
  std::vector<Word> words;
  std::string where;
};

// Cartesian product of the lines' words in the table's order, the last axis fastest. A word in `flags` takes
// the place of the same word of every line. Cases that come twice are kept once.
Result<std::vector<Case>> make_cases(const std::vector<Words>& lines, const std::vector<Word>& flags);

// A feature in the words of its axis, empty where the problem lacks it: "per_head", "hq", "boolean:bq".
std::string alibi_text(const AttentionProblem& problem);
std::string bias_text(const AttentionProblem& problem);
std::string mask_text(const AttentionProblem& problem);

// The words that make this case again, kernels and baseline left out: its name in rows.
std::vector<Word> words_of(const Case& one);
std::string case_id(const Case& one);  // "batch=1 seq=512 ..."
// The contender of a case that no kernel of this build is made for; no name that --kernels would know.
inline constexpr std::string_view kNobody = "suitable";
// "headwise bench --batch 1 --seq 512 ... --kernels <contender> --baseline unfused"
std::string reproducer(const Case& one, std::string_view contender, bool peer = false);

}  // namespace headwise::lab
