// Scaled dot-product attention: out = softmax(softmax_scale * q k^T + ...) v.
//
//   headwise::AttentionArgs args{.q = q, .k = k, .v = v, .out = out};
//   headwise::Status status = headwise::attention(args, {.causal = true});
//
// or, to choose once and run often without allocating:
//
//   auto problem = headwise::make_problem(args, {.causal = true});
//   auto plan = headwise::plan(*problem);
//   plan->run(args, {.workspace = {memory, plan->workspace_bytes()}});
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "headwise/status.h"
#include "headwise/tensor.h"

namespace [[gnu::visibility("default")]] headwise {

enum class Direction : std::uint8_t { forward, backward };

// Where query i stands among the keys: top_left at i' = i (torch, ONNX without a cache),
// bottom_right at i' = i + seq_kv - seq_q (flash-attention, decoding with a cache). causal, the
// window and ALiBi all use i'. Required when seq_q != seq_kv and one of them is set.
enum class Align : std::uint8_t { unspecified, top_left, bottom_right };

enum class MaskKind : std::uint8_t { none, boolean, additive };
enum class AlibiKind : std::uint8_t { none, per_head, per_batch_head };

// Which of an operand's leading axes vary; the others broadcast.
enum BroadcastAxes : std::uint8_t { kAxisBatch = 1, kAxisHeads = 2, kAxisQueries = 4 };

// The tensors of one call. All strides in elements; innermost stride 1; never written except the outputs:
// out and lse, or, where gradients are given, dq, dk and dv.
struct AttentionArgs {
  TensorView q;      // [batch, seq_q, heads, head_dim]
  TensorView k;      // [batch, seq_kv, kv_heads, head_dim]; heads % kv_heads == 0
  TensorView v;      // [batch, seq_kv, kv_heads, head_dim_v]
  TensorView out;    // [batch, seq_q, heads, head_dim_v], dtype of q
  TensorView lse{};  // optional f32 [batch, heads, seq_q]: natural log of the sum of exp(scores)

  // Optional features; a kernel that lacks one says so (explain()).
  // bool (true = attend) or floating, added (-inf hides); [batch|1, heads|1, seq_q|1, seq_kv or fewer]: keys
  // behind its last axis are hidden
  TensorView mask{};
  TensorView bias{};          // floating, added to the scores; [batch|1, heads|1, seq_q|1, seq_kv]
  TensorView alibi_slopes{};  // f32 [heads] or [batch, heads]
  TensorView sinks{};         // f32 [heads]: a logit that joins the denominator
  TensorView cu_seqlens_q{};  // int32 [sequences + 1]: packed rows, then batch is 1
  TensorView cu_seqlens_kv{};
  // int32 [batch]: keys in use of each sequence are [starts_kv, lengths_kv), left and right padding being
  // beside them; without one of the two, from the first key or to the last. Keys keep their places; align
  // counts from the end.
  TensorView lengths_kv{};
  TensorView starts_kv{};
  TensorView block_table{};  // int32 [batch, pages of a sequence]; k and v are [pages, page_size, kv_heads,
                             // head_dim]
  TensorView q_scale{}, k_scale{}, v_scale{};  // quantised dtypes
  std::uint64_t dropout_seed = 0;
  std::uint64_t dropout_offset = 0;  // below 2^32

