// The rows as the page uses them: unpacked, with the helper fields that charts, controls and table share.
// Everything derived from a row is derived here and nowhere else. `page` is the report's data (report_data.h); page
// and chart files run this same script.

// A column is {name, type, unit, title, help, values} where values is one entry a row, or, where entries
// repeat, {words, index}: words[index[i]] is row i's.
function unpack(columns, count) {
  const rows = Array.from({length: count}, () => ({}));
  for (const column of columns) {
    const {words, index} = column.values;
    rows.forEach((row, i) => { row[column.name] = words ? words[index[i]] : column.values[i]; });
  }
  return rows;
}

function mask_label(row) {
  const parts = [];
  if (row.causal) parts.push("causal");
  if (row.window_left >= 0 || row.window_right >= 0) {
    const side = (n) => (n < 0 ? "open" : n);
    parts.push(`window ${side(row.window_left)}/${side(row.window_right)}`);
  }
  if (parts.length === 0) return "full";
  if (row.seq_q !== row.seq_kv && row.align) parts.push(row.align.replace("_", " "));
  return parts.join(" ");
}

// What is added to scores or laid out otherwise.
function features_label(row) {
  const words = (v) => v.replaceAll("_", " ");
  return [
    row.softcap ? `softcap ${row.softcap}` : "",
    row.alibi_slopes ? `ALiBi ${words(row.alibi_slopes)}` : "",
    row.sinks ? "sinks" : "",
    row.bias ? `bias ${row.bias}` : "",
    row.mask ? `mask ${row.mask}` : "",
    row.dropout_p ? `dropout ${row.dropout_p}` : "",
    row.varlen ? "packed" : "",
  ].filter(Boolean).join(", ");
}

function phase_label(row) {
  if (row.seq_q === row.seq_kv) return "prefill";
  return row.seq_q === 1 ? "decode" : `${row.seq_q} queries`;
}

const heads_label = (row) => (row.kv_heads === row.heads ? `${row.heads}` : `${row.heads} on ${row.kv_heads} kv`);
const head_dim_label = (row) => (row.head_dim_v === row.head_dim ? `${row.head_dim}` : `${row.head_dim}, v ${row.head_dim_v}`);
const dtype_label = (row) => (row.kv_dtype === row.dtype ? row.dtype : `${row.dtype}, kv ${row.kv_dtype}`);
const threads_label = (row) => (row.threads > 0 ? `${row.threads}` : row.device === "cpu" ? "all" : "");

function scale_label(row) {
  const usual = 1 / Math.sqrt(row.head_dim);
  const given = row.softmax_scale != null && Math.abs(row.softmax_scale - usual) > 1e-5 * usual;
  return given ? format_significant(row.softmax_scale, 4) : "default";
}

// What makes two cases comparable on one line of a chart: all of these equal, only the sequence length differs.
// `word` puts a value into a sentence-like label, which leaves out the `usual` one.
const kFamilyFields = [
  {name: "device", title: "Device", word: (v) => v},
  {name: "direction", title: "Direction", usual: "forward", word: (v) => v},
  {name: "phase", title: "Phase", shape: true, usual: "prefill", word: (v) => v},
  {name: "mask", title: "Mask", shape: true, word: (v) => v},
  {name: "features_label", title: "Features", shape: true, usual: "", word: (v) => v || "no features"},
  {name: "heads_label", title: "Heads", shape: true, word: (v) => `${v} heads`},
  {name: "head_dim_label", title: "Head dim", shape: true, word: (v) => `d${v}`},
  {name: "dtype_label", title: "Dtype", word: (v) => v},
  {name: "batch", title: "Batch", usual: 1, word: (v) => `batch ${v}`},
  {name: "threads_label", title: "Threads", word: (v) => (v === "" ? "" : v === "1" ? "1 thread" : `${v} threads`)},
  {name: "inputs", title: "Inputs", word: (v) => v || "no inputs"},
  {name: "lengths", title: "Lengths", word: (v) => `lengths ${v || "equal"}`},
  {name: "page_size", title: "Page size", word: (v) => (v ? `pages of ${v}` : "not paged")},
  {name: "scale_label", title: "Softmax scale", usual: "default", word: (v) => `scale ${v}`},
  {name: "seed", title: "Seed", word: (v) => `seed ${v}`},
  // How it was timed: empty in rows that never came to be timed, which are then of no family's own.
  {name: "timer", title: "Timer", timing: true, word: (v) => v},
  {name: "regime", title: "Regime", timing: true, word: (v) => v},
  {name: "cache", title: "Cache", timing: true, word: (v) => (v ? `${v} cache` : "")},
];

const same_field = (field, row, other) => row[field.name] === other[field.name]
    || (field.timing === true && (row[field.name] === "" || other[field.name] === ""));

// Timed alike in the same case: only such rows are compared with each other.
const rank_key = (row) => [row.case, row.device, row.direction, row.threads, row.timer, row.regime, row.cache].join("\n");

// "torch" of the peer torch.flash; a kernel has none.
const library_of = (row) => (row.kind === "peer" ? row.contender.split(".")[0] : "");

// Ran and passed, but calling it takes too large a share of its time for a rank.
const overhead_share = (row) => (row.overhead_ms > 0 && row.ms_median > 0 ? row.overhead_ms / row.ms_median : null);
const is_overhead_bound = (row) => !row.ranked && row.status === "ok" && row.error_max != null && overhead_share(row) > page.most_overhead;

function group_by(rows, key_of) {
  const groups = new Map();
  for (const row of rows) {
    const key = key_of(row);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(row);
  }
  return groups;
}

