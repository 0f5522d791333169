#include "lab/verify.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <tuple>
#include <utility>

#include "core/parallel_for.h"
#include "core/try.h"
#include "lab/random.h"

namespace headwise::lab {
namespace {

constexpr std::int64_t kLeastRowsPerHead = 64;
constexpr std::array<std::uint32_t, 2> kRowKey = {0x726f7773, 0};  // "rows"
constexpr double kLseSlack = 1e-5;

// Truth and plain together, one thread: per pair the exponentials and roundings, and the products
// (measured 57 to 80 ns a pair at head_dim 64 on a 2024 server core; this says 91).
double seconds_per_pair(const AttentionProblem& p) {
  return 1e-9 * (40 + 0.2 * 2 * static_cast<double>(p.head_dim + p.head_dim_v));
}

bool row_less(const oracle::RowId& a, const oracle::RowId& b) {
  return std::tie(a.batch, a.head, a.query) < std::tie(b.batch, b.head, b.query);
}
bool row_equal(const oracle::RowId& a, const oracle::RowId& b) { return !row_less(a, b) && !row_less(b, a); }

// `count` different queries of one head: those at tile edges first, then random ones.
std::vector<std::int64_t> sampled_queries(const AttentionProblem& p, std::int64_t count, std::uint32_t head) {
  std::vector<std::int64_t> queries{0, p.seq_q - 1};
  for (const std::int64_t edge : {64, 128, 512, 1024, 4096, 16384}) {
    for (const std::int64_t query : {edge - 1, edge, edge + 1}) {
      if (query < p.seq_q) queries.push_back(query);
    }
  }
  const std::int64_t tail = (p.seq_q - 1) / 64 * 64;  // the last tile, often a short one
  queries.push_back(tail);
  if (tail > 0) queries.push_back(tail - 1);
  // Evenly cut strata with a random place in each: no large stretch stays unseen.
  const std::int64_t strata = std::max<std::int64_t>(1, count - static_cast<std::int64_t>(queries.size()));
  for (std::int64_t i = 0; i < strata; ++i) {
    const std::int64_t begin = i * p.seq_q / strata, end = (i + 1) * p.seq_q / strata;
    if (end <= begin) continue;
    const std::uint32_t word = philox({static_cast<std::uint32_t>(i), head, 0, 0}, kRowKey)[0];
    queries.push_back(begin + static_cast<std::int64_t>(word) % (end - begin));
  }
  std::sort(queries.begin(), queries.end());
  queries.erase(std::unique(queries.begin(), queries.end()), queries.end());
  for (std::int64_t query = 0; static_cast<std::int64_t>(queries.size()) < std::min(count, p.seq_q);
       ++query) {
    const auto at = std::lower_bound(queries.begin(), queries.end(), query);
    if (at == queries.end() || *at != query) queries.insert(at, query);
  }
  return queries;
}

double round_to(DType dtype, double value) {
  double slot = 0;
  store_element(dtype, &slot, 0, value);
  return load_element(dtype, &slot, 0);
}

// |(ref + 0.3 - 0.3) - ref| in the dtype: what one rounding at the size of typical outputs costs.
double floor_error(DType dtype, double reference) {
  const double ref = round_to(dtype, reference);
  return std::abs(round_to(dtype, round_to(dtype, ref + 0.3) - 0.3) - ref);
}

enum class Kind : std::uint8_t { finite, nan, plus_infinity, minus_infinity };
Kind kind_of(double value) {
  if (std::isfinite(value)) return Kind::finite;
  if (std::isnan(value)) return Kind::nan;
  return value > 0 ? Kind::plus_infinity : Kind::minus_infinity;
}

// Largest and root mean square of a stream of errors.
struct ErrorSum {
  double largest = 0, squares = 0;
  std::int64_t count = 0;
  void add(double error) {
    largest = std::max(largest, error);
    squares += error * error;
    ++count;
  }
  [[nodiscard]] double rms() const {
    return count == 0 ? 0 : std::sqrt(squares / static_cast<double>(count));
  }
};

std::string place(const oracle::RowId& row) {
  return "batch " + std::to_string(row.batch) + ", query " + std::to_string(row.query) + ", head " +
         std::to_string(row.head);
}

std::string text(double value) {
  std::array<char, 32> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%.4g", value);
  return buffer.data();
}

// The limits follow from the worst of the orders of summation that plain was computed in.
void set_limits(Reference& ref, std::span<const oracle::Rows> plains) {
  const DType dtype = ref.problem.dtype;
  ErrorSum floors;
  for (const double truth : ref.truth.out) {
    if (std::isfinite(round_to(dtype, truth))) floors.add(floor_error(dtype, truth));
  }
  for (const oracle::Rows& plain : plains) {
    ErrorSum errors;
    for (std::size_t i = 0; i < ref.truth.out.size(); ++i) {
      const double truth = ref.truth.out[i];
      // Where plain itself overflows (f16 scores) it sets no limit.
      if (std::isfinite(round_to(dtype, truth)) && std::isfinite(plain.out[i])) {
        errors.add(std::abs(plain.out[i] - truth));
      }
    }
    for (std::size_t i = 0; i < ref.truth.lse.size(); ++i) {
      const double error = std::abs(plain.lse[i] - ref.truth.lse[i]);
      if (std::isfinite(error)) ref.plain_lse = std::max(ref.plain_lse, error);
    }
    ref.plain_max = std::max(ref.plain_max, errors.largest);
    ref.plain_rms = std::max(ref.plain_rms, errors.rms());
  }
  ref.limit_max = 2 * ref.plain_max + 2 * floors.largest;
  ref.limit_rms = 1.5 * ref.plain_rms + floors.rms();
  ref.limit_lse = 2 * ref.plain_lse;
}

class Judge {
 public:
  Judge(const Reference& reference, const AttentionArgs& args) : ref_(reference), args_(args) {
    verdict_.limit_max = ref_.limit_max;
    verdict_.limit_rms = ref_.limit_rms;
    verdict_.plain_max = ref_.plain_max;
    verdict_.plain_rms = ref_.plain_rms;
    verdict_.rows_verified = static_cast<std::int64_t>(ref_.rows.size());
  }

