#include "lab/verify.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "attention/sequence.h"
#include "core/parallel_for.h"
#include "core/try.h"
#include "lab/feature_inputs.h"
#include "lab/pass_rule.h"

namespace headwise::lab {
namespace {

constexpr double kLseSlack = 1e-5;
constexpr double kOutFactor = 2, kGradientFactor = 3;  // of plain's largest error

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
// So few rows are computed in several orders of the columns that are summed over: about kPlainRows in all.
constexpr std::int64_t kPlainRows = 4096;
constexpr std::int64_t kMostOrders = 16;
constexpr std::int64_t kMostCopied = std::int64_t{1} << 23;  // elements of the rotated copies

// The tensors whose columns are summed over, with those of their columns that come first in an order.
class OrdersOfSummation {
 public:
  OrdersOfSummation(const AttentionArgs& args, std::vector<TensorView AttentionArgs::*> tensors,
                    std::int64_t rows)
      : args_(args), tensors_(std::move(tensors)) {
    std::int64_t copied = 0;
    for (const auto tensor : tensors_) copied += (args.*tensor).elements();
    if (rows == 0 || copied > kMostCopied) return;
    draws_ = std::clamp<std::int64_t>(kPlainRows / rows, 1, kMostOrders);
    count_ = std::clamp<std::int64_t>(args.q.shape[3], 1, draws_);
  }
  [[nodiscard]] std::int64_t count() const { return count_; }
  // As many as count() where there are columns enough.
  [[nodiscard]] std::int64_t draws() const { return draws_; }
  [[nodiscard]] std::int64_t shift(std::int64_t order, std::int64_t columns) const {
    return order * columns / count_;
  }
  // Valid until the next call.
  const AttentionArgs& rotated(std::int64_t order) {
    now_ = args_;
    copies_.clear();
    for (const auto tensor : tensors_) {
      const std::int64_t first = shift(order, (args_.*tensor).shape[3]);
      if (first != 0) now_.*tensor = copies_.emplace_back(rotate_columns(args_.*tensor, first)).view;
    }
    return now_;
  }
  // Rows of a result whose columns were rotated with a tensor's, in the tensor's own order.
  [[nodiscard]] std::vector<double> in_place(const std::vector<double>& rows, std::int64_t order,
                                             std::int64_t columns) const {
    std::vector<double> back(rows.size());
    const std::int64_t first = shift(order, columns);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto n = static_cast<std::size_t>(columns);
      back[i / n * n + (i % n + static_cast<std::size_t>(first)) % n] = rows[i];
    }
    return back;
  }

 private:
  const AttentionArgs& args_;
  std::vector<TensorView AttentionArgs::*> tensors_;
  std::int64_t count_ = 1, draws_ = 1;
  AttentionArgs now_;
  std::vector<Rotated> copies_;
};

// Errors of plain that no order of columns changes: all where there is one column, and 16-bit roundings, of
// which bias and sinks, and keys of rows that see one key, have hardly a dozen in their gradients. More draws
// come from other inputs, which have a truth of their own: other signs of dout, and q a little longer.
class OtherInputs {
 public:
  OtherInputs(const AttentionArgs& args, std::int64_t draw) : args_(args) {
    if (draw == 0) return;
    if (args.dout.present()) {
      dout_ = rotate_columns(args.dout, 0);
      std::uint64_t state = static_cast<std::uint64_t>(draw) << 32U;
      for (std::int64_t i = 0; i < args.dout.elements(); ++i) {
        state = state * 0x5851f42d4c957f2dU + 0x14057b7ef767814fU;
        if ((state >> 63U) != 0) multiply(dout_.view, i, -1);
      }
      args_.dout = dout_.view;
    }
    q_ = rotate_columns(args.q, 0);
    constexpr double kStep = 1.0 / 256;
    for (std::int64_t i = 0; i < args.q.elements(); ++i)
      multiply(q_.view, i, 1 + kStep * static_cast<double>(draw));
    args_.q = q_.view;
  }
  [[nodiscard]] const AttentionArgs& args() const { return args_; }

