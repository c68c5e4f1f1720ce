"use strict";
// Episodes: film strip, video and timelines with one marker. ------------------------------------------------------

const swatch = (colour, text) => make("span", {}, make("i", { style: `background:${colour}` }), text);

const lastStep = (line) => line.numbers.at(-1);
/** Row of a trace that shows a control step: its own, or the one before where it has none. */
const rowAt = (line, step) => Math.max(0, d3.bisectRight(line.numbers, step) - 1);

function panels(line) {
  // each: what stands above it, its height, and the marks
  const found = [];
  // a row is drawn to the end of its control step; where the next row is of a later one nothing is drawn between them
  const steps = (values) => values.flatMap((value, row) => {
    const step = line.numbers[row], next = line.numbers[row + 1];
    return [{ step, value }, ...(next === step + 1 ? [] : [{ step: step + 1, value }, { step: step + 1, value: null }])];
  });
  const step = { x: "step", y: "value", curve: "step-after" };
  const end = line.planned.slice(1).concat(lastStep(line) + 1);
  const cue = line.hides ? [{ from: line.numbers[0], to: line.cue_over ?? lastStep(line) + 1 }] : [];
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

function reading(line, row, hz) {
  const step = line.numbers[row];
  const words = [`step ${step} (${(step / hz).toFixed(2)} s)`];
  const plan = line.planned.findLastIndex((at) => at <= step);
  for (const memory of line.memories) {
    if (memory.ticks) {
      words.push(`${memory.name}: gate ${shortened(memory.gate[row], 2)}${memory.wrote.includes(step) ? ", wrote" : ""}, `
        + `surprise ${shortened(memory.surprise[row], 2)}, confidence ${shortened(memory.confidence[row], 2)}`);
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
  const first = line.numbers[0], span = lastStep(line) + 1 - first;
  const step = () => line.numbers[Number(slider.value)];
  const place = () => {
    const width = inner.clientWidth - LEFT - RIGHT;
    marker.style.left = `${LEFT + ((step() - first + 0.5) / span) * width - 1}px`;
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
        x: { domain: [first, first + span], axis: panel.last ? "bottom" : null, label: "control step", labelAnchor: "center" },
        y: { label: null, ...panel.y }, marks: panel.marks,
      }),
    ]));
    place();
  };
  const seek = () => {
    if (video) video.currentTime = (step() + 0.5) / shown.hz;
    place();
  };
  slider.addEventListener("input", seek);
  charts.addEventListener("click", (event) => {
    const width = inner.clientWidth - LEFT - RIGHT;
    const share = (event.clientX - inner.getBoundingClientRect().left - LEFT) / width;
    slider.value = rowAt(line, first + Math.floor(share * span));
    seek();
  });
  if (video) {
    video.addEventListener("timeupdate", () => {
      if (video.seeking) return;
      slider.value = rowAt(line, Math.floor(video.currentTime * shown.hz));
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
