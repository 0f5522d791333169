// The page around charts and table: header, how it was measured, environment; and the start of it all.

const problems = [];
function note_problem(text) {
  problems.push(String(text));
  document.body.dataset.errors = problems.join(" | ");
}

function environment_value(wanted) {
  return page.run.environment.find(([name]) => name === wanted)?.[1];
}

function fact(label, value, more, kind) {
  const parts = Array.isArray(value) ? value : [value];
  return element("div", {class: "fact"}, element("div", {class: "label"}, label),
      element("div", {class: `value ${kind === "name" ? "name" : ""}`.trim()}, ...parts), more ? element("div", {class: "more"}, ...[more].flat()) : null);
}

function rows_fact() {
  const ok = all_rows.filter((row) => row.status === "ok").length;
  const others = count_words(all_rows.filter((row) => row.status !== "ok").map((row) => row.status))
      .map(([status, count]) => element("span", {class: status === "inaccurate" || status === "error" ? "bad" : null}, `${count}\u00a0${status.replaceAll("_", "\u00a0")}`));
  const overhead = all_rows.filter((row) => row.overhead_bound).length;
  const cases = new Set(all_rows.map((row) => row.case)).size;
  return fact("Rows that ran and passed", [`${ok}`, element("small", {}, ` of ${all_rows.length}`)],
      [`in ${plural(cases, "case")}`, ...others.flatMap((node, i) => [i === 0 ? "; the others: " : ", ", node]),
        overhead > 0 ? `; ${overhead} that passed have no rank: calling costs too much of their time` : ""]);
}

function accuracy_fact() {
  const checked = all_rows.filter((row) => row.error_max != null);
  const ok = all_rows.filter((row) => row.status === "ok");
  const worst = drawn_rows.reduce((a, b) => ((b.error_share ?? -1) > (a?.error_share ?? -1) ? b : a), null);
  const wrong = all_rows.filter((row) => row.status === "inaccurate").length;
  if (checked.length === 0) return fact("Checked against fp64", "none", "no row has an error figure");
  const more = [];
  if (worst?.error_share != null) more.push(`closest to its limit: ${worst.series}, ${format_percent(worst.error_share)} of it`);
  if (wrong > 0) more.push(more.length > 0 ? "; " : "", element("span", {class: "bad"}, `${wrong} failed`));
  return fact("Checked against attention in fp64", [`${checked.length}`, element("small", {}, ` of ${plural(new Set([...ok, ...checked]).size, "row")} that ran`)], more);
}

function fastest_facts() {
  const groups = [...group_by(drawn_rows, rank_key).values()].filter((group) => group.length > 1);
  if (groups.length === 0) return [];
  const winners = groups.map((group) => group.find((row) => row.fastest)).filter(Boolean);
  const order = count_words(winners.map((row) => row.series));
  const [[first, wins], ...rest] = order;
  if (rest.length > 0 && rest[0][1] === wins) {
    return [fact("Fastest", "no single one", `${order.slice(0, 6).map(([series, count]) => `${series} in ${count}`).join(", ")}${order.length > 6 ? ", \u2026" : ""} of ${plural(groups.length, "contested case")}`, "name")];
  }
  const ties = winners.filter((row) => row.series === first && !row.clearly).length;
  const more = `fastest in ${wins} of ${groups.length} contested ${groups.length === 1 ? "case" : "cases"}${ties > 0 ? `, ${ties} of them within noise` : ""}`
      + (rest.length > 0 ? `; ${rest.map(([series, count]) => `${series} in ${count}`).join(", ")}` : "");
  const facts = [fact("Fastest", first, more, "name")];
  const ratios = drawn_rows.filter((row) => row.series === first && row.speedup > 0 && row.contender !== row.baseline);
  if (ratios.length > 0) {
    const values = ratios.map((row) => row.speedup);
    const baseline = count_words(ratios.map((row) => row.baseline))[0][0];
    facts.push(fact(`${first} over its baseline`, [format_speedup(geometric_mean(values)), element("small", {}, " geometric mean")],
        `${format_speedup(Math.min(...values))} to ${format_speedup(Math.max(...values))} in ${plural(values.length, "case")} over ${baseline}`));
  }
  return facts;
}

