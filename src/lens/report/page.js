"use strict";
// Shared by all views: the data, the selection, and drawing functions.

const data = JSON.parse(document.getElementById("data").textContent);
const n = data.tokens.length;
const $ = (id) => document.getElementById(id);

// The selected token and head. `hovered` is the token under the pointer, which takes precedence.
const selection = { token: n - 1, hovered: null, layer: data.layer, head: data.head };
const currentToken = () => selection.hovered ?? selection.token;

// Listeners are called when the "token", the "head" or the "theme" changes.
const listeners = { token: [], head: [], theme: [] };
const on = (events, listener) => events.split(" ").forEach((event) => listeners[event].push(listener));
const emit = (event) => listeners[event].forEach((listener) => listener());

function selectToken(token) {
  selection.token = Math.max(0, Math.min(n - 1, token));
  selection.hovered = null;
  emit("token");
}
function hoverToken(token) {
  if (selection.hovered !== token) {
    selection.hovered = token;
    emit("token");
  }
}
function selectHead(layer, head) {
  Object.assign(selection, { layer, head });
  emit("head");
}

const label = (id) => data.labels[id] ?? `#${id}`;
const tokenLabel = (t) => label(data.tokens[t]);
const percent = (p) => (p >= 0.0995 || p === 0 ? (100 * p).toFixed(0) : (100 * p).toPrecision(2)) + " %";
const signed = (x, digits = 2, plus = "+") => {
  const size = Math.abs(x).toFixed(digits);
  return (Number(size) === 0 ? "" : x < 0 ? "−" : plus) + size;
};
const unsigned = (x) => signed(x, 2, "");
const entropyText = (bits) => {
  const tokens = Math.max(1, Math.round(2 ** bits)).toLocaleString("en");
  return `${bits.toFixed(2)} bits, as for ${tokens} equally likely tokens`;
};

// Creates an element with a class, text (never markup) and attributes.
function createElement(name, className = "", text = "", attributes = {}) {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (name === "button") element.type = "button";
  return element;
}
// Sets the label of an element, with the dots for spaces dimmed.
function setLabel(element, text) {
  element.replaceChildren(
    ...text
      .split(/(·+)/)
      .filter(Boolean)
      .map((part) => createElement("span", part[0] === "·" ? "space" : "", part)),
  );
  return element;
}
// A bar chart with three columns: name, bar, value.
function bars(rows) {
  const box = createElement("div", "bars");
  for (const { name, fraction, value, kind = "", actual = false } of rows) {
    const track = createElement("div", "track");
    const fill = track.appendChild(createElement("div", `fill ${kind}`));
    fill.style.width = `${100 * Math.min(1, Math.max(0, fraction))}%`;
    box.append(
      setLabel(createElement("span", actual ? "name actual" : "name"), name),
      track,
      createElement("span", "value", value),
    );
  }
  return box;
}

// Scrolls a container horizontally until an element in it is visible.
function scrollIntoContainer(box, element, margin = 120) {
  const [outer, inner] = [box, element].map((e) => e.getBoundingClientRect());
  if (inner.left < outer.left + margin) box.scrollLeft += inner.left - outer.left - margin;
  if (inner.right > outer.right - margin) box.scrollLeft += inner.right - outer.right + margin;
}

// Arrow-key navigation in a grid of items with a roving tabindex.
function enableRovingFocus(items, columns, start = 0) {
  items.forEach((item, i) => {
    item.tabIndex = i === start ? 0 : -1;
    item.addEventListener("focus", () =>
      items.forEach((other) => (other.tabIndex = other === item ? 0 : -1)),
    );
    item.addEventListener("keydown", (event) => {
      const row = Math.floor(i / columns) * columns;
      const to = {
        ArrowLeft: i - 1,
        ArrowRight: i + 1,
        ArrowUp: i - columns,
        ArrowDown: i + columns,
        Home: row,
        End: Math.min(row + columns, items.length) - 1,
      }[event.key];
      if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      items[to]?.focus();
    });
  });
}

