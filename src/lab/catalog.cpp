#include "lab/catalog.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "attention/fields.h"
#include "headwise/kernels.h"

namespace headwise::lab {
namespace {

// Why this machine cannot run the kernel at all; empty where it can. Asked with the smallest problem that is
// made for it, so that the answer is that of plan() and explain().
std::string obstacle(const KernelInfo& kernel) {
  Result<Device*> place = device({kernel.device, 0});
  if (!place) return place.status().message();
  AttentionProblem problem;
  problem.direction = kernel.traits.direction;
  problem.dtype = kernel.traits.dtype;
  problem.kv_dtype = kernel.traits.kv_dtype;
  problem.seq_q = problem.seq_kv = 1;
  for (const Candidate& candidate : explain(problem, {kernel.device, 0})) {
    if (candidate.kernel == kernel.id) return candidate.supported ? "" : candidate.reason;
  }
  return "the plan does not know it";
}

struct Feature {
  std::string_view title;
  bool FeatureSet::* member;
};
constexpr std::array kFeatures = {
    Feature{"window", &FeatureSet::window},   Feature{"softcap", &FeatureSet::softcap},
    Feature{"alibi", &FeatureSet::alibi},     Feature{"sinks", &FeatureSet::sinks},
    Feature{"bias", &FeatureSet::bias},       Feature{"mask", &FeatureSet::mask},
    Feature{"dropout", &FeatureSet::dropout}, Feature{"varlen", &FeatureSet::varlen},
    Feature{"lengths", &FeatureSet::lengths}, Feature{"paged", &FeatureSet::paged},
};

using Cells = std::vector<std::string>;

// A Markdown table with its columns padded, so that the text can be read as it is.
std::string markdown_table(const std::vector<Cells>& rows) {
  std::vector<std::size_t> widths(rows.front().size(), 3);
  for (const Cells& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t i = 0; i < widths.size(); ++i) text += fmt::format("| {:<{}} ", rows[r][i], widths[i]);
    text += "|\n";
    if (r != 0) continue;
    for (const std::size_t width : widths) text += fmt::format("| {:-<{}} ", "", width);
    text += "|\n";
  }
  return text;
}

const char* yes(bool value) { return value ? "yes" : "-"; }

std::string promises_table() {
  std::vector<Cells> rows = {
      {"kernel", "needs", "dtype", "kv dtype", "sums in", "direction", "exact", "NaN isolating", "KV chunk"}};
  for (const KernelInfo& kernel : kernels()) {
    const Traits& t = kernel.traits;
    rows.push_back({fmt::format("`{}`", kernel.id), std::string(t.isa), std::string(name(t.dtype)),
                    std::string(name(t.kv_dtype)), std::string(name(t.accumulation)),
                    std::string(name(t.direction)), yes(t.exact), yes(t.nan_isolating),
                    t.kv_chunk == 0 ? "-" : fmt::format("{}", t.kv_chunk)});
  }
  return markdown_table(rows);
}

std::string features_table() {
  std::vector<Cells> rows = {{"kernel"}};
  for (const Feature& feature : kFeatures) rows.front().emplace_back(feature.title);
  for (const KernelInfo& kernel : kernels()) {
    Cells row = {fmt::format("`{}`", kernel.id)};
    for (const Feature& feature : kFeatures) row.emplace_back(yes(kernel.features.*feature.member));
    rows.push_back(std::move(row));
  }
  return markdown_table(rows);
}

}  // namespace

std::string kernel_list() {
  const std::vector<KernelInfo> all = kernels();
  std::size_t width = 0;
  for (const KernelInfo& kernel : all) width = std::max(width, kernel.id.size());
  std::string text;
  for (const KernelInfo& kernel : all) {
    const Traits& t = kernel.traits;
    const std::string reason = obstacle(kernel);
    text += fmt::format("  {:<{}}  {}, {}{}{}: {}\n", kernel.id, width, name(t.direction), t.isa,
                        t.exact ? "" : ", approximate",
                        t.kv_dtype == t.dtype ? "" : fmt::format(", kv {}", name(t.kv_dtype)),
                        reason.empty() ? "runs here" : "cannot run here: " + reason);
  }
  for (const AbsentBackend& backend : absent_backends())
    text += fmt::format("  {}: none in this build: {}\n", backend.name, backend.reason);
  return text;
}

std::string support_matrix() {
  return fmt::format(
      R"(# What each kernel supports

Written by `headwise list matrix` from the kernels' own declarations; a test fails when this page differs. Renew it with

```
build/release/bin/headwise list matrix > docs/support-matrix.md
```

Kernels stand best first: a plan takes the first that can run the problem on the machine at hand (`headwise explain` tells which and why, `headwise list kernels` what this machine can run). What a word means is in [design.md](design.md), sections 4 and 5.

All of them have multi-head, grouped-query and multi-query attention, causal masks with both alignments, any strides, a softmax scale of any sign, LSE on request, and head_dim and head_dim_v from 1 to {}. Each forward kernel gives the same bits from run to run, and with any number of threads and batch neighbours; `naive_backward` does too.

## Types and promises

{}
- *needs*: the instruction set that the processor must have. *sums in*: the type of sums and softmax.
- *exact*: computes attention as the formula has it; others approximate it by design and are checked as such.
- *NaN isolating*: a NaN or infinity in a V row that only some queries may see does not reach the others. (In rows that no query may see, none ever does, with any kernel.)
- *KV chunk*: keys and values may be cut at multiples of this many keys and the parts merged in order; "-": never cut.

## Features

{}
- *window*: window_left and window_right. *mask*: boolean and additive. *varlen*: packed sequences (cu_seqlens). *lengths*: keys in use a sequence (lengths_kv, starts_kv). *paged*: block_table and page_size. Backward kernels with *bias* or *sinks* give dbias and dsinks on request. A call that uses what a kernel has not is refused with that reason, never computed otherwise.
)",
      kLargestHeadDim, promises_table(), features_table());
}

}  // namespace headwise::lab
