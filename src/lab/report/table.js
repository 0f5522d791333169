// The table of all rows: sortable, filterable, each row opening to all its fields and its reproducer.

function family_column(field) {
  return {title: field.title, value: (row) => row[field.name], text: (row) => (row[field.name] === "" ? kNothing : String(row[field.name])),
    number: ["head_dim_label", "batch", "threads_label", "seed", "page_size"].includes(field.name)};
}

// The small figure beside a number; it keeps its place where it has nothing to say, so that numbers stay aligned.
const aside = (text, title) => element("span", {class: "aside", title}, text);

// The interval as a distance in percent (its wider side), or, where that says little, as its two ends.
function spread(row, field, low, high) {
  if (row[low] == null || row[high] == null || !(row[field] > 0) || row[low] === row[high]) return aside("");
  const share = Math.max(row[high] - row[field], row[field] - row[low]) / row[field];
  if (share > 0.2) return aside(`${format_significant(row[low], 2)}\u2013${format_significant(row[high], 2)}`, "95\u2009% interval");
  return aside(`\u00b1${share < 0.001 ? "<0.1" : format_significant(100 * share, 2)}\u2009%`, `interval ${format_significant(row[low], 5)} to ${format_significant(row[high], 5)}`);
}

// Of a row without a rank for the cost of calling it, the time is shown as what it is, and no speed is made of it.
const speed_of = (row, field) => (row.overhead_bound ? null : row[field]);

const table_columns = [
  {title: "Contender", value: (row) => row.contender, text: (row) => row.contender, kind: "contender"},
  {title: "Status", value: (row) => (row.status === "ok" ? (row.fastest ? "0" : "1") : row.status), kind: "status"},
  {title: "Sequence", value: (row) => row.seq_kv, text: format_sequence, number: true},
  ...varying_fields.filter((field) => field.name === "mask").map(family_column),
  {title: "Median", unit: "ms", field: "ms_median", value: (row) => row.ms_median, number: true,
    text: (row) => [format_ms(row.ms_median), spread(row, "ms_median", "ms_low", "ms_high")]},
  {title: "Error", unit: "of limit", field: "error_max", value: (row) => row.error_share ?? row.error_max, number: true,
    text: (row) => [format_error(row.error_max), aside(row.error_share == null ? "" : format_percent(row.error_share), `limit ${format_error(row.error_limit)}`)]},
  {title: "Speedup", field: "speedup", value: (row) => row.speedup, number: true,
    text: (row) => [format_speedup(row.speedup), spread(row, "speedup", "speedup_low", "speedup_high")]},
  // The sequence column tells prefill from decode.
  ...varying_fields.filter((field) => field.name !== "mask" && field.name !== "phase").map(family_column),
  {title: "Tokens/s", field: "tokens_per_s", value: (row) => speed_of(row, "tokens_per_s"), text: (row) => format_count_per_second(speed_of(row, "tokens_per_s")), number: true},
  {title: "TFLOP/s", field: "tflops", value: (row) => speed_of(row, "tflops"), text: (row) => format_significant(speed_of(row, "tflops"), 3), number: true},
  {title: "Peak memory", field: "peak_bytes", value: (row) => row.peak_bytes, text: (row) => format_bytes(row.peak_bytes), number: true},
  {title: "Workspace", field: "workspace_bytes", value: (row) => row.workspace_bytes, text: (row) => format_bytes(row.workspace_bytes), number: true},
];

const table_state = {open: new Set(), marked: new Set()};

// Cases in the order of the file, best contender first, what did not run last.
function natural_order() {
  const cases = new Map();
  for (const row of all_rows) {
    if (!cases.has(row.case)) cases.set(row.case, cases.size);
  }
  const rank = (row) => (row.ranked ? row.ms_median : Infinity);
  return (a, b) => cases.get(a.case) - cases.get(b.case) || (rank(a) === rank(b) ? 0 : rank(a) - rank(b)) || a.position - b.position;
}

// Missing values go last in both directions.
function column_order(column, descending) {
  return (a, b) => {
    const left = column.value(a);
    const right = column.value(b);
    if (left == null || right == null) return (left == null) - (right == null) || a.position - b.position;
    return (descending ? -1 : 1) * compare_values(left, right) || a.position - b.position;
  };
}

