// The filters of the whole page, and the view kept in the address's fragment.

// `step`: an entry of its own in the browser's history, so that Back returns to where one came from.
function save_view(step) {
  const text = view_text();
  const address = text ? `#${text}` : location.pathname + location.search;
  if (text === location.hash.slice(1)) return;
  if (step) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
}

// Everything that the view decides, anew.
function show_view() {
  draw_filters();
  fill_table_filters();
  draw_table();
  if (chart_state.charts.length > 0) show_charts();
}

function reset_view() {
  view = empty_view();
  save_view();
  show_view();
}

function change_filter(key, value, wanted) {
  if (wanted) view.only[key].add(value);
  else view.only[key].delete(value);
  if (view.only[key].size === all_values.get(key).length) view.only[key].clear();
  save_view();
  show_view();
}

// "all", or what is shown, as long as it fits.
function filter_summary(key) {
  const chosen = [...view.only[key]].map(String);
  if (chosen.length === 0) return "all";
  return chosen.length === 1 ? chosen[0] : `${chosen.length} of ${all_values.get(key).length}`;
}

function draw_filters() {
  for (const filter of kFilters) {
    const box = document.querySelector(`#view details[data-filter="${filter.key}"]`);
    if (!box) continue;
    box.classList.toggle("set", view.only[filter.key].size > 0);
    box.querySelector("summary b").textContent = filter_summary(filter.key);
    const values = all_values.get(filter.key);
    box.querySelectorAll("input").forEach((input, i) => { input.checked = view.only[filter.key].has(values[i]); });
  }
  const text = view_text();
  document.getElementById("reset").disabled = text === "";
  document.getElementById("view-note").textContent = is_filtered() ? `Charts and table show ${visible_rows().length} of ${plural(all_rows.length, "row")}.` : "";
}

function filter_box({key, field, title}) {
  const values = all_values.get(key);
  if (values.length < 2) return null;
  const counts = new Map(count_words(all_rows.map((row) => row[field])));
  const options = values.map((value) => element("label", {},
      element("input", {type: "checkbox", onchange: (event) => change_filter(key, value, event.target.checked)}),
      element("span", {}, value === "" ? "none" : String(value)), element("small", {}, String(counts.get(value)))));
  return element("details", {"data-filter": key}, element("summary", {}, `${title} `, element("b", {}, "all")),
      element("div", {class: "options", role: "group", "aria-label": title}, ...options));
}

function start_filters() {
  const form = document.getElementById("view");
  const boxes = kFilters.map(filter_box).filter(Boolean);
  form.prepend(...boxes);
  form.hidden = all_rows.length === 0;
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("reset").addEventListener("click", reset_view);
  // One box open at a time; Escape and a press elsewhere close it.
  for (const box of boxes) {
    box.addEventListener("toggle", () => { if (box.open) boxes.forEach((other) => { other.open = other === box; }); });
  }
  document.addEventListener("keydown", (event) => {
    const open = event.key === "Escape" ? boxes.find((box) => box.open) : null;
    if (!open) return;
    open.open = false;
    open.querySelector("summary").focus();
  });
  document.addEventListener("pointerdown", (event) => {
    for (const box of boxes) if (!box.contains(event.target)) box.open = false;
  });
  // Links inside the page move without a fragment: that place is the view's.
  for (const link of document.querySelectorAll("a[href^='#']")) {
    link.addEventListener("click", (event) => {
      const target = document.getElementById(link.hash.slice(1));
      event.preventDefault();
      target.tabIndex = -1;
      target.focus({preventScroll: true});
      target.scrollIntoView();
    });
  }
  window.addEventListener("popstate", () => {
    view = view_of(location.hash.slice(1));
    table_state.marked = new Set(view.row === null ? [] : [all_rows[view.row]]);
    show_view();
  });
  draw_filters();
}