// "cpu/avx512/flash/f32" and ".../bf16" are one series, since a case fixes the dtype; full names are kept where
// two contenders of one case would fall together.
function name_series(rows) {
  const short_name = (row) => {
    const parts = row.contender.split("/");
    const name = row.kind === "kernel" && parts.length === 4 ? parts.slice(0, 3).join("/") : row.contender;
    return name.replace(/[\u2028\u2029]/g, " ");  // Vega's expressions end at these, even inside of text
  };
  const owners = new Map();
  const ambiguous = new Set();
  for (const row of rows) {
    const key = `${rank_key(row)}\n${short_name(row)}`;
    if (owners.has(key) && owners.get(key) !== row.contender) ambiguous.add(short_name(row));
    owners.set(key, row.contender);
  }
  for (const row of rows) row.series = ambiguous.has(short_name(row)) ? row.contender : short_name(row);
}

function mark_fastest(rows) {
  const timings = group_by(rows.filter((row) => row.ranked), (row) => row.case);
  for (const group of group_by(rows.filter((row) => row.ranked), rank_key).values()) {
    // Alone in the way it was timed, while others of its case were timed in another: nobody it was faster than.
    if (group.length === 1 && timings.get(group[0].case).some((row) => rank_key(row) !== rank_key(group[0]))) continue;
    const order = [...group].sort((a, b) => a.ms_median - b.ms_median);
    order[0].fastest = true;
    // Within noise: the interval of the second reaches into that of the first.
    const second = order[1];
    order[0].clearly = !second || (order[0].ms_high ?? order[0].ms_median) < (second.ms_low ?? second.ms_median);
  }
}

// A speedup over a baseline that was not timed alike is none, nor is one of a row without a rank.
function drop_unlike_speedups(rows) {
  const ranked = new Set(rows.filter((row) => row.ranked).map((row) => `${rank_key(row)}\n${row.contender}`));
  const cases = new Set(rows.map((row) => `${row.case}\n${row.contender}`));
  for (const row of rows) {
    if (row.overhead_bound) row.speedup = row.speedup_low = row.speedup_high = null;
    const known = cases.has(`${row.case}\n${row.baseline}`);  // a file may hold a part of a run
    if (known && !ranked.has(`${rank_key(row)}\n${row.baseline}`)) row.speedup = row.speedup_low = row.speedup_high = null;
  }
}

// The fastest kernel of a case over its fastest peer, as fields of the kernel's row.
function attach_duels(rows) {
  for (const {kernel, peer, ratio, low, high, label} of page.insights?.peers?.duels ?? []) {
    Object.assign(rows[kernel], {over_peer: ratio, over_peer_low: low, over_peer_high: high, best_peer: rows[peer].series, best_peer_position: peer, case_label: label});
  }
}

function derive(rows) {
  rows.forEach((row, i) => {
    row.position = i;
    row.kind_label = row.kind === "peer" ? "peers" : "kernels";
    row.library = library_of(row);
    row.overhead_bound = is_overhead_bound(row);
    row.features_label = features_label(row);
    row.recorded_mask = row.mask;  // the tensor; `mask` is from here on what causal and windows make
    row.mask = mask_label(row);
    row.phase = phase_label(row);
    row.heads_label = heads_label(row);
    row.head_dim_label = head_dim_label(row);
    row.dtype_label = dtype_label(row);
    row.threads_label = threads_label(row);
    row.scale_label = scale_label(row);
    const comparable = Number.isFinite(row.error_max) && row.error_limit > 0;
    row.error_share = comparable ? row.error_max / row.error_limit : null;
    row.quantiles_ms = page.quantiles[i];
    // Both figures are over the same time, so this is FLOPs over the least possible bytes; rounded, so that it is the
    // same for all contenders of a case.
    row.intensity = row.tflops > 0 && row.gb_per_s > 0 ? Number(((1000 * row.tflops) / row.gb_per_s).toPrecision(6)) : null;
    row.memory_share = row.peak_bytes > 0 && row.least_bytes > 0 ? row.peak_bytes / row.least_bytes : null;
    row.family = kFamilyFields.map((field) => row[field.name]).join("\n");
  });
  name_series(rows);
  drop_unlike_speedups(rows);
  mark_fastest(rows);
  attach_duels(rows);
  const varying = kFamilyFields.filter((field) =>
    new Set(rows.map((row) => row[field.name]).filter((value) => !field.timing || value !== "")).size > 1);
  // Another device is always timed in another way: that is no news.
  const of_device = group_by(rows, (row) => row.device);
  const tells = (field, row) => row[field.name] !== field.usual && (!field.timing || field.name === "cache"
      || of_device.get(row.device).some((other) => !same_field(field, row, other)));
  for (const row of rows) {
    const named = varying.filter((field) => tells(field, row));
    const words = (shape) => named.filter((field) => Boolean(field.shape) === shape).map((field) => field.word(row[field.name]));
    // A chart may break the line at the semicolon.
    const parts = [words(true), words(false)].map((part) => part.filter(Boolean).join(", "));
    row.family_label = parts.filter(Boolean).join("; ") || row.phase;
  }
  return varying;
}

const all_rows = unpack(page.columns, page.count);
const varying_fields = derive(all_rows);
// Only what ran, passed and has its error figure is ever drawn or ranked. Of a cell that was measured twice, as
// after a resumed run, the later row counts.
const drawn_rows = [...new Map(all_rows.filter((row) => row.ranked)
    .map((row) => [`${rank_key(row)}\n${row.contender}`, row])).values()];
