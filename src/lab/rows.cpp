#include "lab/rows.h"

#include <fmt/format.h>

#include <cmath>

#include "lab/units.h"

namespace headwise::lab {
namespace {

std::vector<Field> case_fields() {
  using R = Row;
  return {
      {"schema", &R::schema, "", "schema", 0, "name and version of this row's meaning"},
      {"run", &R::run, "", "run", 0, "id of the run; its first line holds command and environment"},
      {"case", &R::case_id, "", "case", 0, "the cell as suite words; the same for all its contenders"},
      {"contender", &R::contender, "", "contender", 100, "kernel id (its source file) or peer name"},
      {"kind", &R::kind, "", "kind", 0, "kernel or peer"},
      {"status", &R::status, "", "status", 95,
       "ok, inaccurate, unsupported, out_of_memory, timeout, error or absent"},
      {"reason", &R::reason, "", "reason", 0, "why the status is not ok, or what is worth knowing"},
      {"device", &R::device, "", "device", 40, "cpu, cuda:0, ..."},
      {"isa", &R::isa, "", "isa", 12, "instruction set that the kernel needs"},
      {"algorithm", &R::algorithm, "", "algorithm", 0, "flash, unfused, naive, memeff"},
      {"threads", &R::threads, "", "threads", 42, "threads that the plan may use"},
      {"dtype", &R::dtype, "", "dtype", 55, "element type of q and out"},
      {"kv_dtype", &R::kv_dtype, "", "kv dtype", 14, "element type of k and v"},
      {"direction", &R::direction, "", "direction", 15, "forward, backward or both"},
      {"batch", &R::batch, "", "batch", 60, "sequences"},
      {"heads", &R::heads, "", "heads", 65, "query heads"},
      {"kv_heads", &R::kv_heads, "", "kv", 64, "key and value heads; heads / kv_heads share one"},
      {"seq_q", &R::seq_q, "", "seq_q", 90, "queries a sequence"},
      {"seq_kv", &R::seq_kv, "", "seq_kv", 89, "keys a sequence"},
      {"head_dim", &R::head_dim, "", "dim", 63, "elements of a head of q and k"},
      {"head_dim_v", &R::head_dim_v, "", "dim_v", 16, "elements of a head of v and out"},
      {"causal", &R::causal, "", "causal", 88, "query i sees no key right of its own place"},
      {"align", &R::align, "", "align", 20, "where query i stands among the keys: top_left or bottom_right"},
      {"window_left", &R::window_left, "", "win_l", 31, "keys a query sees to its left; -1: all"},
      {"window_right", &R::window_right, "", "win_r", 30, "keys a query sees to its right; -1: all"},
      {"softmax_scale", &R::softmax_scale, "", "scale", 0,
       "factor of the scores; 1 / sqrt(head_dim) unless given"},
      {"softcap", &R::softcap, "score", "softcap", 28,
       "scores become softcap * tanh(score / softcap); none: off"},
      {"alibi_slopes", &R::alibi_slopes, "", "alibi", 27, "per_head or per_batch_head; empty: none"},
      {"sinks", &R::sinks, "", "sinks", 25, "a logit a head joins the denominator"},
      {"bias", &R::bias, "", "bias", 23,
       "what the bias differs by: letters of bhq, or keys for nothing else; empty: none"},
      {"mask", &R::mask, "", "mask", 29, "boolean or additive, and what it differs by; empty: none"},
      {"dropout_p", &R::dropout_p, "probability", "dropout", 21,
       "probability of dropping a weight; none: off"},
      {"varlen", &R::varlen, "", "varlen", 19, "rows of unequal sequences are packed (cu_seqlens)"},
      {"page_size", &R::page_size, "", "page", 18, "keys a page of a paged cache; 0: not paged"},
      {"lengths", &R::lengths, "", "lengths", 17,
       "how lengths differ within the batch, smallest and largest: q, kv, and where keys start; empty: all "
       "equal"},
      {"inputs", &R::inputs, "", "inputs", 70,
       "normal, uniform, structured, or captured:<layer> from a real model"},
      {"seed", &R::seed, "", "seed", 0, "of the generated inputs"},
      {"preset", &R::preset, "", "preset", 71,
       "known model whose sizes were asked for by name; words may differ"},
      {"cache", &R::cache, "", "cache", 75,
       "hot: the same buffers again and again; cold: caches are emptied before each timed call"},
  };
}

std::vector<Field> time_fields() {
  using R = Row;
  return {
      {"ms_median", &R::ms_median, "ms", "median ms", 94, "median time of one call; the figure to compare"},
      {"ms_mean", &R::ms_mean, "ms", "mean ms", 0, "mean time of one call"},
      {"ms_min", &R::ms_min, "ms", "min ms", 0, "fastest sample"},
      {"ms_p5", &R::ms_p5, "ms", "p5 ms", 0, "5th percentile of the samples"},
      {"ms_p95", &R::ms_p95, "ms", "p95 ms", 34, "95th percentile of the samples"},
      {"ms_p99", &R::ms_p99, "ms", "p99 ms", 0, "99th percentile of the samples"},
      {"ms_stddev", &R::ms_stddev, "ms", "stddev ms", 0, "standard deviation of the samples"},
      {"ms_low", &R::ms_low, "ms", "low ms", 0, "lower end of the median's 95 % interval"},
      {"ms_high", &R::ms_high, "ms", "high ms", 0, "upper end of the median's 95 % interval"},
      {"samples_ms", &R::samples_ms, "ms", "samples", 0,
       "every raw sample, in the order taken: time of one call"},
      {"samples", &R::samples, "", "samples", 22, "how many samples were taken"},
      {"repeats", &R::repeats, "", "repeats", 0, "calls a sample, so that a sample is no shorter than 50 us"},
      {"warmups", &R::warmups, "", "warm-ups", 0, "calls before the first sample"},
      {"stop", &R::stop, "", "stop", 0,
       "why sampling ended: interval (narrow enough), seconds, samples, max_seconds or interrupted"},
      {"prepare_ms", &R::prepare_ms, "ms", "prepare ms", 0,
       "time to plan and to allocate outputs and workspace"},
      {"verify_ms", &R::verify_ms, "ms", "verify ms", 0, "time of the first call and of its comparison"},
      {"overhead_ms", &R::overhead_ms, "ms", "overhead ms", 0,
       "of a peer: time of a call with next to nothing to do (one query, one key); beyond 5 % of the median, "
       "or 75 % where calls queue for a GPU, the row is not ranked"},
      {"latency_ms", &R::latency_ms, "ms", "latency ms", 0,
       "on a GPU: median wall-clock time of one plain call, waited for; ms_median leaves launches out"},
      {"tokens_per_s", &R::tokens_per_s, "1/s", "tokens/s", 50, "batch * seq_q / median"},
      {"tflops", &R::tflops, "TFLOP/s", "TFLOP/s", 52,
       "2 * (head_dim + head_dim_v) for each pair the mask allows, / median"},
      {"gb_per_s", &R::gb_per_s, "GB/s", "GB/s", 26, "least_bytes / median"},
  };
}

std::vector<Field> memory_and_error_fields() {
  using R = Row;
  return {
      {"input_bytes", &R::input_bytes, "bytes", "inputs", 0, "q, k, v and what else is read"},
      {"output_bytes", &R::output_bytes, "bytes", "outputs", 0, "out, and lse where asked for"},
      {"workspace_bytes", &R::workspace_bytes, "bytes", "workspace", 33,
       "scratch memory that the plan asks for"},
      {"peak_bytes", &R::peak_bytes, "bytes", "peak", 48,
       "inputs and the most held beyond them in a fresh call: the larger of what the allocator handed out "
       "and what "
       "the operating system saw resident"},
      {"peak_allocated_bytes", &R::peak_allocated_bytes, "bytes", "peak alloc", 0,
       "peak as the allocator counts it: inputs, outputs, workspace"},
      {"peak_resident_bytes", &R::peak_resident_bytes, "bytes", "peak rss", 0,
       "peak as the operating system counts it (VmHWM after a reset, less what was there before, plus "
       "inputs); not "
       "measured where it cannot be reset"},
      {"least_bytes", &R::least_bytes, "bytes", "least", 0,
       "inputs and outputs once each: no method needs less"},
      {"error_max", &R::error_max, "", "max error", 80,
       "largest distance from attention in fp64, over verified rows"},
      {"error_rms", &R::error_rms, "", "rms error", 0, "root mean square of that distance"},
      {"error_limit", &R::error_limit, "", "limit", 36, "error_max may be this large (the pass rule)"},
      {"error_rms_limit", &R::error_rms_limit, "", "rms limit", 0, "error_rms may be this large"},
      {"plain_max", &R::plain_max, "", "plain max", 0, "error_max of attention written plainly in the dtype"},
      {"plain_rms", &R::plain_rms, "", "plain rms", 0, "error_rms of the same"},
      {"lse_error", &R::lse_error, "", "lse error", 0, "largest error of the log-sum-exp, where asked for"},
      {"rows_verified", &R::rows_verified, "", "verified", 24, "output rows compared with fp64"},
      {"speedup", &R::speedup, "x", "speedup", 92,
       "baseline's median / this median, over rounds that both ran"},
      {"speedup_low", &R::speedup_low, "x", "low", 0, "lower end of the speedup's 95 % bootstrap interval"},
      {"speedup_high", &R::speedup_high, "x", "high", 0,
       "upper end of the speedup's 95 % bootstrap interval"},
      {"baseline", &R::baseline, "", "baseline", 0, "contender that speedup refers to"},
      {"timer", &R::timer, "", "timer", 0,
       "how time was taken; only equal timers are compared: steady_clock (round calls, each complete), on a "
       "GPU also graph (events round replays of captured calls), events (round plain calls), queue (a host "
       "clock round queued calls, waited for once)"},
      {"regime", &R::regime, "", "regime", 0, "sustained (back to back) or burst (after idle)"},
      {"cache_method", &R::cache_method, "", "cache method", 0,
       "reused (hot: same buffers, calls back to back) or flushed (cold: a buffer of twice the last-level "
       "cache is streamed through before each call, outside its time) or rotated (cold on a GPU: over "
       "copies, "
       "twice the L2 between two uses)"},
      {"clock_mhz", &R::clock_mhz, "MHz", "MHz", 0, "processor clock seen right after the samples"},
      {"ran", &R::ran, "", "ran", 0, "what really ran"},
      {"version", &R::version, "", "version", 0, "of a peer: its library and version"},
      {"reproduce", &R::reproduce, "", "reproduce", 0, "command line of this very row"},
  };
}

std::vector<Field> make_fields() {
  std::vector<Field> table = case_fields();
  for (const auto& part : {time_fields(), memory_and_error_fields()})
    table.insert(table.end(), part.begin(), part.end());
  return table;
}

std::string display_number(double value, std::string_view unit) {
  if (!std::isfinite(value)) return fmt::format("{}", value);
  if (unit == "x") return fmt::format("{:.2f}x", value);
  if (unit == "bytes") return bytes_for_people(value);
  if (unit == "1/s") return rate_for_people(value);
  if (unit == "score" || unit == "probability") return fmt::format("{:g}", value);
  if (unit.empty()) return value == 0 ? "0" : fmt::format("{:.1e}", value);
  if (unit == "MHz") return fmt::format("{:.0f}", value);
  return four_digits(value);
}

// Shortest text that reads back to the same bits.
std::string exact_number(double value) { return fmt::format("{}", value); }

struct Display {
  const Row& row;
  std::string_view unit;
  std::string operator()(std::string Row::* m) const { return (row.*m).empty() ? "-" : row.*m; }
  std::string operator()(std::int64_t Row::* m) const { return fmt::format("{}", row.*m); }
  std::string operator()(bool Row::* m) const { return row.*m ? "yes" : "no"; }
  std::string operator()(OptionalInteger Row::* m) const {
    if (!(row.*m)) return "-";
    return unit == "bytes" ? bytes_for_people(static_cast<double>(*(row.*m))) : fmt::format("{}", *(row.*m));
  }
  std::string operator()(OptionalNumber Row::* m) const {
    return row.*m ? display_number(*(row.*m), unit) : "-";
  }
  std::string operator()(std::vector<double> Row::* m) const {
    return (row.*m).empty() ? "-" : fmt::format("{} values", (row.*m).size());
  }
};

struct Exact {
  const Row& row;
  std::string operator()(std::string Row::* m) const { return row.*m; }
  std::string operator()(std::int64_t Row::* m) const { return fmt::format("{}", row.*m); }
  std::string operator()(bool Row::* m) const { return row.*m ? "true" : "false"; }
  std::string operator()(OptionalInteger Row::* m) const {
    return row.*m ? fmt::format("{}", *(row.*m)) : "";
  }
  std::string operator()(OptionalNumber Row::* m) const { return row.*m ? exact_number(*(row.*m)) : ""; }
  std::string operator()(std::vector<double> Row::* m) const {
    std::string text;
    for (const double value : row.*m) text += (text.empty() ? "" : " ") + exact_number(value);
    return text;
  }
};

}  // namespace

bool overhead_decides(const Row& row) {
  const double most = row.timer == "queue" ? kMostQueuedOverhead : kMostOverhead;
  return row.overhead_ms.value_or(0) > most * row.ms_median.value_or(0);
}

bool ranked(const Row& row) {
  return row.status == row_status::kOk && row.ms_median.has_value() && row.error_max.has_value() &&
         row.rows_verified.value_or(0) > 0 && !overhead_decides(row);
}

const std::vector<Field>& fields() {
  static const std::vector<Field> table = make_fields();
  return table;
}

const Field* find_field(std::string_view name) {
  for (const Field& field : fields()) {
    if (field.name == name) return &field;
  }
  return nullptr;
}

FieldType type_of(const Field& field) {
  struct Visitor {
    FieldType operator()(std::string Row::*) const { return FieldType::text; }
    FieldType operator()(std::int64_t Row::*) const { return FieldType::integer; }
    FieldType operator()(OptionalInteger Row::*) const { return FieldType::integer; }
    FieldType operator()(bool Row::*) const { return FieldType::boolean; }
    FieldType operator()(OptionalNumber Row::*) const { return FieldType::number; }
    FieldType operator()(std::vector<double> Row::*) const { return FieldType::numbers; }
  };
  return std::visit(Visitor{}, field.member);
}

std::string_view name(FieldType type) {
  switch (type) {
    case FieldType::text: return "text";
    case FieldType::integer: return "integer";
    case FieldType::number: return "number";
    case FieldType::boolean: return "boolean";
    case FieldType::numbers: return "array of numbers";
  }
  return "unknown";
}

std::string display(const Row& row, const Field& field) {
  return std::visit(Display{row, field.unit}, field.member);
}
std::string exact_text(const Row& row, const Field& field) { return std::visit(Exact{row}, field.member); }

}  // namespace headwise::lab
