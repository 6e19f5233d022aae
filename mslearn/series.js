// What each row of the chart is made of: its series, the range of its axis, its title and its pins.

const TITLES = {
  loss: "training loss (nats)",
  gradient: "gradient norm before clipping",
  gradients: "gradient norm by layer",
  updates: "update-to-weight ratio by layer",
  rate: "rate in use",
};

// Least and greatest of the finite values in [from, to).
function extent(values, range = [0, Infinity]) {
  let low = Infinity, high = -Infinity;
  for (let i = range[0]; i < Math.min(range[1], values.length); i++) {
    const v = values[i];
    if (finite(v)) { low = Math.min(low, v); high = Math.max(high, v); }
  }
  return low <= high ? [low, high] : [];
}

// The parts of all timelines for one quantity: of the current one everything, in the colours of its
// ancestors before it was born; of the others what is their own, dimmed.
function strands(frame, steps, values, alone = 0) {
  const { family, lines } = frame, chain = descent(family), found = [];
  for (const each of lines.filter((other) => other.name !== family.current)) {
    const own = each.parent === null ? 0 : Math.max(0, before(steps(each), each.born) - 1);
    found.push({ line: each, range: [own, steps(each).length], alpha: 0.5 });
  }
  let until = Infinity;
  for (const ancestor of chain) {
    const born = ancestor.parent === null ? 0 : ancestor.born, current = chain[0], all = steps(current);
    found.push({ line: current, colour: lineColour(ancestor, frame, alone), range: [Math.max(0, before(all, born) - 1), before(all, until)], alpha: 1, current: true });
    until = Math.min(until, born);
  }
  return found
    .filter(({ range }) => range[1] > range[0])
    .map((part) => ({ colour: lineColour(part.line, frame, alone), ...part, steps: steps(part.line), values: values(part.line) }));
}

// The series of a row, the last drawn on top, and values that its axis has to reach besides.
function contents(frame, box) {
  const { setup, view, ink, last } = frame, extra = [];
  if (box.kind === "layers") return { series: layerSeries(frame, box.name), extra };
  const own = (key, alone) => strands(frame, (each) => each.step, (each) => each[key], alone).map((each) => ({ ...each, heavy: true }));
  if (box.kind === "gradient") return { series: own("grad", 3).map((each) => ({ ...each, width: 1.3 })), extra };
  if (box.kind === "rate") return { series: [...planned(frame), ...own("rate", 2).map((each) => ({ ...each, stepped: true, width: each.current ? 2.2 : 1.4 }))], extra };
  const held = frame.lines.map((each) => [each, each.held.filter((point) => point.name === box.name)]).filter(([, points]) => points.length);
  const scored = { ...frame, lines: held.map(([each]) => each) }, steps = (each) => stepsOf(each, box.name), values = (each) => valuesOf(each, box.name);
  const scores = strands(scored, steps, values, 1).map((each) => ({ ...each, dots: true }));
  if (setup.band?.of === box.name) extra.push(...setup.band.low, ...setup.band.high.filter((_, i) => setup.band.steps[i] <= last));
  if (box.kind === "score") return { series: scores, extra };
  const earlier = view.on.earlier ? setup.earlier.map((run) => ({ steps: run.step, values: run.loss, colour: ink, width: 1.2, alpha: 0.28 })) : [];
  const left = frame.lines.filter((each) => each.ghost && each.name === frame.family.current);
  const ghosts = left.map((each) => ({ steps: each.ghost.step, values: each.ghost.smooth, colour: lineColour(each, frame), width: 1.4, alpha: 0.3, dash: [2, 4] }));
  const drawn = { steps: view.guess.map(([step]) => step), values: view.guess.map(([, loss]) => loss) };
  const guess = view.guess.length ? [{ ...drawn, colour: ink, width: 3, alpha: 0.8, dash: [0, 7], round: true }] : [];
  const raw = own("loss").map((each) => ({ ...each, width: 1, alpha: each.alpha * 0.38 }));
  if (setup.start) extra.push(setup.start, setup.start * 0.25);
  const smooth = own("smooth").map((each) => ({ ...each, width: each.current ? 2.4 : 1.8, reach: true }));
  return { series: [...earlier, ...ghosts, ...raw, ...smooth, ...scores, ...guess], extra };
}

