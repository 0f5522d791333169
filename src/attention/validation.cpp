#include "attention/validation.h"

#include <algorithm>
#include <array>
#include <string>

#include "attention/derive.h"
#include "attention/fields.h"
#include "core/try.h"

namespace headwise {
namespace {

constexpr TensorView kAbsent{};

std::string number(std::int64_t value) { return std::to_string(value); }

bool is_operand_dtype(DType dtype) { return dtype != DType::int32 && dtype != DType::boolean; }

// q, k, v and out on their own: rank, strides, reach, memory, dtype, device.
Status check_operands(const AttentionArgs& args, DeviceId device) {
  struct Operand {
    Argument tensor;
    std::string_view layout;
  };
  const bool paged = args.block_table.present();
  const std::array<Operand, 4> operands = {
      Operand{{"q", args.q}, "[batch, seq_q, heads, head_dim]"},
      Operand{{"k", args.k},
              paged ? "[pages, page_size, kv_heads, head_dim]" : "[batch, seq_kv, kv_heads, head_dim]"},
      Operand{{"v", args.v},
              paged ? "[pages, page_size, kv_heads, head_dim_v]" : "[batch, seq_kv, kv_heads, head_dim_v]"},
      Operand{{"out", args.out}, "[batch, seq_q, heads, head_dim_v]"}};
  for (const Operand& operand : operands) {
    HEADWISE_TRY(check_layout(operand.tensor, 4, operand.layout));
    HEADWISE_TRY(check_device(operand.tensor, device));
    HEADWISE_TRY(check_dtype(
        operand.tensor, {DType::f32, DType::f16, DType::bf16, DType::e4m3, DType::int8, DType::f64}, ""));
  }
  HEADWISE_TRY(check_dtype({"v", args.v}, {args.k.dtype}, "dtype of k"));
  return check_dtype({"out", args.out}, {args.q.dtype}, "dtype of q");
}

Status check_head_dim(const Argument& tensor, std::string_view field) {
  const std::int64_t extent = tensor.extent(3);
  if (extent >= 1 && extent <= kLargestHeadDim) return {};
  return Status::invalid_argument(std::string(tensor.name) + ".shape[3] (" + std::string(field) +
                                  "): expected 1 to " + number(kLargestHeadDim) + ", got " + number(extent));
}

Status check_head_groups(std::int64_t heads, std::int64_t kv_heads) {
  const bool divides = kv_heads == 0 ? heads == 0 : heads % kv_heads == 0;
  if (divides) return {};
  return Status::invalid_argument("kv_heads: expected a divisor of heads (" + number(heads) + "), got " +
                                  number(kv_heads) + "; k and v have one head for each group of heads of q");
}

// Extents of q, k, v and out against each other; which of them are batch and seq is told later.
Status check_operand_shapes(const AttentionArgs& args) {
  const Argument q{"q", args.q};
  const Argument k{"k", args.k};
  const Argument v{"v", args.v};
  const Argument out{"out", args.out};
  HEADWISE_TRY(check_head_dim(q, "head_dim"));
  HEADWISE_TRY(check_head_dim(v, "head_dim_v"));
  HEADWISE_TRY(check_extent(k, 3, q.extent(3), "head_dim of q"));
  HEADWISE_TRY(check_extent(v, 0, k.extent(0), "as k"));
  HEADWISE_TRY(check_extent(v, 1, k.extent(1), "as k"));
  HEADWISE_TRY(check_extent(v, 2, k.extent(2), "kv_heads of k"));
  HEADWISE_TRY(check_extent(out, 0, q.extent(0), "as q"));
  HEADWISE_TRY(check_extent(out, 1, q.extent(1), "as q"));
  HEADWISE_TRY(check_extent(out, 2, q.extent(2), "heads of q"));
  HEADWISE_TRY(check_extent(out, 3, v.extent(3), "head_dim_v of v"));
  return check_head_groups(q.extent(2), k.extent(2));
}

Status check_lse(const AttentionArgs& args, DeviceId device) {
  const Argument q{"q", args.q};
  const Argument lse{"lse", args.lse};
  if (!lse.view.present()) return {};
  HEADWISE_TRY(check_layout(lse, 3, "[batch, heads, seq_q]"));
  HEADWISE_TRY(check_device(lse, device));
  HEADWISE_TRY(check_dtype(lse, {DType::f32}, ""));
  HEADWISE_TRY(check_extent(lse, 0, q.extent(0), "as q.shape[0]"));
  HEADWISE_TRY(check_extent(lse, 1, q.extent(2), "heads of q"));
  HEADWISE_TRY(check_extent(lse, 2, q.extent(1), "as q.shape[1]"));
  return check_natural_alignment(lse);
}

bool has_gradients(const AttentionArgs& args) {
  return args.dout.present() || args.dq.present() || args.dk.present() || args.dv.present() ||
         args.dbias.present() || args.dsinks.present();
}

// A gradient has the shape, dtype and device of the tensor it belongs to.
Status check_gradient(const Argument& gradient, const Argument& of, std::string_view layout,
                      DeviceId device) {
  HEADWISE_TRY(check_layout(gradient, of.view.rank, layout));
  HEADWISE_TRY(check_device(gradient, device));
  HEADWISE_TRY(check_dtype(gradient, {of.view.dtype}, "dtype of " + std::string(of.name)));
  for (int axis = 0; axis < of.view.rank; ++axis)
    HEADWISE_TRY(check_extent(gradient, axis, of.extent(axis), "as " + std::string(of.name)));
  return {};
}

Status check_gradient_on_request(const Argument& gradient, const Argument& of, DeviceId device) {
  if (!gradient.view.present()) return {};
  const std::string name(of.name);
  if (!of.view.present())
    return Status::invalid_argument(std::string(gradient.name) + ": expected only with " + name);
  HEADWISE_TRY(check_gradient(gradient, of, "(as " + name + ")", device));
  return check_natural_alignment(gradient);
}

// Some of dout, dq, dk and dv are given: then all must be, and what forward gave beside them.
Status check_gradients(const AttentionArgs& args, DeviceId device) {
  for (const Argument& needed :
       {Argument{"dout", args.dout}, Argument{"dq", args.dq}, Argument{"dk", args.dk},
        Argument{"dv", args.dv}, Argument{"lse", args.lse}}) {
    if (needed.view.present()) continue;
    return Status::invalid_argument(
        std::string(needed.name) +
        ": missing; direction backward takes out and lse of forward and dout, and "
        "writes dq, dk and dv: give all of them, or no gradient for forward");
  }
  HEADWISE_TRY(
      check_gradient({"dout", args.dout}, {"out", args.out}, "[batch, seq_q, heads, head_dim_v]", device));
  HEADWISE_TRY(check_gradient({"dq", args.dq}, {"q", args.q}, "(as q)", device));
  HEADWISE_TRY(check_gradient({"dk", args.dk}, {"k", args.k}, "(as k)", device));
  HEADWISE_TRY(check_gradient({"dv", args.dv}, {"v", args.v}, "(as v)", device));
  HEADWISE_TRY(check_gradient_on_request({"dbias", args.dbias}, {"bias", args.bias}, device));
  return check_gradient_on_request({"dsinks", args.dsinks}, {"sinks", args.sinks}, device);
}

// What a call writes shares no byte with anything else it was given.
Status check_outputs(const AttentionArgs& args, Direction direction) {
  const bool backward = direction == Direction::backward;
  const std::array<Argument, 18> inputs = {
      Argument{"q", args.q},
      {"k", args.k},
      {"v", args.v},
      {"mask", args.mask},
      {"bias", args.bias},
      {"alibi_slopes", args.alibi_slopes},
      {"sinks", args.sinks},
      {"cu_seqlens_q", args.cu_seqlens_q},
      {"cu_seqlens_kv", args.cu_seqlens_kv},
      {"lengths_kv", args.lengths_kv},
      {"starts_kv", args.starts_kv},
      {"block_table", args.block_table},
      {"q_scale", args.q_scale},
      {"k_scale", args.k_scale},
      {"v_scale", args.v_scale},
      {"out", backward ? args.out : kAbsent},
      {"lse", backward ? args.lse : kAbsent},
      {"dout", args.dout},
  };
  const std::array<Argument, 5> outputs =
      backward
          ? std::array<Argument, 5>{Argument{"dq", args.dq},
                                    {"dk", args.dk},
                                    {"dv", args.dv},
                                    {"dbias", args.dbias},
                                    {"dsinks", args.dsinks}}
          : std::array<Argument, 5>{
                Argument{"out", args.out}, {"lse", args.lse}, {"", kAbsent}, {"", kAbsent}, {"", kAbsent}};
  const auto overlap = [](std::string_view output, std::string_view other) {
    return Status::invalid_argument(std::string(output) + ": shares memory with " + std::string(other) +
                                    "; give it memory of its own");
  };
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].view.present()) continue;
    HEADWISE_TRY(check_writable(outputs[i]));
    for (const Argument& input : inputs) {
      if (share_memory(outputs[i].view, input.view)) return overlap(outputs[i].name, input.name);
    }
    for (std::size_t j = 0; j < i; ++j) {
      if (share_memory(outputs[i].view, outputs[j].view)) return overlap(outputs[i].name, outputs[j].name);
    }
  }
  return {};
}

