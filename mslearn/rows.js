// What the chart shows: loss, scores, gradient, layers, rate and the tree of timelines above one
// another, on one axis of steps.

const SHARES = { loss: 3.1, gradient: 1.3, layers: 2, rate: 1.5, score: 1.8 };
const UNIT = 62, BRANCH = 18; // pixels: a row of share 1, a timeline in the tree
const LONG = 1500, TAIL = 30; // points of all curves, from which on a picture is kept; its age in pixels

// A timeline's colour; where there is only one, the place of the series in the palette.
const lineColour = (line, frame, alone = 0) => frame.colours[(frame.family.lines.size > 1 ? line.number : alone) % frame.colours.length];
const visible = (family) => [...family.lines.values()].filter((line) => line.step.length);

// The rows that there is something for and that are switched on.
function rowsOf(family, setup, view) {
  const scores = family.names.filter((name) => name !== "loss"), band = setup.band;
  if (band && band.of !== "loss" && !scores.includes(band.of)) scores.push(band.of);
  const sampled = visible(family).some((line) => line.layers.length);
  return [
    { name: "loss", kind: "loss" },
    ...(view.on.scores ? scores.map((name) => ({ name, kind: "score" })) : []),
    ...(view.on.gradient ? [{ name: "gradient norm", kind: "gradient" }] : []),
    ...(view.on.layers && sampled ? [{ name: "gradients", kind: "layers" }, { name: "updates", kind: "layers" }] : []),
    ...(view.on.rate ? [{ name: "rate", kind: "rate" }] : []),
  ];
}

// How many steps wide: the whole plan, halved while the run is in its first part, so that early
// steps can be seen and the axis moves six times at the most. A prediction is shown whole.
function horizon(family, steps, guess) {
  const furthest = Math.max(0, ...visible(family).map((line) => line.step.at(-1)));
  let last = Math.max(steps, furthest, 1);
  for (let i = 0; i < 6 && !guess && furthest < 0.45 * last && last > 100; i++) last /= 2;
  return last;
}

// Draw everything; gives where things are, for the mouse and the time line on top of it.
function draw(canvas, family, setup, view) {
  const rows = rowsOf(family, setup, view), lines = visible(family);
  const shares = rows.reduce((sum, row) => sum + SHARES[row.kind], 0), tree = setup.guessing ? 0 : 12 + BRANCH * Math.max(1, lines.length);
  const width = Math.max(320, canvas.clientWidth), height = Math.round(BOTTOM + TOP * rows.length + UNIT * shares + tree);
  const frame = { ...paper(canvas, width, height), width, family, setup, view, lines };
  frame.last = horizon(family, setup.steps, setup.guessing || view.guess.length > 0);
  Object.assign(frame, stepAxis(width, frame.last, view.on.logSteps));
  let top = 0;
  const boxes = rows.map((row) => {
    const box = { ...row, top: top + TOP, bottom: top + TOP + UNIT * SHARES[row.kind] };
    top = box.bottom;
    return rowFor(frame, box);
  });
  const drawn = drawStill(canvas, frame, boxes, view);
  for (const box of boxes) drawRow(frame, box, drawn);
  const place = setup.guessing ? top : drawTree(frame, top + BOTTOM);
  for (const box of boxes) if (view.pointer !== null) drawValue(frame, box);
  if (view.aim !== null || view.pointer !== null) drawCrossing(frame, TOP, setup.guessing ? top : height);
  return { ...frame, boxes, place };
}

// The canvas made as large as it has to be and wiped, and what its page's colours are.
function paper(canvas, width, height) {
  const scale = window.devicePixelRatio || 1, style = getComputedStyle(canvas);
  canvas.style.height = `${height}px`;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const font = "12px " + style.fontFamily, pen = penFor(canvas, scale, font), ink = style.color, [r, g, b] = (ink.match(/[\d.]+/g) || [0, 0, 0]).map(Number), dark = 0.3 * r + 0.6 * g + 0.1 * b > 128;
  return { pen, font, scale, ink, dark, colours: dark ? DARK : LIGHT, paper: dark ? "#1b1b1b" : "#ffffff" };
}

// A pen in pixels of the page, on a canvas wiped clean.
function penFor(canvas, scale, font) {
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.font = font;
  pen.textBaseline = "middle";
  return pen;
}

// What a row is made of, and the axis that shows all of it.
function rowFor(frame, box) {
  const { series, extra } = contents(frame, box);
  box.axis = axisFor(frame, box, [...series.flatMap((s) => extent(s.values, s.range)), ...extra]);
  box.y = (value) => box.bottom - box.axis.place(value) * (box.bottom - box.top);
  return Object.assign(box, { series, heavy: series.filter((s) => s.heavy), title: titleOf(frame, box) });
}

