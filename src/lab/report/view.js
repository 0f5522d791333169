// What is shown: which rows, which family of cases, which contenders in the charts, how the table is sorted. It has
// no part in the document: the page keeps it in the address's fragment, so that a view can be shared, and the
// program takes the same text for chart files.

// Filters of everything on the page. A contender is meant without its dtype, which has a filter of its own.
const kFilters = [
  {key: "kind", field: "kind_label", title: "Kind"},
  {key: "device", field: "device", title: "Device"},
  {key: "dtype", field: "dtype_label", title: "Dtype"},
  {key: "mask", field: "mask", title: "Mask"},
  {key: "contender", field: "series", title: "Contender"},
];

const values_of = (rows, field) => [...new Set(rows.map((row) => row[field]))].sort(compare_values);
const all_values = new Map(kFilters.map((filter) => [filter.key, values_of(all_rows, filter.field)]));

function empty_view() {
  return {
    only: Object.fromEntries(kFilters.map(({key}) => [key, new Set()])),  // an empty set: all
    hidden: new Set(),  // series that the charts leave out
    family: {},  // what was chosen of the varying family fields, by name
    search: "", status: "", fastest: false, sort: "", row: null,
  };
}
let view = empty_view();

const passes = (row) => kFilters.every(({key, field}) => view.only[key].size === 0 || view.only[key].has(row[field]));
const visible_rows = () => all_rows.filter(passes);
const is_filtered = () => kFilters.some(({key}) => view.only[key].size > 0);

function families() {
  return [...group_by(drawn_rows.filter(passes), (row) => row.family).values()].map((rows) => (
      {row: rows[0], lengths: new Set(rows.map((row) => row.seq_kv)).size, rows: rows.length}));
}

// The family that the view names, or the one that differs least from it; without a choice the richest. `must` is a
// field whose value counts before all others, so that no choice is a dead end. Null where nothing is drawn.
function chosen_family(must) {
  const wanted = Object.entries(view.family);
  const likeness = ({row}) => wanted.reduce((sum, [name, value]) =>
    sum + (String(row[name]) === value ? (name === must ? 1000 : 1) : 0), 0);
  const order = families().sort((a, b) => likeness(b) - likeness(a) || b.lengths - a.lengths || b.rows - a.rows);
  return order[0]?.row ?? null;
}

function choose(field, value) {
  const before = chosen_family();
  view.family = Object.fromEntries(varying_fields.map(({name}) => [name, String(before[name])]));
  view.family[field] = String(value);
  const after = chosen_family(field);
  for (const {name} of varying_fields) view.family[name] = String(after[name]);
}

// "mask=causal&contender=cpu/avx512/flash&at.phase=decode&sort=-Median"; empty for the view that one starts with.
function view_text() {
  const pairs = [];
  for (const {key} of kFilters) {
    for (const value of view.only[key]) pairs.push([key, value]);
  }
  for (const [name, value] of Object.entries(view.family)) pairs.push([`at.${name}`, value]);
  for (const series of view.hidden) pairs.push(["hide", series]);
  for (const key of ["search", "status", "sort"]) if (view[key]) pairs.push([key, view[key]]);
  if (view.fastest) pairs.push(["fastest", "1"]);
  if (view.row !== null) pairs.push(["row", view.row]);
  const encoded = (word) => encodeURIComponent(word).replaceAll("%2F", "/").replaceAll("%3A", ":").replaceAll("%20", "+");
  return pairs.map((pair) => pair.map(encoded).join("=")).join("&");
}

// The view of a text. What it names and the rows do not have is left out: a link may be older than the run.
function view_of(text) {
  const made = empty_view();
  const decoded = (word) => {
    try {
      return decodeURIComponent(word.replaceAll("+", " "));
    } catch {
      return "";  // a stray percent sign
    }
  };
  for (const pair of text.split("&").filter((part) => part.includes("="))) {
    const cut = pair.indexOf("=");
    const [key, value] = [decoded(pair.slice(0, cut)), decoded(pair.slice(cut + 1))];
    if (all_values.has(key)) {
      const known = all_values.get(key).find((one) => String(one) === value);
      if (known !== undefined) made.only[key].add(known);
    } else if (key.startsWith("at.")) {
      const name = key.slice(3);
      if (varying_fields.some((field) => field.name === name)) made.family[name] = value;
    } else if (key === "hide") {
      if (all_values.get("contender").includes(value)) made.hidden.add(value);
    } else if (key === "row") {
      if (/^\d+$/.test(value) && Number(value) < all_rows.length) made.row = Number(value);
    } else if (key === "fastest") {
      made.fastest = value === "1";
    } else if (["search", "status", "sort"].includes(key)) {
      made[key] = value;
    }
  }
  return made;
}