function peers_fact() {
  const duels = page.insights?.peers?.duels ?? [];
  if (duels.length === 0) return [];
  const count = (test) => duels.filter(test).length;
  const [ahead, behind] = [count(({low}) => low > 1), count(({high}) => high < 1)];
  return [fact("Best kernel over best peer", [format_speedup(median(duels.map(({ratio}) => ratio))), element("small", {}, " median")],
      [`ahead in ${ahead} of ${plural(duels.length, "case")}, `, element("span", {class: behind > 0 ? "bad" : null}, `behind in ${behind}`), `, within noise in ${duels.length - ahead - behind}`])];
}

// Says so where the machine was too restless for fine distinctions.
function note_noise() {
  const timed = drawn_rows.filter((row) => row.ms_low != null && row.ms_high != null);
  const restless = timed.filter((row) => row.ms_high - row.ms_low > 0.05 * row.ms_median);
  const note = document.getElementById("noise");
  const sentences = [];
  if (restless.length * 10 > timed.length) sentences.push(`In ${restless.length} of ${plural(timed.length, "timed row")} the median is uncertain by more than 5\u2009%, `
      + "so something else was running or sampling was cut short: small differences between these rows mean nothing.");
  if (timed.length > 0 && page.run.load_note) sentences.push(`The machine was busy: ${page.run.load_note}.`);
  note.hidden = sentences.length === 0;
  note.textContent = sentences.join(" ");
}

function start_header() {
  const usable = environment_value("cpus_usable");
  const machine = [environment_value("gpu"), document.title.includes(environment_value("cpu")) ? null : environment_value("cpu"), usable ? plural(Number(usable), "processor") : null,
    environment_value("isa"), environment_value("os")].filter(Boolean);
  const date = page.run.started ? new Date(page.run.started) : null;
  const when = date && !Number.isNaN(date.valueOf()) ? page.run.started.replace("T", " ").replace(/(:\d\d)(\.\d+)?/, "$1") : page.run.started;
  const line = document.getElementById("machine");
  line.append([...machine, when].filter(Boolean).join(" \u00b7 "));
  if (page.run.command) line.append(element("br"), element("code", {}, page.run.command));
  if (all_rows.length > 0) document.getElementById("facts").append(rows_fact(), accuracy_fact(), ...fastest_facts(), ...peers_fact());
  note_noise();
  if (page.warnings.length > 0) {
    const box = document.getElementById("warnings");
    box.hidden = false;
    box.querySelector("summary").textContent = `${plural(page.warnings.length, "warning")} while the file was read`;
    box.querySelector("ul").append(...page.warnings.map((warning) => element("li", {}, warning)));
  }
}

