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

// Episodes: film strip, video and timelines with one marker. ------------------------------------------------------

const swatch = (colour, text) => make("span", {}, make("i", { style: `background:${colour}` }), text);

function panels(line) {
  // each: what stands above it, its height, and the marks
  const found = [];
  const steps = (values) => [...values, values.at(-1)].map((value, step) => ({ step, value })); // the last has a width too
  const step = { x: "step", y: "value", curve: "step-after" };
  const end = line.planned.slice(1).concat(line.steps);
  const cue = line.hides ? [{ from: 0, to: line.cue_over ?? line.steps }] : [];
  const ground = (low, high) => [
    Plot.rect(cue, { x1: "from", x2: "to", y1: low, y2: high, fill: "var(--cue)" }),
    Plot.ruleX(line.phases, { stroke: "var(--quiet)", strokeDasharray: "2 3" }),
  ];
  for (const memory of line.memories.filter((each) => each.ticks)) {
    found.push({
      title: [memory.name, swatch("var(--gate)", "gate"), swatch("var(--wrote)", "wrote"), swatch("var(--confidence)", "confidence"),
        ...(line.hides ? [swatch("var(--cue)", "cue not yet over")] : [])],
      height: 120, y: { domain: [0, 1], ticks: [0, 0.5, 1] },
      marks: [
        ...ground(0, 1),
        Plot.ruleX(memory.wrote, { x: (at) => at + 0.5, stroke: "var(--wrote)", strokeWidth: 2 }),
        Plot.lineY(steps(memory.gate), { ...step, stroke: "var(--gate)", strokeWidth: 2 }),
        Plot.lineY(steps(memory.confidence), { ...step, stroke: "var(--confidence)", strokeWidth: 2 }),
        Plot.ruleY([0.5], { stroke: "var(--quiet)", strokeDasharray: "4 4" }),
      ],
    });
    if (memory.surprise.some((value) => value > 0)) {
      found.push({
        title: [`${memory.name}: surprise`], height: 70, y: { ticks: 3, zero: true },
        marks: [Plot.areaY(steps(memory.surprise), { ...step, fill: "var(--gate)", fillOpacity: 0.6 }), Plot.ruleY([0])],
      });
    }
  }
  for (const memory of line.memories) {
    const plans = line.planned.map((step, i) => ({
      from: step, to: end[i], weight: memory.weight[i], why: memory.abstained[i],
    }));
    found.push({
      title: [`${memory.name}: weight of what was proposed`, ...(plans.some((plan) => plan.why) ? [swatch("var(--quiet)", "abstained")] : [])],
      height: 80, y: { domain: [0, 1], ticks: [0, 0.5, 1] },
      marks: [
        Plot.rect(plans, { x1: "from", x2: "to", y1: 0, y2: "weight", fill: "var(--confidence)", fillOpacity: 0.7, inset: 0.5 }),
        Plot.dot(plans.filter((plan) => plan.why), { x: (plan) => (plan.from + plan.to) / 2, y: 0.08, r: 3, stroke: "var(--quiet)", title: "why" }),
        Plot.ruleY([0]),
      ],
    });
  }
  const idle = line.modes.filter((span) => span.mode !== "run");
  const entries = line.commands.flatMap((values, i) => steps(values).map((each) => ({ ...each, entry: i })));
  found.push({
    title: ["commands, one line for each entry", ...(line.clipped.length ? [swatch("var(--wrote)", "clipped")] : []), swatch("var(--line)", "plan"),
      ...(idle.length ? [swatch("var(--cue)", `robot in ${[...new Set(idle.map((span) => span.mode))].join(", ")}`)] : [])],
    height: 110, y: { ticks: 3 }, last: true,
    marks: [
      Plot.rect(idle, { x1: "from", x2: "to", fill: "var(--cue)" }),
      Plot.ruleX(line.planned, { stroke: "var(--line)" }),
      Plot.lineY(entries, { ...step, z: "entry", stroke: (row) => `entry ${row.entry}`, strokeWidth: 1.2 }),
      Plot.tickX(line.clipped, { x: (at) => at + 0.5, y: null, stroke: "var(--wrote)", strokeOpacity: 0.25 }),
    ],
  });
  return found;
}