const stepsOf = (each, name) => each.held.filter((point) => point.name === name).map((point) => point.step);
const valuesOf = (each, name) => each.held.filter((point) => point.name === name).map((point) => point.value);

// The schedule, dimmed, and what the controls would make of it from here on.
function planned(frame) {
  const { setup, view, ink, colours, family, last } = frame;
  const steps = setup.plan.map(([step]) => step), rates = setup.plan.map(([, rate]) => rate), series = [];
  series.push({ steps, values: rates, colour: ink, width: 1.3, alpha: 0.45, dash: [5, 4], range: [0, before(steps, last) + 1] });
  const current = family.lines.get(family.current), here = current?.step.at(-1) ?? 0, wanted = view.proposed ?? view.rate;
  if (wanted.value === null) return series;
  const multiple = setup.plan.filter(([step]) => step > here).map(([step, rate]) => [step, rate * wanted.value]);
  const ahead = wanted.mode === "factor" ? multiple : [[here, wanted.value], [setup.steps, wanted.value]];
  const colour = current ? lineColour(current, frame, 2) : colours[2];
  const ends = ahead.map(([step]) => step);
  return [...series, { steps: ends, values: ahead.map(([, rate]) => rate), range: [0, before(ends, last) + 1], colour, width: 1.6, alpha: 0.75, dash: [2, 3] }];
}

function layerSeries({ family, setup, dark }, name) {
  const { layers } = family.lines.get(family.current) ?? { layers: [] }, steps = layers.map((sample) => sample.step);
  return setup.layers.map((layer, i) => ({
    name: layer, steps, values: layers.map((sample) => sample[name][i]), colour: depthColour(i, setup.layers.length, dark), width: 1.5, alpha: 0.95,
  }));
}

// Linear for losses and scores unless asked otherwise. A loss that runs away leaves a linear row
// at its top, so that the rest can still be seen.
function axisFor({ view, lines, setup }, box, values) {
  const sound = values.filter(finite), low = Math.min(...sound), high = Math.max(...sound);
  const log = box.kind === "loss" ? view.on.logLoss : box.kind !== "score", positive = sound.filter((v) => v > 0);
  if (!sound.length) return log ? logAxis(0.1, 1) : linearAxis(0, 1);
  if (log && !positive.length) return logAxis(0.1, 1);
  if (log) return logAxis(Math.max(Math.min(...positive), high / (box.kind === "layers" ? 1e5 : 3e3)), high);
  if (box.kind !== "loss") return linearAxis(low, high);
  const start = Math.max(setup.start ?? 0, ...lines.map((each) => Math.max(...each.loss.slice(0, 10).filter(finite), 0)));
  return linearAxis(low, Math.min(high, start > 0 ? start + 0.6 * Math.max(start - low, 0.2 * start) : high), 5);
}

// The title of a row, and what is said beside it.
function titleOf({ setup, view, family }, box) {
  const note = box.kind === "layers" && setup.layers.length > 1 ? `${setup.layers[0]} (dark) to ${setup.layers.at(-1)} (light)` : "";
  const title = box.kind === "score" ? `held out: ${words(box.name)}` : TITLES[box.name] ?? TITLES[box.kind];
  const marks = [];
  if (box.kind === "loss" && family.names.includes("loss")) marks.push("○ held out");
  if (box.kind === "loss" && view.on.earlier && setup.earlier.length) marks.push("faint: earlier runs");
  if (box.kind === "loss" && view.guess.length) marks.push("dotted: predicted");
  if (setup.band?.of === box.name) marks.push("grey: reference band");
  if (box.kind === "rate") marks.push("dashed: planned");
  return [title, [...marks, note].filter(Boolean).join("   ")];
}

