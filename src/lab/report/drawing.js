// From rows and a chart's specification to what Vega-Lite draws; no part in the document. Page and chart files run
// this same script.
//
// A specification reads the named data source "rows" and says in usermeta.headwise what it is and which rows it wants;
// data/charts/README.md has the keys.

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

const kLibraryColors = 6;
const kDashes = [[6, 3], [2, 2], [9, 3, 2, 3], [4, 2]];  // of the peers of a library, in turn

// Each series with one look for the whole page: kernels first, in order of first appearance, filled and with a colour
// each (grey is the baseline's), which no peer changes; then peers by library, whose colour they share, hollow and
// dashed.
function series_styles() {
  const baselines = new Set(all_rows.filter((row) => row.contender === row.baseline).map((row) => row.series));
  const made = new Map();
  let next = 0;
  for (const row of drawn_rows.filter((one) => one.kind !== "peer")) {
    if (made.has(row.series)) continue;
    const baseline = baselines.has(row.series);
    const color = baseline ? "var(--series-baseline)" : `var(--series-${next % kSeriesColors})`;
    made.set(row.series, {color, fill: color, dash: [], width: 2.4, library: "", baseline, shape: kShapes[made.size % kShapes.length]});
    if (!baseline) next += 1;
  }
  const libraries = group_by(drawn_rows.filter((row) => row.kind === "peer"), (row) => row.library);
  [...libraries.keys()].sort(compare_values).forEach((library, place) => {
    const color = `var(--peer-${place % kLibraryColors})`;
    values_of(libraries.get(library), "series").forEach((series, i) => made.set(series,
        {color, fill: "var(--page)", dash: kDashes[i % kDashes.length], width: 1.3, library, baseline: baselines.has(series), shape: kShapes[i % kShapes.length]}));
  });
  return made;
}
const styles = series_styles();

// What a specification says of itself, with the defaults filled in.
function chart_of(file, spec) {
  const about = spec.usermeta?.headwise ?? {};
  return {
    file, spec, title: about.title ?? file, text: about.description ?? "", order: about.order ?? 1000,
    across: about.across ?? [], needs: about.needs ?? [], varies: about.varies ?? null, value: about.value ?? null, baseline: about.baseline ?? true,
    roofs: about.roofs ?? null, pair: about.pair ?? null,
  };
}

const by_order = (a, b) => a.order - b.order || compare_values(a.file, b.file);

function in_family(row, family, across) {
  if (across === "all") return true;
  return kFamilyFields.every((field) => across.includes(field.name) || row[field.name] === family[field.name]);
}

function chart_rows(chart, family) {
  const rows = drawn_rows.filter((row) => passes(row) && in_family(row, family, chart.across) && !view.hidden.has(row.series)
      && (chart.baseline || row.contender !== row.baseline) && chart.needs.every((field) => row[field] > 0)
      && (!chart.pair || (passes(all_rows[row[chart.pair]]) && !view.hidden.has(all_rows[row[chart.pair]].series))));
  if (!chart.varies) return rows;
  return [...group_by(rows, (row) => `${row.series}\n${row.seq_q}\n${row.seq_kv}`).values()]
      .filter((group) => new Set(group.map((row) => row[chart.varies])).size > 1).flat();
}

// Why a chart has no rows.
function empty_text(chart) {
  if (chart.varies) {
    const field = kFamilyFields.find(({name}) => name === chart.varies);
    return `not drawn for this choice, since no length was measured with more than one ${(field?.title ?? chart.varies).toLowerCase()}.`;
  }
  if (chart.pair) return "not drawn for this choice, since it shows no kernel and peer of a case that are ranked and were timed alike.";
  return `not drawn for this choice${chart.needs.length > 0 ? `, since no row shown has ${chart.needs.join(" and ")}` : ""}.`;
}