 private:
  static void multiply(const TensorView& t, std::int64_t i, double factor) {
    store_element(t.dtype, t.data, i, factor * load_element(t.dtype, t.data, i));
  }
  AttentionArgs args_;
  Rotated dout_, q_;
};

// `truth` as plain's errors elsewhere would leave it.
std::vector<double> with_errors(const std::vector<double>& truth, const std::vector<double>& plain,
                                const std::vector<double>& exact) {
  std::vector<double> sum(truth.size());
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = truth[i] + (plain[i] - exact[i]);
  return sum;
}

void note_lse(const std::vector<double>& exact, const std::vector<double>& plain, Reference& reference) {
  for (std::size_t i = 0; i < plain.size(); ++i) {
    const double error = std::abs(plain[i] - exact[i]);
    if (std::isfinite(error)) reference.plain_lse = std::max(reference.plain_lse, error);
  }
}

int resolve(int threads) { return threads > 0 ? threads : core::available_threads(); }

std::vector<oracle::RowId> as_rows(std::span<const oracle::KeyRowId> keys) {
  std::vector<oracle::RowId> rows;
  rows.reserve(keys.size());
  for (const oracle::KeyRowId& key : keys) rows.push_back({key.batch, key.kv_head, key.key});
  return rows;
}

// Queries that the oracle computes for these rows, at least.
std::int64_t computed_rows(const AttentionProblem& p, const oracle::GradientRows& rows) {
  std::int64_t pairs = 0;  // (batch, kv head), which come in order
  for (std::size_t i = 0; i < rows.keys.size(); ++i) {
    const bool same = i > 0 && rows.keys[i].batch == rows.keys[i - 1].batch &&
                      rows.keys[i].kv_head == rows.keys[i - 1].kv_head;
    if (!same) ++pairs;
  }
  const std::int64_t shared = p.kv_heads > 0 ? p.heads / p.kv_heads : 0;
  return std::max(static_cast<std::int64_t>(rows.queries.size()), pairs * shared * p.seq_q);
}

// Results of plain, of one gradient each, as limits_of() takes them.
class PlainGradients {
 public:
  // `reference` has the truth.
  PlainGradients(const AttentionArgs& args, const Reference& reference, int threads)
      : args_(args), reference_(reference), threads_(threads) {}

  Status add(OrdersOfSummation& orders, std::int64_t order) {
    Result<oracle::Gradients> plain =
        oracle::plain_backward(orders.rotated(order), reference_.problem, reference_.gradient_rows, threads_);
    if (!plain.ok()) return plain.status();
    dq_.push_back(orders.in_place(plain->dq, order, args_.q.shape[3]));
    dk_.push_back(orders.in_place(plain->dk, order, args_.k.shape[3]));
    dv_.push_back(orders.in_place(plain->dv, order, args_.v.shape[3]));
    return {};
  }

  // Gradients of bias and sinks, and `all` others too.
  Status add_elsewhere(std::int64_t draw, bool all) {
    const OtherInputs other(args_, draw);
    const AttentionProblem& problem = reference_.problem;
    if (all) {
      const oracle::GradientRows& rows = reference_.gradient_rows;
      Result<oracle::Gradients> exact = oracle::backward(other.args(), problem, rows, threads_);
      if (!exact.ok()) return exact.status();
      Result<oracle::Gradients> plain = oracle::plain_backward(other.args(), problem, rows, threads_);
      if (!plain.ok()) return plain.status();
      dq_.push_back(with_errors(reference_.gradients.dq, plain->dq, exact->dq));
      dk_.push_back(with_errors(reference_.gradients.dk, plain->dk, exact->dk));
      dv_.push_back(with_errors(reference_.gradients.dv, plain->dv, exact->dv));
    }
    if (!problem.dbias && !problem.dsinks) return {};
    Result<oracle::ScoreGradients> exact = oracle::backward_scores(other.args(), problem, threads_);
    if (!exact.ok()) return exact.status();
    Result<oracle::ScoreGradients> plain = oracle::plain_backward_scores(other.args(), problem, threads_);
    if (!plain.ok()) return plain.status();
    dbias_.push_back(with_errors(reference_.score_gradients.dbias, plain->dbias, exact->dbias));
    dsinks_.push_back(with_errors(reference_.score_gradients.dsinks, plain->dsinks, exact->dsinks));
    return {};
  }

