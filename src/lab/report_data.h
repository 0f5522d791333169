// The report's data: what the page and the chart files are drawn from, as one JSON object.
//
//   schema, source, warnings   of the file
//   run                        run, started, command, environment: pairs of name and value
//   charts                     the specifications, each with its file's name and text
//   peaks                      the device's peaks (struct Peak), empty where they were not measured
//   count, columns             the rows by column: name, type, unit, help, values; `ranked` beside the fields
//   quantiles                  a list a row: at most kQuantiles of its samples, in order
//   insights                   recommendations and crossovers (insights.h): sentences and the places of
//                              the rows that they stand on; peers: the duels of the fastest kernel and peer
//                              of a case, what they come to, and what they leave out
//   most_overhead              the share of its time that calling a peer may take for a rank
//
// The text may stand inside a <script> element: no '<' is left in it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "lab/report.h"

namespace headwise::lab {

inline constexpr std::size_t kQuantiles = 100;

// A JSON string that may stand inside a <script> element; bytes that are no UTF-8 become U+FFFD.
std::string json_string(std::string_view text);

std::string report_data(const ReportInputs& inputs);

}  // namespace headwise::lab
