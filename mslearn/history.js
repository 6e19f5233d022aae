// The numbers that the kernel has sent to this page: a family of timelines, each with all its points.

const PAST = 0.9; // weight of the past in the smoothed curve, as in picture.py

function newFamily() {
  return { lines: new Map(), current: null, names: [], samples: [], snapshots: [] };
}

function newPoints() {
  return { step: [], loss: [], rate: [], grad: [], smooth: [], mean: 0, weight: 0, held: [], layers: [] };
}

// How many of the steps lie before one.
function before(steps, wanted) {
  let low = 0, high = steps.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] < wanted) low = middle + 1; else high = middle;
  }
  return low;
}

// The timelines from this one up to the first, each with the step from which on it is itself.
function descent(family, line = family.lines.get(family.current)) {
  const found = [];
  for (; line; line = family.lines.get(line.parent)) found.push(line);
  return found;
}

// Exponential mean of the finite losses, its start corrected; a gap counts as the steps left out.
function addPoint(line, step, loss, rate, grad) {
  const n = line.step.length;
  if (finite(loss)) {
    const past = PAST ** Math.max(1, step - (n ? line.step[n - 1] : step - 1));
    line.mean = past * line.mean + (1 - past) * loss;
    line.weight = past * line.weight + 1 - past;
  }
  line.step.push(step);
  line.loss.push(loss);
  line.rate.push(rate);
  line.grad.push(grad);
  line.smooth.push(line.weight ? line.mean / line.weight : NaN);
}

const floats = (view) => new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));

// Take in what a message says of the family: which timelines there are, and what was heard of them.
function receiveFamily(family, message) {
  if (message.all) Object.assign(family, newFamily());
  for (const key of ["current", "names", "snapshots"]) if (key in message) family[key] = message[key];
  if (message.samples) family.samples.push(...message.samples);
  if (!message.lines) return;
  const known = family.lines;
  family.lines = new Map(message.lines.map((about) => [about.name, Object.assign(known.get(about.name) ?? newPoints(), about)]));
}

// Take in the points of one timeline; false when some are missing before them, so that the page has
// to ask for everything again. A timeline that went back in time is sent anew; its end stays as a ghost.
function receivePoints(family, message, buffers) {
  const line = family.lines.get(message.line), [from, heldFrom, layersFrom] = message.from;
  if (!line || from > line.step.length || heldFrom > line.held.length || layersFrom > line.layers.length) return false;
  if (from === 0 && line.step.length) {
    line.ghost = { step: line.step, smooth: line.smooth };
    Object.assign(line, newPoints());
  }
  const [points, held, layers] = buffers.map(floats);
  for (let i = 0; i < points.length; i += 4) addPoint(line, ...points.subarray(i, i + 4));
  for (let i = 0; i < held.length; i += 3)
    line.held.push({ step: held[i], name: family.names[held[i + 1]], value: held[i + 2] });
  const n = message.layers;
  for (let i = 0; i < layers.length; i += 1 + 2 * n)
    line.layers.push({ step: layers[i], gradients: layers.subarray(i + 1, i + 1 + n), updates: layers.subarray(i + 1 + n, i + 1 + 2 * n) });
  return true;
}

// The last held-out scores of a timeline, by name.
function scoresOf(line) {
  const scores = {};
  for (const point of line.held) scores[point.name] = point.value;
  return scores;
}