function drawTitle({ pen, ink }, { title: [title, beside], top }) {
  pen.textAlign = "left";
  pen.fillStyle = ink;
  pen.font = pen.font.replace(/^/, "600 ");
  pen.fillText(title, LEFT, top - 14);
  const at = LEFT + pen.measureText(title).width + 14;
  pen.font = pen.font.replace(/600 |bold /, "");
  pen.globalAlpha = 0.7;
  pen.fillText(beside, at, top - 14);
  pen.globalAlpha = 1;
}

// Notes and what the guard did, as numbered flags on the curve of the current timeline.
function drawPins(frame, box) {
  const { pen, x, family, view } = frame, current = family.lines.get(family.current);
  if (!current) return;
  view.pins.forEach((pin, i) => {
    const k = Math.min(before(current.step, pin.step), current.step.length - 1);
    if (k < 0) return;
    const px = x(pin.step), py = Math.max(box.top + 16, Math.min(box.bottom - 4, box.y(finite(current.smooth[k]) ? current.smooth[k] : 0)));
    pen.strokeStyle = pen.fillStyle = pin.guard ? frame.colours[1] : frame.ink;
    pen.lineWidth = 1.2;
    pen.beginPath();
    pen.moveTo(px, py);
    pen.lineTo(px, py - 18);
    pen.stroke();
    pen.beginPath();
    pen.arc(px, py - 22, 8, 0, 7);
    pen.fill();
    pen.fillStyle = frame.paper;
    pen.textAlign = "center";
    pen.fillText(i + 1, px, py - 21.5);
  });
}

// Where the aim or the mouse is: a line through all rows, and the step on top of it.
function drawCrossing(frame, top, bottom) {
  const { pen, ink, x, view, family } = frame, step = view.aim ?? view.pointer, at = Math.round(x(step));
  pen.fillStyle = view.aim === null ? ink : frame.colours[1];
  pen.globalAlpha = view.aim === null ? 0.5 : 0.9;
  pen.fillRect(at, top - 2, view.aim === null ? 1 : 2, bottom - top - 8);
  pen.globalAlpha = 1;
  const beside = at > frame.width - 90;
  label(frame, `step ${step}`, at + (beside ? -8 : 8), top + 4, beside ? "right" : "left", view.aim === null ? ink : frame.colours[1]);
}

// The values of a row at the mouse, beside its line.
function drawValue(frame, box) {
  const { x, view, width } = frame, step = view.pointer, right = x(step) > width * 0.6;
  const shown = box.series.filter((s) => s.current || s.name).filter((s) => !(box.kind === "loss" && !s.reach && !s.dots));
  const texts = shown.slice(0, 14).flatMap((s) => {
    const i = Math.min(before(s.steps, step + 0.5), s.range?.[1] ?? s.steps.length) - 1;
    return i < (s.range?.[0] ?? 0) || !finite(s.values[i]) || (s.dots && step - s.steps[i] > frame.last / 4) ? [] : [[s.values[i], s]];
  });
  const last = box.kind === "layers" ? texts : texts.filter(([, s], k) => texts.findIndex(([, t]) => Boolean(t.dots) === Boolean(s.dots)) === k);
  last.forEach(([value, s], k) => {
    const text = `${s.name ? s.name + " " : ""}${brief(value)}${s.dots && box.kind === "loss" ? " held out" : ""}`;
    const listed = box.top + 8 + k * Math.min(14, (box.bottom - box.top - 8) / last.length), beside = box.y(value) - 10 + (s.dots ? 22 : 0);
    const y = box.kind === "layers" ? listed : Math.min(box.bottom - 6, Math.max(box.top + 6, beside));
    label(frame, text, x(step) + (right ? -8 : 8), y, right ? "right" : "left", s.colour);
  });
}
