"use strict";
// Draws the tables, charts and timelines of a report from the JSON in the page. No figure is computed here.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const LEFT = 44, RIGHT = 12;

function make(tag, given = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...inside);
  return element;
}

const shortened = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const interval = (row, digits = 1) => (row.low === null ? "–" : `${shortened(row.low, digits)} to ${shortened(row.high, digits)}`);
const exact = (p) => (p >= 0.001 ? p.toFixed(3) : p.toExponential(1));

// Tables: sorted by the buttons of their head, filtered by text and by choice, a page at a time. ------------------

function table(place, rows, columns, { choices = [], search = false, page = 100, caption = "" } = {}) {
  if (!rows.length) {
    place.append(make("p", { textContent: "Nothing to show." }));
    return;
  }
  const state = { sort: null, down: false, first: 0, text: "", chosen: {} };
  const filters = make("div", { className: "filters" });
  for (const key of choices) {
    const values = [...new Set(rows.map((row) => row[key]))];
    if (values.length < 2) continue;
    const select = make("select", {}, new Option("all", ""), ...values.map((value) => new Option(value, value)));
    select.addEventListener("change", () => { state.chosen[key] = select.value; state.first = 0; draw(); });
    filters.append(make("label", {}, columns.find((column) => column.key === key).label, select));
  }
  if (search) {
    const input = make("input", { type: "search", placeholder: "any word" });
    input.addEventListener("input", () => { state.text = input.value.toLowerCase(); state.first = 0; draw(); });
    filters.append(make("label", {}, "filter", input));
  }
  const heads = columns.map((column) => {
    const button = make("button", { type: "button", textContent: column.label });
    const head = make("th", { scope: "col", className: column.digits === undefined ? "" : "number" }, button);
    button.addEventListener("click", () => {
      state.down = state.sort === column ? !state.down : false;
      state.sort = column;
      state.first = 0;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      draw();
    });
    return head;
  });
  const body = make("tbody");
  const shown = make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body);
  const scroll = make("div", { className: "scroll", tabIndex: 0, role: "region" }, shown);
  scroll.setAttribute("aria-label", caption);
  const where = make("span", { role: "status" });
  const back = make("button", { type: "button", textContent: "Previous" });
  const on = make("button", { type: "button", textContent: "Next" });
  back.addEventListener("click", () => { state.first -= page; draw(); });
  on.addEventListener("click", () => { state.first += page; draw(); });
  const text = (column, row) => {
    if (column.text) return column.text(row);
    const value = row[column.key];
    return column.digits === undefined ? value ?? "–" : shortened(value, column.digits);
  };

  function draw() {
    let found = rows.filter((row) => Object.entries(state.chosen).every(([key, value]) => !value || row[key] === value));
    if (state.text) {
      found = found.filter((row) => columns.some((column) => String(text(column, row)).toLowerCase().includes(state.text)));
    }
    if (state.sort) {
      const { key } = state.sort, sign = state.down ? -1 : 1;
      const rank = (value) => (value === null || value === undefined ? 1 : 0); // what is missing stands last
      found = [...found].sort((a, b) => rank(a[key]) - rank(b[key]) || sign * (a[key] > b[key] ? 1 : a[key] < b[key] ? -1 : 0));
    }
    body.replaceChildren(...found.slice(state.first, state.first + page).map((row) =>
      make("tr", { className: row.task === "total" ? "total" : "" }, ...columns.map((column) => {
        const cell = make("td", { textContent: text(column, row) });
        if (column.digits !== undefined) cell.className = "number";
        if (column.wide) cell.className = "wide";
        if (column.key === "outcome") cell.className = `badge ${row.outcome}`;
        return cell;
      }))));
    const end = Math.min(state.first + page, found.length);
    where.textContent = found.length ? `${state.first + 1} to ${end} of ${found.length}` : "none of " + rows.length;
    back.disabled = state.first === 0;
    on.disabled = end >= found.length;
  }
  if (filters.children.length) place.append(filters);
  place.append(scroll);
  if (rows.length > page) place.append(make("div", { className: "pages" }, back, on, where));
  else if (filters.children.length) place.append(make("div", { className: "pages" }, where));
  draw();
}

