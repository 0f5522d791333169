// Charts: one Vega-Lite specification each, given the rows of the case family that the controls choose.
//
// A specification reads the named data source "rows" and says in usermeta.headwise: title, description (the text
// alternative), order, and optionally `across`: the family fields it does not hold fixed, or "all", and `needs`:
// fields that must be positive in a row for it to be drawn.

const kSeriesColors = 8;
const kShapes = [  // in a box of [-1, 1], the same for chart and legend
  "M0,-1A1,1,0,1,1,0,1A1,1,0,1,1,0,-1Z",
  "M-.85,-.85H.85V.85H-.85Z",
  "M0,-1.1L1.05,.8H-1.05Z",
  "M0,-1.2L1.1,0L0,1.2L-1.1,0Z",
  "M-.4,-1.1H.4V-.4H1.1V.4H.4V1.1H-.4V.4H-1.1V-.4H-.4Z",
  "M0,1.1L1.05,-.8H-1.05Z",
  "M-1.1,-.55H1.1V.55H-1.1Z",
];

const chart_state = {chosen: null, hidden: new Set(), charts: [], generation: 0};

// Series in order of first appearance, each with one colour and shape for the whole page. Grey is the baseline's.
function series_styles() {
  const baselines = new Set(all_rows.filter((row) => row.contender === row.baseline).map((row) => row.series));
  const styles = new Map();
  let next = 0;
  for (const row of drawn_rows) {
    if (styles.has(row.series)) continue;
    const baseline = baselines.has(row.series);
    const color = baseline ? "var(--series-baseline)" : `var(--series-${next % kSeriesColors})`;
    styles.set(row.series, {color, baseline, shape: kShapes[styles.size % kShapes.length]});
    if (!baseline) next += 1;
  }
  return styles;
}
const styles = series_styles();

function families() {
  return [...group_by(drawn_rows, (row) => row.family).values()].map((rows) => (
      {row: rows[0], lengths: new Set(rows.map((row) => row.seq_kv)).size, rows: rows.length}));
}

// The family that has `value` in `field` and otherwise differs least from the one shown, so no choice is a dead end.
function choose(field, value) {
  const likeness = (family) => kFamilyFields.reduce((sum, f) =>
    sum + (f.name !== field && family.row[f.name] === chart_state.chosen[f.name] ? 1 : 0), 0);
  const candidates = families().filter((family) => family.row[field] === value);
  candidates.sort((a, b) => likeness(b) - likeness(a) || b.lengths - a.lengths || b.rows - a.rows);
  chart_state.chosen = candidates[0].row;
}

function in_family(row, across) {
  if (across === "all") return true;
  return kFamilyFields.every((field) => across.includes(field.name) || row[field.name] === chart_state.chosen[field.name]);
}

// Gives every encoding of `series` the page's colours and shapes, and leaves the legend to the page.
function dress(node) {
  if (Array.isArray(node)) return node.map(dress);
  if (node === null || typeof node !== "object") return node;
  const dressed = Object.fromEntries(Object.entries(node).map(([key, value]) => [key, dress(value)]));
  for (const [channel, values] of [["color", "color"], ["fill", "color"], ["stroke", "color"], ["shape", "shape"]]) {
    const encoding = dressed.encoding?.[channel];
    if (encoding?.field !== "series") continue;
    encoding.scale ??= {domain: [...styles.keys()], range: [...styles.values()].map((style) => style[values])};
    if (encoding.legend === undefined) encoding.legend = null;
  }
  return dressed;
}

function chart_config(narrow) {
  const font = getComputedStyle(document.body).fontFamily;
  const quiet = {labelColor: "var(--muted)", titleColor: "var(--muted)", domainColor: "var(--line)", tickColor: "var(--line)", gridColor: "var(--grid)"};
  return {
    background: null, font, padding: 2,
    axis: {...quiet, labelFontSize: narrow ? 11 : 12, titleFontSize: 12, titleFontWeight: "normal", labelLimit: narrow ? 175 : 480, titlePadding: 8, labelOverlap: true},
    view: {stroke: null},
    line: {strokeWidth: 2}, point: {size: 55, filled: true, opacity: 1}, rule: {color: "var(--muted)"}, text: {color: "var(--muted)", font, fontSize: 12},
    legend: {labelColor: "var(--muted)", titleColor: "var(--muted)", titleFontWeight: "normal"},
    header: {labelColor: "var(--muted)", titleColor: "var(--muted)"},
  };
}