  [[nodiscard]] std::array<Limits, 5> limits() const {
    const oracle::Gradients& exact = reference_.gradients;
    const oracle::ScoreGradients& scores = reference_.score_gradients;
    const AttentionProblem& p = reference_.problem;
    return {limits_of(exact.dq, dq_, p.dtype, kGradientFactor),
            limits_of(exact.dk, dk_, p.kv_dtype, kGradientFactor),
            limits_of(exact.dv, dv_, p.kv_dtype, kGradientFactor),
            limits_of(scores.dbias, dbias_, DType::f32, kGradientFactor),
            limits_of(scores.dsinks, dsinks_, DType::f32, kGradientFactor)};
  }

 private:
  const AttentionArgs& args_;
  const Reference& reference_;
  int threads_;
  std::vector<std::vector<double>> dq_, dk_, dv_, dbias_, dsinks_;
};

struct Judge {
  const Reference& reference;
  const AttentionArgs& args;
  Verdict verdict{};
  double worst_share = -1;  // of its limits, of the gradient that is shown

  void fail(const std::string& reason) {
    if (verdict.reason.empty()) verdict.reason = reason;
  }

  void show(const TensorVerdict& tensor, const Limits& limits) {
    verdict.error_max = tensor.error_max;
    verdict.error_rms = tensor.error_rms;
    verdict.limit_max = limits.limit_max;
    verdict.limit_rms = limits.limit_rms;
    verdict.plain_max = limits.plain_max;
    verdict.plain_rms = limits.plain_rms;
    verdict.worst = tensor.worst;
  }

  [[nodiscard]] Sequence sequence(std::int64_t index) const {
    return sequence_of(args, reference.problem, index);
  }
  // Of rows of q, out and their gradients.
  [[nodiscard]] std::vector<std::int64_t> query_offsets(const TensorView& view,
                                                        const std::vector<oracle::RowId>& rows) const {
    std::vector<std::int64_t> offsets;
    offsets.reserve(rows.size());
    for (const oracle::RowId& row : rows)
      offsets.push_back(query_offset(view, sequence(row.batch), row.query, row.head));
    return offsets;
  }
  // Of rows of keys, {batch, kv head, key}.
  [[nodiscard]] std::vector<std::int64_t> key_offsets(const TensorView& view,
                                                      const std::vector<oracle::RowId>& rows) const {
    std::vector<std::int64_t> offsets;
    offsets.reserve(rows.size());
    for (const oracle::RowId& row : rows)
      offsets.push_back(key_offset(view, reference.problem, sequence(row.batch), row.query, row.head));
    return offsets;
  }

  void look_at_out() {
    verdict.rows_verified = static_cast<std::int64_t>(reference.rows.size());
    const TensorVerdict out =
        judge_tensor({"out", args.out, reference.rows, query_offsets(args.out, reference.rows),
                      reference.truth.out, reference.out_limits});
    show(out, reference.out_limits);
    fail(out.reason);
    if (!reference.problem.lse || !args.lse.present()) return;
    for (std::size_t i = 0; i < reference.rows.size(); ++i) look_at_lse(i);
  }

  void look_at_lse(std::size_t index) {
    const oracle::RowId& row = reference.rows[index];
    const TensorView& lse = args.lse;
    const Sequence s = sequence(row.batch);
    const std::int64_t at =
        s.item_q * lse.stride[0] + row.head * lse.stride[1] + (s.row_q + row.query) * lse.stride[2];
    const double value = load_element(lse.dtype, lse.data, at);
    const double truth = reference.truth.lse[index];
    if (!same_kind(value, truth)) {
      fail("lse is " + error_text(value) + ", truth is " + error_text(truth) + " (" + place(row) + ")");
      return;
    }
    if (!std::isfinite(truth)) return;
    const double error = std::abs(value - truth);
    verdict.lse_error = std::max(verdict.lse_error, error);
    const double limit = reference.limit_lse + kLseSlack * std::max(1.0, std::abs(truth));
    if (error > limit) {
      fail("lse is " + error_text(error) + " off, above the limit " + error_text(limit) + " (" + place(row) +
           ")");
    }
  }

