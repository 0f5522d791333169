#include "lab/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "lab/insights_rows.h"
#include "lab/units.h"

namespace headwise::lab {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// "flash 1.23 ms (2.1x)": the contender by its algorithm where that tells it apart.
std::string outcome(const Row& row, bool by_algorithm) {
  const std::string who = by_algorithm && !row.algorithm.empty() ? row.algorithm : row.contender;
  if (row.status != row_status::kOk) return fmt::format("{} {}", who, row.status);
  if (!row.ms_median) return fmt::format("{} ok", who);
  std::string text = fmt::format("{} {} ms", who, four_digits(*row.ms_median));
  if (row.speedup && row.contender != row.baseline) text += fmt::format(" ({:.2f}x)", *row.speedup);
  return text;
}

// "best of 9 peers torch.flash 0.35 ms (1.05x), 3 unsupported": a line of its own for each would hide the
// kernels.
std::string outcome_of_peers(const std::vector<const Row*>& peers) {
  const Row* best = nullptr;
  std::size_t in_rank = 0, overhead = 0;
  std::map<std::string, std::size_t> others;
  for (const Row* row : peers) {
    if (ranked(*row)) {
      ++in_rank;
      if (best == nullptr || *row->ms_median < *best->ms_median) best = row;
    } else if (unranked_by_overhead(*row)) {
      ++overhead;
    } else {
      ++others[row->status];
    }
  }
  std::vector<std::string> parts;
  if (best != nullptr)
    parts.push_back(fmt::format("best of {} {}", counted(in_rank, "peer"), outcome(*best, false)));
  if (overhead > 0) parts.push_back(fmt::format("{} not ranked", counted(overhead, "peer")));
  for (const auto& [status, count] : others)
    parts.push_back(fmt::format("{} {}", counted(count, "peer"), status));
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace

std::vector<std::string> short_labels(const std::vector<Case>& cases) {
  std::map<std::string, std::set<std::string>> values;
  std::map<std::string, std::size_t> present;
  for (const Case& one : cases) {
    for (const auto& [axis, value] : words_of(one)) {
      values[axis].insert(value);
      ++present[axis];
    }
  }
  std::vector<std::string> labels;
  for (const Case& one : cases) {
    std::string label;
    for (const auto& [axis, value] : words_of(one)) {
      const bool varies = values[axis].size() > 1 || present[axis] < cases.size();
      if (varies) label += fmt::format("{}{}={}", label.empty() ? "" : " ", axis, value);
    }
    labels.push_back(label.empty() ? case_id(one) : label);
  }
  return labels;
}

Progress::Progress(std::FILE* stream, const Terminal& terminal, std::vector<std::string> labels,
                   std::vector<double> estimates)
    : stream_(stream),
      terminal_(terminal),
      labels_(std::move(labels)),
      estimates_(std::move(estimates)),
      start_(Clock::now()),
      case_start_(start_) {
  for (const double estimate : estimates_) total_estimate_ += estimate;
}

Progress::~Progress() { clear(); }

void Progress::clear() {
  if (!drawn_) return;
  std::fputs("\r\x1b[K", stream_);
  std::fflush(stream_);
  drawn_ = false;
}

void Progress::line(std::string_view text) {
  clear();
  // fputs: a progress that cannot be written (a full disk behind stderr) must not end the run by an
  // exception.
  std::fputs(fmt::format("{}\n", text).c_str(), stream_);
  std::fflush(stream_);
}

void Progress::begin_case(std::size_t index) {
  index_ = index;
  case_start_ = Clock::now();
  draw("start");
}

void Progress::phase(std::string_view what, std::string_view who) {
  draw(who.empty() ? std::string(what) : fmt::format("{} {}", what, who));
}

// Of the estimated whole; a case in hand counts for what it has taken, at most for its estimate.
double Progress::done_share(double now) const {
  if (total_estimate_ <= 0 || index_ >= estimates_.size()) return 0;
  return std::min(1.0, (finished_estimate_ + std::min(now, estimates_[index_])) / total_estimate_);
}

std::string Progress::bar(double share) const {
  constexpr int kCells = 20;
  const int full = static_cast<int>(share * kCells);
  std::string text = "[";
  for (int i = 0; i < kCells; ++i) {
    text += i < full ? (terminal_.unicode ? "\u2588" : "#") : (terminal_.unicode ? "\u2591" : ".");
  }
  return text + "]";
}

void Progress::draw(std::string_view doing) {
  if (!terminal_.live) return;
  const double elapsed = seconds_since(start_);
  const double share = done_share(seconds_since(case_start_));
  // The first estimate is a guess; what has been seen replaces it as it grows.
  const double by_pace = share > 0.02 ? elapsed / share - elapsed : total_estimate_;
  const std::string left =
      share > 0.02 ? seconds_for_people(std::max(0.0, by_pace)) : "about " + seconds_for_people(by_pace);
  const std::string text =
      fmt::format("{}/{}  {} left  {}  {}", index_ + 1, labels_.size(), left, labels_[index_], doing);
  constexpr int kBarColumns = 23;  // with its brackets and a blank
  std::fputs("\r\x1b[K", stream_);
  std::fputs(fmt::format("{} {}", bar(share), cut_to(text, terminal_.columns - kBarColumns - 1)).c_str(),
             stream_);
  std::fflush(stream_);
  drawn_ = true;
}

void Progress::end_case(const std::vector<Row>& rows) {
  std::vector<const Row*> kernels, peers;
  std::set<std::string> algorithms;
  for (const Row& row : rows) {
    (row.kind == "peer" ? peers : kernels).push_back(&row);
    if (row.kind != "peer") algorithms.insert(row.algorithm);
  }
  std::string text = fmt::format("{:>{}}/{}  {}:", index_ + 1, fmt::formatted_size("{}", labels_.size()),
                                 labels_.size(), labels_[index_]);
  for (std::size_t i = 0; i < kernels.size(); ++i)
    text +=
        fmt::format("{} {}", i == 0 ? "" : ",", outcome(*kernels[i], algorithms.size() == kernels.size()));
  if (!peers.empty()) text += fmt::format("{} {}", kernels.empty() ? "" : ";", outcome_of_peers(peers));
  line(terminal_.live ? cut_to(text, terminal_.columns) : text);
  finished_estimate_ += estimates_[index_];
}

}  // namespace headwise::lab