function span_of(rows, field, format = format_integer) {
  const values = rows.map((row) => row[field]).filter((value) => typeof value === "number");
  if (values.length === 0) return null;
  const [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  return low === high ? format(low) : `${format(low)} to ${format(high)} (median ${format(median(values))})`;
}

// "interval in 80 rows, seconds in 7", or just "interval" where all say so.
function listed(rows, field) {
  const counts = count_words(rows.map((row) => row[field]).filter((value) => value !== "" && value != null));
  return counts.map(([word, count]) => (counts.length === 1 ? word : `${word} in ${plural(count, "row")}`)).join(", ");
}

const help_of = (name) => page.columns.find((column) => column.name === name)?.help ?? "";

// Sentences from the run's own fields; what the rows do not record is not claimed.
function method_sentences() {
  const ran = all_rows.filter((row) => row.ms_median != null);
  const checked = all_rows.filter((row) => row.error_max != null);
  const sentences = [];
  const say = (fact_text, sentence) => { if (fact_text) sentences.push(sentence(fact_text)); };
  say(listed(all_rows, "inputs"), (t) => `Inputs: ${t}. All contenders of a case get the same tensors: random ones follow from the seed in the row, captured ones were recorded in a real model.`);
  if (checked.length > 0) {
    sentences.push(`Each output was compared, in the process that was then timed, with attention computed in fp64 by code that shares nothing with the kernels: ${span_of(checked, "rows_verified") ?? "the rows given in each"} rows of output a case. `
      + "A row is ok where its largest and its RMS error stay within limits that follow from plain attention in the same dtype. Rows without an error figure are neither drawn nor ranked.");
  }
  say(listed(ran, "timer"), (t) => `Timer: ${t}; regime: ${listed(ran, "regime") || "not recorded"}; caches: ${listed(ran, "cache") || "not recorded"}. Only rows timed alike are compared.`);
  say(span_of(ran, "samples"), (t) => `Samples a row: ${t}. Sampling ended by: ${listed(ran, "stop") || "not recorded"}. The time shown is the median, beside it its interval. Every raw sample is in the JSONL file.`);
  say(span_of(ran, "clock_mhz"), (t) => `Clock seen while measuring: ${t} MHz. Clocks were recorded, never set.`);
  say(listed(ran, "baseline"), (t) => `Speedup is over the baseline of the same case: ${t}; its interval comes from resampling both.`);
  const peers = all_rows.filter((row) => row.kind === "peer");
  if (peers.length > 0) sentences.push(`Peers are other people's attention, run in worker processes on the same tensors, timed with the same rules and checked by the same oracle: ${listed(peers.filter((row) => row.version), "version") || "no version known"}. `
      + `What each really ran is in its row. Where calling a peer with next to nothing to do takes more than ${format_percent(page.most_overhead)} of its time, the row is not ranked, and never drawn as a speed.`);
  say(span_of(ran, "peak_bytes", format_bytes), () => `Peak memory: ${help_of("peak_bytes")}. Least possible: ${help_of("least_bytes")}.`);
  const failed = all_rows.filter((row) => row.status !== "ok");
  if (failed.length > 0) sentences.push(`${plural(failed.length, "row")} did not pass or did not run; each stands in the table with its reason.`);
  return sentences;
}

function start_method() {
  const sentences = method_sentences();
  document.getElementById("method-text").append(sentences.length > 0
    ? element("ul", {}, ...sentences.map((sentence) => element("li", {}, sentence)))
    : element("p", {class: "muted"}, "No row of this run was measured or checked."));
  document.getElementById("fields").append(...page.columns.filter((column) => column.name !== "ranked").flatMap((column) =>
    [element("dt", {}, column.name), element("dd", {}, `${column.help}${column.unit ? ` [${column.unit}]` : ""}`)]));
}

const environment_text = (name, value) => (name.endsWith("_bytes") && /^\d+$/.test(value) ? format_bytes(Number(value)) : value || kNothing);

function start_environment() {
  const list = document.getElementById("environment-list");
  const entries = [["run", page.run.run], ["started", page.run.started], ["command", page.run.command], ...page.run.continued.map((text) => ["continued", text]), ...page.run.environment];
  list.append(...entries.map(([name, value]) => element("div", {},
      element("dt", {}, name.replaceAll("_", " ").replace(/ bytes$/, "")), element("dd", {}, environment_text(name, value)))));
  document.getElementById("footer").textContent = `Drawn from ${page.source || "a run"} (run ${page.run.run}, schema ${page.schema}). This file is complete in itself: it loads nothing.`;
}

// What went wrong, if anything, stands on <body> for tests: data-errors, data-charts, data-ready.
window.addEventListener("error", (event) => note_problem(event.message));
window.addEventListener("unhandledrejection", (event) => note_problem(event.reason));
document.addEventListener("securitypolicyviolation", (event) => note_problem(`blocked by the security policy: ${event.violatedDirective}`));
const console_error = console.error;
console.error = (...words) => {
  note_problem(words.join(" "));
  console_error.apply(console, words);
};
document.body.dataset.errors = "";
view = view_of(location.hash.slice(1));
start_header();
start_table();
start_filters();
start_insights();
document.querySelector(".contents a[href='#insights']").hidden = document.getElementById("insights").hidden;
start_method();
start_environment();
start_charts().then(() => { if (view.row !== null) show_marked(); });
