// Rows: what one contender did in one case of one run, and the file they travel in.
//
// One table of fields, fields(), makes everything that shows a row: console table, JSONL, report.
// Adding a field is a member of Row and a line of the table in rows.cpp.
//
// A file is JSONL. The first line is the run:
//   {"schema":"headwise.rows/1","type":"run","run":"<id>","started":"<ISO-8601>","command":"...","environment":{"name":"value",...},
//    "options":{"seconds":"2",...}[,"continued":[{"started":"...","command":"..."},...]]}
// then, where they were measured, the device's peaks,
// {"schema":"headwise.rows/1","type":"peak","device":...}, and each further line one row:
// {"type":"row","schema":"headwise.rows/1","run":"<id>","case":...}, with every field of the table in the
// table's order. A value that was not measured is null. JSON has no NaN and no infinity: they are the strings
// "nan", "inf" and "-inf". Numbers are written so that they read back to the same bits. A reader ignores
// fields it does not know, takes null for those it misses, and leaves out lines of a type it does not know,
// with a warning.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "headwise/status.h"

namespace headwise::lab {

inline constexpr std::string_view kRowSchema = "headwise.rows/1";

// Values of Row::status. Only `ok` rows are ranked.
namespace row_status {
inline constexpr std::string_view kOk = "ok";
inline constexpr std::string_view kInaccurate = "inaccurate";      // ran, and failed the pass rule
inline constexpr std::string_view kUnsupported = "unsupported";    // the kernel says why it cannot
inline constexpr std::string_view kOutOfMemory = "out_of_memory";  // predicted or met
inline constexpr std::string_view kTimeout = "timeout";            // --max-seconds
inline constexpr std::string_view kError = "error";                // a failure that nobody foresaw
inline constexpr std::string_view kAbsent = "absent";              // device or peer not here
}  // namespace row_status

using OptionalInteger = std::optional<std::int64_t>;
using OptionalNumber = std::optional<double>;

// Helps for each member stand in fields().
struct Row {
  std::string schema{kRowSchema};
  std::string run;
  std::string case_id;    // "case": same for all contenders of a cell
  std::string contender;  // kernel id, or peer name
  std::string kind = "kernel";
  std::string status{row_status::kError};
  std::string reason;

  std::string device = "cpu";
  std::string isa;
  std::string algorithm;  // "flash", "unfused", "naive"
  std::int64_t threads = 0;
  std::string dtype = "f32";
  std::string kv_dtype = "f32";
  std::string direction = "forward";
  std::int64_t batch = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t seq_q = 0;
  std::int64_t seq_kv = 0;
  std::int64_t head_dim = 0;
  std::int64_t head_dim_v = 0;
  bool causal = false;
  std::string align;
  std::int64_t window_left = -1;
  std::int64_t window_right = -1;
  OptionalNumber softmax_scale;
  OptionalNumber softcap;                // none: off
  std::string alibi_slopes, bias, mask;  // "per_head", "hq", "boolean:bq"; empty: none
  bool sinks = false;
  OptionalNumber dropout_p;  // none: off
  bool varlen = false;
  std::int64_t page_size = 0;
  std::string lengths;
  std::string inputs;  // "normal", "uniform", "structured", "captured:0"
  std::int64_t seed = 0;
  std::string preset;         // "llama-3-70b"; empty: none
  std::string cache = "hot";  // or "cold"

  OptionalNumber ms_median, ms_mean, ms_min, ms_p5, ms_p95, ms_p99, ms_stddev;
  OptionalNumber ms_low, ms_high;  // interval of the median
  std::vector<double> samples_ms;
  OptionalInteger samples, repeats, warmups;
  std::string stop;  // why sampling ended
  OptionalNumber prepare_ms, verify_ms;
  OptionalNumber overhead_ms, latency_ms;
  OptionalNumber tokens_per_s, tflops, gb_per_s;

  OptionalInteger input_bytes, output_bytes, workspace_bytes, peak_bytes, peak_allocated_bytes;
  OptionalInteger peak_resident_bytes, least_bytes;

  OptionalNumber error_max, error_rms, error_limit, error_rms_limit, plain_max, plain_rms;
  OptionalNumber lse_error;
  OptionalInteger rows_verified;

  OptionalNumber speedup, speedup_low, speedup_high;
  std::string baseline;

  std::string timer, regime;
  std::string cache_method;  // "reused", "flushed", "rotated"
  OptionalNumber clock_mhz;
  std::string ran;
  std::string version;
  std::string reproduce;