// The peaks that are ceilings of the rows: of their device and threads, arithmetic of their instruction sets alone.
// Of a level of memory that several instruction sets read, the fastest reading.
function peaks_of(rows) {
  const usable = Number(page.run.environment.find(([name]) => name === "cpus_usable")?.[1]);
  const place = (device, threads) => `${device}\n${threads > 0 ? threads : usable}`;
  const places = new Set(rows.map((row) => place(row.device, row.threads)));
  const sets = new Set(rows.map((row) => row.isa));
  const here = page.peaks.filter((peak) => peak.value > 0 && places.has(place(peak.device, peak.threads)));
  const best = (peaks) => [...group_by(peaks, (peak) => peak.name).values()]
      .map((group) => group.reduce((a, b) => (b.value > a.value ? b : a)));
  return {
    flops: best(here.filter((peak) => peak.what === "flops" && sets.has(peak.isa))),
    bytes: best(here.filter((peak) => peak.what === "bytes")),
  };
}

// The roofline's lines, two points each, as rows of the data source "roofs": bytes a second rise with the intensity
// up to the highest arithmetic peak; arithmetic is level from where the fastest memory reaches it.
function roofs_of(rows) {
  const {flops, bytes} = peaks_of(rows);
  const intensities = rows.map((row) => row.intensity).filter((value) => value > 0);
  if (intensities.length === 0 || flops.length === 0 || bytes.length === 0) return [];
  const values = (peaks) => peaks.map((peak) => peak.value);
  const top = Math.max(...values(flops));
  const ridge = (peak_flops, peak_bytes) => (1000 * peak_flops) / peak_bytes;  // TFLOP/s over GB/s
  const first = Math.min(...intensities, ridge(top, Math.max(...values(bytes)))) / 2;
  const last = Math.max(...intensities, ridge(top, Math.min(...values(bytes)))) * 2;
  const line = (peak, text, from, to) => [
    {name: peak.name, what: peak.what, text, end: "from", intensity: from[0], tflops: from[1]},
    {name: peak.name, what: peak.what, text, end: "to", intensity: to[0], tflops: to[1]},
  ];
  const rising = bytes.filter((peak) => ridge(top, peak.value) > first).map((peak) =>
    line(peak, `${peak.name} ${format_significant(peak.value, 3)} GB/s`, [first, (peak.value * first) / 1000], [ridge(top, peak.value), top]));
  const level = flops.map((peak) => {
    const start = Math.max(first, ridge(peak.value, Math.max(...values(bytes))));
    return line(peak, `${peak.name} ${format_significant(peak.value, 3)} TFLOP/s`, [start, peak.value], [last, peak.value]);
  });
  return [...rising, ...level].flat();
}

// The channels that tell series apart on a mark: beside its colour a line's dashes and width, and a point's outline and inside.
const kSeriesChannels = {line: {color: "color", strokeDash: "dash", strokeWidth: "width"}, point: {stroke: "color", fill: "fill"}};

const mark_of = (node) => node.mark?.type ?? node.mark;
const has_series_points = (node) => (Array.isArray(node.layer) ? node.layer.some(has_series_points)
  : mark_of(node) === "point" && node.encoding?.color?.field === "series");