function reading(line, step, hz) {
  const words = [`step ${step} (${(step / hz).toFixed(2)} s)`];
  const plan = line.planned.findLastIndex((at) => at <= step);
  for (const memory of line.memories) {
    if (memory.ticks) {
      words.push(`${memory.name}: gate ${memory.gate[step].toFixed(2)}${memory.wrote.includes(step) ? ", wrote" : ""}, `
        + `surprise ${memory.surprise[step].toFixed(2)}, confidence ${memory.confidence[step].toFixed(2)}`);
    }
    if (plan < 0) continue;
    const weight = memory.weight[plan];
    words.push(weight ? `${memory.name} proposed with weight ${weight.toFixed(2)}` : `${memory.name} abstained: ${memory.abstained[plan]}`);
    if (memory.retrieved) {
      words.push(`nearest ${shortened(memory.similarity[plan], 3)}, spread ${shortened(memory.spread[plan], 3)}, segments ${memory.retrieved[plan]?.join(" ") || "none"}`);
    }
  }
  if (plan >= 0) words.push(`planned at step ${line.planned[plan]}`);
  const span = line.modes.find((each) => each.from <= step && step < each.to);
  if (span) words.push(`robot: ${span.mode}`);
  if (line.limits[step]) words.push(`changed by limits of ${line.limits[step].replaceAll(" ", ", ")}`);
  return words.join(" · ");
}

function episode(shown) {
  const box = make("article", { className: "episode" });
  const name = `${shown.run}, ${shown.task} ${shown.episode}`;
  box.append(
    make("h3", {}, `${name} `, make("span", { className: `badge ${shown.outcome}`, textContent: shown.outcome })),
    make("p", { className: "said", textContent: `“${shown.instruction}” · ${what(shown)}` }),
  );
  const video = shown.video ? make("video", { src: shown.video, controls: true, muted: true, preload: "metadata", playsInline: true }) : null;
  if (video) {
    video.setAttribute("aria-label", `video of ${name}`);
    box.append(video);
  }
  const line = shown.timeline;
  const inner = make("div", { className: "inner" });
  const outer = make("div", { className: "timeline", tabIndex: 0, role: "region" }, inner);
  outer.setAttribute("aria-label", `timeline of ${name}`);
  const film = shown.strip ? make("img", { src: shown.strip, alt: `frames of ${name} over time` }) : null;
  if (film) inner.append(film);
  box.append(outer);
  const fit = () => {
    const width = Math.floor(inner.clientWidth);
    if (film) Object.assign(film.style, { marginLeft: `${LEFT}px`, width: `${width - LEFT - RIGHT}px` });
    return width;
  };
  if (!line) {
    new ResizeObserver(fit).observe(inner);
    return box;
  }
  const slider = make("input", { type: "range", min: 0, max: line.steps - 1, step: 1, value: 0 });
  slider.setAttribute("aria-label", `control step of ${name}`);
  const marker = make("div", { className: "marker" });
  const now = make("p", { className: "now" });
  now.setAttribute("aria-live", "off");
  const charts = make("div");
  inner.append(slider, charts, marker);
  box.append(now);
  let drawn = 0;
  const place = () => {
    const width = inner.clientWidth - LEFT - RIGHT;
    marker.style.left = `${LEFT + ((Number(slider.value) + 0.5) / line.steps) * width - 1}px`;
    now.textContent = reading(line, Number(slider.value), shown.hz);
  };
  const draw = () => {
    const width = fit();
    if (!width || width === drawn) return;
    drawn = width;
    Object.assign(slider.style, { marginLeft: `${LEFT - 8}px`, width: `${width - LEFT - RIGHT + 16}px` });
    charts.replaceChildren(...panels(line).flatMap((panel) => [
      make("h4", { style: `margin-left:${LEFT}px` }, ...panel.title),
      Plot.plot({
        width, style, height: panel.height + (panel.last ? 22 : 0), marginLeft: LEFT, marginRight: RIGHT,
        marginTop: 8, marginBottom: panel.last ? 36 : 8,
        x: { domain: [0, line.steps], axis: panel.last ? "bottom" : null, label: "control step", labelAnchor: "center" },
        y: { label: null, ...panel.y }, marks: panel.marks,
      }),
    ]));
    place();
  };
  const seek = () => {
    if (video) video.currentTime = (Number(slider.value) + 0.5) / shown.hz;
    place();
  };
  slider.addEventListener("input", seek);
  charts.addEventListener("click", (event) => {
    const width = inner.clientWidth - LEFT - RIGHT;
    const share = (event.clientX - inner.getBoundingClientRect().left - LEFT) / width;
    slider.value = Math.floor(share * line.steps);
    seek();
  });
  if (video) {
    video.addEventListener("timeupdate", () => {
      if (video.seeking) return;
      slider.value = Math.floor(video.currentTime * shown.hz);
      place();
    });
  }
  new ResizeObserver(draw).observe(inner);
  return box;
}

// an episode is drawn when it comes near the window: a page of many opens as quickly as a page of few
const coming = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((each) => each.isIntersecting)) {
    coming.unobserve(entry.target);
    entry.target.replaceWith(episode(data.shown[Number(entry.target.dataset.index)]));
  }
}, { rootMargin: "800px" });
data.shown.forEach((shown, index) => {
  const holder = make("div", { style: "min-height:40rem" });
  holder.dataset.index = index;
  at("shown-list").append(holder);
  coming.observe(holder);
});
if (!data.shown.length) at("shown-text").textContent = "No episode has a video or a trace.";
