// A prediction: drawn on the loss with the mouse, or typed as step:loss, before or while it trains.

function buildGuess(setup) {
  const parts = {
    predict: button("Predict", { "aria-pressed": String(Boolean(setup.guessing)) }),
    points: field("Predicted loss, typed as step:loss, step:loss", { placeholder: `0:4.1, ${Math.round(setup.steps / 4)}:2.9, ${setup.steps}:2.2`, size: 34 }),
    clear: button("Clear"),
  };
  const how = "Draw on the chart what the loss will do, or type it:";
  parts.guess = make("div", { class: "mslearn-guess", hidden: "" }, make("span", {}, how), parts.points, parts.clear);
  return parts;
}

// "0:4.1, 600:2.2", or one number for the end, as points; null where it cannot be read.
function parseGuess(text, steps) {
  const parts = text.split(/[,;]\s*/).filter((part) => part.trim());
  const points = parts.map((part) => (part.includes(":") ? part.split(":").map(Number) : [steps, Number(part)]));
  return points.every(([step, loss]) => finite(step) && finite(loss) && step >= 0) ? points.sort((a, b) => a[0] - b[0]) : null;
}

function listenToGuess(parts, act, view, setup) {
  let from = null; // the step at which the pen last was
  const place = (event) => {
    const box = view.drawn.boxes[0], share = (box.bottom - event.offsetY) / (box.bottom - box.top);
    const grain = Math.max(1, Math.round(view.drawn.last / 60)), step = Math.round(view.drawn.step(event.offsetX) / grain) * grain;
    return event.offsetY > box.bottom + 10 ? null : [Math.max(0, Math.min(setup.steps, step)), box.axis.value(Math.max(0, Math.min(1, share)))];
  };
  const put = (event) => {
    const point = place(event);
    if (point === null) return;
    const [low, high] = [Math.min(from ?? point[0], point[0]), Math.max(from ?? point[0], point[0])];
    const others = view.guess.filter(([step]) => step !== point[0] && (step < low || step > high || step === from));
    view.guess = [...others, point].sort((a, b) => a[0] - b[0]); // what the pen went over is drawn anew
    from = point[0];
    view.redraw();
  };
  const tell = () => {
    parts.points.value = view.guess.map(([step, loss]) => `${step}:${brief(loss)}`).join(", ");
    act({ kind: "guess", value: view.guess });
  };
  parts.canvas.addEventListener("pointerdown", (event) => {
    if (!view.predicting) return;
    parts.canvas.setPointerCapture(event.pointerId);
    view.drawing = true;
    put(event);
  });
  parts.canvas.addEventListener("pointermove", (event) => { if (view.drawing) put(event); });
  parts.canvas.addEventListener("pointerup", () => { if (view.drawing) { view.drawing = false; from = null; tell(); } });
  parts.predict.addEventListener("click", () => { view.predicting = !view.predicting; view.redraw(); });
  parts.clear.addEventListener("click", () => { view.guess = []; tell(); view.redraw(); });
  onEnter(parts.points, (text) => {
    const points = parseGuess(text, setup.steps);
    parts.points.setAttribute("aria-invalid", String(points === null));
    if (points === null) return view.say("a prediction is typed as step:loss, such as 0:4.1, 600:2.2");
    view.guess = points.length === 1 && setup.start ? [[0, setup.start], ...points] : points;
    act({ kind: "guess", value: view.guess });
    view.redraw();
  });
}

function showGuess(parts, view) {
  mark(parts.predict, { "aria-pressed": view.predicting });
  parts.guess.hidden = !view.predicting;
  mark(parts.canvas, { class: view.predicting ? "mslearn-drawn" : "" });
}
