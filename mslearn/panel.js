// The page of a live run: it hears from the kernel, draws, and sends one small message for each act.
// Nothing the kernel says is sent back to it, so the slider can follow the schedule without echo.

const VIEWS = { scores: "Scores", rate: "Rate", gradient: "Gradient", layers: "Layers", earlier: "Earlier runs", logLoss: "Log loss", logSteps: "Log steps" };
const OVER = ["stopped", "finished", "failed"], PAUSED = ["pausing", "paused"]; // with a step to finish, and without

function build(setup) {
  const parts = { ...buildControls(setup), ...buildFamily(), ...buildGuess(setup) };
  parts.canvas = make("canvas", { role: "img", tabindex: 0, "aria-label": `${setup.title}: no step yet`, "data-points": 0 });
  parts.reading = make("span", { class: "mslearn-hidden", "aria-live": "polite" });
  parts.views = Object.entries(VIEWS).map(([key, name]) => button(name, { "data-view": key, "aria-pressed": "false" }));
  parts.text = make("p");
  parts.texts = make("details", {}, make("summary", {}, "earlier"));
  parts.sample = make("section", { class: "mslearn-sample", "aria-label": "Text the model writes", hidden: "" }, make("b"), parts.text, parts.texts);
  const views = make("div", { class: "mslearn-views", role: "group", "aria-label": "What the chart shows" }, ...parts.views, gap(), parts.predict);
  const chart = make("div", { class: "mslearn-chart" }, parts.canvas, setup.guessing ? "" : parts.time, parts.reading);
  const all = setup.guessing ? [parts.guess, parts.phase, chart] : [parts.controls, views, parts.guess, chart, parts.aim, parts.pins, parts.table, parts.sample];
  parts.root = make("div", { class: "mslearn-panel", role: "group", "aria-label": setup.title }, ...all);
  // JupyterLab would take an arrow or Enter for a shortcut of its own.
  for (const each of parts.root.querySelectorAll("input, button, select, canvas, summary")) each.setAttribute("data-lm-suppress-shortcuts", "true");
  return parts;
}

function newView(setup) {
  const on = { scores: true, rate: !setup.guessing, gradient: false, layers: false, earlier: true, logLoss: false, logSteps: false };
  return {
    on, phase: "starting", note: "", range: { min: setup.low, max: setup.high }, rate: { mode: "absolute", value: null }, ratios: null,
    proposed: null, paused: false, over: false, proposal: null, pins: [], guess: setup.guess, predicting: Boolean(setup.guessing), drawing: false,
    pace: [0, 0], aim: null, pointer: null, drawn: null, sent: 0, cost: 0, told: 0,
  };
}

// What the kernel says of the run. News older than the last act would undo what a person has just done.
function hear(view, state) {
  for (const key of ["phase", "note", "pins", "pace", "proposal", "guess"]) if (key in state && !(key === "guess" && view.drawing)) view[key] = state[key];
  view.said = { ...view.said, ...state };
  view.over = OVER.includes(view.phase);
  if (!("seen" in view.said) || view.said.seen < view.sent) return;
  const { lr, factor, ratios, phase } = view.said;
  if (lr !== null) view.rate = { mode: "absolute", value: lr };
  else if (factor !== 1) view.rate = { mode: "factor", value: factor };
  else view.rate = { ...view.rate, value: null };
  view.ratios = ratios;
  view.paused = PAUSED.includes(phase);
}

function showWords(parts, view, family, setup) {
  if (setup.guessing) {
    const ends = [view.guess[0], view.guess.at(-1)].filter(Boolean).map(([step, loss]) => `${brief(loss)} at step ${step}`);
    parts.canvas.setAttribute("aria-label", `${setup.title}: ${ends.length ? `loss ${ends.join(", ")}` : "nothing is predicted yet"}`);
    if (parts.points.getAttribute("aria-invalid") !== "true") parts.phase.textContent = "";
    return undefined;
  }
  const line = family.lines.get(family.current), n = line?.step.length ?? 0, phase = view.paused && !view.over && view.phase !== "paused" ? "pausing" : view.phase;
  const by = view.rate.value === null ? "by schedule" : "by hand", note = view.proposal ? "the guard has a proposal" : view.note;
  const text = note ? `${phase}: ${note}` : `${phase}, rate ${by}`;
  if (parts.phase.textContent !== text && !parts.root.querySelector("[aria-invalid=true]")) parts.phase.textContent = text;
  mark(parts.root, { "data-phase": phase });
  parts.canvas.dataset.points = n;
  parts.canvas.dataset.step = n ? line.step[n - 1] + 1 : 0;
  if (!n) { // before the first step, or back there
    write(parts.numbers, `step 0 of ${setup.steps}`);
    mark(parts.canvas, { "aria-label": `${setup.title}: no step yet` });
    return undefined;
  }
  const step = line.step[n - 1] + 1, loss = line.loss[n - 1], rate = line.rate[n - 1], [tokens, left] = view.pace;
  const state = `step ${step} of ${setup.steps}, loss ${loss.toFixed(3)}, rate ${show(rate)}`;
  const speed = tokens ? `${Math.round(tokens).toLocaleString("en")} tokens/s · ` : "";
  parts.numbers.textContent = `step ${step} of ${setup.steps} · loss ${loss.toFixed(3)} · rate ${show(rate)} · ${speed}${clock(left)} left`;
  const tree = family.lines.size > 1 ? `${family.current}, one of ${plural(family.lines.size, "timeline")}: ` : "";
  parts.canvas.setAttribute("aria-label", `${setup.title}: ${tree}${state}`);
  return rate;
}