  // Direction backward: dout comes in, the gradients of q, k and v go out; all four or none. out and lse are
  // then what forward gave for the same q, k and v: both are required and read. (Where keys lie in parts, out
  // and lse of all of them: each part's call gives its share of dq, and its own dk and dv.) Every row of a
  // gradient is written: slots of k and v that no sequence uses (beside the keys in use, on pages of nobody)
  // get zeros, a page that serves several sequences the sum of theirs.
  TensorView dout{};  // [batch, seq_q, heads, head_dim_v], dtype of q: gradient of out
  TensorView dq{};    // shape and dtype of q
  TensorView dk{};    // shape and dtype of k: summed over the heads that share it
  TensorView dv{};    // shape and dtype of v
  // On request, besides:
  TensorView dbias{};   // shape and dtype of bias: summed over the axes that broadcast
  TensorView dsinks{};  // f32 [heads]
};

struct AttentionOptions {
  std::optional<float> softmax_scale{};  // default 1 / sqrt(head_dim); finite, any sign
  bool causal = false;
  Align align = Align::unspecified;
  std::int64_t window_left = -1;   // keys j >= i' - window_left; -1: open
  std::int64_t window_right = -1;  // keys j <= i' + window_right; -1: open
  float softcap = 0;               // scores become softcap * tanh(score / softcap); 0: off
  float dropout_p = 0;             // [0, 1); rounded to a multiple of 1/65536 below 1
  std::int64_t page_size = 0;      // with block_table
  bool deterministic = false;      // backward: same bits from run to run (forward always has them)
  bool batch_invariant = false;    // the choice of kernel looks at neither batch nor threads
};

// All that decides which kernel can run and which is best. Sizes are maxima: Plan::run takes any
// smaller ones. Prints as one line of key=value words and parses back.
struct AttentionProblem {
  Direction direction = Direction::forward;
  DType dtype = DType::f32;     // of q and out
  DType kv_dtype = DType::f32;  // of k and v
  std::int64_t batch = 1;       // sequences, also where varlen packs their rows into one batch
  std::int64_t heads = 1;
  std::int64_t kv_heads = 1;
  std::int64_t seq_q = 0;
  std::int64_t seq_kv = 0;
  std::int64_t head_dim = 64;
  std::int64_t head_dim_v = 64;
  std::optional<float> softmax_scale{};
  bool causal = false;
  Align align = Align::unspecified;
  std::int64_t window_left = -1;
  std::int64_t window_right = -1;
  float softcap = 0;
  AlibiKind alibi = AlibiKind::none;
  bool sinks = false;
  bool bias = false;
  std::uint8_t bias_axes = 0;  // BroadcastAxes that vary
  MaskKind mask = MaskKind::none;
  std::uint8_t mask_axes = 0;
  float dropout_p = 0;
  bool varlen = false;       // cu_seqlens given: seq_q and seq_kv are the longest sequence
  std::int64_t total_q = 0;  // rows of all sequences; varlen
  std::int64_t total_kv = 0;
  bool lengths = false;    // lengths_kv given
  bool starts = false;     // starts_kv given
  std::int64_t pages = 0;  // paged cache: pages in k and v
  std::int64_t page_size = 0;
  bool lse = false;    // forward: lse wanted; backward always reads it
  bool dbias = false;  // backward: wanted
  bool dsinks = false;
  // In bytes, 1 to 16, what base addresses and outer strides of q, k, v, out and their gradients have at
  // least.
  int pointer_alignment = 1;
  int threads = 0;  // 0: all the device offers
  bool deterministic = false;
  bool batch_invariant = false;

