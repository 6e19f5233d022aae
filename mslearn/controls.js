// The controls of the cockpit: made once, each with a name for who cannot see it, and kept in step
// with the run. A move counts when the slider is let go, so each one is one event of the run.

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// What already stands there is left alone: each change costs a layout of the whole page.
const write = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const mark = (node, attributes) => { for (const [name, value] of Object.entries(attributes)) if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value); };

const button = (text, more = {}) => make("button", { type: "button", ...more }, text);
const field = (name, more = {}) => make("input", { type: "text", "aria-label": name, ...more });
const FACTORS = { min: -2, max: 1.5 }; // powers of ten, as multiples of the schedule
const KEYS = { p: "pause", s: "single", f: "follow", n: "note", b: "branch" };

function buildControls(setup) {
  const parts = {
    phase: make("span", { role: "status", class: "mslearn-phase" }, "starting"),
    numbers: make("span", { class: "mslearn-numbers" }),
    mode: make("select", { "aria-label": "Set the rate as" }, make("option", { value: "absolute" }, "rate"), make("option", { value: "factor" }, "× schedule")),
    slider: make("input", { type: "range", min: setup.low, max: setup.high, step: 0.05, "aria-label": "Learning rate" }),
    typed: field("Learning rate, typed", { inputmode: "decimal", size: 9 }),
    follow: button("Follow schedule", { "aria-keyshortcuts": "f" }),
    pause: button("Pause", { "aria-pressed": "false", "aria-keyshortcuts": "p" }),
    single: button("One step", { "aria-keyshortcuts": "s" }),
    stop: button("Stop"),
    note: field("Note pinned to the next step", { placeholder: "note to pin", maxlength: 200, "aria-keyshortcuts": "n" }),
    pin: button("Pin note"),
    title: field("Name of the branch", { placeholder: "name", maxlength: 40, size: 9 }),
    branch: button("Branch here", { "aria-keyshortcuts": "b" }),
    accept: button("Accept", { class: "mslearn-first" }),
    overrule: button("Overrule"),
    why: make("span"),
  };
  parts.groups = setup.groups.length > 1 ? buildGroups(setup) : { rows: [], all: "" };
  parts.guard = make("div", { class: "mslearn-guard", role: "alert", hidden: "" }, make("b", {}, "The guard:"), parts.why, parts.accept, parts.overrule);
  parts.controls = make(
    "div",
    { class: "mslearn-controls" },
    make("div", { class: "mslearn-line" }, make("span", {}, make("span", { class: "mslearn-title" }, setup.title), parts.phase), parts.numbers),
    make("div", { class: "mslearn-rate" }, parts.mode, parts.slider, parts.typed, parts.follow),
    parts.groups.all,
    make("div", { class: "mslearn-buttons" }, parts.pause, parts.single, parts.stop, gap(), parts.note, parts.pin, gap(), parts.title, parts.branch),
    parts.guard,
  );
  return parts;
}

const gap = () => make("span", { class: "mslearn-gap" });

// A share of the rate for each group of parameters, such as layers that are fine-tuned gently.
function buildGroups(setup) {
  const rows = setup.groups.map((name, i) => ({
    made: setup.ratios[i],
    slider: make("input", { type: "range", min: -2, max: 1, step: 0.05, "aria-label": `Share of the rate, ${name}` }),
    typed: field(`Share of the rate, ${name}, typed`, { inputmode: "decimal", size: 6 }),
    rate: make("span", { class: "mslearn-numbers" }),
    name: make("span", {}, name),
  }));
  const reset = button("As planned");
  const all = make("details", { class: "mslearn-groups" }, make("summary", {}, "Rates of the parameter groups"));
  for (const row of rows) all.append(make("div", { class: "mslearn-rate" }, row.name, row.slider, row.typed, row.rate));
  all.append(reset);
  return { rows, all, reset };
}

// Enter, or leaving the field, hands a changed text over. Not the browser's change event: JupyterLab
// keeps Enter from causing it.
function onEnter(input, use) {
  let edited = false;
  const enter = () => { if (edited) { edited = false; use(input.value); } };
  input.addEventListener("input", () => { edited = true; });
  input.addEventListener("keydown", (event) => { if (event.key === "Enter") enter(); });
  input.addEventListener("blur", enter);
}

// A positive number that was typed; else the field says that it is none.
function number(input, least) {
  const value = Number(input.value.replace(",", ".") || NaN), sound = finite(value) && value >= least;
  input.setAttribute("aria-invalid", String(!sound));
  return sound ? value : null;
}