// Which option makes the place of queries among the keys matter; null: none.
const char* position_option(const AttentionProblem& p) {
  if (p.causal) return "causal";
  if (p.window_left >= 0) return "window_left";
  if (p.window_right >= 0) return "window_right";
  return p.alibi != AlibiKind::none ? "alibi_slopes" : nullptr;
}

Status check_align(const AttentionProblem& p) {
  if (p.align != Align::unspecified) return {};
  const char* const option = position_option(p);
  const bool lengths_vary = p.varlen || p.lengths;
  if (option == nullptr || (p.seq_q == p.seq_kv && !lengths_vary)) return {};
  const std::string why = p.seq_q != p.seq_kv
                              ? "seq_q " + number(p.seq_q) + " differs from seq_kv " + number(p.seq_kv)
                              : std::string("seq_q and seq_kv may differ in each sequence");
  return Status::invalid_argument("align: required with " + std::string(option) + ", because " + why +
                                  "; choose top_left (torch, ONNX without a cache) or bottom_right "
                                  "(flash-attention, decoding with a cache)");
}

// Bytes of every operand, and the number of scores, within 64 bits: kernels multiply freely.
Status check_volume(const AttentionProblem& p) {
  constexpr std::int64_t kLargestElement = 8;
  const std::int64_t rows_kv = p.page_size > 0 ? p.page_size : p.seq_kv;
  const std::int64_t sets_kv = p.page_size > 0 ? p.pages : p.batch;
  struct Volume {
    std::string_view name;
    std::array<std::int64_t, 4> sizes;
  };
  const std::array<Volume, 5> volumes = {Volume{"q", {p.batch, p.seq_q, p.heads, p.head_dim}},
                                         Volume{"out", {p.batch, p.seq_q, p.heads, p.head_dim_v}},
                                         Volume{"k", {sets_kv, rows_kv, p.kv_heads, p.head_dim}},
                                         Volume{"v", {sets_kv, rows_kv, p.kv_heads, p.head_dim_v}},
                                         Volume{"the score matrix", {p.batch, p.heads, p.seq_q, p.seq_kv}}};
  for (const Volume& volume : volumes) {
    std::int64_t bytes = kLargestElement;
    bool overflow = false;
    bool empty = false;
    for (const std::int64_t size : volume.sizes) {
      empty = empty || size == 0;
      overflow = __builtin_mul_overflow(bytes, size, &bytes) || overflow;
    }
    if (empty || !overflow) continue;
    return Status::invalid_argument(std::string(volume.name) + ": its sizes " + number(volume.sizes[0]) +
                                    " x " + number(volume.sizes[1]) + " x " + number(volume.sizes[2]) +
                                    " x " + number(volume.sizes[3]) +
                                    " make more bytes than 64 bits can count");
  }
  return {};
}

