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

function start_insights() {
  const {recommendations = [], crossovers = []} = page.insights ?? {};
  if (recommendations.length + crossovers.length === 0) return;
  document.getElementById("insights-text").append(
      ...insight_list("What to take", recommendations,
          "By geometric mean over the cases of a use, from ranked rows of equal cases alone; in brackets the 95\u2009% interval. Where it includes 1, the two are told to be within noise."),
      ...insight_list("From which length", crossovers,
          "Cases that differ in length alone, each contender against the baseline's algorithm on its own instruction set. Faster or slower means that the 95\u2009% interval of the ratio leaves 1 out."));
  document.getElementById("insights").hidden = false;
}