// Gives every encoding of `series` the page's colours, shapes and dashes, and `legend`: where there are points, theirs
// alone, since the strokes of other marks would fill or dash its symbols.
function dress(node, legend, points_tell = has_series_points(node)) {
  if (Array.isArray(node)) return node.map((item) => dress(item, legend, points_tell));
  if (node === null || typeof node !== "object") return node;
  const dressed = Object.fromEntries(Object.entries(node).map(([key, value]) => [key, dress(value, legend, points_tell)]));
  const mark = mark_of(node);
  const looked = (encoding, value) => {
    const silent = (points_tell && mark !== "point") || value === "dash" || value === "width";
    // Vega-Lite merges legends of equal domains, and one that is left out takes the others with it: so another order.
    const names = silent ? [...styles.keys()].reverse() : [...styles.keys()];
    return {...encoding, scale: encoding.scale ?? {domain: names, range: names.map((name) => styles.get(name)[value])},
      ...(encoding.legend === undefined ? {legend: silent ? null : legend} : {})};
  };
  for (const [channel, value] of [["color", "color"], ["fill", "color"], ["stroke", "color"], ["shape", "shape"]]) {
    const encoding = dressed.encoding?.[channel];
    if (encoding?.field === "series") dressed.encoding[channel] = looked(encoding, value);
  }
  const channels = kSeriesChannels[mark];
  if (channels && node.encoding?.color?.field === "series" && !node.encoding.color.scale) {
    delete dressed.encoding.color;
    for (const [channel, value] of Object.entries(channels))
      dressed.encoding[channel] = looked({...node.encoding.color, ...(value === "width" ? {type: "ordinal"} : {})}, value);
  }
  return dressed;
}

// Without the layers that read a data source which is empty: Vega warns of their endless axes.
function without_source(node, name) {
  if (!Array.isArray(node.layer)) return node;
  return {...node, layer: node.layer.filter((layer) => layer.data?.name !== name).map((layer) => without_source(layer, name))};
}

// The specification with its rows. Expressions may name the values that the rows have of seq_kv and batch, for axes
// with a tick at each (seq_kv_values, batch_values), and 1, 2, 5, 10, ... for logarithmic ones (round_values).
const kRoundValues = Array.from({length: 25}, (_, i) => [1, 2, 5].map((digit) => Number(`${digit}e${i - 12}`))).flat();
function filled_spec(chart, rows, legend) {
  let spec = dress(chart.spec, legend);
  const sampled = JSON.stringify(chart.spec).includes("quantiles_ms");
  // What is drawn later lies on top: the kernels.
  const order = [...rows].sort((a, b) => (b.kind === "peer") - (a.kind === "peer") || a.position - b.position);
  const lean = sampled ? order : order.map(({quantiles_ms, ...rest}) => rest);
  const datasets = {...spec.datasets, rows: lean};
  if (chart.roofs) {
    datasets.roofs = roofs_of(rows);
    if (datasets.roofs.length === 0) spec = without_source(spec, "roofs");
  }
  // Vega-Lite warns of a height by steps beside the container's width, so the steps are counted here.
  if (spec.height?.step > 0 && spec.encoding?.y?.field) spec.height = spec.height.step * values_of(rows, spec.encoding.y.field).length;
  const params = ["seq_kv", "batch"].map((field) => ({name: `${field}_values`, value: values_of(rows, field)}));
  params.push({name: "round_values", value: kRoundValues});
  return {...spec, datasets, params: [...(spec.params ?? []), ...params]};
}

function chart_config(font, narrow) {
  const quiet = {labelColor: "var(--muted)", titleColor: "var(--muted)", domainColor: "var(--line)", tickColor: "var(--line)", gridColor: "var(--grid)"};
  return {
    background: null, font, padding: 2,
    axis: {...quiet, labelFontSize: narrow ? 11 : 12, titleFontSize: 12, titleFontWeight: "normal", labelLimit: narrow ? 175 : 480, titlePadding: 8, labelOverlap: true},
    view: {stroke: null},
    line: {strokeWidth: 2}, point: {size: 50, filled: true, opacity: 1, strokeWidth: 1.6, cursor: "pointer"}, tick: {cursor: "pointer"},
    rule: {color: "var(--muted)"}, text: {color: "var(--muted)", font, fontSize: 12},
    legend: {labelColor: "var(--muted)", titleColor: "var(--muted)", titleFontWeight: "normal"},
    header: {labelColor: "var(--muted)", titleColor: "var(--muted)"},
  };
}

// What a family has in common and other families of the run do not have.
const family_title = (row) => row.family_label.replace("; ", ", ");