function status_cell(row) {
  const unranked = row.overhead_bound
    ? element("span", {class: "pill unranked", title: `calling it takes more than ${format_percent(page.most_overhead)} of its time, so the time says too little of attention`}, "not ranked") : null;
  return [unranked ?? element("span", {class: `pill ${/^[a-z_]+$/.test(row.status) ? row.status : ""}`}, row.status.replaceAll("_", " ")),
    row.fastest ? element("span", {class: "pill fastest", title: row.clearly ? "its interval lies below every other contender's in this case" : "its interval overlaps that of the second"},
        row.clearly ? "fastest" : "fastest, within noise") : null,
    row.reason ? element("span", {class: "reason"}, unranked ? row.reason.replace(/^not ranked: /, "") : row.reason) : null].filter(Boolean).flatMap((node, i) => (i > 0 ? [" ", node] : [node]));
}

async function copy_text(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    const range = document.createRange();
    range.selectNodeContents(button.previousElementSibling);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    button.textContent = document.execCommand("copy") ? "Copied" : "Press Ctrl+C";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1600);
}

// The samples of a row as far as the page has them: where they lie, and the numbers.
function samples_entry(row) {
  const points = row.quantiles_ms;
  if (points.length < 2) return null;
  const [low, high] = [points[0], points[points.length - 1]];
  const at = (share) => points[Math.round(share * (points.length - 1))];
  const strip = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  strip.setAttribute("viewBox", "0 0 1000 20");
  strip.setAttribute("preserveAspectRatio", "none");
  strip.setAttribute("aria-hidden", "true");
  for (const point of points) {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    line.setAttribute("x", String(low === high ? 500 : (996 * (point - low)) / (high - low)));
    line.setAttribute("width", "4");
    line.setAttribute("height", "20");
    strip.append(line);
  }
  const kept = row.samples > points.length ? `${points.length} of ${row.samples} samples, at even steps of rank` : plural(points.length, "sample");
  return element("div", {class: "samples"},
      element("p", {}, `${kept}: from ${format_ms(low)} over ${format_ms(at(0.25))}, ${format_ms(at(0.5))} (median) and ${format_ms(at(0.75))} to ${format_ms(high)}\u2009ms`), strip,
      element("details", {}, element("summary", {}, "all of them, in ms"), element("p", {class: "numbers"}, points.map((point) => format_significant(point, 5)).join(", "))));
}

function detail_row(row) {
  const entries = page.columns.filter((column) => column.name !== "ranked" && column.name !== "reproduce").map((column) => {
    const text = format_field(column, column.name === "mask" ? row.recorded_mask ?? "" : row[column.name]);
    return element("div", {class: text.length > 34 ? "long" : null, title: column.help}, element("dt", {}, column.name), element("dd", {}, text));
  });
  entries.sort((a, b) => b.classList.contains("long") - a.classList.contains("long"));
  const button = element("button", {type: "button", onclick: () => copy_text(row.reproduce, button)}, "Copy");
  const command = row.reproduce ? element("div", {class: "command"}, element("code", {}, row.reproduce), button) : null;
  return element("tr", {class: "detail"}, element("td", {colspan: table_columns.length},
      element("div", {class: "widest"}, command, samples_entry(row), element("dl", {}, ...entries))));
}

function contender_cell(row, line) {
  const button = element("button", {type: "button", "aria-expanded": String(table_state.open.has(row)),
    title: "all fields and the command that reproduces this row",
    onclick: () => {
      const open = !table_state.open.has(row);
      button.setAttribute("aria-expanded", String(open));
      if (open) {
        table_state.open.add(row);
        line.after(detail_row(row));
      } else {
        table_state.open.delete(row);
        line.nextElementSibling.remove();
      }
    }}, element("span", {class: "arrow", "aria-hidden": "true"}, "\u25b8"), element("span", {title: row.version || null}, row.contender));
  return button;
}

function table_line(row, starts_group) {
  const line = element("tr", {"data-row": row.position, class: [starts_group ? "group" : "", row.ranked ? "" : "failed", table_state.marked.has(row) ? "marked" : ""].filter(Boolean).join(" ") || null});
  for (const column of table_columns) {
    if (column.kind === "contender") line.append(element("td", {class: "contender"}, contender_cell(row, line)));
    else if (column.kind === "status") line.append(element("td", {}, ...status_cell(row)));
    else line.append(element("td", {class: column.number ? "number" : null}, ...[column.text(row)].flat()));
  }
  return line;
}

