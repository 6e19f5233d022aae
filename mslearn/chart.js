// The chart of a live run on a canvas: loss, held-out scores and rate above one another, one axis of
// steps. Joined in front of panel.js, because a widget's script is one text.

const LIGHT = { loss: "#0072B2", held: "#D55E00", rate: "#009E73" }; // as in plot.py
const DARK = { loss: "#56B4E9", held: "#E69F00", rate: "#2FCB9C" }; // the same hues, lighter
const LEFT = 58, RIGHT = 14, TOP = 26, BOTTOM = 40; // pixels around the plots

const finite = Number.isFinite;
const show = (rate) => (rate > 0 ? rate.toExponential(2).replace("e+", "e") : "0");
const words = (name) => name.replaceAll("_", " ");

// ---- axes ----

function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const v of values) if (finite(v)) { low = Math.min(low, v); high = Math.max(high, v); }
  return low <= high ? [low, high] : [0, 1];
}

function niceTicks(low, high, count) {
  const rough = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(rough));
  const gap = power * [1, 2, 5, 10].find((k) => k * power >= rough);
  const ticks = [];
  for (let t = Math.ceil(low / gap) * gap; t <= high + gap * 1e-9; t += gap) ticks.push(Number(t.toPrecision(6)));
  return ticks;
}

const superscript = (n) => String(n).replace("-", "⁻").replace(/\d/g, (d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]);

function linearAxis(values) {
  const [low, high] = extent(values), pad = (high - low || Math.abs(high) || 1) * 0.06;
  return { place: (v) => (v - low + pad) / (high - low + 2 * pad), ticks: niceTicks(low, high, 4), label: String };
}

function logAxis(values) {
  const [, top] = extent(values.filter((v) => v > 0)), floor = top / 1000;
  const [low, high] = extent(values.filter((v) => v > 0).map((v) => Math.log10(Math.max(v, floor))));
  const pad = Math.max(0.15, (high - low) * 0.08), span = high - low + 2 * pad, ticks = [];
  for (let k = Math.ceil(low - pad); k <= high + pad; k++) ticks.push(10 ** k);
  const place = (v) => (Math.log10(Math.max(v, floor / 10)) - low + pad) / span;
  return { place, ticks, label: (v) => "10" + superscript(Math.round(Math.log10(v))) };
}

// ---- drawing ----

// How many steps wide: the whole plan, halved while the run is in its first part, so that early
// steps can be seen and the axis moves four times at the most.
function horizon(step, steps) {
  let last = Math.max(steps, step, 1);
  for (let i = 0; i < 4 && step < 0.45 * last && last > 100; i++) last /= 2;
  return last;
}

function rowsOf(history, band) {
  const others = history.names.filter((name) => name !== "loss");
  if (band && band.of !== "loss" && !others.includes(band.of)) others.push(band.of);
  return [{ name: "loss", share: 3 }, ...others.map((name) => ({ name, share: 2 })), { name: "rate", share: 1.4 }];
}

function draw(canvas, history, setup, proposed, pointer) {
  const rows = rowsOf(history, setup.band), shares = rows.reduce((sum, row) => sum + row.share, 0);
  const width = Math.max(320, canvas.clientWidth), height = Math.round(BOTTOM + TOP * rows.length + 62 * shares);
  const scale = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const ink = getComputedStyle(canvas).color, [r, g, b] = (ink.match(/[\d.]+/g) || [0, 0, 0]).map(Number);
  const colours = 0.3 * r + 0.6 * g + 0.1 * b > 128 ? DARK : LIGHT;
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "12px " + getComputedStyle(canvas).fontFamily;
  const last = horizon(history.step.at(-1) ?? 0, setup.steps);
  const frame = { pen, ink, colours, width, last, x: (step) => LEFT + (step / last) * (width - LEFT - RIGHT) };
  const usable = height - BOTTOM - TOP * rows.length;
  let y = 0;
  for (const row of rows) {
    const box = { top: y + TOP, bottom: y + TOP + (usable * row.share) / shares };
    drawRow(frame, box, row.name, history, setup, proposed);
    y = box.bottom;
  }
  pen.fillStyle = ink;
  pen.textAlign = "center";
  for (const step of niceTicks(0, last, Math.max(3, width / 110))) pen.fillText(step, frame.x(step), y + 16);
  pen.fillText("step", (LEFT + width - RIGHT) / 2, y + 31);
  if (pointer !== null && history.step.length) drawPointer(frame, y, nearest(history, pointer, frame), history);
}

