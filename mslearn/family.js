// The time line that is dragged to go back, and the table of timelines that were tried.

function buildFamily() {
  const parts = {
    time: make("input", { type: "range", class: "mslearn-time", min: 0, max: 1, step: "any", "aria-label": "Time line" }),
    aimed: make("span"),
    rewind: button("Rewind", { class: "mslearn-first" }),
    fork: button("Branch"),
    cancel: button("Cancel"),
    table: make("table", { class: "mslearn-table", hidden: "" }),
    pins: make("ol", { class: "mslearn-pins", "aria-label": "Notes on the curve", hidden: "" }),
  };
  parts.aim = make("div", { class: "mslearn-aim", role: "group", "aria-label": "Go back in time", hidden: "" }, parts.aimed, parts.rewind, parts.fork, parts.cancel);
  return parts;
}

// The newest step at or before one that the current timeline can go back to.
const reachable = (family, step) => family.snapshots.findLast((each) => each <= step) ?? null;

function listenToTime(parts, act, view, family) {
  const here = () => (family.lines.get(family.current)?.step.at(-1) ?? -1) + 1;
  const aim = (step) => {
    view.aim = step === null || step >= here() ? null : step;
    view.redraw();
  };
  const done = () => { aim(null); parts.time.focus(); };
  parts.time.addEventListener("input", () => {
    if (view.drawn) aim(reachable(family, Math.round(view.drawn.step(view.drawn.x(0) + Number(parts.time.value) * (view.drawn.width - LEFT - RIGHT)))));
  });
  parts.time.addEventListener("keydown", (event) => {
    const from = view.aim ?? here(), steps = family.snapshots;
    const back = reachable(family, from - 1), on = steps.find((each) => each > from);
    const to = { ArrowLeft: back, ArrowDown: back, ArrowRight: on, ArrowUp: on, Home: steps[0] };
    if (event.key === "Enter" && view.aim !== null) parts.rewind.click();
    else if (event.key === "Escape") aim(null);
    else if (event.key in to) aim(to[event.key] ?? (event.key in { ArrowRight: 1, ArrowUp: 1 } ? null : (steps[0] ?? null)));
    else return;
    event.preventDefault();
  });
  parts.rewind.addEventListener("click", () => { act({ kind: "ask", name: "rewind", value: view.aim }); done(); });
  parts.fork.addEventListener("click", () => { view.branch(view.aim); done(); });
  parts.cancel.addEventListener("click", done);
}

function showFamily(parts, family, view, act, setup) {
  const line = family.lines.get(family.current), step = (line?.step.at(-1) ?? -1) + 1, { drawn } = view;
  const share = (x) => (x - LEFT) / (drawn.width - LEFT - RIGHT);
  parts.time.disabled = view.over || !family.snapshots.length;
  if (view.placed !== drawn.place) parts.time.style.top = `${(view.placed = drawn.place) - 11}px`;
  parts.time.value = Math.min(1, share(drawn.x(view.aim ?? step)));
  mark(parts.time, { "aria-valuetext": view.aim === null ? `step ${step} of ${setup.steps}; left arrow goes back` : `back to step ${view.aim}; Enter rewinds` });
  parts.aim.hidden = view.aim === null;
  if (view.aim !== null) {
    const i = before(line.step, view.aim) - 1, loss = i >= 0 ? `, loss ${brief(line.smooth[i])}` : "";
    parts.aimed.textContent = `Back to step ${view.aim}${loss}`;
    parts.rewind.textContent = `Rewind to step ${view.aim}`;
    parts.fork.textContent = `Branch from step ${view.aim}`;
  }
  showPins(parts.pins, view.pins);
  showTable(parts.table, family, view, act);
}

function showPins(list, pins) {
  list.hidden = !pins.length;
  const texts = pins.map((pin) => `step ${pin.step}: ${pin.text}`);
  if (list.dataset.texts === texts.join("\n")) return;
  list.dataset.texts = texts.join("\n");
  list.replaceChildren(...pins.map((pin, i) => make("li", pin.guard ? { class: "mslearn-byguard" } : {}, texts[i])));
}

// A row for each timeline, made anew only when there are others than before, so that a button that
// has the focus keeps it.
function showTable(table, family, view, act) {
  const lines = [...family.lines.values()], scores = family.names;
  table.hidden = lines.length < 2;
  const made = JSON.stringify([lines.map((line) => line.name), scores]);
  if (table.dataset.made !== made) {
    table.dataset.made = made;
    const heads = ["timeline", "from", "step", "rate", "loss", ...scores.map((name) => `held out: ${words(name)}`), ""];
    const top = make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)));
    const body = make("tbody", {}, ...lines.map((line) => tableRow(line, scores, act)));
    table.replaceChildren(make("caption", {}, "Timelines"), make("thead", {}, top), body);
  }
  lines.forEach((line, i) => {
    const row = table.tBodies[0].rows[i], held = scoresOf(line), last = line.step.length - 1, current = line.name === family.current;
    const from = line.parent === null ? "the start" : `${line.parent}, step ${line.born}`;
    const numbers = last < 0 ? [line.born, "", ""] : [line.step[last] + 1, show(line.rate[last]), line.smooth[last].toFixed(3)];
    const cells = [from, ...numbers, ...scores.map((name) => (name in held ? held[name].toFixed(3) : ""))];
    cells.forEach((text, k) => write(row.cells[k + 1], String(text)));
    row.cells[0].firstChild.style.background = view.drawn.colours[line.number % view.drawn.colours.length];
    row.toggleAttribute("aria-current", current);
    for (const each of row.querySelectorAll("button")) each.disabled = current || view.over;
  });
}

function tableRow(line, scores, act) {
  const go = button("Continue", { "aria-label": `Continue ${line.name}` }), drop = button("Drop", { "aria-label": `Drop ${line.name}` });
  go.addEventListener("click", () => act({ kind: "ask", name: "switch", value: line.name }));
  drop.addEventListener("click", () => act({ kind: "ask", name: "drop", value: line.name }));
  const name = make("th", { scope: "row" }, make("i", { class: "mslearn-swatch" }), line.name);
  return make("tr", {}, name, ...Array.from({ length: 4 + scores.length }, () => make("td")), make("td", {}, go, drop));
}
