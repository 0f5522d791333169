// The report: one HTML file, complete in itself, drawn from the rows of a run and nothing else.
//
// The page holds the rows as JSON, the chart specifications of data/charts, the chart renderer where it is
// installed, and the scripts and styles of src/lab/report/. It loads nothing from anywhere, and a security
// policy in the page forbids it to. Without a renderer the page has its tables and a line that says how to
// get charts.
#pragma once

#include <string>
#include <vector>

#include "headwise/status.h"
#include "lab/rows.h"

namespace headwise::lab {

// A Vega-Lite specification that reads the named data source "rows": all fields of the rows that may be
// ranked, and the helper fields of src/lab/report/data.js. usermeta.headwise holds title, description, order,
// `across`: the family fields that the page's controls leave free for this chart, or "all"; and `needs`:
// fields that must be positive for a row to be drawn.
struct ChartSpec {
  std::string file;  // for messages
  std::string text;
};

struct ReportInputs {
  RunFile file;
  std::string source;  // the file's name, for the reader of the page
  std::string title;   // empty: made from the run
  std::vector<ChartSpec> charts;
  std::string
      renderer_js;  // vega, vega-lite and vega-embed as one script that sets window.vegaEmbed; may be empty
};

Result<std::string> render_report(const ReportInputs& inputs);

// Fills charts and renderer_js from share/headwise of the build or installation: charts/*.json by name, and
// renderer/vega-bundle.js. A folder or renderer that is not there leaves its part empty; one that is there
// and cannot be read is an error.
Status read_report_assets(const std::string& share_dir, ReportInputs& inputs);

}  // namespace headwise::lab