function drawRow(frame, box, name, history, setup, proposed) {
  const { pen, ink, colours, width, x } = frame;
  const band = setup.band && setup.band.of === name ? setup.band : null;
  const held = history.held.filter((point) => point.name === name), isRate = name === "rate";
  const planned = setup.plan.map(([, rate]) => rate), series = isRate ? history.rate : name === "loss" ? history.loss : [];
  const axis = isRate
    ? logAxis([...planned, ...series, ...(proposed ? [proposed] : [])])
    : linearAxis([...series, ...held.map((p) => p.value), ...(band ? inside(band, frame.last) : [])]);
  const y = (value) => box.bottom - axis.place(value) * (box.bottom - box.top);
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  pen.lineWidth = 1;
  for (const tick of axis.ticks) {
    pen.fillStyle = ink;
    pen.fillText(axis.label(tick), LEFT - 8, y(tick));
    pen.globalAlpha = 0.14;
    pen.fillRect(LEFT, Math.round(y(tick)), width - LEFT - RIGHT, 1);
    pen.globalAlpha = 1;
  }
  pen.save();
  pen.beginPath();
  pen.rect(LEFT, box.top - 4, width - LEFT - RIGHT + 4, box.bottom - box.top + 8);
  pen.clip();
  if (band) fillBand(frame, band, y);
  if (isRate) {
    line(frame, setup.plan.map(([step]) => step), planned, y, ink, 1.2, 0.45, [5, 4]);
    line(frame, history.step, history.rate, y, colours.rate, 2, 1);
    if (proposed) line(frame, [0, setup.steps], [proposed, proposed], y, colours.rate, 1.5, 0.9, [2, 3]);
  } else if (name === "loss") {
    line(frame, history.step, history.loss, y, colours.loss, 1, 0.45);
    line(frame, history.step, history.smooth, y, colours.loss, 2, 1);
  }
  line(frame, held.map((p) => p.step), held.map((p) => p.value), y, colours.held, 1.5, 0.8, [6, 3]);
  pen.fillStyle = colours.held;
  for (const point of held) {
    pen.beginPath();
    pen.arc(x(point.step), y(point.value), 3.5, 0, 7);
    pen.fill();
  }
  pen.restore();
  drawTitle(frame, box, name, { band, held: held.length > 0 });
}

// One vertical stroke from the least to the greatest where several points share a pixel.
function line(frame, steps, values, y, colour, width, alpha, dash = []) {
  const { pen, x } = frame;
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.globalAlpha = alpha;
  pen.lineJoin = "round";
  pen.setLineDash(dash);
  pen.beginPath();
  let on = false;
  for (let i = 0; i < steps.length; ) {
    const pixel = Math.round(x(steps[i]));
    let low = Infinity, high = -Infinity, end = NaN;
    for (; i < steps.length && Math.round(x(steps[i])) === pixel; i++) {
      if (!finite(values[i])) continue;
      low = Math.min(low, values[i]);
      high = Math.max(high, values[i]);
      end = values[i];
    }
    if (!finite(end)) { on = false; continue; }
    if (on) pen.lineTo(pixel, y(low)); else pen.moveTo(pixel, y(low));
    pen.lineTo(pixel, y(high));
    pen.lineTo(pixel, y(end));
    on = true;
  }
  pen.stroke();
  pen.setLineDash([]);
  pen.globalAlpha = 1;
}

const inside = (band, last) => [...band.low, ...band.high].filter((_, i) => band.steps[i % band.steps.length] <= last);

function fillBand({ pen, ink, x }, band, y) {
  pen.fillStyle = ink;
  pen.globalAlpha = 0.13;
  pen.beginPath();
  band.steps.forEach((step, i) => pen.lineTo(x(step), y(band.high[i])));
  for (let i = band.steps.length - 1; i >= 0; i--) pen.lineTo(x(band.steps[i]), y(band.low[i]));
  pen.fill();
  pen.globalAlpha = 1;
}

function drawTitle({ pen, ink, colours }, box, name, has) {
  const parts = { loss: [["training loss (nats)", colours.loss]], rate: [["rate in use", colours.rate], ["planned", null]] }[name];
  const labels = parts || [[`held out, ${words(name)}`, colours.held]];
  if (name === "loss" && has.held) labels.push(["held out", colours.held]);
  if (has.band) labels.push(["reference band", null]);
  let at = LEFT;
  pen.textAlign = "left";
  for (const [text, colour] of labels) {
    pen.globalAlpha = colour ? 1 : 0.35;
    pen.fillStyle = colour || ink;
    pen.fillRect(at, box.top - 14, 14, 4);
    pen.globalAlpha = 1;
    pen.fillStyle = ink;
    pen.fillText(text, at + 20, box.top - 12);
    at += 20 + pen.measureText(text).width + 18;
  }
}

function nearest(history, pointer, frame) {
  const wanted = ((pointer - LEFT) / (frame.width - LEFT - RIGHT)) * frame.last;
  let low = 0, high = history.step.length - 1;
  while (low < high) { const middle = (low + high) >> 1; if (history.step[middle] < wanted) low = middle + 1; else high = middle; }
  return low;
}

function drawPointer({ pen, ink, x, width }, bottom, i, history) {
  const at = Math.round(x(history.step[i]));
  const text = `step ${history.step[i]}   loss ${history.loss[i].toFixed(3)}   rate ${show(history.rate[i])}`;
  pen.fillStyle = ink;
  pen.globalAlpha = 0.5;
  pen.fillRect(at, TOP, 1, bottom - TOP);
  pen.globalAlpha = 1;
  pen.textAlign = at > width / 2 ? "right" : "left";
  pen.fillText(text, at + (at > width / 2 ? -8 : 8), TOP + 8);
}
