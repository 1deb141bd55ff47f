"use strict";
// What the views share: the numbers, what is chosen, and a few ways to draw.

const data = JSON.parse(document.getElementById("data").textContent);
const n = data.tokens.length;
const $ = (id) => document.getElementById(id);

// What is chosen. `peek` is the token under the pointer; it counts for as long as it is there.
const chosen = { token: n - 1, peek: null, layer: data.layer, head: data.head };
const here = () => chosen.peek ?? chosen.token;

// Views are called when something they show has changed: "token", "head" or "theme".
const views = { token: [], head: [], theme: [] };
const on = (what, view) => what.split(" ").forEach((kind) => views[kind].push(view));
const tell = (what) => views[what].forEach((view) => view());

function choose(token) {
  chosen.token = Math.max(0, Math.min(n - 1, token));
  chosen.peek = null;
  tell("token");
}
function peek(token) {
  if (chosen.peek !== token) {
    chosen.peek = token;
    tell("token");
  }
}
function open(layer, head) {
  Object.assign(chosen, { layer, head });
  tell("head");
}

const label = (id) => data.labels[id] ?? `#${id}`;
const word = (t) => label(data.tokens[t]);
const percent = (p) => (p >= 0.0995 || p === 0 ? (100 * p).toFixed(0) : (100 * p).toPrecision(2)) + " %";
const signed = (x, digits = 2, plus = "+") => {
  const size = Math.abs(x).toFixed(digits);
  return (Number(size) === 0 ? "" : x < 0 ? "−" : plus) + size;
};
const plain = (x) => signed(x, 2, "");

// An element with a class, text and attributes. Text is always text.
function make(name, className = "", text = "", attributes = {}) {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (name === "button") element.type = "button";
  return element;
}
// A label whose dots for spaces stand back.
function spell(element, text) {
  element.replaceChildren(
    ...text.split(/(·+)/).filter(Boolean).map((piece) => make("span", piece[0] === "·" ? "space" : "", piece)),
  );
  return element;
}
// Three columns: name, bar, value.
function bars(rows) {
  const box = make("div", "bars");
  for (const { name, share, value, kind = "", came = false } of rows) {
    const track = make("div", "track");
    const fill = track.appendChild(make("div", `fill ${kind}`));
    fill.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
    box.append(spell(make("span", came ? "name came" : "name"), name), track, make("span", "value", value));
  }
  return box;
}

// Scrolls a box sideways, and not the page, until an element in it can be seen.
function reveal(box, element, margin = 120) {
  const [outer, inner] = [box, element].map((e) => e.getBoundingClientRect());
  if (inner.left < outer.left + margin) box.scrollLeft += inner.left - outer.left - margin;
  if (inner.right > outer.right - margin) box.scrollLeft += inner.right - outer.right + margin;
}

// Arrow keys among items that lie in rows of so many; one of them takes part in the tab order.
function rove(items, across, start = 0) {
  items.forEach((item, i) => {
    item.tabIndex = i === start ? 0 : -1;
    item.addEventListener("focus", () => items.forEach((other) => (other.tabIndex = other === item ? 0 : -1)));
    item.addEventListener("keydown", (event) => {
      const row = Math.floor(i / across) * across;
      const to = {
        ArrowLeft: i - 1, ArrowRight: i + 1, ArrowUp: i - across, ArrowDown: i + across,
        Home: row, End: Math.min(row + across, items.length) - 1,
      }[event.key];
      if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      items[to]?.focus();
    });
  });
}

// Colours of shares and amounts, as the theme has them. The probe lets the browser work out what they are.
const probe = document.body.appendChild(make("i"));
probe.hidden = true;
const rgb = (name) => {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
};
const between = (a, b, x) => a.map((v, i) => v + (b[i] - v) * x);
let ramp = []; // 256 colours from nothing to everything
let diverging = (amount) => [0, 0, 0]; // -1 to 1
function mix() {
  const stops = ["map-0", "map-1", "map-2"].map(rgb);
  ramp = Array.from({ length: 256 }, (_, i) =>
    i < 128 ? between(stops[0], stops[1], i / 128) : between(stops[1], stops[2], (i - 128) / 127));
  const [paper, up, down] = ["card", "for", "against"].map(rgb);
  diverging = (amount) => between(paper, amount < 0 ? down : up, Math.min(1, Math.abs(amount)) ** 0.7);
}
const css = (colour) => `rgb(${colour.map(Math.round).join(" ")})`;
const heat = (share) => ramp[Math.round(255 * Math.sqrt(Math.min(1, Math.max(0, share))))];
// What can be read on a colour.
const ink = ([r, g, b]) => (0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#16121f" : "#ffffff");
function paint(element, colour) {
  element.style.background = css(colour);
  element.style.color = ink(colour);
}

// The theme: the system's, or the one that was asked for.
const themes = ["system", "light", "dark"];
const dark = matchMedia("(prefers-color-scheme: dark)");
function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
  mix();
  tell("theme");
}
$("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? "system";
  setTheme(themes[(themes.indexOf(now) + 1) % themes.length]);
});
dark.addEventListener("change", () => { mix(); tell("theme"); });
mix();

// The head of the page and the tokens.
{
  const last = data.lens.at(-1).at(-1);
  $("model").textContent =
    `${data.model}: ${n} token${n === 1 ? "" : "s"} through ${data.layers} layers of ${data.heads} heads`;
  $("summary").append(
    "After ", spell(make("b"), word(n - 1)), " the likeliest token is ", spell(make("b"), label(last[0][0])),
    ` (${percent(last[1][0])}). It is as unsure as among ${Math.max(1, Math.round(2 ** last[2])).toLocaleString("en")} equally likely tokens.`,
  );
  const buttons = data.tokens.map((id, t) => {
    const bits = data.bits[t];
    const said = bits === null ? "the first" : `surprise ${bits.toFixed(1)} bits`;
    const button = spell(make("button", "token", "", { role: "option", "aria-label": `${label(id)}, token ${t}, ${said}` }), label(id));
    button.append(make("small", "", bits === null ? "–" : bits.toFixed(1)));
    button.style.setProperty("--tint", `${Math.min(70, 4.5 * (bits ?? 0))}%`);
    button.addEventListener("click", () => choose(t));
    button.addEventListener("focus", () => choose(t));
    button.addEventListener("pointerenter", () => peek(t));
    button.addEventListener("pointerleave", () => peek(null));
    return $("tokens").appendChild(button);
  });
  rove(buttons, n, n - 1);
  on("token", () => {
    buttons.forEach((button, t) => button.setAttribute("aria-selected", t === chosen.token));
    if (chosen.peek === null) reveal($("tokens"), buttons[chosen.token]);
    document.querySelectorAll(".here").forEach((element) => spell(element, word(here())));
  });
}
