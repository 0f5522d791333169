#include "lab/axis_tables.h"

#include "lab/data_files.h"

namespace headwise::lab {
namespace {

constexpr std::int64_t kMaxThreads = 4'096;  // what no machine has today

Status set_dtype(DType& target, const std::string& value) {
  Result<DType> dtype = parse_dtype(value);
  if (!dtype) return dtype.status();
  target = *dtype;
  return {};
}

Status set_align(Draft& d, const std::string& value) {
  d.result.problem.align = value == "top_left" ? Align::top_left : Align::bottom_right;
  return {};
}

Status set_scale(Draft& d, const std::string& value) {
  d.result.problem.softmax_scale = core::parse_number<float>(value);
  return {};
}

std::string show_scale(const Case& c) {
  return c.problem.softmax_scale ? core::shortest(*c.problem.softmax_scale) : "";
}

Status set_inputs(Draft& d, const std::string& value) {
  Result<InputSpec> spec = find_inputs(value);
  if (!spec) return spec.status();
  const std::uint64_t seed = d.result.inputs.seed;
  d.result.inputs = *std::move(spec);
  d.result.inputs.seed = seed;
  d.result.inputs_text = value;
  return {};
}

Status set_device(Draft& d, const std::string& value) {
  Result<DeviceId> id = parse_device(value);
  if (!id) return id.status();
  d.result.device = *id;
  return {};
}

Status set_names(std::vector<std::string>& target, const std::string& value) {
  for (const std::string_view part : core::split(value, ',')) {
    if (part.empty()) return Status::invalid_argument(fmt::format("'{}' has an empty name", value));
    target.emplace_back(part);
  }
  return {};
}

// Shorter lines below. Each entry says how a value enters a draft and how a case shows it.
using D = Draft&;
using V = const std::string&;
using C = const Case&;

}  // namespace

std::vector<Axis> size_axes() {
  return {
      {"batch",
       AxisType::integer,
       "1",
       "sequences",
       {},
       0,
       [](D d, V v) {
         d.batch = to_integer(v);
         return Status();
       },
       [](C c) { return shown(c.problem.batch); }},
      {"heads",
       AxisType::integer,
       "8",
       "query heads",
       {},
       1,
       [](D d, V v) {
         d.heads = to_integer(v);
         return Status();
       },
       [](C c) { return shown(c.problem.heads); }},
      {"kv-heads",
       AxisType::integer,
       "as heads",
       "key and value heads; must divide heads (fewer: GQA, 1: MQA)",
       {},
       1,
       [](D d, V v) {
         d.kv_heads = to_integer(v);
         return Status();
       },
       [](C c) { return c.problem.kv_heads == c.problem.heads ? "" : shown(c.problem.kv_heads); }},
      {"head-dim",
       AxisType::integer,
       "64",
       "elements of a head of q and k",
       {},
       1,
       [](D d, V v) {
         d.head_dim = to_integer(v);
         return Status();
       },
       [](C c) { return shown(c.problem.head_dim); }},
      {"head-dim-v",
       AxisType::integer,
       "as head-dim",
       "elements of a head of v and out",
       {},
       1,
       [](D d, V v) {
         d.head_dim_v = to_integer(v);
         return Status();
       },
       [](C c) { return c.problem.head_dim_v == c.problem.head_dim ? "" : shown(c.problem.head_dim_v); }},
  };
}

std::vector<Axis> mask_axes() {
  return {
      {"causal",
       AxisType::boolean,
       "0",
       "query i sees no key to the right of its own place",
       {},
       0,
       [](D d, V v) {
         d.causal = to_boolean(v) ? 1 : 0;
         return Status();
       },
       [](C c) {
         // A captured file has a causal of its own that a 0 must override.
         if (c.problem.causal) return std::string("1");
         return std::string(c.inputs.kind == InputKind::captured ? "0" : "");
       }},
      {"align",
       AxisType::choice,
       "none",
       "where query i stands: top_left at key i, bottom_right at key i + seq_kv - seq_q; needed when causal "
       "or a window is set and seq_q differs from seq_kv",
       {"top_left", "bottom_right"},
       0,
       set_align,
       [](C c) { return c.problem.align == Align::unspecified ? "" : std::string(name(c.problem.align)); }},
      {"window-left",
       AxisType::integer,
       "-1",
       "keys a query sees to its left; -1: all",
       {},
       -1,
       [](D d, V v) {
         d.result.problem.window_left = to_integer(v);
         return Status();
       },
       [](C c) { return c.problem.window_left < 0 ? "" : shown(c.problem.window_left); }},
      {"window-right",
       AxisType::integer,
       "-1",
       "keys a query sees to its right; -1: all",
       {},
       -1,
       [](D d, V v) {
         d.result.problem.window_right = to_integer(v);
         return Status();
       },
       [](C c) { return c.problem.window_right < 0 ? "" : shown(c.problem.window_right); }},
      {"softmax-scale",
       AxisType::number,
       "1/sqrt(head-dim)",
       "factor of the scores",
       {},
       0,
       set_scale,
       show_scale},
      {"lse",
       AxisType::boolean,
       "0",
       "the log-sum-exp is wanted too, and verified",
       {},
       0,
       [](D d, V v) {
         d.result.problem.lse = to_boolean(v);
         return Status();
       },
       [](C c) { return std::string(c.problem.lse ? "1" : ""); }},
  };
}

std::vector<Axis> sequence_axes() {
  return {
      {"seq",
       AxisType::integer,
       "1024",
       "queries and keys a sequence: sets seq-q and seq-kv",
       {},
       0,
       [](D d, V v) {
         d.seq = to_integer(v);
         return Status();
       },
       [](C c) { return c.problem.seq_q == c.problem.seq_kv ? shown(c.problem.seq_q) : ""; }},
      {"seq-q",
       AxisType::integer,
       "as seq",
       "queries a sequence; 1 is decoding",
       {},
       0,
       [](D d, V v) {
         d.seq_q = to_integer(v);
         return Status();
       },
       [](C c) { return c.problem.seq_q == c.problem.seq_kv ? "" : shown(c.problem.seq_q); }},
      {"seq-kv",
       AxisType::integer,
       "as seq",
       "keys a sequence",
       {},
       0,
       [](D d, V v) {
         d.seq_kv = to_integer(v);
         return Status();
       },
       [](C c) { return c.problem.seq_q == c.problem.seq_kv ? "" : shown(c.problem.seq_kv); }},
  };
}

std::vector<Axis> place_axes() {
  return {
      {"preset",
       AxisType::text,
       "none",
       "sizes of a known model (headwise list presets); words given beside it take the place of its own",
       {},
       0,
       [](D d, V v) {
         d.result.preset = v;
         return Status();
       },
       unshown},
      {"device",
       AxisType::text,
       "cpu",
       "cpu, cuda:0, ...",
       {},
       0,
       set_device,
       [](C c) { return c.device == DeviceId{} ? "" : to_string(c.device); }},
      {"dtype",
       AxisType::choice,
       "f32",
       "element type of q and out",
       {"f32", "f16", "bf16"},
       0,
       [](D d, V v) { return set_dtype(d.result.problem.dtype, v); },
       [](C c) { return std::string(name(c.problem.dtype)); }},
      {"kv-dtype",
       AxisType::choice,
       "as dtype",
       "element type of k and v",
       {"f32", "f16", "bf16", "e4m3", "int8"},
       0,
       [](D d, V v) {
         d.kv_dtype_given = true;
         return set_dtype(d.result.problem.kv_dtype, v);
       },
       [](C c) {
         return c.problem.kv_dtype == c.problem.dtype ? "" : std::string(name(c.problem.kv_dtype));
       }},
      {"direction",
       AxisType::choice,
       "forward",
       "forward, or backward for the gradients",
       {"forward", "backward"},
       0,
       [](D d, V v) {
         d.result.problem.direction = v == "backward" ? Direction::backward : Direction::forward;
         return Status();
       },
       [](C c) {
         return c.problem.direction == Direction::forward ? "" : std::string(name(c.problem.direction));
       }},
      {"inputs",
       AxisType::text,
       "normal",
       "normal, uniform, structured (attends as a trained model does), captured (every layer of the recorded "
       "model), captured:<layer>, or "
       "captured:<file>:<layer> (made by tools/capture_qkv.py)",
       {},
       0,
       set_inputs,
       [](C c) { return c.inputs_text; }},
      {"seed",
       AxisType::integer,
       "1",
       "of generated inputs",
       {},
       0,
       [](D d, V v) {
         d.result.inputs.seed = static_cast<std::uint64_t>(to_integer(v));
         return Status();
       },
       [](C c) { return c.inputs.seed == 1 ? "" : fmt::format("{}", c.inputs.seed); }},
  };
}

std::vector<Axis> contender_axes() {
  return {
      {"cache",
       AxisType::choice,
       "hot",
       "hot: the same buffers again and again; cold: caches are emptied before each timed call",
       {"hot", "cold"},
       0,
       [](D d, V v) {
         d.result.cold = v == "cold";
         return Status();
       },
       [](C c) { return std::string(c.cold ? "cold" : ""); }},
      {"threads",
       AxisType::integer,
       "0",
       "threads a kernel may use; 0: all that this process has",
       {},
       0,
       [](D d, V v) {
         const std::int64_t threads = to_integer(v);
         if (threads > kMaxThreads)
           return wrong_value(v, fmt::format("at most {} (0: all that this process has)", kMaxThreads));
         d.result.problem.threads = static_cast<int>(threads);
         return Status();
       },
       [](C c) { return shown(c.problem.threads); }},
      {"kernels",
       AxisType::names,
       "all of the dtype",
       "who is measured: ids, algorithms or globs (flash, cpu/scalar/*), as one list; best:flash is the one "
       "flash "
       "kernel that comes first here; none",
       {},
       0,
       [](D d, V v) { return set_names(d.result.kernels, v); },
       unshown},
      {"peers",
       AxisType::names,
       "none",
       "other people's attention beside the kernels: names, sets or globs (torch.flash, torch, *.flash), or "
       "all; headwise list --peers shows them",
       {},
       0,
       [](D d, V v) { return set_names(d.result.peers, v); },
       unshown},
      {"baseline",
       AxisType::names,
       "unfused",
       "whom speedup refers to, run even where kernels does not name it: an algorithm, an id, a peer that "
       "peers names, or none",
       {},
       0,
       [](D d, V v) {
         d.result.baseline = v;
         return Status();
       },
       unshown},
  };
}

std::vector<Axis> pruning_axes() {
  return {
      {"threshold",
       AxisType::number,
       "none",
       "pruned attention: probabilities below this count as 0 (not built yet: such rows are `unsupported`)",
       {},
       0,
       [](D d, V v) {
         d.result.threshold = core::parse_number<float>(v);
         return d.result.threshold && *d.result.threshold >= 0 && *d.result.threshold <= 1
                    ? Status()
                    : wrong_value(v, "a probability, from 0 to 1");
       },
       [](C c) { return c.threshold ? core::shortest(*c.threshold) : ""; }},
      {"topk",
       AxisType::integer,
       "all",
       "pruned attention: so many keys of the largest scores a row (not built yet: such rows are "
       "`unsupported`)",
       {},
       1,
       [](D d, V v) {
         d.result.topk = to_integer(v);
         return Status();
       },
       [](C c) { return c.topk == 0 ? "" : shown(c.topk); }},
  };
}

}  // namespace headwise::lab
