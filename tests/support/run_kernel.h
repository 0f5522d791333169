// Shared by the tests of kernels: running a plan, bits of outputs, planted values.
#pragma once

#include <cstddef>
#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

#include "headwise/headwise.h"

namespace headwise {
// How GoogleTest names a kernel in its messages.
void PrintTo(const KernelInfo& kernel, std::ostream* stream);
}  // namespace headwise

namespace headwise::numerics {

Device& cpu();
std::vector<KernelInfo> forward_kernels();
std::vector<KernelInfo> backward_kernels();
// Empty, or why this machine cannot run the kernel at all.
std::string cannot_run_here(const KernelInfo& kernel);
std::string test_name(std::string_view id);
std::string captured_file();

class OwnedWorkspace {
 public:
  explicit OwnedWorkspace(std::size_t bytes);
  OwnedWorkspace(const OwnedWorkspace&) = delete;
  OwnedWorkspace& operator=(const OwnedWorkspace&) = delete;
  ~OwnedWorkspace();
  [[nodiscard]] Workspace get() const { return workspace_; }

 private:
  Workspace workspace_{};
};

// With a workspace of exactly the planned size, full of NaN.
Status run(const Plan& plan, const AttentionArgs& args);

// out, then lse where present, in the order [batch][seq][head][dim], whatever the strides.
std::vector<std::byte> output_bits(const AttentionArgs& args);
// Of those bits: the part of one batch item; of the first `rows` queries.
std::vector<std::byte> output_bits_of_batch(const std::vector<std::byte>& bits, const AttentionArgs& args,
                                            std::int64_t batch);
std::vector<std::byte> output_bits_of_rows(const std::vector<std::byte>& bits, const AttentionArgs& args,
                                           std::int64_t rows);

AttentionArgs batch_item(const AttentionArgs& args, std::int64_t batch);
AttentionArgs without_k(AttentionArgs args);
AttentionArgs without_v(AttentionArgs args);
// Sets rows [begin, end) of k and v, where present, to a value.
void fill_keys(const AttentionArgs& args, std::int64_t begin, std::int64_t end, double value);
// Makes q and k such that key j scores about first + (last - first) * j / seq_kv with every query.
void ramp_scores(const AttentionArgs& args, double first, double last);

}  // namespace headwise::numerics
