// The commands of the program `headwise`. Each takes plain values and returns an exit code.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "headwise/status.h"
#include "lab/axes.h"
#include "lab/session.h"

namespace headwise::cli {

// What the command line said.
struct Invocation {
  std::string command;
  std::string command_line;              // as typed, for the record
  std::vector<lab::Word> words;          // axis flags: {"seq", "512..8192*2"}
  std::vector<std::string> positionals;  // what stood there without a flag
  std::string suite;
  std::string out;
  std::string report;
  std::string csv;
  std::string markdown;
  std::string title;
  std::string svg, png, view;  // report
  double seconds = lab::RunOptions{}.seconds;
  double max_seconds = lab::RunOptions{}.max_seconds;
  int samples = 0;  // 0: by interval and seconds
  bool dry_run = false;
  bool resume = false;
  bool quiet = false;
  bool no_peaks = false;  // bench
  bool peaks = false;     // info
  bool host_name = false;
  std::string peer_python;  // bench, verify, list
  bool list_peers = false;
};

int run_bench(const Invocation& invocation);  // bench and verify
int run_list(const Invocation& invocation);
int run_explain(const Invocation& invocation);
int run_info(const Invocation& invocation);
int run_report(const Invocation& invocation);

// "headwise: <message>" on stderr; returns the exit code of a usage error, or 1 for a defect.
int fail(const Status& status);

// Both name one file, be it through links: what would be written to one would replace the other.
bool same_file(const std::string& one, const std::string& other);

// The suite's lines and the flags, or the flags alone. Without either: the suite `default`.
Result<std::vector<lab::Case>> cases_of(const Invocation& invocation);

// Writes rows as --csv and --markdown ask for, and says so on stdout.
Status write_tables(const lab::RunFile& file, const Invocation& invocation);
// A usage error where two of the files that a command would write or read are one, or a folder is missing.
Status check_outputs(const Invocation& invocation, const std::string& source);

// Draws the report of `file` and writes it whole or not at all.
Status write_report(const lab::RunFile& file, const std::string& source, const std::string& title,
                    const std::string& path);

}  // namespace headwise::cli
