// The charts as files: every specification with its rows, title and legend, for whoever turns Vega-Lite into SVG and
// PNG (draw_charts.py). `page_style` is style.css: the colours are the page's in the light.

const kFileWidth = 760;
const kFileFont = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif";

// The custom properties of the style's first rule.
function light_palette() {
  const rule = page_style.slice(page_style.indexOf("{"), page_style.indexOf("}"));
  return new Map([...rule.matchAll(/(--[a-z0-9-]+):\s*([^;]+);/g)].map(([, name, value]) => [name, value.trim()]));
}
const palette = light_palette();

function colored(node) {
  if (typeof node === "string") return node.replace(/var\((--[a-z0-9-]+)\)/g, (whole, name) => palette.get(name) ?? whole);
  if (Array.isArray(node)) return node.map(colored);
  if (node === null || typeof node !== "object") return node;
  return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, key === "datasets" ? value : colored(value)]));
}

function wrapped(text, width) {
  const lines = [""];
  for (const word of text.split(/\s+/).filter(Boolean)) {
    const line = lines[lines.length - 1];
    if (line !== "" && line.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = line === "" ? word : `${line} ${word}`;
  }
  return lines.filter(Boolean);
}

// What all rows drawn share, as the page says it in words beside the charts.
function shared_words(rows) {
  return kFamilyFields.filter(({name}) => rows.every((row) => row[name] === rows[0][name]) && rows[0][name] !== "")
      .filter(({name}) => ["device", "phase", "mask", "features_label", "heads_label", "head_dim_label", "dtype_label", "batch", "threads_label", "inputs"].includes(name))
      .map((field) => field.word(rows[0][field.name])).join(", ");
}

function file_spec(chart, rows) {
  const present = new Set(rows.map((row) => row.series));
  const series = [...styles.keys()].filter((name) => present.has(name));
  const legend = {orient: "top", title: null, values: series, symbolSize: 90, symbolOpacity: 1, labelLimit: 0, labelFontSize: 12, columns: series.length > 4 ? 3 : 4, offset: 10};
  const spec = filled_spec(chart, rows, legend);
  const machine = page.run.environment.find(([name]) => name === "cpu")?.[1];
  const note = chart.roofs && spec.datasets.roofs.length === 0 ? chart.roofs : "";
  const subtitle = [shared_words(rows), machine ?? "", ...wrapped(`${chart.text} ${note}`, 120)].filter(Boolean);
  return colored({
    ...spec,
    description: `${chart.title}. ${chart.text}`,
    width: spec.width === "container" ? kFileWidth : spec.width,
    autosize: {type: "pad"},
    title: {text: chart.title, subtitle, anchor: "start", frame: "bounds", color: "var(--text)", subtitleColor: "var(--muted)", fontSize: 17, subtitleFontSize: 12, subtitlePadding: 6, offset: 14},
    config: {...chart_config(kFileFont, false), ...spec.config, background: "var(--page)", padding: 18},
  });
}

// A file's name of lower-case letters, digits, dots and hyphens.
const slug = (text) => text.toLowerCase().replace(/[^a-z0-9.]+/g, "-").replace(/^[-.]+|[-.]+$/g, "").slice(0, 100);

// One file a chart and family that it tells apart; the family is in the name where there are several.
function files_of(chart, chosen) {
  const made = [];
  const seen = new Set();
  for (const family of chosen) {
    const fields = chart.across === "all" ? [] : varying_fields.filter(({name}) => !chart.across.includes(name));
    const key = fields.map(({name}) => family[name]).join("\n");
    if (seen.has(key)) continue;
    seen.add(key);
    const rows = chart_rows(chart, family);
    if (rows.length === 0) continue;
    const words = fields.filter((field) => family[field.name] !== field.usual).map((field) => field.word(family[field.name]));
    made.push({words: slug(words.filter(Boolean).join("-")), spec: file_spec(chart, rows)});
  }
  const stem = slug(chart.file.replace(/\.json$/, "")) || "chart";
  return made.map(({words, spec}) => ({name: made.length > 1 && words ? `${stem}-${words}` : stem, spec}));
}

// {"files": [{name, spec}], "problems": [text]} as JSON.
function chart_files(view_words) {
  view = view_of(view_words.replace(/^#/, ""));
  const problems = [];
  const charts = [];
  for (const {file, text} of page.charts) {
    try {
      charts.push(chart_of(file, JSON.parse(text)));
    } catch (problem) {
      problems.push(`${file} is not valid JSON: ${problem.message}`);
    }
  }
  const richest = chosen_family();
  const all = Object.keys(view.family).length > 0 && richest ? [richest] : families().map(({row}) => row);
  const files = charts.sort(by_order).flatMap((chart) => files_of(chart, all));
  const taken = new Map();
  for (const file of files) {
    const times = (taken.get(file.name) ?? 0) + 1;
    taken.set(file.name, times);
    if (times > 1) file.name += `-${times}`;
  }
  return JSON.stringify({files, problems});
}