  friend bool operator==(const AttentionProblem&, const AttentionProblem&) = default;
  [[nodiscard]] float scale() const noexcept;  // softmax_scale or 1 / sqrt(head_dim)
  // Keys to the right of which no query may look: i' = i + query_offset().
  [[nodiscard]] std::int64_t query_offset() const noexcept {
    return align == Align::bottom_right ? seq_kv - seq_q : 0;
  }
};

// "batch=1 heads=8 ... causal=1 align=bottom_right": the sizes always, the rest where it differs
// from the default. parse_problem names the word it does not know and its nearest match.
std::string to_string(const AttentionProblem& problem);
Result<AttentionProblem> parse_problem(std::string_view text);
std::size_t hash(const AttentionProblem& problem) noexcept;
std::string_view name(Align align);
std::string_view name(Direction direction);

// Checks the tensors and options against each other and derives the problem; any of dout, dq, dk and dv makes
// it direction backward. Reads no element but
// those of index arrays (cu_seqlens, lengths, block_table) in host memory.
Result<AttentionProblem> make_problem(const AttentionArgs& args, const AttentionOptions& options = {});
// Checks a hand-written problem: sizes, dtypes, required align.
Status validate(const AttentionProblem& problem);

// Cost by the mask exactly as it stands: pairs (query, key) that may attend.
struct Cost {
  double pairs = 0;          // summed over batch and heads
  double flops = 0;          // 2 * (head_dim + head_dim_v) a pair, forward; backward 2.5 times that
  double bytes_read = 0;     // q, k, v (and mask, bias) once; backward: out, dout and lse too
  double bytes_written = 0;  // out, and lse where wanted; backward: dq, dk, dv
  [[nodiscard]] double least_bytes() const noexcept { return bytes_read + bytes_written; }
};
Cost cost(const AttentionProblem& problem);

struct Workspace {
  void* data = nullptr;
  std::size_t bytes = 0;
};

// A thread pool of the caller's. run() calls task(task_context, index, worker) once for each index
// below count, from at most `threads` workers numbered from 0, and returns when all are done.
struct Executor {
  void* context = nullptr;
  int threads = 1;
  void (*run)(void* context, std::int64_t count,
              void (*task)(void* task_context, std::int64_t index, int worker), void* task_context) = nullptr;
};

struct Execution {
  void* stream = nullptr;              // cudaStream_t on a GPU; ignored on a CPU
  Workspace workspace{};               // 64-byte aligned (256 on a GPU)
  int threads = 0;                     // attention() only: 0 is all; a plan has its own
  std::string_view kernel{};           // attention() only: force this kernel, or fail saying why not
  const Executor* executor = nullptr;  // CPU: use this pool instead of Headwise's
};

struct Kernel;  // headwise/kernels.h tells what is known of one; its inside is the library's
struct Policy;

// A kernel chosen for a problem. Copyable, immutable, safe to run from many threads at once.
class Plan {
 public:
  [[nodiscard]] std::string_view kernel() const noexcept;  // its id, "cpu/avx512/flash/f32"
  [[nodiscard]] const AttentionProblem& problem() const noexcept { return problem_; }
  [[nodiscard]] DeviceId device() const noexcept { return device_; }
  [[nodiscard]] std::size_t workspace_bytes() const noexcept { return workspace_bytes_; }
  // Allocates nothing and throws nothing. Refuses, before it writes, arguments that are not the
  // planned problem at the same or smaller sizes, and a null, small or misaligned workspace.
  Status run(const AttentionArgs& args, const Execution& execution = {}) const noexcept;

 private:
  friend struct PlanBuilder;
  const Kernel* kernel_ = nullptr;
  const Policy* policy_ = nullptr;
  AttentionProblem problem_{};
  DeviceId device_{};
  std::size_t workspace_bytes_ = 0;
};

// The best kernel that supports the problem; or the forced one: `kernel`, else the environment's
// HEADWISE_KERNEL=id[,id] (at most one a direction). A forced kernel that cannot run is an error
// (`unsupported`, with the kernel's reason), never a quiet fallback.
Result<Plan> plan(const AttentionProblem& problem, DeviceId device = {}, std::string_view kernel = {});

// Every kernel of the device's backend, best first, with why it was chosen or cannot run.
struct Candidate {
  std::string_view kernel;
  bool supported = false;
  bool chosen = false;
  std::string reason;  // why chosen, why not, or why it cannot
};
std::vector<Candidate> explain(const AttentionProblem& problem, DeviceId device = {});

// Plans (remembering plans), finds a workspace, runs. `execution.workspace` may be empty.
Status attention(const AttentionArgs& args, const AttentionOptions& options = {},
                 const Execution& execution = {});

}  // namespace headwise
