// A text whose tokens can be pointed at, or reached by keyboard: the one in hand shows, by the
// shade of the others, how much it takes from each.

function render({ model, el }) {
  const tokens = model.get("tokens"), [layers, heads, n] = model.get("shape");
  const view = model.get("shares");
  const shares = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  const root = make("div", { class: "mslearn-attention", role: "group", "aria-label": "Attention, token by token" });
  const layer = choice("Layer", layers, model.get("start")[0]);
  const head = choice("Head", heads, model.get("start")[1]);
  const says = make("p", { role: "status", class: "mslearn-attention-says" });
  const buttons = tokens.map((token) => make("button", { type: "button", "data-lm-suppress-shortcuts": "true" }, token));
  const text = make("div", { class: "mslearn-attention-text" }, ...buttons);
  root.append(layer.label, head.label, text, says);
  el.append(root);
  let chosen = n - 1;

  function show(t) {
    chosen = t;
    const from = ((layer.number() * heads + head.number()) * n + t) * n;
    const row = Array.from(shares.subarray(from, from + n), (share) => share / 255);
    buttons.forEach((button, s) => {
      button.style.setProperty("--share", Math.sqrt(row[s]).toFixed(3)); // small shares stay visible
      button.classList.toggle("mslearn-looking", s === t);
      button.title = `${Math.round(100 * row[s])} %`;
      button.setAttribute("aria-pressed", String(s === t));
    });
    const most = row.map((share, s) => [share, s]).sort((a, b) => b[0] - a[0]).slice(0, 3);
    const list = most.filter(([share]) => share > 0).map(([share, s]) => `${tokens[s]} ${Math.round(100 * share)} %`);
    says.textContent = `${tokens[t]} (${t + 1} of ${n}) looks at ${list.join(", ")}`;
  }

  buttons.forEach((button, t) => {
    for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, () => show(t));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step && buttons[t + step]) buttons[t + step].focus();
    });
  });
  for (const { select } of [layer, head]) select.addEventListener("change", () => show(chosen));
  show(chosen);
  return () => root.remove();
}

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function choice(name, count, start) {
  const options = Array.from({ length: count }, (_, i) => make("option", { value: i }, String(i)));
  const select = make("select", { "aria-label": name }, ...options);
  select.value = String(start);
  return { select, label: make("label", {}, `${name} `, select), number: () => Number(select.value) };
}

export default { render };
