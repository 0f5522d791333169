// Charts on the page: controls, legend, figures, and the way from a point to its row.

const chart_state = {family: null, charts: [], generation: 0};

// The rows that a mark stands for: its own, or those it was aggregated from.
function rows_of(datum) {
  const places = Array.isArray(datum?.members) ? datum.members.map((member) => member.position) : [datum?.position];
  return places.filter((place) => Number.isInteger(place) && place in all_rows).map((place) => all_rows[place]);
}

function list_points(chart, list) {
  const column = page.columns.find(({name}) => name === chart.value);
  const text = (row) => [row.series, ...(chart.across === "all" ? [row.family_label] : chart.across.map((name) => kFamilyFields.find((field) => field.name === name).word(row[name]))),
    `sequence ${format_sequence(row)}`].join(", ") + (chart.value ? `: ${column ? format_field(column, row[chart.value]) : format_significant(row[chart.value], 4)}` : "");
  list.replaceChildren(...chart_rows(chart, chart_state.family).map((row) => element("li", {}, row_link([row], text(row)))));
}

async function draw(chart, generation) {
  const rows = chart_state.family ? chart_rows(chart, chart_state.family) : [];
  chart.view?.finalize();
  chart.view = null;
  chart.figure.hidden = rows.length === 0;
  if (chart.points.open) list_points(chart, chart.points.querySelector("ol"));
  const target = element("div", {class: "drawing"});
  chart.drawing.replaceWith(target);
  chart.drawing = target;
  if (rows.length === 0) return;
  const spec = {...filled_spec(chart, rows, null), description: `${chart.title}. ${chart.text} The numbers are in the table of all rows.`};
  const note = chart.roofs && spec.datasets.roofs.length === 0 ? chart.roofs : "";
  const width = target.clientWidth;
  try {
    // ast: expressions are interpreted, so the page's security policy needs no eval.
    const result = await window.vegaEmbed(target, spec, {
      mode: "vega-lite", renderer: "svg", actions: false, ast: true,
      config: chart_config(getComputedStyle(document.body).fontFamily, width < 500), tooltip: {disableDefaultStyle: true},
    });
    if (generation !== chart_state.generation) {
      result.finalize();
      return;
    }
    chart.view = result;
    result.view.addEventListener("click", (event, item) => {
      if (item && item.mark.marktype !== "line" && item.mark.marktype !== "area") go_to_rows(rows_of(item.datum));
    });
    if (note) target.append(element("p", {class: "muted"}, note));
  } catch (problem) {
    console.error(`${chart.file}: ${problem.message}`);
    target.replaceChildren(element("p", {class: "failure"}, `${chart.file}: ${problem.message}`));
  }
}

// A line for each chart that has no rows here, instead of an empty frame.
function note_missing() {
  const missing = chart_state.family ? chart_state.charts.filter((chart) => chart_rows(chart, chart_state.family).length === 0
      && (!chart.pair || all_rows.some((row) => row.kind === "peer"))) : [];
  document.getElementById("missing").replaceChildren(...missing.map((chart) => element("p", {class: "muted"}, `${chart.title}: ${empty_text(chart)}`)));
}

// data-ready on <body> is there while nothing is being drawn.
async function draw_all() {
  chart_state.generation += 1;
  const generation = chart_state.generation;
  delete document.body.dataset.ready;
  note_missing();
  for (const chart of chart_state.charts) {
    await draw(chart, generation);
    if (generation !== chart_state.generation) return;  // a later call draws
  }
  document.body.dataset.charts = String(document.querySelectorAll(".drawing svg").length);
  document.body.dataset.ready = "1";
}

function family_note(chosen) {
  const inside = visible_rows().filter((row) => kFamilyFields.every((field) => same_field(field, row, chosen)));
  const left_out = inside.filter((row) => !row.ranked);
  const constant = kFamilyFields.filter((field) => !varying_fields.includes(field) && chosen[field.name] !== "")
      .filter((field) => ["device", "direction", "phase", "mask", "features_label", "heads_label", "head_dim_label", "dtype_label", "batch", "threads_label", "inputs"].includes(field.name))
      .map((field) => field.word(chosen[field.name]));
  const parts = [];
  if (constant.length > 0) parts.push(`Same in every case: ${constant.join(", ")}.`);
  parts.push(`This choice has ${plural(inside.length, "row")}`
      + (left_out.length > 0 ? `; not drawn: ${count_words(left_out.map((row) => (row.overhead_bound ? "not ranked for the cost of calling" : row.status === "ok" ? "without an error figure" : row.status.replaceAll("_", " ")))).map(([word, n]) => `${n} ${word}`).join(", ")} (see the table).` : ", all drawn."));
  return `${parts.join(" ")} A click on a point shows its row in the table.`;
}

