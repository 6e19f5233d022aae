// The page of a live run: controls that send one message for each act, and the chart below them.
// Nothing the kernel says is sent back to it, so the slider can follow the schedule without echo.

const PAST = 0.9; // weight of the past in the smoothed curve, as in picture.py

// ---- history: the numbers that the kernel has sent to this page ----

function newHistory() {
  return { step: [], loss: [], smooth: [], rate: [], held: [], names: [], mean: 0, weight: 0 };
}

function addPoint(history, step, loss, rate) {
  if (finite(loss)) {
    history.mean = PAST * history.mean + (1 - PAST) * loss;
    history.weight = PAST * history.weight + (1 - PAST);
  }
  history.step.push(step);
  history.loss.push(loss);
  history.rate.push(rate);
  history.smooth.push(history.weight ? history.mean / history.weight : NaN);
}

const floats = (view) => new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));

// The history with a message added; null when points are missing in between.
function receive(history, message, buffers) {
  if (message.from === 0) history = newHistory();
  if (message.from !== history.step.length || message.heldFrom !== history.held.length) return null;
  const points = floats(buffers[0]), held = floats(buffers[1]);
  for (let i = 0; i < points.length; i += 3) addPoint(history, points[i], points[i + 1], points[i + 2]);
  history.names = message.names;
  for (let i = 0; i < held.length; i += 3)
    history.held.push({ step: held[i], name: message.names[held[i + 1]], value: held[i + 2] });
  return history;
}

// ---- controls ----

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function clock(seconds) {
  const s = Math.max(0, Math.round(seconds));
  return s < 60 ? `${s} s` : `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, "0")} s`;
}

function build(setup) {
  const range = { type: "range", min: setup.low, max: setup.high, step: 0.05 };
  const parts = {
    slider: make("input", { ...range, "aria-label": "Learning rate" }),
    typed: make("input", { type: "text", inputmode: "decimal", size: 9, "aria-label": "Learning rate, typed" }),
    follow: make("button", { type: "button" }, "Follow schedule"),
    pause: make("button", { type: "button", "aria-pressed": "false" }, "Pause"),
    stop: make("button", { type: "button" }, "Stop"),
    phase: make("span", { role: "status", class: "mslearn-phase" }, "starting"),
    numbers: make("span", { class: "mslearn-numbers" }),
    progress: make("progress", { max: setup.steps, value: 0, "aria-label": "Steps done" }),
    canvas: make("canvas", { role: "img", "aria-label": `${setup.title}: no step yet`, "data-points": 0 }),
  };
  const rate = make("div", { class: "mslearn-rate" }, make("span", { "aria-hidden": "true" }, "Learning rate"), parts.slider, parts.typed);
  const buttons = make("div", { class: "mslearn-buttons" }, parts.follow, parts.pause, parts.stop);
  // JupyterLab would take an arrow or Enter for a shortcut of its own.
  for (const control of [parts.slider, parts.typed, parts.follow, parts.pause, parts.stop])
    control.setAttribute("data-lm-suppress-shortcuts", "true");
  parts.root = make(
    "div",
    { class: "mslearn-panel", role: "group", "aria-label": setup.title },
    make("div", { class: "mslearn-controls" }, rate, buttons),
    make("div", { class: "mslearn-line" }, parts.phase, parts.numbers),
    parts.progress,
    parts.canvas,
  );
  return parts;
}

// What a person does: a move counts when the slider is let go, so each one is one event of the run.
function listen(parts, act, view) {
  const { slider, typed } = parts;
  const preview = (rate) => { view.proposed = rate; typed.value = show(rate); view.redraw(); };
  const commit = (rate) => { view.proposed = null; view.held = rate; act({ kind: "rate", value: rate }); };
  const chosen = () => Number((10 ** Number(slider.value)).toPrecision(3));
  slider.addEventListener("input", () => preview(chosen()));
  slider.addEventListener("change", () => commit(chosen()));
  let edited = false; // not the browser's change event: JupyterLab keeps Enter from causing it
  const enter = () => {
    if (!edited) return;
    const rate = Number(typed.value.replace(",", ".")), sound = finite(rate) && rate > 0;
    edited = false;
    typed.setAttribute("aria-invalid", String(!sound));
    if (sound) commit(rate);
    else parts.phase.textContent = `a rate is a positive number such as 3e-3, not “${typed.value}”`;
  };
  typed.addEventListener("input", () => { edited = true; });
  typed.addEventListener("keydown", (event) => { if (event.key === "Enter") enter(); });
  typed.addEventListener("blur", enter);
  parts.follow.addEventListener("click", () => commit(null));
  parts.pause.addEventListener("click", () => {
    view.paused = parts.pause.getAttribute("aria-pressed") !== "true";
    act({ kind: "pause", value: view.paused });
  });
  parts.stop.addEventListener("click", () => act({ kind: "stop" }));
}

