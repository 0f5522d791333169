// What the rows say: the recommendations and crossovers that the file's own rows were found to support, each with
// a link to the rows it stands on.

function insight_item({sentence, rows}) {
  const found = rows.map((place) => all_rows[place]).filter(Boolean);
  return element("li", {}, sentence, " ", row_link(found, plural(found.length, "row")));
}

const kInsightsShown = 12;  // of a list; the others unfold

function insight_list(title, items, note) {
  if (items.length === 0) return [];
  const list = (part) => element("ul", {class: "insights"}, ...part.map(insight_item));
  const more = items.slice(kInsightsShown);
  return [element("h3", {}, title), element("p", {class: "muted"}, note), list(items.slice(0, kInsightsShown)),
    more.length === 0 ? "" : element("details", {}, element("summary", {}, `${more.length} more`), list(more))];
}

function duel_line({label, kernel, peer, ratio, low, high}) {
  const standing = low > 1 ? "ahead" : high < 1 ? "behind" : "within noise";
  return element("tr", {}, element("td", {}, label), element("td", {}, all_rows[kernel].series), element("td", {}, all_rows[peer].series),
      element("td", {class: "number"}, format_speedup(ratio), aside(low === high ? "" : `${format_significant(low, 3)}\u2013${format_significant(high, 3)}`, "95\u2009% interval")),
      element("td", {class: standing}, standing), element("td", {}, row_link([all_rows[kernel], all_rows[peer]], "2 rows")));
}

// The answer, then by dtype and use, then each case, the worst first.
function peers_part({verdict = "", duels = [], standings = [], remarks = []}) {
  if (verdict === "" && remarks.length === 0) return [];
  const sentence = verdict ? `${verdict[0].toUpperCase()}${verdict.slice(1)}.` : "";
  const head = ["case", "fastest kernel", "fastest peer", "speed of kernel over peer", "", ""];
  const order = [...duels].sort((a, b) => a.ratio - b.ratio);
  return [element("h3", {}, "Against peers"),
    element("p", {class: "muted"}, "The fastest kernel of a case over its fastest peer, from ranked rows that were timed alike; above 1\u00d7 the kernel is faster, and ahead or behind means that the 95\u2009% interval leaves 1 out."),
    sentence ? element("p", {class: "verdict"}, sentence) : "",
    standings.length > 1 ? element("ul", {class: "insights"}, ...standings.map(insight_item)) : "",
    ...remarks.map((remark) => element("p", {class: "remark"}, `${remark}.`)),
    duels.length > 0 ? element("details", {}, element("summary", {}, `Every case (${duels.length})`),
        element("div", {class: "table-frame"}, element("table", {class: "duels"},
            element("thead", {}, element("tr", {}, ...head.map((text) => element("th", {}, text)))), element("tbody", {}, ...order.map(duel_line))))) : ""];
}

function start_insights() {
  const {recommendations = [], crossovers = [], peers = {}} = page.insights ?? {};
  const standing = peers_part(peers);
  if (recommendations.length + crossovers.length + standing.length === 0) return;
  document.getElementById("insights-text").append(
      ...standing,
      ...insight_list("What to take", recommendations,
          "By geometric mean over the cases of a use, from ranked rows of equal cases alone; in brackets the 95\u2009% interval. Where it includes 1, the two are told to be within noise."),
      ...insight_list("From which length", crossovers,
          "Cases that differ in length alone, each kernel against the baseline's algorithm on its own instruction set, and the best kernel against the best peer. Faster or slower means that the 95\u2009% interval of the ratio leaves 1 out."));
  document.getElementById("insights").hidden = false;
}