Status check_words(const AttentionProblem& p) {
  if (!is_operand_dtype(p.dtype) || !is_operand_dtype(p.kv_dtype)) {
    return Status::invalid_argument(std::string(is_operand_dtype(p.dtype) ? "kv_dtype" : "dtype") +
                                    ": expected f32, f16, bf16, e4m3, int8 or f64, got " +
                                    std::string(name(is_operand_dtype(p.dtype) ? p.kv_dtype : p.dtype)));
  }
  if ((p.pointer_alignment & (p.pointer_alignment - 1)) != 0) {
    return Status::invalid_argument("pointer_alignment: expected 1, 2, 4, 8 or 16, got " +
                                    number(p.pointer_alignment));
  }
  if (p.mask == MaskKind::none && p.mask_axes != 0) {
    return Status::invalid_argument("mask_axes: expected none, because there is no mask");
  }
  if (!p.bias && p.bias_axes != 0) {
    return Status::invalid_argument("bias_axes: expected none, because there is no bias");
  }
  if (p.dbias && !p.bias) return Status::invalid_argument("dbias: expected 0, because there is no bias");
  if (p.dsinks && !p.sinks) return Status::invalid_argument("dsinks: expected 0, because there are no sinks");
  if ((p.dbias || p.dsinks) && p.direction == Direction::forward) {
    return Status::invalid_argument(std::string(p.dbias ? "dbias" : "dsinks") +
                                    ": expected 0 with direction forward");
  }
  if (p.page_size == 0 && p.pages != 0) {
    return Status::invalid_argument("page_size: expected at least 1, because pages is " + number(p.pages));
  }
  if (!p.varlen && (p.total_q != 0 || p.total_kv != 0)) {
    return Status::invalid_argument("varlen: expected 1, because total_q or total_kv is given");
  }
  return {};
}