  Verdict run() {
    for (std::size_t i = 0; i < ref_.rows.size(); ++i) look_at_out(i);
    verdict_.error_max = errors_.largest;
    verdict_.error_rms = errors_.rms();
    if (errors_.largest > ref_.limit_max) {
      fail("largest error " + text(errors_.largest) + " is above the limit " + text(ref_.limit_max) + " (" +
           place(verdict_.worst) + ")");
    }
    if (errors_.rms() > ref_.limit_rms) {
      fail("root mean square error " + text(errors_.rms()) + " is above the limit " + text(ref_.limit_rms));
    }
    if (ref_.problem.lse) {
      for (std::size_t i = 0; i < ref_.rows.size(); ++i) look_at_lse(i);
    }
    verdict_.status = verdict_.reason.empty() ? VerdictStatus::pass : VerdictStatus::fail;
    return verdict_;
  }

 private:
  void look_at_out(std::size_t index) {
    const oracle::RowId& row = ref_.rows[index];
    const TensorView& out = args_.out;
    const std::int64_t at = row.batch * out.stride[0] + row.query * out.stride[1] + row.head * out.stride[2];
    const std::int64_t channels = ref_.problem.head_dim_v;
    for (std::int64_t c = 0; c < channels; ++c) {
      const double truth =
          ref_.truth.out[index * static_cast<std::size_t>(channels) + static_cast<std::size_t>(c)];
      const double value = load_element(out.dtype, out.data, at + c * out.stride[3]);
      const Kind expected = kind_of(round_to(out.dtype, truth));
      if (kind_of(value) != expected) {
        if (!wrong_kind_) verdict_.worst = row;
        wrong_kind_ = true;
        fail("out is " + text(value) + ", truth is " + text(truth) + " (" + place(row) + ", channel " +
             std::to_string(c) + ")");
      } else if (expected == Kind::finite) {
        const double error = std::abs(value - truth);
        if (error > errors_.largest && !wrong_kind_) verdict_.worst = row;
        errors_.add(error);
      }
    }
  }

