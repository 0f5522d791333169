// Numbers and elements for people. Text reaches the page through textContent alone.

function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value == null || value === false) continue;
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

const kNothing = "\u2013";

function group_digits(text) {
  const [whole, part] = text.split(".");
  const grouped = whole.length > 4 ? whole.replace(/\B(?=(\d{3})+$)/g, "\u2009") : whole;
  return part === undefined ? grouped : `${grouped}.${part}`;
}

// `digits` significant digits without an exponent between 0.0001 and 1e15.
function format_significant(value, digits) {
  if (value == null) return kNothing;
  if (typeof value !== "number" || !Number.isFinite(value)) return String(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e15) return value.toExponential(digits - 1).replace("e-", "e\u2212").replace("e+", "e");
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return group_digits(value.toFixed(Math.min(decimals, 12)));
}

const format_ms = (value) => format_significant(value, 4);
const format_integer = (value) => (value == null ? kNothing : group_digits(String(Math.round(value))));
const format_error = (value) => (value == null ? kNothing
    : typeof value !== "number" || value === 0 ? String(value) : value.toExponential(1).replace("e-", "e\u2212"));
const format_percent = (share) => (share == null ? kNothing : share < 10 ? `${format_significant(100 * share, 2)}\u2009%`
    : share < 1000 ? `${format_significant(share, 2)}\u00d7` : `${share.toExponential(0).replace("e+", "e")}\u00d7`);
const format_speedup = (value) => (value == null ? kNothing : `${format_significant(value, 3)}\u00d7`);

function format_bytes(value) {
  if (value == null) return kNothing;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : format_significant(value, 3)}\u2009${units[unit]}`;
}

function format_count_per_second(value) {
  if (value == null) return kNothing;
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= size) return `${format_significant(value / size, 3)}\u2009${unit}`;
  }
  return format_significant(value, 3);
}

function format_sequence(row) {
  return row.seq_q === row.seq_kv ? `${row.seq_kv}` : `${row.seq_q} \u00d7 ${row.seq_kv}`;
}

// Any field of a row by its type and unit.
function format_field(column, value) {
  if (value == null || value === "") return kNothing;
  if (column.type === "boolean") return value ? "yes" : "no";
  if (column.unit === "bytes") return `${format_bytes(value)} (${format_integer(value)})`;
  if (column.type === "number") return `${format_significant(value, 5)}${column.unit ? `\u2009${column.unit}` : ""}`;
  if (column.type === "integer") return `${value}${column.unit ? `\u2009${column.unit}` : ""}`;
  return String(value);
}

const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

function count_words(words) {
  const counts = new Map();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

const geometric_mean = (values) => Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);

// Numbers inside of text count as numbers: "d64" before "d128", the same in every language.
function compare_text(a, b) {
  const pieces = (text) => text.match(/\d+|\D+/g) ?? [];
  const [left, right] = [pieces(a), pieces(b)];
  for (let i = 0; i < Math.min(left.length, right.length); i += 1) {
    const numbers = /^\d/.test(left[i]) && /^\d/.test(right[i]);
    if (numbers && Number(left[i]) !== Number(right[i])) return Number(left[i]) - Number(right[i]);
    if (!numbers && left[i] !== right[i]) return left[i] < right[i] ? -1 : 1;
  }
  return left.length - right.length;
}
const compare_values = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : compare_text(String(a), String(b)));