Status compare_with_plan(const AttentionProblem& actual, const AttentionProblem& planned) {
  if (actual == planned) return {};
  for (const Field& field : problem_fields()) {
    if (equal_value(field, actual, planned)) continue;
    if (field.maximum_of_plan) {
      const auto member = std::get<MemberOf<std::int64_t>>(field.member);
      if (actual.*member < planned.*member) continue;
    }
    const bool alignment = field.name == "pointer_alignment";
    if (alignment && actual.pointer_alignment > planned.pointer_alignment) continue;
    const char* const relation = alignment ? "at least " : field.maximum_of_plan ? "at most " : "";
    return Status::invalid_argument(std::string(field.name) + ": the plan was made for " + relation +
                                    value_text(field, planned) + ", got " + value_text(field, actual) +
                                    "; make a plan for this problem");
  }
  return {};
}

}  // namespace

Status derive_problem(const AttentionArgs& args, DeviceId device, AttentionProblem& problem) {
  HEADWISE_TRY(check_operands(args, device));
  HEADWISE_TRY(check_operand_shapes(args));
  problem.dtype = args.q.dtype;
  problem.kv_dtype = args.k.dtype;
  problem.heads = args.q.shape[2];
  problem.kv_heads = args.k.shape[2];
  problem.head_dim = args.q.shape[3];
  problem.head_dim_v = args.v.shape[3];
  problem.direction = has_gradients(args) ? Direction::backward : Direction::forward;
  problem.lse = args.lse.present() && problem.direction == Direction::forward;
  problem.dbias = args.dbias.present();
  problem.dsinks = args.dsinks.present();
  HEADWISE_TRY(derive_sequences(args, device, problem));
  HEADWISE_TRY(check_lse(args, device));
  HEADWISE_TRY(derive_score_features(args, device, problem));
  if (problem.direction == Direction::backward) HEADWISE_TRY(check_gradients(args, device));
  HEADWISE_TRY(check_outputs(args, problem.direction));
  problem.pointer_alignment = 16;
  for (const TensorView* view :
       {&args.q, &args.k, &args.v, &args.out, &args.dout, &args.dq, &args.dk, &args.dv}) {
    if (view->present())
      problem.pointer_alignment = std::min(problem.pointer_alignment, alignment_of({"", *view}));
  }
  return {};
}

Status describe_call(const AttentionArgs& args, const AttentionOptions& options, AttentionProblem& problem) {
  problem.softmax_scale = options.softmax_scale;
  problem.causal = options.causal;
  problem.align = options.align;
  problem.window_left = options.window_left;
  problem.window_right = options.window_right;
  problem.softcap = options.softcap;
  problem.dropout_p = options.dropout_p;
  problem.page_size = options.page_size;
  problem.deterministic = options.deterministic;
  problem.batch_invariant = options.batch_invariant;
  return derive_problem(args, args.q.device, problem);
}

Result<AttentionProblem> make_problem(const AttentionArgs& args, const AttentionOptions& options) {
  AttentionProblem problem;
  HEADWISE_TRY(describe_call(args, options, problem));
  HEADWISE_TRY(validate(problem));
  return problem;
}

Status validate(const AttentionProblem& problem) {
  for (const Field& field : problem_fields()) HEADWISE_TRY(check_range(field, problem));
  HEADWISE_TRY(check_words(problem));
  HEADWISE_TRY(check_head_groups(problem.heads, problem.kv_heads));
  HEADWISE_TRY(check_volume(problem));
  return check_align(problem);
}

Status check_arguments(const AttentionArgs& args, const AttentionProblem& planned, DeviceId device,
                       AttentionProblem& actual) {
  actual = planned;
  HEADWISE_TRY(derive_problem(args, device, actual));
  HEADWISE_TRY(compare_with_plan(actual, planned));
  return check_align(actual);
}

}  // namespace headwise