function show_charts() {
  chart_state.family = chosen_family();
  document.getElementById("family-note").textContent = chart_state.family ? family_note(chart_state.family) : "No row that passes the filters can be drawn.";
  draw_controls();
  draw_legend();
  return draw_all();
}

function draw_controls() {
  const chosen = chart_state.family;
  const all = families();
  const reachable = (field, value) => all.some((family) => family.row[field] === value
      && varying_fields.every((f) => f.name === field || family.row[f.name] === chosen[f.name]));
  const focused = document.activeElement?.dataset?.control;
  const controls = varying_fields.map((field) => {
    const values = [...new Set(all.map((family) => family.row[field.name]))].sort(compare_values);
    if (values.length < 2) return null;
    const pick = (value) => {
      choose(field.name, value);
      save_view();
      show_charts();
    };
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

function swatch_of(style) {
  const swatch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  swatch.setAttribute("viewBox", "-1.4 -1.4 2.8 2.8");
  swatch.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", style.shape);
  path.setAttribute("fill", style.fill);
  path.setAttribute("stroke", style.color);
  path.setAttribute("stroke-width", "0.24");
  swatch.append(path);
  return swatch;
}

function hide_series(names, hidden) {
  for (const name of names) {
    if (hidden) view.hidden.add(name);
    else view.hidden.delete(name);
  }
  save_view();
  draw_legend();
  draw_all();
}

function legend_button([series, style]) {
  const shown = !view.hidden.has(series);
  return element("button", {type: "button", "aria-pressed": String(shown), title: shown ? "hide in the charts" : "show in the charts",
    onclick: () => hide_series([series], shown)}, swatch_of(style), series, style.baseline ? element("span", {class: "tag"}, "baseline") : null);
}

// Kernels, then the peers of each library; where there are both, each group has a name that hides or shows it.
function draw_legend() {
  const legend = document.getElementById("legend");
  const buttons = () => [...legend.querySelectorAll("button")];
  const focused = buttons().indexOf(document.activeElement);
  const present = new Set(drawn_rows.filter(passes).map((row) => row.series));
  const groups = [...group_by([...styles].filter(([series]) => present.has(series)), ([, style]) => style.library)];
  legend.replaceChildren(...groups.map(([library, entries]) => {
    const names = entries.map(([series]) => series);
    const shown = names.some((name) => !view.hidden.has(name));
    const title = library || "kernels";
    const head = element("button", {type: "button", class: "group", "aria-pressed": String(shown), title: `${shown ? "hide" : "show"} all of them in the charts`,
      onclick: () => hide_series(names, shown)}, title);
    return element("div", {class: "legend-group", role: "group", "aria-label": title}, groups.length > 1 || library ? head : null, ...entries.map(legend_button));
  }));
  if (focused >= 0) buttons()[focused]?.focus();
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
  const chart = chart_of(source.file, spec);
  chart.drawing = element("div", {class: "drawing"});
  chart.points = element("details", {class: "points", ontoggle: () => { if (chart.points.open) list_points(chart, chart.points.querySelector("ol")); }},
      element("summary", {}, "Rows of this chart"), element("ol", {}));
  chart.figure = element("figure", {"aria-label": chart.title},
      element("figcaption", {}, element("h3", {}, chart.title), chart.text ? element("p", {}, chart.text) : null), chart.drawing, chart.points);
  chart_state.charts.push(chart);
}

// Resolves when all is drawn.
function start_charts() {
  const note = document.getElementById("charts-note");
  const say = (text) => {
    note.textContent = text;
    note.hidden = false;
    document.body.dataset.ready = "1";
    return Promise.resolve();
  };
  document.body.dataset.charts = "0";
  if (drawn_rows.length === 0) {
    return say(all_rows.length === 0 ? "This run has no rows, so there is nothing to draw." : "No row ran and passed its check, so there is nothing to draw; the table says why.");
  }
  if (typeof window.vegaEmbed !== "function") {
    return say("Charts are missing because the chart renderer is not installed: run \u201cmake setup\u201d with a network connection, then \u201cheadwise report FILE\u201d again. The tables are complete.");
  }
  if (page.charts.length === 0) say("No chart specification was found beside the program (share/headwise/charts), so there are tables only.");
  page.charts.forEach(add_figure);
  chart_state.charts.sort(by_order);
  for (const chart of chart_state.charts) document.getElementById(chart.across === "all" ? "overview" : "figures").append(chart.figure);
  return show_charts();
}