  void look_at_lse(std::size_t index) {
    const oracle::RowId& row = ref_.rows[index];
    const TensorView& lse = args_.lse;
    const std::int64_t at = row.batch * lse.stride[0] + row.head * lse.stride[1] + row.query * lse.stride[2];
    const double value = load_element(lse.dtype, lse.data, at);
    const double truth = ref_.truth.lse[index];
    if (kind_of(value) != kind_of(truth)) {
      fail("lse is " + text(value) + ", truth is " + text(truth) + " (" + place(row) + ")");
      return;
    }
    if (!std::isfinite(truth)) return;
    const double error = std::abs(value - truth);
    verdict_.lse_error = std::max(verdict_.lse_error, error);
    const double limit = ref_.limit_lse + kLseSlack * std::max(1.0, std::abs(truth));
    if (error > limit) {
      fail("lse is " + text(error) + " off, above the limit " + text(limit) + " (" + place(row) + ")");
    }
  }

  void fail(std::string reason) {
    if (verdict_.reason.empty()) verdict_.reason = std::move(reason);
  }

  const Reference& ref_;
  const AttentionArgs& args_;
  Verdict verdict_;
  ErrorSum errors_;
  bool wrong_kind_ = false;
};

// A packed copy whose rows begin with column `shift` and end with the columns before it.
struct Rotated {
  std::vector<std::byte> bytes;
  TensorView view;
};
Rotated rotate_columns(const TensorView& from, std::int64_t shift) {
  const std::size_t width = size_of(from.dtype);
  const std::int64_t columns = from.shape[3];
  Rotated to;
  to.bytes.resize(static_cast<std::size_t>(from.elements()) * width);
  to.view = contiguous(to.bytes.data(), from.dtype, {from.shape[0], from.shape[1], from.shape[2], columns});
  std::byte* out = to.bytes.data();
  for (std::int64_t i = 0; i < from.shape[0]; ++i) {
    for (std::int64_t j = 0; j < from.shape[1]; ++j) {
      for (std::int64_t h = 0; h < from.shape[2]; ++h) {
        const auto* row =
            from.as<const std::byte>() +
            (i * from.stride[0] + j * from.stride[1] + h * from.stride[2]) * static_cast<std::int64_t>(width);
        const std::size_t head = static_cast<std::size_t>(shift) * width;
        const std::size_t tail = static_cast<std::size_t>(columns) * width - head;
        std::memcpy(out, row + head, tail);
        std::memcpy(out + tail, row, head);
        out += head + tail;
      }
    }
  }
  return to;
}

// Plain's largest error is one draw from what the order of a sum happens to do; over few rows, of
// which one dominates, a kernel that sums in another order draws twice as much every twentieth time.
// So few rows are computed in several orders of the columns of q and k: about kPlainRows in all.
constexpr std::int64_t kPlainRows = 4096;
constexpr std::int64_t kMostOrders = 16;
constexpr std::int64_t kMostCopied = std::int64_t{1} << 23;  // elements of q and k in a rotated copy
std::int64_t orders_of_summation(const AttentionArgs& args, std::size_t rows) {
  if (rows == 0 || args.q.elements() + args.k.elements() > kMostCopied) return 1;
  const std::int64_t wanted = kPlainRows / static_cast<std::int64_t>(rows);
  return std::clamp<std::int64_t>(wanted, 1, std::clamp<std::int64_t>(args.q.shape[3], 1, kMostOrders));
}

Result<std::vector<oracle::Rows>> plain_in_some_orders(const AttentionArgs& args,
                                                       const AttentionProblem& problem,
                                                       std::span<const oracle::RowId> rows, int threads) {
  std::vector<oracle::Rows> all;
  const std::int64_t orders = orders_of_summation(args, rows.size());
  for (std::int64_t order = 0; order < orders; ++order) {
    const std::int64_t shift = order * args.q.shape[3] / orders;
    AttentionArgs rotated = args;
    Rotated q;
    Rotated k;
    if (shift != 0) {
      q = rotate_columns(args.q, shift);
      k = rotate_columns(args.k, shift);
      rotated.q = q.view;
      rotated.k = k.view;
    }
    Result<oracle::Rows> plain = oracle::plain(rotated, problem, rows, threads);
    if (!plain.ok()) return plain.status();
    all.push_back(*std::move(plain));
  }
  return all;
}

int resolve(int threads) { return threads > 0 ? threads : core::available_threads(); }

}  // namespace

std::vector<oracle::RowId> rows_to_verify(const AttentionProblem& p, double seconds, int threads) {
  std::vector<oracle::RowId> rows;
  if (p.batch <= 0 || p.heads <= 0 || p.seq_q <= 0) return rows;
  const double pairs = cost(p).pairs;
  const double all = pairs * seconds_per_pair(p) / resolve(threads);
  std::int64_t per_head = p.seq_q;
  if (all > seconds) {
    per_head =
        std::max(kLeastRowsPerHead, static_cast<std::int64_t>(static_cast<double>(p.seq_q) * seconds / all));
  }
  const bool whole = per_head >= p.seq_q;
  for (std::int64_t batch = 0; batch < p.batch; ++batch) {
    for (std::int64_t head = 0; head < p.heads; ++head) {
      if (whole) {
        for (std::int64_t query = 0; query < p.seq_q; ++query) rows.push_back({batch, head, query});
        continue;
      }
      const auto stream = static_cast<std::uint32_t>(batch * p.heads + head);
      for (const std::int64_t query : sampled_queries(p, per_head, stream))
        rows.push_back({batch, head, query});
    }
  }
  if (!whole) {
    for (const Plant& plant : plants(p)) rows.push_back(plant.row);
    std::sort(rows.begin(), rows.end(), row_less);
    rows.erase(std::unique(rows.begin(), rows.end(), row_equal), rows.end());
  }
  return rows;
}

Result<Reference> make_reference(const AttentionArgs& host_args, const AttentionProblem& problem,
                                 std::span<const oracle::RowId> rows, int threads) {
  Result<oracle::Rows> truth = oracle::forward(host_args, problem, rows, resolve(threads));
  if (!truth.ok()) return truth.status();
  Result<std::vector<oracle::Rows>> plains = plain_in_some_orders(host_args, problem, rows, resolve(threads));
  if (!plains.ok()) return plains.status();
  Reference reference{.problem = problem, .rows = {rows.begin(), rows.end()}, .truth = std::move(*truth)};
  set_limits(reference, *plains);
  return reference;
}

Result<Reference> make_reference(const Inputs& inputs, double seconds, int threads) {
  return make_reference(inputs.host_args(), inputs.problem(),
                        rows_to_verify(inputs.problem(), seconds, threads), threads);
}

Verdict judge(const Reference& reference, const AttentionArgs& host_args) {
  return Judge(reference, host_args).run();
}

Verdict verify(Inputs& inputs, const Reference& reference) {
  Verdict verdict;
  if (Status status = inputs.fetch_outputs(); !status.ok()) {
    verdict.reason = status.message();
    return verdict;
  }
  verdict = judge(reference, inputs.host_args());
  if (Status status = check_guards(inputs); !status.ok()) {
    verdict.status = VerdictStatus::fail;
    verdict.reason = status.message();
  }
  return verdict;
}

}  // namespace headwise::lab