function chart_rows(chart) {
  return drawn_rows.filter((row) => in_family(row, chart.across) && !chart_state.hidden.has(row.series)
      && chart.needs.every((field) => row[field] > 0));
}

async function draw(chart, generation) {
  const rows = chart_rows(chart);
  chart.view?.finalize();
  chart.view = null;
  if (rows.length === 0) {
    chart.drawing.replaceChildren(element("p", {class: "muted"}, `Nothing to draw for this choice${chart.needs.length > 0 ? `: no row shown has ${chart.needs.join(", ")}` : ""}.`));
    return;
  }
  const spec = dress({...chart.spec, description: chart.description, datasets: {...chart.spec.datasets, rows}});
  const target = element("div", {class: "drawing"});
  chart.drawing.replaceWith(target);
  chart.drawing = target;
  try {
    // ast: expressions are interpreted, so the page's security policy needs no eval.
    const result = await window.vegaEmbed(target, spec, {
      mode: "vega-lite", renderer: "svg", actions: false, ast: true, config: chart_config(target.clientWidth < 500),
      tooltip: {disableDefaultStyle: true},
    });
    if (generation !== chart_state.generation) result.finalize();
    else chart.view = result;
  } catch (problem) {
    console.error(`${chart.file}: ${problem.message}`);
    target.replaceChildren(element("p", {class: "failure"}, `${chart.file}: ${problem.message}`));
  }
}

async function draw_all() {
  chart_state.generation += 1;
  for (const chart of chart_state.charts) await draw(chart, chart_state.generation);
  const drawn = document.querySelectorAll(".drawing svg").length;
  document.body.dataset.charts = String(drawn);
}

function show_family() {
  const {chosen} = chart_state;
  draw_controls();
  draw_legend();
  const inside = all_rows.filter((row) => kFamilyFields.every((field) => same_field(field, row, chosen)));
  const left_out = inside.filter((row) => !row.ranked);
  const constant = kFamilyFields.filter((field) => !varying_fields.includes(field) && chosen[field.name] !== "")
      .filter((field) => ["device", "direction", "phase", "mask", "heads_label", "head_dim_label", "dtype_label", "batch", "threads_label", "inputs"].includes(field.name))
      .map((field) => field.word(chosen[field.name]));
  const parts = [];
  if (constant.length > 0) parts.push(`Same in every case: ${constant.join(", ")}.`);
  parts.push(`This choice has ${plural(inside.length, "row")}`
      + (left_out.length > 0 ? `; not drawn: ${count_words(left_out.map((row) => (row.status === "ok" ? "without an error figure" : row.status))).map(([word, n]) => `${n} ${word}`).join(", ")} (see the table).` : ", all drawn."));
  document.getElementById("family-note").textContent = parts.join(" ");
  return draw_all();
}

