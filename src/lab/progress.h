// What a run says while it goes: one finished case a line, and on a terminal a live line below with what is
// being done, how far it is and when it will end. Written to stderr, so that stdout holds results alone.
#pragma once

#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "lab/axes.h"
#include "lab/rows.h"
#include "lab/terminal.h"

namespace headwise::lab {

// A case in the words that differ between the cases of a run ("seq=512 causal=1"); its whole name where none
// does.
std::vector<std::string> short_labels(const std::vector<Case>& cases);

class Progress {
 public:
  // `estimates`: seconds a case, in order.
  Progress(std::FILE* stream, const Terminal& terminal, std::vector<std::string> labels,
           std::vector<double> estimates);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  // takes the live line away

  void line(std::string_view text);  // above the live line
  void begin_case(std::size_t index);
  void phase(std::string_view what, std::string_view who);
  void end_case(const std::vector<Row>& rows);

 private:
  [[nodiscard]] double done_share(double now) const;
  [[nodiscard]] std::string bar(double share) const;
  void clear();
  void draw(std::string_view doing);

  std::FILE* stream_;
  Terminal terminal_;
  std::vector<std::string> labels_;
  std::vector<double> estimates_;
  std::size_t index_ = 0;
  double finished_estimate_ = 0, total_estimate_ = 0;
  std::chrono::steady_clock::time_point start_, case_start_;
  bool drawn_ = false;
};

}  // namespace headwise::lab
