// The report's charts as files: every chart of the page in the page's light colours, with title and legend.
//
// The page's own scripts prepare the data (drawing.js, chart_files.js), so a file and the page show the same.
// A Python that has quickjs and vl-convert runs them and draws: <share>/renderer/python, which tools/setup.sh
// makes. Where several case families can be told apart, each chart comes once a family, named after it.
#pragma once

#include <string>

#include "headwise/status.h"
#include "lab/report.h"

namespace headwise::lab {

struct ChartFiles {
  std::string svg;   // folder; empty: none
  std::string png;   // folder; empty: none
  std::string view;  // the fragment of the page's address: filters, hidden contenders, family; empty: all
};

// `unavailable`, with what installs it, where the Python that draws is not there.
Status check_converter(const std::string& share_dir);

// Prints the files' names to stdout, and what could not be drawn to stderr, which makes the Status
// `internal`; the others are drawn. Writes nothing without the converter.
Status write_charts(const ReportInputs& inputs, const ChartFiles& files, const std::string& share_dir);

}  // namespace headwise::lab
