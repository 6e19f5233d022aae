// The pen of the cockpit's chart: colours, numbers in words, axes, and lines on a canvas.
// The parts of the page are joined into one text in the order that panel.py gives.

const LIGHT = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7A5195", "#B07D00"]; // on white
const DARK = ["#56B4E9", "#F58A4B", "#2FCB9C", "#E7A5CB", "#B79CE0", "#EDC04F"]; // the same hues, lighter
const DEPTH = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [202, 190, 30]]; // viridis, its end dimmed
const LEFT = 62, RIGHT = 18, TOP = 26, BOTTOM = 38; // pixels around the plots

const finite = Number.isFinite;
const show = (rate) => (rate > 0 ? rate.toExponential(2).replace("e+", "e") : "0");
const brief = (value) => (Math.abs(value) >= 0.01 && Math.abs(value) < 1e4 ? value.toPrecision(3) : show(value));
const words = (name) => name.replaceAll("_", " ");
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

function clock(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s >= 3600) return `${Math.floor(s / 3600)} h ${String(Math.floor(s / 60) % 60).padStart(2, "0")} min`;
  return s < 60 ? `${s} s` : `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, "0")} s`;
}

// A colour for layer `i` of `n`: dark near the input, light near the output; reversed on a dark page.
function depthColour(i, n, dark) {
  const at = (n > 1 ? i / (n - 1) : 0) * (DEPTH.length - 1), k = Math.min(DEPTH.length - 2, Math.floor(at));
  const mixed = DEPTH[k].map((low, c) => low + (DEPTH[k + 1][c] - low) * (at - k));
  return `rgb(${mixed.map((c) => Math.round(dark ? 255 - (255 - c) * 0.75 : c)).join(" ")})`;
}

// ---- axes: `place` gives the share of the way up, `value` the way back ----

// A range whose ends lie on a grid, so that an axis moves now and then and not at each new point.
function settled(low, high, grain = 10 ** (Math.floor(Math.log10(high - low || Math.abs(high) || 1)) - 1)) {
  return [Math.floor(low / grain + 1e-9) * grain, Math.ceil(high / grain - 1e-9) * grain];
}

const superscript = (n) => String(n).replace("-", "⁻").replace(/\d/g, (d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]);

function niceTicks(low, high, count) {
  const rough = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(rough));
  const gap = power * [1, 2, 5, 10].find((k) => k * power >= rough);
  const ticks = [];
  for (let t = Math.ceil(low / gap) * gap; t <= high + gap * 1e-9; t += gap) ticks.push(Number(t.toPrecision(6)));
  return ticks;
}

function linearAxis(least, greatest, count = 4) {
  const [low, high] = settled(least, greatest);
  const pad = (high - low || Math.abs(high) || 1) * 0.06, span = high - low + 2 * pad;
  return {
    place: (v) => (v - low + pad) / span,
    value: (share) => low - pad + share * span,
    ticks: niceTicks(low - pad, high + pad, count),
    label: (v) => (Math.abs(v) >= 1e5 ? v.toExponential(0).replace("e+", "e") : String(v)),
  };
}

function logAxis(lowest, highest) {
  const [low, high] = settled(Math.log10(lowest), Math.log10(highest), 0.05);
  const pad = Math.max(0.12, (high - low) * 0.08), span = high - low + 2 * pad, ticks = [];
  for (let k = Math.floor(low - pad); k <= high + pad; k++) {
    for (const digit of span > 1.6 ? [1] : span > 0.8 ? [1, 3] : [1, 2, 3, 5, 7])
      if (Math.log10(digit) + k >= low - pad && Math.log10(digit) + k <= high + pad) ticks.push(Number(`${digit}e${k}`));
  }
  const power = (v) => Math.round(Math.log10(v)), whole = (v) => Math.abs(Math.log10(v) - power(v)) < 1e-9;
  return {
    place: (v) => (Math.log10(Math.max(v, lowest / 10)) - low + pad) / span,
    value: (share) => 10 ** (low - pad + share * span),
    ticks,
    label: (v) => (v >= 0.01 && v < 1000 ? String(v) : whole(v) ? "10" + superscript(power(v)) : show(v).replace(/\.?0+e/, "e")),
  };
}