// Colors of the theme for weights and contributions. The browser resolves them on the probe element.
const probe = document.body.appendChild(createElement("i"));
probe.hidden = true;
const rgb = (name) => {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe)
    .color.match(/[\d.]+/g)
    .slice(0, 3)
    .map(Number);
};
const interpolate = (a, b, x) => a.map((v, i) => v + (b[i] - v) * x);
let ramp = []; // 256 colors for 0 to 1
let diverging = (x) => [0, 0, 0]; // -1 to 1
function updateColors() {
  const stops = ["map-0", "map-1", "map-2"].map(rgb);
  ramp = Array.from({ length: 256 }, (_, i) =>
    i < 128 ? interpolate(stops[0], stops[1], i / 128) : interpolate(stops[1], stops[2], (i - 128) / 127),
  );
  const [zero, positive, negative] = ["card", "positive", "negative"].map(rgb);
  diverging = (x) => interpolate(zero, x < 0 ? negative : positive, Math.min(1, Math.abs(x)) ** 0.7);
}
const css = (color) => `rgb(${color.map(Math.round).join(" ")})`;
const heat = (weight) => ramp[Math.round(255 * Math.sqrt(Math.min(1, Math.max(0, weight))))];
// A text color that is readable on a color.
const textOn = ([r, g, b]) => (0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#16121f" : "#ffffff");
function paint(element, color) {
  element.style.background = css(color);
  element.style.color = textOn(color);
}

// The theme: that of the system, light or dark.
const themes = ["system", "light", "dark"];
const dark = matchMedia("(prefers-color-scheme: dark)");
function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
  updateColors();
  emit("theme");
}
$("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? "system";
  setTheme(themes[(themes.indexOf(now) + 1) % themes.length]);
});
dark.addEventListener("change", () => {
  updateColors();
  emit("theme");
});
updateColors();

// The scale of `heat`, a color per square root of a weight, wherever the page has a legend.
document.querySelectorAll(".legend").forEach((legend) => {
  const scale = legend.appendChild(createElement("div", "scale"));
  for (const weight of [0, 1, 5, 25, 50, 100]) {
    const tick = scale.appendChild(createElement("span", "", `${weight} %`));
    tick.style.left = `${10 * Math.sqrt(weight)}%`;
  }
});

// The header and the tokens.
{
  $("model").textContent =
    `${data.model}: ${n} token${n === 1 ? "" : "s"} through ${data.layers} layers of ${data.heads} heads`;
  // It does not follow the pointer: the page would jump where the text wraps.
  on("token", () => {
    const [ids, probabilities, entropy] = data.logit_lens.at(-1)[selection.token];
    $("summary").replaceChildren(
      "The most likely token after ",
      setLabel(createElement("b"), tokenLabel(selection.token)),
      " is ",
      setLabel(createElement("b"), label(ids[0])),
      ` (${percent(probabilities[0])}). The entropy is ${entropyText(entropy)}.`,
    );
  });
  const buttons = data.tokens.map((id, t) => {
    const bits = data.surprisal_bits[t];
    const description = bits === null ? "the first" : `surprisal ${bits.toFixed(1)} bits`;
    const button = setLabel(
      createElement("button", "token", "", {
        role: "option",
        "aria-label": `${label(id)}, token ${t}, ${description}`,
      }),
      label(id),
    );
    button.append(createElement("small", "", bits === null ? "–" : bits.toFixed(1)));
    button.style.setProperty("--tint", `${Math.min(70, 4.5 * (bits ?? 0))}%`);
    button.addEventListener("click", () => selectToken(t));
    button.addEventListener("focus", () => selectToken(t));
    button.addEventListener("pointerenter", () => hoverToken(t));
    button.addEventListener("pointerleave", () => hoverToken(null));
    return $("tokens").appendChild(button);
  });
  enableRovingFocus(buttons, n, n - 1);
  on("token", () => {
    buttons.forEach((button, t) => button.setAttribute("aria-selected", t === selection.token));
    if (selection.hovered === null) scrollIntoContainer($("tokens"), buttons[selection.token]);
    document.querySelectorAll(".here").forEach((element) => setLabel(element, tokenLabel(currentToken())));
  });
}
