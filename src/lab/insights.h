// Insights: what the rows of a run say to somebody who has to choose. Computed from ranked rows alone, so any
// run file will do; a row that failed, was not verified or was not timed says nothing here. The formulas
// stand in docs/measuring.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lab/rows.h"
#include "lab/statistics.h"

namespace headwise::lab {

// A row that a sentence stands on.
struct RowReference {
  std::string case_id;
  std::string contender;
  std::size_t position = 0;  // in RunFile::rows
  friend bool operator==(const RowReference&, const RowReference&) = default;
};

// How one contender stands to the baseline over cases that differ only in length.
enum class CrossoverKind : std::uint8_t {
  everywhere,  // faster at every length measured
  nowhere,     // at none
  from,        // not faster below `at`, faster from there on
  until,       // faster up to `at`, not above
  mixed,       // neither: the sentence tells the lengths
};
std::string_view name(CrossoverKind kind);

struct Crossover {
  std::string family;                         // what the cases share: "prefill, causal, 8 heads, dim 64, f32"
  std::string contender;                      // "cpu/avx512/flash/f32"
  std::string baseline;                       // "cpu/avx512/unfused/f32"
  std::string contender_name, baseline_name;  // as sentences have them: "avx512 flash"
  CrossoverKind kind = CrossoverKind::mixed;
  std::vector<std::int64_t> lengths;  // measured, ascending
  // from, until: the outermost length at which the contender is faster beyond noise, and the nearest one at
  // which it is slower beyond noise (none: within noise up to the end of what was measured).
  std::optional<std::int64_t> at, beyond;
  // Where the ratio of the medians crosses 1 on a line in log(length), between two measured lengths.
  OptionalNumber interpolated;
  std::string
      verdict;  // "from 256 on: 1.10x to 2.40x; slower at 64 and 128"; the sentence without who and where
  std::string sentence;  // whole
  std::vector<RowReference> rows;
};

// Who to take for a use: the contender that covers most of its cases, the fastest of those.
struct Recommendation {
  std::string use;         // "causal prefill"; "decoding"; "least memory"
  std::string dtype;       // "f32"; with a kv_dtype of its own: "bf16, kv int8"
  std::string setting;     // what else the rows share and others of the file do not: "1 thread"; may be empty
  std::string contender;   // recommended
  bool peer = false;       // which is a peer
  std::int64_t cases = 0;  // in which it was ranked
  std::string next;        // the nearest rival; empty: none
  std::string contender_name, next_name;
  std::optional<Ratio> over_next, over_baseline;  // geometric means over the cases both ran; above 1: faster
  // Where `contender` is a peer: the best kernel beside it, and how it stands to the peer (above 1: faster).
  std::string own, own_name;
  std::optional<Ratio> own_over_peer;
  bool within_noise = false;  // of `next`
  std::string verdict;        // the sentence without the use
  std::string sentence;
  std::vector<RowReference> rows;
};

// One case: its fastest kernel against its fastest peer, both ranked and timed alike.
struct PeerDuel {
  std::string label;  // the case, in the words that tell it apart in its file
  RowReference kernel, peer;
  std::string kernel_name, peer_name;
  Ratio ratio;  // time of the peer over time of the kernel: above 1, the kernel is faster
  [[nodiscard]] bool ahead() const { return ratio.interval.low > 1; }
  [[nodiscard]] bool behind() const { return ratio.interval.high < 1; }  // neither: within noise
};

// The duels of a dtype in a setting for a use.
struct PeerStanding {
  std::string dtype, setting, use;  // as in Recommendation
  std::vector<PeerDuel> duels;
  std::string verdict;  // "1.35x in the median of 4 cases (0.90x to 2.07x): ahead in 3, behind in 1: ..."
  std::string sentence;
};

struct AgainstPeers {
  std::vector<PeerDuel> duels;  // all, in the file's order; empty: nothing to compare
  std::vector<PeerStanding> standings;
  std::string verdict;  // over all duels
  // What the count leaves out: cases without a pair, peers timed in another way, peers without a rank that
  // were timed faster.
  std::vector<std::string> remarks;
};

struct Insights {
  std::vector<Crossover> crossovers;
  std::vector<Recommendation> recommendations;
  AgainstPeers peers;
};
Insights insights_of(const RunFile& file);

// The same in a few lines of at most `columns` characters: who is best for what, and the crossovers by kind.
// All sentences are in the report.
std::string render_insights(const Insights& insights, int columns);

// Whether the kernels or other people's attention is faster: the answer, then by dtype and use, then what was
// left out. Empty without peers.
std::string render_peers(const AgainstPeers& peers, int columns);

}  // namespace headwise::lab
