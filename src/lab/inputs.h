// The tensors of one case: seeded or captured values, the same on every device, in buffers that
// tell when something wrote beside them.
//
//   auto inputs = make_inputs(problem, {.kind = InputKind::normal, .seed = 1}, device);
//   poison(*inputs);                          // outputs become NaN
//   plan->run(inputs->args());                // the contender
//   Verdict verdict = verify(*inputs, reference);   // verify.h
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "headwise/attention.h"
#include "headwise/device.h"
#include "oracle/oracle.h"

namespace headwise::lab {

enum class InputKind : std::uint8_t {
  normal,      // standard normal, through a committed table of the inverse cumulative distribution
  uniform,     // [-1, 1)
  structured,  // q and k as a trained model's attend: structured.h; v normal
  captured,    // q, k, v of a real model, from a safetensors file of tools/capture_qkv.py; dout normal
};
std::string_view name(InputKind kind);

enum class Layout : std::uint8_t { bshd, bhsd };  // order in memory; the views are BSHD either way

struct InputSpec {
  InputKind kind = InputKind::normal;
  std::uint64_t seed = 1;  // of all but what is captured
  std::string file{};      // captured
  int layer = 0;           // captured: tensors layer.<layer>.q, .k, .v
  bool plant = true;       // dominant keys where faults would hide: see plants()

  Layout layout = Layout::bshd;
  std::int64_t row_padding = 0;  // elements behind each row of head_dim; they hold NaN
  std::int64_t offset = 0;       // elements between the aligned start of a buffer and its tensor

  bool hidden_nan = true;       // K and V of keys that a mask hides from every query hold NaN
  std::int64_t mask_short = 0;  // keys that the last axis of a mask lacks: they are hidden
};

// "normal", "uniform", "structured", "captured:<file>:<layer>"; the rest of a spec is not part of the text.
std::string to_string(const InputSpec& spec);
Result<InputSpec> parse_input_spec(std::string_view text);

// A key that dominates the softmax of one row (about nine tenths of it, shared by the planted keys
// of the row), so that losing it, or reading it where it is forbidden, changes the row's output by
// more than any rounding. The K row is a multiple of the row's query, the V row twice its old value.
struct Plant {
  oracle::RowId row;
  std::int64_t key = 0;
  bool visible = true;  // false: the first key beyond the row's range
};
// Up to 16 rows a (sequence, kv head): at the ends of the sequence, round multiples of 64 and 512, and
// random ones. For each the last allowed, the first forbidden (either side), the first key, the first of the
// range that a mask hides, and two at tile edges (multiples of 64; multiples of 512 and their neighbours), as
// far as no other row has taken the key, and as far as it is a key in use and holds no NaN. Captured inputs
// carry those of the last kv head alone, structured ones those of local and match heads at other keys than
// the sinks: the rest stays real. `host_args` is needed for problems with varlen, lengths, starts, page_size
// or a mask: their tensors tell what a row may see.
std::vector<Plant> plants(const AttentionProblem& problem, const AttentionArgs& host_args = {});

// Where a buffer came from; frees itself. Guard bands of kGuardBytes lie before and after the data.
inline constexpr std::size_t kGuardBytes = 4096;
struct Buffer {
  Buffer() = default;
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();
  Device* device = nullptr;
  std::byte* base = nullptr;  // on the device
  std::byte* host = nullptr;  // the same memory where the device is the CPU, else a copy of it
  std::unique_ptr<std::byte[]> copy;
  std::size_t bytes = 0;  // guards included
};

class Inputs {
 public:
  static constexpr std::size_t kTensors = 20;  // tensors_of() of input_tensors.h lists them
  // With what it left open decided: completed() of sequence_inputs.h.
  [[nodiscard]] const AttentionProblem& problem() const noexcept { return problem_; }
  [[nodiscard]] const InputSpec& spec() const noexcept { return spec_; }
  // For contenders: on the device, index arrays in host memory. Forward: out, and lse where the problem asks
  // for it; backward: dout, dq, dk and dv, dbias and dsinks where asked for, and neither out nor lse: who
  // needs them computes them first, untimed.
  [[nodiscard]] const AttentionArgs& args() const noexcept { return args_; }
  // The same values in host memory, for the oracle. Outputs are those of the last fetch_outputs().
  [[nodiscard]] const AttentionArgs& host_args() const noexcept { return host_args_; }
  [[nodiscard]] const std::vector<Plant>& planted() const noexcept { return planted_; }
  [[nodiscard]] std::size_t device_bytes() const noexcept;  // of all buffers, guards included
  // Brings the outputs to the host (nothing to do on a CPU). Waits for nothing: synchronize first.
  Status fetch_outputs();

 private:
  friend Result<Inputs> make_inputs(const AttentionProblem& problem, const InputSpec& spec, Device& device);
  friend Status poison(Inputs& inputs);
  friend Status check_guards(const Inputs& inputs);
  Status allocate();

  AttentionProblem problem_;
  InputSpec spec_;
  Device* device_ = nullptr;
  std::array<Buffer, kTensors> buffers_;  // empty where the problem has no such tensor
  AttentionArgs args_;
  AttentionArgs host_args_;
  std::vector<Plant> planted_;
};

// The value of an element depends on seed, tensor and its logical place (sequence, position within it, head,
// channel) alone: not on layout, packing, pages, device or the sizes of the problem, so a longer case begins
// with the shorter one (planted keys aside). Slots of K and V that no query may see hold NaN: beside the keys
// in use, on spare pages, and (spec.hidden_nan) where a mask hides the key from everybody. Structured queries
// depend besides on where they stand among the keys (so a decoded query is the last of the prefill it
// continues), on the kv head that they read, and, with keys, on head_dim, whose root their logits are divided
// by. Never zero, always finite. A captured case has the file's heads and head_dims, and its batch and tokens
// or fewer; more is `unsupported`. With align bottom_right and fewer queries than keys the queries are the
// last tokens of the prefix.
Result<Inputs> make_inputs(const AttentionProblem& problem, const InputSpec& spec, Device& device);

// Memory that make_inputs will take for packed tensors; the largest size_t where the sizes overflow.
std::size_t input_bytes(const AttentionProblem& problem);

// The case a captured layer stands for: sizes, softmax_scale and causal as the file tells them,
// dtype f16 (the caller may choose another).
Result<AttentionProblem> captured_problem(const std::string& file, int layer);
// Layers in the file, ascending.
Result<std::vector<int>> captured_layers(const std::string& file);

// Fills the outputs (out and lse; dq, dk, dv, dbias and dsinks), with all that lies round and between their
// rows, with NaN (0xff bytes): call before each contender is verified. Guard bands and padding of inputs hold
// NaN from the start.
Status poison(Inputs& inputs);
// Whether nobody wrote where no element is: guard bands of all tensors, padding of the last fetched outputs.
Status check_guards(const Inputs& inputs);

}  // namespace headwise::lab