function listenToRate(parts, act, view) {
  const { slider, typed, mode } = parts;
  const chosen = () => ({ mode: mode.value, value: Number((10 ** Number(slider.value)).toPrecision(3)) });
  const commit = (rate) => { view.proposed = null; view.rate = rate; act({ kind: "rate", ...rate }); };
  slider.addEventListener("input", () => { view.proposed = chosen(); typed.value = written(view.proposed); view.redraw(); });
  slider.addEventListener("change", () => commit(chosen()));
  onEnter(typed, () => {
    const value = number(typed, Number.MIN_VALUE);
    if (value !== null) commit({ mode: mode.value, value });
    else view.say(`a rate is a positive number such as 3e-3, not “${typed.value}”`);
  });
  mode.addEventListener("change", () => {
    if (view.rate.value !== null) commit({ mode: mode.value, value: null });
    view.rate.mode = mode.value;
    view.redraw();
  });
  parts.follow.addEventListener("click", () => commit({ mode: mode.value, value: null }));
}

function listenToGroups({ groups }, act, view) {
  const commit = (i, ratio) => {
    view.ratios = groups.rows.map((row, k) => (k === i ? ratio : (view.ratios?.[k] ?? row.made)));
    act({ kind: "ask", name: "ratios", value: view.ratios });
  };
  groups.rows.forEach((row, i) => {
    row.slider.addEventListener("input", () => { row.typed.value = brief(10 ** Number(row.slider.value)); });
    row.slider.addEventListener("change", () => commit(i, Number((10 ** Number(row.slider.value)).toPrecision(3))));
    onEnter(row.typed, () => { const ratio = number(row.typed, 0); if (ratio !== null) commit(i, ratio); });
  });
  groups.reset?.addEventListener("click", () => { view.ratios = null; act({ kind: "ask", name: "ratios", value: null }); });
}

function listen(parts, act, view) {
  const ask = (name, value) => act({ kind: "ask", name, value });
  listenToRate(parts, act, view);
  listenToGroups(parts, act, view);
  parts.pause.addEventListener("click", () => { view.paused = !view.paused; ask("paused", view.paused); });
  parts.single.addEventListener("click", () => {
    if (view.paused) ask("single", true);
    else { view.paused = true; ask("paused", true); }
  });
  parts.stop.addEventListener("click", () => ask("stopped", true));
  const pin = () => { if (parts.note.value.trim()) ask("note", parts.note.value.trim()); parts.note.value = ""; };
  parts.pin.addEventListener("click", pin);
  parts.note.addEventListener("keydown", (event) => { if (event.key === "Enter") pin(); });
  parts.branch.addEventListener("click", () => view.branch(null));
  parts.title.addEventListener("keydown", (event) => { if (event.key === "Enter") view.branch(view.aim); });
  parts.accept.addEventListener("click", () => ask("answer", "accept"));
  parts.overrule.addEventListener("click", () => ask("answer", "overrule"));
  parts.root.addEventListener("keydown", (event) => {
    const part = parts[KEYS[event.key]], writing = event.target.matches("input[type=text], select");
    if (!part || part.disabled || writing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (part === parts.note) part.focus(); else part.click();
  });
}

const written = ({ mode, value }) => (mode === "factor" ? brief(value) : show(value));

// The controls as they stand: by hand or by schedule, running or paused or over.
function showControls(parts, view, used) {
  const over = view.over, byHand = view.rate.value !== null, factor = view.rate.mode === "factor";
  parts.mode.value = view.rate.mode;
  mark(parts.slider, factor ? FACTORS : view.range);
  const now = byHand ? view.rate.value : factor ? 1 : used;
  if (now !== undefined && view.proposed === null) {
    const busy = document.activeElement;
    if ((busy !== parts.slider || !byHand) && view.slid !== now) parts.slider.value = now > 0 ? Math.log10(now) : parts.slider.min;
    view.slid = busy === parts.slider ? null : now;
    if (busy !== parts.typed) parts.typed.value = written({ mode: view.rate.mode, value: now });
    const unit = factor ? " times the schedule" : "", whose = byHand ? "by hand" : "by schedule";
    mark(parts.slider, { "aria-valuetext": `${written({ mode: view.rate.mode, value: now })}${unit}, ${whose}` });
  }
  for (const part of ["mode", "slider", "typed", "pause", "single", "stop", "note", "pin", "title", "branch"]) parts[part].disabled = over;
  parts.follow.disabled = over || !byHand;
  write(parts.pause, view.paused ? "Resume" : "Pause");
  mark(parts.pause, { "aria-pressed": view.paused });
  parts.guard.hidden = !view.proposal || over;
  if (view.proposal) write(parts.why, view.proposal.why);
  write(parts.accept, view.proposal?.take ?? "Accept");
  parts.groups.rows.forEach((row, i) => {
    const ratio = view.ratios?.[i] ?? row.made;
    row.slider.disabled = row.typed.disabled = over;
    if (document.activeElement !== row.slider) row.slider.value = ratio > 0 ? Math.log10(ratio) : -2;
    if (document.activeElement !== row.typed) row.typed.value = ratio > 0 ? brief(ratio) : "0";
    write(row.rate, used === undefined ? "" : `rate ${show(used * ratio)}`);
  });
}