  // Figures are those of the gradient that is worst by its own limits; one that fails comes before all that
  // pass.
  void look_at_gradients() {
    const std::vector<oracle::RowId> keys = as_rows(reference.gradient_rows.keys);
    const std::vector<oracle::RowId>& queries = reference.gradient_rows.queries;
    const oracle::Gradients& truth = reference.gradients;
    const auto& [dq, dk, dv, dbias, dsinks] = reference.gradient_limits;
    verdict.rows_verified = static_cast<std::int64_t>(queries.size() + keys.size());
    look_at_gradient({"dq", args.dq, queries, query_offsets(args.dq, queries), truth.dq, dq});
    look_at_gradient({"dk", args.dk, keys, key_offsets(args.dk, keys), truth.dk, dk, true});
    look_at_gradient({"dv", args.dv, keys, key_offsets(args.dv, keys), truth.dv, dv, true});
    if (reference.problem.dbias) look_at_dbias(dbias);
    if (reference.problem.dsinks) {
      TensorView row = args.dsinks;  // all heads
      row.shape = {1, 1, 1, args.dsinks.shape[0]};
      const std::array<oracle::RowId, 1> all{};
      const std::array<std::int64_t, 1> offset{};
      row.stride = {0, 0, 0, args.dsinks.stride[0]};
      look_at_gradient({"dsinks", row, all, offset, reference.score_gradients.dsinks, dsinks});
    }
    for (std::int64_t b = 0; verdict.reason.empty() && b < reference.problem.batch; ++b)
      look_for_unwritten(b);
  }

  void look_at_dbias(const Limits& limits) {
    std::vector<oracle::RowId> rows;
    std::vector<std::int64_t> offsets;
    const TensorView& view = args.dbias;
    for (std::int64_t b = 0; b < view.shape[0]; ++b) {
      for (std::int64_t h = 0; h < view.shape[1]; ++h) {
        for (std::int64_t q = 0; q < view.shape[2]; ++q) {
          rows.push_back({b, h, q});
          offsets.push_back(b * view.stride[0] + h * view.stride[1] + q * view.stride[2]);
        }
      }
    }
    look_at_gradient({"dbias", view, rows, offsets, reference.score_gradients.dbias, limits});
  }

  void look_at_gradient(const VerifiedTensor& tensor) {
    const auto part = [](double error, double limit) { return error > 0 ? error / limit : 0; };
    const TensorVerdict seen = judge_tensor(tensor);
    double share = std::max(part(seen.error_max, tensor.limits.limit_max),
                            part(seen.error_rms, tensor.limits.limit_rms));
    if (!seen.reason.empty() && share <= 1) share = HUGE_VAL;  // wrong in kind, which no error tells
    if (share <= worst_share) return;
    worst_share = share;
    show(seen, tensor.limits);
    verdict.reason = seen.reason;
  }

  // Gradients of all queries and keys in use of a sequence, also of those that are not verified: who leaves
  // out what nobody verifies would be fast.
  void look_for_unwritten(std::int64_t batch) {
    const Sequence s = sequence(batch);
    const auto look = [&](const char* name, const TensorView& view, std::int64_t at, std::int64_t h,
                          bool of_keys) {
      const std::int64_t offset =
          of_keys ? key_offset(view, reference.problem, s, at, h) : query_offset(view, s, at, h);
      if (verdict.reason.empty()) fail(unwritten(name, view, {batch, h, at}, offset, of_keys));
    };
    for (std::int64_t i = 0; i < s.seq_q; ++i) {
      for (std::int64_t h = 0; h < args.dq.shape[2]; ++h) look("dq", args.dq, i, h, false);
    }
    for (const auto& [name, view] : {std::pair{"dk", &args.dk}, {"dv", &args.dv}}) {
      for (std::int64_t j = s.keys.begin; j < s.keys.end; ++j) {
        for (std::int64_t h = 0; h < view->shape[2]; ++h) look(name, *view, j, h, true);
      }
    }
  }
};

}  // namespace