  friend bool operator==(const Row&, const Row&) = default;
};

// Calling a peer may take this part of its time; beyond it, the time says too much of the call. Calls that
// queue for a GPU overlap with what runs there, so that only a call almost as long as the overhead waits for
// it.
inline constexpr double kMostOverhead = 0.05;
inline constexpr double kMostQueuedOverhead = 0.75;
bool overhead_decides(const Row& row);

// A row may be ranked, compared or charted as a speed: it ran, its error is known and passed, and the
// overhead of calling it is small.
bool ranked(const Row& row);

enum class FieldType : std::uint8_t { text, integer, number, boolean, numbers };

using FieldMember = std::variant<std::string Row::*, std::int64_t Row::*, bool Row::*, OptionalInteger Row::*,
                                 OptionalNumber Row::*, std::vector<double> Row::*>;

struct Field {
  std::string_view name;  // in files; stable
  FieldMember member;
  std::string_view unit;   // "ms", "bytes", "1/s", "" for none
  std::string_view title;  // of a console or report column
  int importance = 0;      // console columns: lowest importance is dropped first; 0 is never a column
  std::string_view help;
};

const std::vector<Field>& fields();
const Field* find_field(std::string_view name);  // nullptr: no such field
FieldType type_of(const Field& field);
std::string_view name(FieldType type);
// The value for people: numbers with few digits, "-" when not measured, arrays as their count.
std::string display(const Row& row, const Field& field);
// The value without loss; empty when not measured.
std::string exact_text(const Row& row, const Field& field);

// Name and value of everything known about the machine, the build and the run (environment.h).
using Environment = std::vector<std::pair<std::string, std::string>>;

// The most that a device did of one thing, measured in the same run: what a roofline is drawn from. A row's
// ceilings are the peaks of its device and threads: "flops" of its isa (and of its dtype where the isa has
// several; kernels that widen to f32 have f32's), and "bytes" of the level its data come from.
struct Peak {
  std::string device = "cpu";
  std::int64_t threads = 1;
  std::string what;            // "flops" or "bytes" read
  std::string name;            // "avx512 f32"; "L1", "L2", "L3", "memory"
  std::string isa;             // instruction set of the loop
  std::string dtype;           // of the factors of a product; "" for bytes
  double value = 0;            // median of the samples, per second
  std::string unit;            // "TFLOP/s", "GB/s": as in the rows' tflops and gb_per_s
  double low = 0, high = 0;    // 95 % interval of the median
  std::int64_t set_bytes = 0;  // bytes: what each thread read over and over
  std::int64_t samples = 0;
  friend bool operator==(const Peak&, const Peak&) = default;
};

// A run that was killed or interrupted went on.
struct Continuation {
  std::string started;  // ISO-8601 with offset
  std::string command;
  friend bool operator==(const Continuation&, const Continuation&) = default;
};

struct Run {
  std::string run;      // id: unique enough to tell two runs apart
  std::string started;  // ISO-8601 with offset
  std::string command;
  Environment environment;
  Environment options{};  // what decides how it is measured: name and value
  std::vector<Continuation> continued{};
  std::vector<Peak> peaks{};  // on lines of their own, after the run's; empty where they were not measured
  friend bool operator==(const Run&, const Run&) = default;
};

struct RunFile {
  Run run;
  std::vector<Row> rows;
  std::vector<std::string> warnings;  // e.g. a last line that was cut; each names file and line
};

// One line of JSON, without the newline. The run's is without its peaks.
std::string to_json_line(const Run& run);
std::string to_json_line(const Peak& peak);
std::string to_json_line(const Row& row);
// A message names `where` ("run.jsonl:3") and what was wrong.
Result<Run> parse_run_line(std::string_view line, std::string_view where);
Result<Peak> parse_peak_line(std::string_view line, std::string_view where);
Result<Row> parse_row_line(std::string_view line, std::string_view where);

// The whole file. An unknown schema, a wrong type or a broken line is invalid_argument (unavailable if the
// file cannot be read), named by file and line; only a last line without a newline that does not parse is
// dropped with a warning, since that is what a killed writer leaves. Rows of a file that were written before
// are kept.
Result<RunFile> read_rows(const std::string& path);

// Writes a file under a temporary name beside `path`, and gives it its name in finish(). A writer that goes
// without finish() leaves the temporary file behind: its rows are readable. The rows of a case come in one
// write, and are on the disk when write() returns, so that a kill leaves whole cases. The temporary name is
// nobody else's, and the file is locked (flock) for as long as its writer lives.
class RowWriter {
 public:
  RowWriter() = default;
  RowWriter(const RowWriter&) = delete;
  RowWriter& operator=(const RowWriter&) = delete;
  ~RowWriter();

  Status open(const std::string& path, const Run& run);  // writes the run with its peaks
  Status write(std::span<const Peak> peaks);             // before the rows; all in one write
  Status write(std::span<const Row> rows);               // of one case
  Status finish();
  [[nodiscard]] const std::string& temporary_path() const { return temporary_; }

 private:
  Status put(std::string_view text);
  int file_ = -1;
  std::string path_, temporary_;
};

}  // namespace headwise::lab