function showSamples(parts, samples) {
  if (!samples.length || parts.sample.dataset.count === String(samples.length)) return;
  parts.sample.dataset.count = samples.length;
  parts.sample.hidden = false;
  const last = samples.at(-1), older = samples.slice(0, -1).reverse();
  parts.sample.firstChild.textContent = `Text at step ${last.step}`;
  parts.text.textContent = last.text;
  parts.texts.hidden = !older.length;
  parts.texts.replaceChildren(parts.texts.firstChild, ...older.map((each) => make("p", {}, make("b", {}, `step ${each.step} `), each.text)));
}

// The mouse, or the arrows on the chart, read its values off.
function listenToChart(parts, view, family) {
  const read = (step) => {
    const line = family.lines.get(family.current), last = line?.step.at(-1);
    view.pointer = step === null || last === undefined ? null : Math.max(0, Math.min(last, Math.round(step)));
    view.redraw();
  };
  parts.canvas.addEventListener("pointermove", (event) => { if (!view.drawing) read(view.drawn?.step(event.offsetX) ?? null); });
  parts.canvas.addEventListener("pointerleave", () => read(null));
  parts.canvas.addEventListener("blur", () => read(null));
  parts.canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key], line = family.lines.get(family.current);
    if (!move || !line?.step.length) return;
    event.preventDefault();
    read((view.pointer ?? line.step.at(-1)) + move * Math.max(1, Math.round(view.drawn.last / 100)));
    const i = Math.max(0, before(line.step, view.pointer + 1) - 1);
    const losses = `loss ${line.loss[i].toFixed(3)}, smoothed ${line.smooth[i].toFixed(3)}`;
    parts.reading.textContent = `step ${line.step[i]}: ${losses}, rate ${show(line.rate[i])}, gradient norm ${brief(line.grad[i])}`;
  });
  for (const each of parts.views)
    each.addEventListener("click", () => { view.on[each.dataset.view] = !view.on[each.dataset.view]; view.redraw(); });
}

function showViews(parts, view, family, setup) {
  const there = { scores: family.names.some((name) => name !== "loss"), layers: setup.layers.length > 0, earlier: setup.earlier.length > 0 };
  for (const each of parts.views) {
    each.hidden = there[each.dataset.view] === false;
    mark(each, { "aria-pressed": view.on[each.dataset.view] });
  }
}

function render({ model, el }) {
  const setup = model.get("setup"), family = newFamily(), view = newView(setup), parts = build(setup);
  let queued = 0;
  const tell = (started) => { // what drawing takes, so that the kernel asks for it less often where that is much
    view.cost += (performance.now() - started - view.cost) / (view.cost ? 4 : 1);
    if (!view.over && Math.abs(view.cost - view.told) > 0.3 * view.told) model.send({ kind: "drew", page: performance.timeOrigin, ms: (view.told = view.cost) });
  };
  const redraw = () => {
    queued = 0;
    const started = performance.now();
    if (!setup.guessing) setTimeout(tell, 0, started); // when the browser has put it on the screen, too
    view.drawn = draw(parts.canvas, family, setup, view);
    const used = showWords(parts, view, family, setup);
    showGuess(parts, view);
    if (setup.guessing) return;
    showControls(parts, view, used);
    showViews(parts, view, family, setup);
    showFamily(parts, family, view, act, setup);
    showSamples(parts, family.samples);
  };
  const act = (message) => {
    view.sent = performance.timeOrigin + performance.now();
    model.send({ ...message, at: view.sent });
    view.redraw();
  };
  view.redraw = () => { queued ||= requestAnimationFrame(redraw); };
  view.say = (text) => { parts.phase.textContent = text; };
  view.branch = (step) => {
    act({ kind: "branch", name: parts.title.value.trim(), step });
    parts.title.value = "";
  };
  const hello = () => model.send({ kind: "hello", page: performance.timeOrigin });
  const heard = (message, buffers) => {
    receiveFamily(family, message);
    if (message.state) hear(view, message.state);
    const whole = (message.points ?? []).every((each, i) => receivePoints(family, each, buffers.slice(3 * i, 3 * i + 3)));
    if (!whole) return hello();
    view.redraw();
  };
  const gone = () => { // the kernel was restarted or shut down: what is shown here is over
    if (view.over) return;
    Object.assign(view, { phase: "stopped", note: "the kernel has gone; run all cells again", over: true });
    view.redraw();
    hello(); // if it is there after all, its answer sets this right
  };
  listen(parts, act, view);
  listenToTime(parts, act, view, family);
  listenToGuess(parts, act, view, setup);
  listenToChart(parts, view, family);
  el.append(parts.root);
  const watch = new ResizeObserver(view.redraw);
  watch.observe(parts.root);
  model.on("msg:custom", heard);
  model.on("comm_live_update", gone);
  hello(); // a page that was reloaded asks for the whole history
  return () => { watch.disconnect(); model.off("msg:custom", heard); model.off("comm_live_update", gone); cancelAnimationFrame(queued); };
}

export default { render };