// Charts: drawn anew for every width, so that text keeps its size. ------------------------------------------------

function chart(id, rows, build) {
  const place = at(id);
  if (!place) return;
  if (!rows.length) {
    place.replaceChildren(make("p", { textContent: "Nothing to show." }));
    return;
  }
  let width = 0;
  const draw = () => {
    const now = Math.floor(place.clientWidth);
    if (!now || now === width) return;
    width = now;
    place.replaceChildren(build(rows, width));
  };
  new ResizeObserver(draw).observe(place);
  draw();
}

const style = { background: "transparent", fontSize: "13px", fontFamily: "inherit" };
const colours = { domain: data.runs, legend: data.runs.length > 1, scheme: "observable10" };
const longest = (rows, width) => Math.min(0.4 * width, 16 + 7.5 * Math.max(...rows.map((row) => row.task.length)));

function forest(rows, width, domain, label, value) {
  const runs = [...new Set(rows.map((row) => row.run))];
  return Plot.plot({
    width, style, marginLeft: longest(rows, width), marginRight: 24, marginBottom: 40,
    height: 60 + new Set(rows.map((row) => row.task)).size * (16 + 18 * runs.length),
    x: { domain, label, grid: true, labelAnchor: "center", ticks: width < 500 ? 5 : 10 },
    y: { axis: null, domain: runs, padding: 0.3 },
    fy: { axis: "left", label: null, padding: 0.15, domain: [...new Set(rows.map((row) => row.task))] },
    color: colours,
    marks: [
      domain[0] < 0 ? Plot.ruleX([0], { strokeDasharray: "3 3" }) : null,
      Plot.ruleY(rows, { fy: "task", y: "run", x1: "low", x2: "high", stroke: "run", strokeWidth: 4, strokeOpacity: 0.55 }),
      Plot.dot(rows, {
        fy: "task", y: "run", x: value, fill: "run", r: 5,
        title: (row) => `${row.run}, ${row.task}: ${row[value].toFixed(1)} (${interval(row)}), n ${row.n}`, tip: true,
      }),
    ],
  });
}

const known = data.success.filter((row) => row.rate !== null);
chart("success-chart", known, (rows, width) => forest(rows, width, [0, 100], "success %", "rate"));
table(at("success-table"), data.success, [
  { key: "run", label: "run" }, { key: "memory", label: "memory" }, { key: "task", label: "task" },
  { key: "n", label: "n", digits: 0 }, { key: "errors", label: "errors", digits: 0 },
  { key: "rate", label: "success %", digits: 1 }, { key: "low", label: "Wilson 95 %", text: interval },
  { key: "steps", label: "steps", digits: 0 }, { key: "writes", label: "writes %", digits: 1 },
  { key: "bytes", label: "state bytes", digits: 0 }, { key: "p50", label: "ms p50", digits: 1 },
  { key: "p95", label: "p95", digits: 1 }, { key: "p99", label: "p99", digits: 1 },
], { choices: ["run", "task"], caption: "Success by run and task" });

const written = known.filter((row) => row.task !== "total").map((row) => ({ ...row, writes: row.writes ?? 0 }));
chart("writes-chart", written, (rows, width) => Plot.plot({
  width, style, height: 330, marginTop: 34, marginLeft: 48, marginBottom: 44, marginRight: 20, color: colours,
  x: { label: "writes in 100 control steps", labelAnchor: "center", grid: true, nice: true, zero: true, ticks: width < 500 ? 5 : 10 },
  y: { label: "success %", domain: [0, 100], grid: true },
  marks: [
    Plot.ruleX(rows, { x: "writes", y1: "low", y2: "high", stroke: "run", strokeWidth: 2, strokeOpacity: 0.55 }),
    Plot.dot(rows, {
      x: "writes", y: "rate", fill: "run", r: 5, tip: true,
      title: (row) => `${row.run}, ${row.task}: ${row.rate.toFixed(1)} % (${interval(row)}), ${row.writes.toFixed(1)} writes, ${row.bytes} bytes`,
    }),
  ],
}));