// Axes, titles and the curves that grow. Of a long run they are kept as a picture, and a step adds no
// more than the strokes that are new, until an axis moves. Gives how far the picture has each curve.
function drawStill(canvas, frame, boxes, view) {
  const heavy = boxes.flatMap((box) => box.heavy), counts = heavy.map(({ range, steps }) => Math.min(range[1], steps.length));
  if (counts.reduce((sum, count) => sum + count, 0) < LONG) {
    boxes.forEach((box) => drawFrame(frame, box));
    drawSteps(frame, boxes.at(-1).bottom);
    return new Map();
  }
  const looks = heavy.map(({ colour, width, alpha, range }) => [colour, width, alpha, range[0]]), axes = boxes.map(({ axis, title }) => [axis.value(0), axis.value(1), title]);
  const key = JSON.stringify([canvas.width, canvas.height, frame.ink, frame.last, view.on, looks, axes]);
  const still = (view.still ??= { canvas: document.createElement("canvas") });
  const tail = heavy.some((s, i) => s.steps !== still.heavy?.[i]?.steps || frame.x(s.steps[counts[i] - 1]) > frame.x(s.steps[still.counts[i] - 1]) + TAIL);
  if (still.key !== key || tail) {
    Object.assign(still.canvas, { width: canvas.width, height: canvas.height });
    const pen = penFor(still.canvas, frame.scale, frame.font);
    for (const box of boxes) drawFrame({ ...frame, pen }, box, true);
    drawSteps({ ...frame, pen }, boxes.at(-1).bottom);
    Object.assign(still, { key, heavy, counts });
  }
  frame.pen.drawImage(still.canvas, 0, 0, canvas.width / frame.scale, canvas.height / frame.scale);
  return new Map(heavy.map((s, i) => [s, still.counts[i]]));
}

function clipTo({ pen, width }, box) {
  pen.save();
  pen.beginPath();
  pen.rect(LEFT, box.top - 5, width - LEFT - RIGHT + 5, box.bottom - box.top + 10);
  pen.clip();
}

function drawFrame(frame, box, curves = false) {
  const { pen, ink, width } = frame;
  for (const tick of box.axis.ticks) {
    pen.globalAlpha = 0.75;
    pen.fillStyle = ink;
    pen.textAlign = "right";
    pen.fillText(box.axis.label(tick), LEFT - 8, box.y(tick));
    pen.globalAlpha = 0.12;
    pen.fillRect(LEFT, Math.round(box.y(tick)), width - LEFT - RIGHT, 1);
    pen.globalAlpha = 1;
  }
  clipTo(frame, box);
  if (frame.setup.band?.of === box.name) fillBand(frame, frame.setup.band, box.y);
  if (curves) for (const each of box.heavy) line(frame, each.steps, each.values, box.y, each);
  pen.restore();
  drawTitle(frame, box);
}

// The rest of a row, on top: of a curve that grows what is not yet in the picture.
function drawRow(frame, box, drawn) {
  clipTo(frame, box);
  for (const each of box.series) {
    const range = drawn.has(each) ? [Math.max(each.range[0], drawn.get(each) - 1), each.range[1]] : each.range;
    (each.dots ? drawHeld : line)(frame, each.steps, each.values, box.y, { ...each, range });
  }
  if (box.kind === "loss") drawPins(frame, box);
  frame.pen.restore();
}

function drawHeld(frame, steps, values, y, style) {
  line(frame, steps, values, y, { ...style, width: 1.4, dash: [6, 3] });
  const [from, to] = style.range, first = from > 0 ? from + 1 : 0; // before it stands the parent's last
  dots(frame, steps.slice(first, to), values.slice(first, to), y, style.colour, style.alpha);
}

function drawSteps({ pen, ink, ticks, x, width }, bottom) {
  pen.fillStyle = ink;
  pen.textAlign = "center";
  pen.globalAlpha = 0.75;
  for (const step of ticks) pen.fillText(step, x(step), bottom + 13);
  pen.globalAlpha = 1;
  pen.fillText("step", (LEFT + width - RIGHT) / 2, bottom + 27);
}

// The family: a track for each timeline, from where it left its parent; snapshots as dots on the
// current one. Gives the middle of the current track.
function drawTree(frame, top) {
  const { pen, ink, x, family, lines, paper, last } = frame, rows = new Map(lines.map((each, i) => [each.name, top + 8 + BRANCH * i]));
  for (const each of lines) {
    const y = rows.get(each.name), from = each.parent === null ? 0 : each.born, tip = each.step.at(-1) + 1;
    pen.strokeStyle = lineColour(each, frame);
    pen.lineWidth = each.name === family.current ? 4 : 2.5;
    pen.globalAlpha = each.name === family.current ? 1 : 0.6;
    pen.lineCap = "round";
    pen.beginPath();
    if (rows.has(each.parent)) {
      pen.moveTo(x(from), rows.get(each.parent));
      pen.bezierCurveTo(x(from), y, x(from), y, Math.min(x(tip), x(from) + 10), y);
    } else pen.moveTo(x(from), y);
    pen.lineTo(x(tip), y);
    pen.stroke();
    pen.lineCap = "butt";
    pen.globalAlpha = 1;
    const text = each.name === family.current && lines.length === 1 ? "" : each.name, beside = x(tip) + 14 + pen.measureText(text).width < frame.width;
    if (text) label(frame, text, beside ? x(tip) + 12 : x(tip) - 12, y - (beside ? 0 : 9), beside ? "left" : "right", lineColour(each, frame));
  }
  const place = rows.get(family.current) ?? top + 8;
  let drawn = -Infinity;
  for (const step of family.snapshots) {
    if (step > last || x(step) < drawn + 7) continue; // more would run together
    drawn = x(step);
    pen.beginPath();
    pen.arc(x(step), place, 2, 0, 7);
    pen.fillStyle = paper;
    pen.globalAlpha = 0.9;
    pen.fill();
    pen.globalAlpha = 1;
  }
  pen.fillStyle = ink;
  return place;
}