function filtered_rows() {
  const words = view.search.toLowerCase().split(/\s+/).filter(Boolean);
  return visible_rows().filter((row) => {
    if (view.status && row.status !== view.status) return false;
    if (view.fastest && !row.fastest) return false;
    const text = [row.contender, row.version, row.overhead_bound ? "not ranked" : row.status, row.reason, row.family_label, format_sequence(row), row.case].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

function draw_table() {
  const {column, descending} = sorting();
  const rows = filtered_rows().sort(column ? column_order(column, descending) : natural_order());
  const lines = [];
  rows.forEach((row, i) => {
    lines.push(table_line(row, !column && i > 0 && rows[i - 1].case !== row.case));
    if (table_state.open.has(row)) lines.push(detail_row(row));
  });
  document.querySelector("#table tbody").replaceChildren(...lines);
  document.querySelectorAll("#table thead th").forEach((head, i) => {
    head.setAttribute("aria-sort", table_columns[i] === column ? (descending ? "descending" : "ascending") : "none");
  });
  const constant = kFamilyFields.filter((field) => !varying_fields.includes(field) && all_rows.length > 0 && all_rows[0][field.name] !== "")
      .map((field) => field.word(all_rows[0][field.name]));
  document.getElementById("rows-note").textContent = all_rows.length === 0 ? "This run has no rows."
    : `${rows.length === all_rows.length ? plural(rows.length, "row") : `${rows.length} of ${plural(all_rows.length, "row")}`}.`
      + (constant.length > 0 ? ` Same in all: ${constant.join(", ")}.` : "") + " \u00b1, or a range, is the 95\u2009% interval. Open a contender for all fields and the command that reproduces the row.";
}

// What the view's sort ("Median", "-Median") means.
function sorting() {
  const column = table_columns.find(({title}) => view.sort === title || view.sort === `-${title}`) ?? null;
  return {column, descending: column !== null && view.sort.startsWith("-")};
}

function sort_by(column) {
  const current = sorting();
  if (current.column !== column) view.sort = column.title;
  else view.sort = current.descending ? "" : `-${column.title}`;  // third click: back to the file's order
  changed_table();
}

function changed_table() {
  save_view();
  draw_filters();
  draw_table();
}

// Shows the rows in the table: clears what hides them, marks all, opens the first and goes there.
function go_to_rows(rows) {
  if (rows.length === 0) return;
  if (!rows.every(passes)) view = {...empty_view(), family: view.family, hidden: view.hidden, sort: view.sort};
  const shown = new Set(filtered_rows());
  if (!rows.every((row) => shown.has(row))) view = {...view, search: "", status: "", fastest: false};
  view.row = rows[0].position;
  save_view("step");
  mark_rows(rows);
  show_view();
  show_marked();
}

function mark_rows(rows) {
  table_state.marked = new Set(rows);
  table_state.open.add(rows[0]);
}

function show_marked() {
  const button = document.querySelector("#table tr.marked td.contender button");
  if (!button) return;
  button.focus({preventScroll: true});
  button.closest(".table-frame").scrollLeft = 0;
  button.scrollIntoView({block: "center", inline: "nearest"});
}

// A link in the page's text to the rows that it stands on.
function row_link(rows, text) {
  return element("button", {type: "button", class: "row-link", title: `show ${plural(rows.length, "row")} in the table`, onclick: () => go_to_rows(rows)}, text);
}

function start_table() {
  const heads = table_columns.map((column) => element("th", {scope: "col", class: column.number ? "number" : null, "aria-sort": "none",
    title: page.columns.find((c) => c.name === column.field)?.help},
  element("button", {type: "button", onclick: () => sort_by(column)}, column.title, column.unit ? element("span", {class: "unit"}, column.unit) : "")));
  document.getElementById("table").replaceChildren(element("thead", {}, element("tr", {}, ...heads)), element("tbody"));
  const statuses = count_words(all_rows.map((row) => row.status));
  const form = document.getElementById("filters");
  form.replaceChildren(
      element("label", {}, element("span", {}, "Filter"), element("input", {type: "search", name: "search", placeholder: "flash causal 1024", oninput: read_table_filters})),
      element("label", {}, element("span", {}, "Status"), element("select", {name: "status", onchange: read_table_filters},
          element("option", {value: ""}, `all (${all_rows.length})`), ...statuses.map(([status, count]) => element("option", {value: status}, `${status} (${count})`)))),
      element("label", {class: "check"}, element("input", {type: "checkbox", name: "fastest", onchange: read_table_filters}), element("span", {}, "only the fastest of each case")));
  form.addEventListener("submit", (event) => event.preventDefault());
  fill_table_filters();
  if (view.row !== null) mark_rows([all_rows[view.row]]);
  draw_table();
}

function read_table_filters() {
  const {search, status, fastest} = document.getElementById("filters").elements;
  Object.assign(view, {search: search.value, status: status.value, fastest: fastest.checked});
  changed_table();
}

function fill_table_filters() {
  const {search, status, fastest} = document.getElementById("filters").elements;
  if (search.value !== view.search) search.value = view.search;
  status.value = view.status;
  if (status.selectedIndex < 0) view.status = status.value = "";  // a status that no row has
  fastest.checked = view.fastest;
}
