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
  {title: "Tokens/s", field: "tokens_per_s", value: (row) => row.tokens_per_s, text: (row) => format_count_per_second(row.tokens_per_s), number: true},
  {title: "TFLOP/s", field: "tflops", value: (row) => row.tflops, text: (row) => format_significant(row.tflops, 3), number: true},
  {title: "Peak memory", field: "peak_bytes", value: (row) => row.peak_bytes, text: (row) => format_bytes(row.peak_bytes), number: true},
  {title: "Workspace", field: "workspace_bytes", value: (row) => row.workspace_bytes, text: (row) => format_bytes(row.workspace_bytes), number: true},
];

const table_state = {sort: null, descending: false, open: new Set(), marked: new Set()};

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
  return [element("span", {class: `pill ${/^[a-z_]+$/.test(row.status) ? row.status : ""}`}, row.status.replaceAll("_", " ")),
    row.fastest ? element("span", {class: "pill fastest", title: row.clearly ? "its interval lies below every other contender's in this case" : "its interval overlaps that of the second"},
        row.clearly ? "fastest" : "fastest, within noise") : null,
    row.reason ? element("span", {class: "reason"}, row.reason) : null].filter(Boolean).flatMap((node, i) => (i > 0 ? [" ", node] : [node]));
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

function detail_row(row) {
  const entries = page.columns.filter((column) => column.name !== "ranked" && column.name !== "reproduce").map((column) => {
    const text = format_field(column, row[column.name]);
    return element("div", {class: text.length > 34 ? "long" : null, title: column.help}, element("dt", {}, column.name), element("dd", {}, text));
  });
  entries.sort((a, b) => b.classList.contains("long") - a.classList.contains("long"));
  const button = element("button", {type: "button", onclick: () => copy_text(row.reproduce, button)}, "Copy");
  const command = row.reproduce ? element("div", {class: "command"}, element("code", {}, row.reproduce), button) : null;
  return element("tr", {class: "detail"}, element("td", {colspan: table_columns.length},
      element("div", {class: "widest"}, command, element("dl", {}, ...entries))));
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
    }}, element("span", {class: "arrow", "aria-hidden": "true"}, "\u25b8"), element("span", {}, row.contender));
  return button;
}

function table_line(row, starts_group) {
  const line = element("tr", {class: [starts_group ? "group" : "", row.ranked ? "" : "failed", table_state.marked.has(row) ? "marked" : ""].filter(Boolean).join(" ") || null});
  for (const column of table_columns) {
    if (column.kind === "contender") line.append(element("td", {class: "contender"}, contender_cell(row, line)));
    else if (column.kind === "status") line.append(element("td", {}, ...status_cell(row)));
    else line.append(element("td", {class: column.number ? "number" : null}, ...[column.text(row)].flat()));
  }
  return line;
}

function filtered_rows() {
  const form = document.getElementById("filters");
  const words = form.elements.search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const status = form.elements.status.value;
  return all_rows.filter((row) => {
    if (status && row.status !== status) return false;
    if (form.elements.fastest.checked && !row.fastest) return false;
    const text = [row.contender, row.status, row.reason, row.family_label, format_sequence(row), row.case].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

function draw_table() {
  const rows = filtered_rows().sort(table_state.sort ? column_order(table_state.sort, table_state.descending) : natural_order());
  const lines = [];
  rows.forEach((row, i) => {
    lines.push(table_line(row, !table_state.sort && i > 0 && rows[i - 1].case !== row.case));
    if (table_state.open.has(row)) lines.push(detail_row(row));
  });
  document.querySelector("#table tbody").replaceChildren(...lines);
  document.querySelectorAll("#table thead th").forEach((head, i) => {
    const sorted = table_columns[i] === table_state.sort;
    head.setAttribute("aria-sort", sorted ? (table_state.descending ? "descending" : "ascending") : "none");
  });
  const constant = kFamilyFields.filter((field) => !varying_fields.includes(field) && all_rows.length > 0 && all_rows[0][field.name] !== "")
      .map((field) => field.word(all_rows[0][field.name]));
  document.getElementById("rows-note").textContent = all_rows.length === 0 ? "This run has no rows."
    : `${rows.length === all_rows.length ? plural(rows.length, "row") : `${rows.length} of ${plural(all_rows.length, "row")}`}.`
      + (constant.length > 0 ? ` Same in all: ${constant.join(", ")}.` : "") + " \u00b1, or a range, is the 95\u2009% interval. Open a contender for all fields and the command that reproduces the row.";
}

function sort_by(column) {
  if (table_state.sort !== column) {
    table_state.sort = column;
    table_state.descending = false;
  } else if (!table_state.descending) {
    table_state.descending = true;
  } else {
    table_state.sort = null;  // third click: back to the file's order
  }
  draw_table();
}

// The row of a case and contender; of a cell measured twice the later one, as in the charts.
const find_row = (case_id, contender) => all_rows.findLast((row) => row.case === case_id && row.contender === contender);

// Shows the rows in the table: unhides them, marks all, opens the first and goes there.
function go_to_rows(rows) {
  if (rows.length === 0) return;
  const shown = new Set(filtered_rows());
  if (!rows.every((row) => shown.has(row))) document.getElementById("filters").reset();
  table_state.marked = new Set(rows);
  table_state.open.add(rows[0]);
  draw_table();
  const button = document.querySelector("#table tr.marked td.contender button");
  button.focus({preventScroll: true});
  button.scrollIntoView({block: "center", inline: "start"});
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
      element("label", {}, element("span", {}, "Filter"), element("input", {type: "search", name: "search", placeholder: "flash causal 1024", oninput: draw_table})),
      element("label", {}, element("span", {}, "Status"), element("select", {name: "status", onchange: draw_table},
          element("option", {value: ""}, `all (${all_rows.length})`), ...statuses.map(([status, count]) => element("option", {value: status}, `${status} (${count})`)))),
      element("label", {class: "check"}, element("input", {type: "checkbox", name: "fastest", onchange: draw_table}), element("span", {}, "only the fastest of each case")));
  form.addEventListener("submit", (event) => event.preventDefault());
  draw_table();
}