// The controls as they stand: by hand or by schedule, running or paused or over.
function showState(parts, view, history, setup) {
  const n = history.step.length, rate = view.held ?? history.rate[n - 1], over = ["stopped", "finished", "failed"].includes(view.phase);
  if (rate !== undefined && view.proposed === null) {
    const busy = document.activeElement;
    if (busy !== parts.slider || view.held === null) parts.slider.value = rate > 0 ? Math.log10(rate) : setup.low;
    if (busy !== parts.typed) parts.typed.value = show(rate);
    parts.slider.setAttribute("aria-valuetext", `${show(rate)}, ${view.held === null ? "by schedule" : "by hand"}`);
  }
  for (const control of [parts.slider, parts.typed, parts.pause, parts.stop]) control.disabled = over;
  parts.follow.disabled = over || view.held === null;
  parts.pause.textContent = view.paused ? "Resume" : "Pause";
  parts.pause.setAttribute("aria-pressed", String(view.paused));
  const phase = over ? view.phase : view.paused ? "paused" : view.phase;
  const text = view.note ? `${phase}: ${view.note}` : `${phase}, rate ${view.held === null ? "by schedule" : "by hand"}`;
  if (parts.phase.textContent !== text && parts.typed.getAttribute("aria-invalid") !== "true") parts.phase.textContent = text;
  parts.root.dataset.phase = phase;
  if (n === 0) return;
  const step = history.step[n - 1] + 1, loss = history.loss[n - 1], used = history.rate[n - 1];
  parts.numbers.textContent = `step ${step} of ${setup.steps} · loss ${loss.toFixed(3)} · rate ${show(used)} · ${view.pace}`;
  parts.progress.value = step;
  parts.canvas.dataset.points = n;
  parts.canvas.setAttribute("aria-label", `${setup.title}: step ${step} of ${setup.steps}, loss ${loss.toFixed(3)}, rate ${show(used)}`);
}

function render({ model, el }) {
  const setup = model.get("setup"), parts = build(setup);
  let history = newHistory(), queued = 0, pointer = null;
  const view = { phase: "starting", note: "", held: null, paused: false, proposed: null, pace: "", sent: 0 };
  view.redraw = () => {
    queued ||= requestAnimationFrame(() => {
      queued = 0;
      showState(parts, view, history, setup);
      draw(parts.canvas, history, setup, view.proposed, pointer);
    });
  };
  const act = (message) => {
    view.sent = performance.timeOrigin + performance.now();
    model.send({ ...message, at: view.sent });
    view.redraw();
  };
  const hello = () => model.send({ kind: "hello", page: performance.timeOrigin });
  const heard = (message, buffers) => {
    if (message.kind !== "points") return;
    const longer = receive(history, message, buffers), state = message.state;
    if (longer === null) return hello();
    history = longer;
    view.phase = state.phase;
    view.note = state.note;
    view.pace = `${Math.round(state.tokensPerSecond).toLocaleString("en")} tokens/s · ${clock(state.secondsLeft)} left`;
    if (state.seen >= view.sent) { // older news would undo what a person has just done
      view.held = state.byHand;
      view.paused = state.phase === "paused";
    }
    view.redraw();
  };
  listen(parts, act, view);
  parts.canvas.addEventListener("pointermove", (event) => { pointer = event.offsetX; view.redraw(); });
  parts.canvas.addEventListener("pointerleave", () => { pointer = null; view.redraw(); });
  el.append(parts.root);
  const watch = new ResizeObserver(view.redraw);
  watch.observe(parts.root);
  model.on("msg:custom", heard);
  hello(); // a page that was reloaded asks for the whole history
  return () => { watch.disconnect(); model.off("msg:custom", heard); cancelAnimationFrame(queued); };
}

export default { render };