// The axis of steps; logarithmic, step 0 keeps its place because one is added.
function stepAxis(width, last, log) {
  const span = width - LEFT - RIGHT, whole = Math.log10(last + 1);
  return log
    ? {
        x: (step) => LEFT + (Math.log10(Math.max(step, 0) + 1) / whole) * span,
        step: (x) => 10 ** (((x - LEFT) / span) * whole) - 1,
        ticks: [0, 1, 2, 3, 4, 5, 6].flatMap((k) => [1, 3].map((d) => d * 10 ** k)).filter((t) => t <= last),
      }
    : {
        x: (step) => LEFT + (step / last) * span,
        step: (x) => ((x - LEFT) / span) * last,
        ticks: niceTicks(0, last, Math.max(3, Math.min(8, width / 110))),
      };
}

// ---- lines ----

// One vertical stroke from the least to the greatest where several points share a pixel; `range` is
// [from, to) among the points. A stepped line holds each value until the next, as a rate does.
function line(frame, steps, values, y, { colour, width = 2, alpha = 1, dash = [], range = [0, steps.length], stepped = false, round = false }) {
  const { pen, x } = frame;
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.globalAlpha = alpha;
  pen.lineJoin = "round";
  pen.lineCap = round ? "round" : "butt";
  pen.setLineDash(dash);
  pen.beginPath();
  let on = false, held = NaN;
  const to = Math.min(range[1], steps.length);
  for (let i = range[0]; i < to; ) {
    const pixel = Math.round(x(steps[i]));
    let low = Infinity, high = -Infinity, end = NaN;
    for (; i < to && Math.round(x(steps[i])) === pixel; i++) {
      if (!finite(values[i])) continue;
      low = Math.min(low, values[i]);
      high = Math.max(high, values[i]);
      end = values[i];
    }
    if (!finite(end)) { on = false; continue; }
    if (on && stepped) pen.lineTo(pixel, y(held));
    if (on) pen.lineTo(pixel, y(low)); else pen.moveTo(pixel, y(low));
    if (high > low) { pen.lineTo(pixel, y(high)); pen.lineTo(pixel, y(end)); }
    on = true;
    held = end;
  }
  pen.stroke();
  pen.lineCap = "butt";
  pen.setLineDash([]);
  pen.globalAlpha = 1;
}

// Open circles, such as held-out scores: seen on both pages, and told from lines without colour.
function dots(frame, steps, values, y, colour, alpha) {
  const { pen, x, paper } = frame;
  pen.globalAlpha = alpha;
  pen.lineWidth = 1.6;
  pen.strokeStyle = colour;
  pen.fillStyle = paper;
  steps.forEach((step, i) => {
    if (!finite(values[i])) return;
    pen.beginPath();
    pen.arc(x(step), y(values[i]), 3.2, 0, 7);
    pen.fill();
    pen.stroke();
  });
  pen.globalAlpha = 1;
}

function fillBand({ pen, ink, x }, band, y) {
  pen.fillStyle = ink;
  pen.globalAlpha = 0.12;
  pen.beginPath();
  band.steps.forEach((step, i) => pen.lineTo(x(step), y(band.high[i])));
  for (let i = band.steps.length - 1; i >= 0; i--) pen.lineTo(x(band.steps[i]), y(band.low[i]));
  pen.fill();
  pen.globalAlpha = 1;
}

// Words on a patch of the page's colour, so that they can be read across a curve.
function label({ pen, ink, paper }, text, x, y, align = "left", colour = ink) {
  const width = pen.measureText(text).width, left = x - width * { left: 0, center: 0.5, right: 1 }[align];
  pen.textAlign = align;
  pen.fillStyle = paper;
  pen.globalAlpha = 0.85;
  pen.fillRect(left - 3, y - 7, width + 6, 14);
  pen.globalAlpha = 1;
  pen.fillStyle = colour;
  pen.fillText(text, x, y);
}