function draw_controls() {
  const {chosen} = chart_state;
  const all = families();
  const reachable = (field, value) => all.some((family) => family.row[field] === value
      && varying_fields.every((f) => f.name === field || family.row[f.name] === chosen[f.name]));
  const focused = document.activeElement?.dataset?.control;
  const controls = varying_fields.map((field) => {
    const values = [...new Set(all.map((family) => family.row[field.name]))].sort(compare_values);
    if (values.length < 2) return null;
    const pick = (value) => { choose(field.name, value); show_family(); };
    const label = element("span", {class: "label", id: `control-${field.name}`}, field.title);
    const text = (value) => (value === "" ? "none" : String(value));
    if (values.map(text).join("").length > 30) {
      const select = element("select", {"aria-labelledby": label.id, "data-control": field.name, onchange: () => pick(values[select.selectedIndex])},
          ...values.map((value) => element("option", {selected: value === chosen[field.name]}, text(value))));
      return element("div", {class: "control"}, label, select);
    }
    const choices = values.map((value, i) => element("label", {class: reachable(field.name, value) ? null : "away",
      title: reachable(field.name, value) ? null : "changes other choices too"},
    element("input", {type: "radio", name: field.name, "data-control": `${field.name}-${i}`, checked: value === chosen[field.name], onchange: () => pick(value)}), text(value)));
    return element("div", {class: "control", role: "radiogroup", "aria-labelledby": label.id}, label, element("div", {class: "choices"}, ...choices));
  });
  document.getElementById("controls").replaceChildren(...controls.filter(Boolean));
  if (focused) document.querySelector(`[data-control="${focused}"]`)?.focus();
}

function draw_legend() {
  const focused = [...document.getElementById("legend").children].indexOf(document.activeElement);
  const buttons = [...styles].map(([series, style]) => {
    const swatch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    swatch.setAttribute("viewBox", "-1.3 -1.3 2.6 2.6");
    swatch.setAttribute("aria-hidden", "true");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", style.shape);
    path.setAttribute("fill", style.color);
    swatch.append(path);
    const shown = !chart_state.hidden.has(series);
    return element("button", {type: "button", "aria-pressed": String(shown), title: shown ? "hide in the charts" : "show in the charts",
      onclick: () => {
        if (shown) chart_state.hidden.add(series);
        else chart_state.hidden.delete(series);
        draw_legend();
        draw_all();
      }}, swatch, series, style.baseline ? element("span", {class: "tag"}, "baseline") : null);
  });
  document.getElementById("legend").replaceChildren(...buttons);
  if (focused >= 0) buttons[focused].focus();
}

function add_figure(source) {
  let spec;
  try {
    spec = JSON.parse(source.text);
  } catch (problem) {
    console.error(`${source.file}: ${problem.message}`);
    document.getElementById("figures").append(element("figure", {}, element("p", {class: "failure"}, `${source.file} is not valid JSON: ${problem.message}`)));
    return;
  }
  const about = spec.usermeta?.headwise ?? {};
  const title = about.title ?? source.file;
  const drawing = element("div", {class: "drawing"});
  const figure = element("figure", {"aria-label": title},
      element("figcaption", {}, element("h3", {}, title), about.description ? element("p", {}, about.description) : null), drawing);
  const chart = {file: source.file, spec, across: about.across ?? [], needs: about.needs ?? [], drawing, figure, order: about.order ?? 1000, description: `${title}. ${about.description ?? ""} The numbers are in the table of all rows.`};
  chart_state.charts.push(chart);
}

function start_charts() {
  const note = document.getElementById("charts-note");
  const say = (text) => { note.textContent = text; note.hidden = false; };
  document.body.dataset.charts = "0";
  if (drawn_rows.length === 0) {
    say(all_rows.length === 0 ? "This run has no rows, so there is nothing to draw." : "No row ran and passed its check, so there is nothing to draw; the table says why.");
    return Promise.resolve();
  }
  if (typeof window.vegaEmbed !== "function") {
    say("Charts are missing because the chart renderer is not installed: run \u201cmake setup\u201d with a network connection, then \u201cheadwise report FILE\u201d again. The tables are complete.");
    return Promise.resolve();
  }
  if (page.charts.length === 0) say("No chart specification was found beside the program (share/headwise/charts), so there are tables only.");
  page.charts.forEach(add_figure);
  chart_state.charts.sort((a, b) => a.order - b.order || compare_values(a.file, b.file));
  for (const chart of chart_state.charts) document.getElementById(chart.across === "all" ? "overview" : "figures").append(chart.figure);
  chart_state.chosen = families().sort((a, b) => b.lengths - a.lengths || b.rows - a.rows)[0].row;
  return show_family();
}
