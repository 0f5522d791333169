#include "lab/report_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <unordered_map>

#include "lab/environment.h"
#include "lab/insights.h"

namespace headwise::lab {
namespace {

// Length of the well-formed UTF-8 sequence at the head of `text`, 0 where there is none (Unicode, table 3-7).
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) -> unsigned {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const auto continues = [&](std::size_t i, unsigned low = 0x80, unsigned high = 0xBF) {
    return byte(i) >= low && byte(i) <= high;
  };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const unsigned low = first == 0xE0 ? 0xA0 : 0x80;   // no overlong forms
    const unsigned high = first == 0xED ? 0x9F : 0xBF;  // no surrogates
    return continues(1, low, high) && continues(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const unsigned low = first == 0xF0 ? 0x90 : 0x80;
    const unsigned high = first == 0xF4 ? 0x8F : 0xBF;  // nothing beyond U+10FFFF
    return continues(1, low, high) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

// Nine digits: finer than any clock or error here, and half the size of the shortest exact form.
std::string json_number(double value) {
  if (std::isnan(value)) return "\"nan\"";
  if (std::isinf(value)) return value > 0 ? "\"inf\"" : "\"-inf\"";
  return fmt::format("{:.9g}", value);
}

struct JsonValue {
  const Row& row;
  std::string operator()(std::string Row::* m) const { return json_string(row.*m); }
  std::string operator()(std::int64_t Row::* m) const { return fmt::format("{}", row.*m); }
  std::string operator()(bool Row::* m) const { return row.*m ? "true" : "false"; }
  std::string operator()(OptionalInteger Row::* m) const {
    return row.*m ? fmt::format("{}", *(row.*m)) : std::string("null");
  }
  std::string operator()(OptionalNumber Row::* m) const { return row.*m ? json_number(*(row.*m)) : "null"; }
  std::string operator()(std::vector<double> Row::* m) const { return fmt::format("{}", (row.*m).size()); }
};

std::string joined(const std::vector<std::string>& items) {
  return fmt::format("[{}]", fmt::join(items, ","));
}

// An array of the values, or, where they repeat, of the different ones and each row's index into it.
std::string json_column_values(const std::vector<std::string>& values) {
  std::unordered_map<std::string_view, std::size_t> places;
  std::vector<std::string> words, index;
  for (const std::string& value : values) {
    const auto [place, is_new] = places.try_emplace(value, words.size());
    if (is_new) words.push_back(value);
    index.push_back(fmt::format("{}", place->second));
  }
  if (words.size() * 2 > values.size()) return joined(values);
  return fmt::format(R"({{"words":{},"index":{}}})", joined(words), joined(index));
}

std::string json_columns(const std::vector<Row>& rows) {
  std::vector<std::string> columns;
  for (const Field& field : fields()) {
    if (type_of(field) == FieldType::numbers) continue;  // raw samples stay in the run's file
    std::vector<std::string> values;
    values.reserve(rows.size());
    for (const Row& row : rows) values.push_back(std::visit(JsonValue{row}, field.member));
    columns.push_back(fmt::format(R"({{"name":{},"type":{},"unit":{},"help":{},"values":{}}})",
                                  json_string(field.name), json_string(name(type_of(field))),
                                  json_string(field.unit), json_string(field.help),
                                  json_column_values(values)));
  }
  std::vector<std::string> rank;
  rank.reserve(rows.size());
  for (const Row& row : rows) rank.emplace_back(ranked(row) ? "true" : "false");
  columns.push_back(fmt::format(
      R"({{"name":"ranked","type":"boolean","unit":"","help":"may be drawn and compared","values":{}}})",
      json_column_values(rank)));
  return fmt::format("[{}]", fmt::join(columns, ",\n"));
}

std::string json_run(const Run& run) {
  std::vector<std::string> environment;
  for (const auto& [name, value] : run.environment) {
    environment.push_back(fmt::format("[{},{}]", json_string(name), json_string(value)));
  }
  std::vector<std::string> continued;
  continued.reserve(run.continued.size());
  for (const Continuation& one : run.continued)
    continued.push_back(json_string(fmt::format("{}: {}", one.started, one.command)));
  return fmt::format(
      R"({{"run":{},"started":{},"command":{},"continued":{},"load_note":{},"environment":{}}})",
      json_string(run.run), json_string(run.started), json_string(run.command), joined(continued),
      json_string(load_note(run.environment)), joined(environment));
}

std::string json_peaks(const std::vector<Peak>& peaks) {
  std::vector<std::string> items;
  items.reserve(peaks.size());
  for (const Peak& peak : peaks) {
    items.push_back(fmt::format(
        R"({{"device":{},"threads":{},"what":{},"name":{},"isa":{},"dtype":{},"value":{},"unit":{},"low":{},"high":{},"set_bytes":{},"samples":{}}})",
        json_string(peak.device), peak.threads, json_string(peak.what), json_string(peak.name),
        json_string(peak.isa), json_string(peak.dtype), json_number(peak.value), json_string(peak.unit),
        json_number(peak.low), json_number(peak.high), peak.set_bytes, peak.samples));
  }
  return joined(items);
}

// The rows that a sentence stands on, by their places in the file.
std::string json_places(const std::vector<RowReference>& rows) {
  std::vector<std::string> places;
  places.reserve(rows.size());
  for (const RowReference& row : rows) places.push_back(fmt::format("{}", row.position));
  return joined(places);
}

std::string json_peers_standing(const AgainstPeers& peers) {
  std::vector<std::string> duels, standings, remarks;
  for (const PeerDuel& duel : peers.duels) {
    duels.push_back(fmt::format(R"({{"label":{},"kernel":{},"peer":{},"ratio":{},"low":{},"high":{}}})",
                                json_string(duel.label), duel.kernel.position, duel.peer.position,
                                json_number(duel.ratio.value), json_number(duel.ratio.interval.low),
                                json_number(duel.ratio.interval.high)));
  }
  for (const PeerStanding& standing : peers.standings) {
    std::vector<RowReference> rows;
    for (const PeerDuel& duel : standing.duels) rows.insert(rows.end(), {duel.kernel, duel.peer});
    standings.push_back(fmt::format(R"({{"use":{},"dtype":{},"setting":{},"sentence":{},"rows":{}}})",
                                    json_string(standing.use), json_string(standing.dtype),
                                    json_string(standing.setting), json_string(standing.sentence),
                                    json_places(rows)));
  }
  for (const std::string& remark : peers.remarks) remarks.push_back(json_string(remark));
  return fmt::format(R"({{"verdict":{},"duels":{},"standings":{},"remarks":{}}})", json_string(peers.verdict),
                     joined(duels), joined(standings), joined(remarks));
}

std::string json_insights(const Insights& insights) {
  std::vector<std::string> crossovers, recommendations;
  for (const Crossover& c : insights.crossovers) {
    crossovers.push_back(fmt::format(R"({{"family":{},"kind":{},"sentence":{},"rows":{}}})",
                                     json_string(c.family), json_string(name(c.kind)),
                                     json_string(c.sentence), json_places(c.rows)));
  }
  for (const Recommendation& r : insights.recommendations) {
    recommendations.push_back(fmt::format(R"({{"use":{},"dtype":{},"setting":{},"sentence":{},"rows":{}}})",
                                          json_string(r.use), json_string(r.dtype), json_string(r.setting),
                                          json_string(r.sentence), json_places(r.rows)));
  }
  return fmt::format(R"({{"recommendations":{},"crossovers":{},"peers":{}}})", joined(recommendations),
                     joined(crossovers), json_peers_standing(insights.peers));
}

// What the page keeps of a row's samples: all of them in order, or kQuantiles of them at even steps of rank,
// the smallest and the largest among them. Each is a sample that was measured. Five digits: finer than a
// chart.
std::string json_quantiles(const std::vector<Row>& rows) {
  std::vector<std::string> lists;
  lists.reserve(rows.size());
  for (const Row& row : rows) {
    std::vector<double> sorted;
    for (const double sample : row.samples_ms) {
      if (std::isfinite(sample)) sorted.push_back(sample);
    }
    std::sort(sorted.begin(), sorted.end());
    const std::size_t count = std::min(sorted.size(), kQuantiles);
    std::vector<std::string> points;
    points.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t rank = count < 2 ? 0 : (i * (sorted.size() - 1) + (count - 1) / 2) / (count - 1);
      points.push_back(fmt::format("{:.5g}", sorted[rank]));
    }
    lists.push_back(joined(points));
  }
  return fmt::format("[{}]", fmt::join(lists, ",\n"));
}

}  // namespace

std::string json_string(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const char c = text.front();
    if (length == 0) {
      out += "\\ufffd";
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == '<' || c == '>' || c == '&') {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return out + '"';
}

std::string report_data(const ReportInputs& inputs) {
  std::vector<std::string> charts, warnings;
  for (const ChartSpec& chart : inputs.charts) {
    charts.push_back(
        fmt::format(R"({{"file":{},"text":{}}})", json_string(chart.file), json_string(chart.text)));
  }
  for (const std::string& warning : inputs.file.warnings) warnings.push_back(json_string(warning));
  return fmt::format(
      R"({{"schema":{},"source":{},"run":{},"warnings":{},"charts":{},"peaks":{},"most_overhead":{},"count":{},"columns":{},"quantiles":{},"insights":{}}})",
      json_string(kRowSchema), json_string(inputs.source), json_run(inputs.file.run), joined(warnings),
      joined(charts), json_peaks(inputs.file.run.peaks), json_number(kMostOverhead), inputs.file.rows.size(),
      json_columns(inputs.file.rows), json_quantiles(inputs.file.rows),
      json_insights(insights_of(inputs.file)));
}

}  // namespace headwise::lab