if (at("differences")) {
  const rows = data.differences.map((row) => ({ ...row, run: row.first }));
  chart("differences-chart", rows, (found, width) => forest(found, width, [-100, 100], `percentage points more than ${data.runs[0]}`, "value"));
  table(at("differences-table"), rows, [
    { key: "first", label: "first" }, { key: "second", label: "second" }, { key: "task", label: "task" },
    { key: "n", label: "pairs", digits: 0 }, { key: "value", label: "first minus second", digits: 1 },
    { key: "low", label: "95 %", text: interval }, { key: "only_first", label: "only first", digits: 0 },
    { key: "only_second", label: "only second", digits: 0 }, { key: "p", label: "McNemar p", text: (row) => exact(row.p) },
    { key: "holm", label: "Holm", text: (row) => exact(row.holm) }, { key: "verdict", label: "verdict" },
  ], { choices: ["first", "task", "verdict"], caption: "Paired differences" });
}

chart("latency-chart", data.latency, (rows, width) => Plot.plot({
  width, style, marginTop: 34, height: 80 + 110 * new Set(rows.map((row) => row.run)).size, marginLeft: 48, marginRight: 20, marginBottom: 40,
  color: { ...colours, legend: data.runs.length > 1 },
  x: { label: "ms per decision", labelAnchor: "center", ticks: width < 500 ? 5 : 10 },
  y: { label: "share %", grid: true, ticks: 4 }, fy: { axis: null, domain: data.runs.filter((run) => rows.some((row) => row.run === run)) },
  marks: [Plot.rectY(rows, { fy: "run", x1: "low", x2: "high", y: "share", fill: "run" }), Plot.ruleY([0])],
}));
table(at("parts-table"), data.parts, [
  { key: "run", label: "run" }, { key: "part", label: "part" }, { key: "n", label: "n", digits: 0 },
  { key: "p50", label: "ms p50", digits: 2 }, { key: "p95", label: "p95", digits: 2 }, { key: "p99", label: "p99", digits: 2 },
], { caption: "Parts of a control step" });

const columns = [
  { key: "run", label: "run" }, { key: "task", label: "task" }, { key: "episode", label: "episode", digits: 0 },
  { key: "state", label: "initial state" }, { key: "outcome", label: "outcome" }, { key: "steps", label: "steps", digits: 0 },
  { key: "writes", label: "writes", digits: 0 }, { key: "plans", label: "plans", digits: 0 },
  { key: "proposals", label: "proposals", digits: 0 }, { key: "weight", label: "mean weight", digits: 2 },
  { key: "ms", label: "ms p50", digits: 1 }, { key: "instruction", label: "instruction", wide: true },
  { key: "error", label: "error", wide: true },
].filter((column) => column.key !== "error" || data.episodes.some((row) => row.error));
table(at("all-table"), data.episodes, columns, { choices: ["run", "task", "outcome"], search: true, caption: "All episodes" });

// Failures --------------------------------------------------------------------------------------------------------

function what(row) {
  if (row.error) return row.error;
  if (row.memory === "none") return `${row.steps} steps; ${row.plans} plans without a memory`;
  const wrote = row.writes ? `${row.writes} ${row.writes === 1 ? "write" : "writes"}` : "nothing written";
  return `${row.steps} steps; ${wrote}; a proposal at ${row.proposals} of ${row.plans} plans`;
}

if (at("groups-table")) {
  table(at("groups-table"), data.groups, [
    { key: "run", label: "run" }, { key: "task", label: "task" }, { key: "kind", label: "what memory had done", wide: true },
    { key: "count", label: "failed", digits: 0 }, { key: "played", label: "of episodes", digits: 0 },
  ], { choices: ["run", "task"], caption: "Failures by what memory had done" });
}
for (const [title, rows] of d3.group(data.failed, (row) => `${row.task}: ${row.kind}`)) {
  at("failures-list").append(
    make("h3", { textContent: `${title} (${rows.length})` }),
    make("div", { className: "cards" }, ...rows.map((row) => make("div", { className: "card" },
      ...(row.image ? [make("img", { src: row.image, loading: "lazy", alt: `last camera image of ${row.task} ${row.episode}` })] : []),
      make("div", {}, make("strong", { textContent: `${row.run} ${row.episode}` }), ` (${row.state}) `,
        make("span", { className: `badge ${row.outcome}`, textContent: row.outcome }), make("br"), what(row)),
    ))),
  );
}