Result<Reference> make_reference(const AttentionArgs& host_args, const AttentionProblem& problem,
                                 std::span<const oracle::RowId> rows, int threads) {
  threads = resolve(threads);
  Result<oracle::Rows> truth = oracle::forward(host_args, problem, rows, threads);
  if (!truth.ok()) return truth.status();
  Reference reference{.problem = problem, .rows = {rows.begin(), rows.end()}, .truth = std::move(*truth)};
  OrdersOfSummation orders(host_args, {&AttentionArgs::q, &AttentionArgs::k},
                           static_cast<std::int64_t>(rows.size()));
  std::vector<std::vector<double>> plains;
  for (std::int64_t order = 0; order < orders.count(); ++order) {
    Result<oracle::Rows> plain = oracle::plain(orders.rotated(order), problem, rows, threads);
    if (!plain.ok()) return plain.status();
    note_lse(reference.truth.lse, plain->lse, reference);
    plains.push_back(std::move(plain->out));
  }
  for (std::int64_t draw = orders.count(); draw < orders.draws(); ++draw) {
    const OtherInputs other(host_args, draw);
    Result<oracle::Rows> exact = oracle::forward(other.args(), problem, rows, threads);
    if (!exact.ok()) return exact.status();
    Result<oracle::Rows> plain = oracle::plain(other.args(), problem, rows, threads);
    if (!plain.ok()) return plain.status();
    note_lse(exact->lse, plain->lse, reference);
    plains.push_back(with_errors(reference.truth.out, plain->out, exact->out));
  }
  reference.out_limits = limits_of(reference.truth.out, plains, problem.dtype, kOutFactor);
  reference.limit_lse = 2 * reference.plain_lse;
  return reference;
}

Result<Reference> make_reference(const AttentionArgs& host_args, const AttentionProblem& problem,
                                 const oracle::GradientRows& rows, int threads) {
  threads = resolve(threads);
  Result<oracle::Gradients> truth = oracle::backward(host_args, problem, rows, threads);
  if (!truth.ok()) return truth.status();
  Reference reference{.problem = problem, .gradient_rows = rows, .gradients = std::move(*truth)};
  using A = AttentionArgs;
  OrdersOfSummation orders(host_args, {&A::q, &A::k, &A::v, &A::dout}, computed_rows(problem, rows));
  if (problem.dbias || problem.dsinks) {
    Result<oracle::ScoreGradients> exact = oracle::backward_scores(host_args, problem, threads);
    if (!exact.ok()) return exact.status();
    reference.score_gradients = std::move(*exact);
  }
  PlainGradients plain(host_args, reference, threads);
  for (std::int64_t order = 0; order < orders.count(); ++order) HEADWISE_TRY(plain.add(orders, order));
  const bool few = orders.draws() == kMostOrders;
  for (std::int64_t draw = 0; draw < orders.draws(); ++draw)
    HEADWISE_TRY(plain.add_elsewhere(draw, draw > 0 && (few || draw >= orders.count())));
  reference.gradient_limits = plain.limits();
  return reference;
}

Result<Reference> make_reference(const Inputs& inputs, double seconds, int threads) {
  const AttentionProblem& problem = inputs.problem();
  if (problem.direction == Direction::backward) {
    return make_reference(inputs.host_args(), problem,
                          gradient_rows_to_verify(problem, seconds, threads, inputs.host_args()), threads);
  }
  return make_reference(inputs.host_args(), problem,
                        rows_to_verify(problem, seconds, threads, inputs.host_args()), threads);
}

Verdict judge(const Reference& reference, const AttentionArgs& host_args) {
  Judge judge{reference, host_args};
  if (reference.problem.direction == Direction::backward) {
    judge.look_at_gradients();
  } else {
    judge.look_at_out();
  }
  judge.verdict.status = judge.verdict.reason.empty() ? VerdictStatus::pass : VerdictStatus::fail;
  return judge.verdict;
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
