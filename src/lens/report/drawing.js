// What every page draws with: elements, numbers as text, bars, colors. Reports have this file inside their one
// script; the server's page imports it.

export const percent = (p) => (p >= 0.0995 || p === 0 ? (100 * p).toFixed(0) : (100 * p).toPrecision(2)) + " %";
export const signed = (x, digits = 2, plus = "+") => {
  const size = Math.abs(x).toFixed(digits);
  return (Number(size) === 0 ? "" : x < 0 ? "−" : plus) + size;
};
export const unsigned = (x) => signed(x, 2, "");
export const entropyText = (bits) => {
  const tokens = Math.max(1, Math.round(2 ** bits)).toLocaleString("en");
  return `${bits.toFixed(2)} bits, as for ${tokens} equally likely tokens`;
};

// Creates an element with a class, text (never markup) and attributes.
export function createElement(name, className = "", text = "", attributes = {}) {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (name === "button") element.type = "button";
  return element;
}
// Sets the label of an element, with the dots for spaces dimmed.
export function setLabel(element, text) {
  element.replaceChildren(
    ...text
      .split(/(·+)/)
      .filter(Boolean)
      .map((part) => createElement("span", part[0] === "·" ? "space" : "", part)),
  );
  return element;
}
// A bar chart with three columns: name, bar, value.
export function bars(rows) {
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
// The probabilities of tokens before and after an intervention, as bars.
export function beforeAndAfter(shifts) {
  const largest = Math.max(...shifts.flatMap(({ before, after }) => [before, after]), 1e-9);
  return bars(
    shifts.flatMap(({ name, before, after }) => [
      { name, fraction: before / largest, value: `before ${percent(before)}`, kind: "before" },
      { name: "", fraction: after / largest, value: `after ${percent(after)}`, kind: "after" },
    ]),
  );
}

// Scrolls a container horizontally until an element in it is visible.
export function scrollIntoContainer(box, element, margin = 120) {
  const [outer, inner] = [box, element].map((e) => e.getBoundingClientRect());
  if (inner.left < outer.left + margin) box.scrollLeft += inner.left - outer.left - margin;
  if (inner.right > outer.right - margin) box.scrollLeft += inner.right - outer.right + margin;
}

// Arrow-key navigation in a grid of items with a roving tabindex.
export function enableRovingFocus(items, columns, start = 0) {
  items.forEach((item, i) => {
    item.tabIndex = i === start ? 0 : -1;
    item.addEventListener("focus", () =>
      items.forEach((other) => (other.tabIndex = other === item ? 0 : -1)),
    );
    item.addEventListener("keydown", (event) => {
      const row = Math.floor(i / columns) * columns;
      const right = getComputedStyle(item).direction === "rtl" ? -1 : 1;
      const to = {
        ArrowLeft: i - right,
        ArrowRight: i + right,
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
export const rgb = (name) => {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe)
    .color.match(/[\d.]+/g)
    .slice(0, 3)
    .map(Number);
};
const interpolate = (a, b, x) => a.map((v, i) => v + (b[i] - v) * x);
export let ramp = []; // 256 colors for 0 to 1
export let diverging = (x) => [0, 0, 0]; // -1 to 1
export function updateColors() {
  const stops = ["map-0", "map-1", "map-2"].map(rgb);
  ramp = Array.from({ length: 256 }, (_, i) =>
    i < 128 ? interpolate(stops[0], stops[1], i / 128) : interpolate(stops[1], stops[2], (i - 128) / 127),
  );
  const [zero, positive, negative] = ["card", "positive", "negative"].map(rgb);
  diverging = (x) => interpolate(zero, x < 0 ? negative : positive, Math.min(1, Math.abs(x)) ** 0.7);
}
export const css = (color) => `rgb(${color.map(Math.round).join(" ")})`;
export const heat = (weight) => ramp[Math.round(255 * Math.sqrt(Math.min(1, Math.max(0, weight))))];
// A text color that is readable on a color: that with more contrast, as WCAG 2 measures it.
const linear = (x) => (x <= 10 ? x / 3294.6 : ((x / 255 + 0.055) / 1.055) ** 2.4);
const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
export const textOn = (color) => (luminance(color) > 0.179 ? "#000000" : "#ffffff");
export function paint(element, color) {
  element.style.background = css(color);
  element.style.color = textOn(color);
}

// The theme: that of the system, light or dark. `changed` is called when the colors have changed.
export function enableThemes(button, changed, stored = null) {
  const themes = ["system", "light", "dark"];
  const setTheme = (theme) => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    updateColors();
    changed();
  };
  button.addEventListener("click", () => {
    const now = document.documentElement.dataset.theme ?? "system";
    const next = themes[(themes.indexOf(now) + 1) % themes.length];
    stored?.setItem("theme", next);
    setTheme(next);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    updateColors();
    changed();
  });
  const first = stored?.getItem("theme");
  if (themes.includes(first)) setTheme(first);
  else updateColors();
}

// The scale of `heat`, a color per square root of a weight, in a legend.
export function addScale(legend) {
  const scale = legend.appendChild(createElement("div", "scale"));
  for (const weight of [0, 1, 5, 25, 50, 100]) {
    const tick = scale.appendChild(createElement("span", "", `${weight} %`));
    tick.style.left = `${10 * Math.sqrt(weight)}%`;
  }
}

// An image of bytes, each a color of `heat`, on a canvas of its own.
export function heatImage(bytes, size) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const image = new ImageData(size, size);
  const pixels = new Uint32Array(image.data.buffer);
  const colors = Uint32Array.from(ramp, ([r, g, b]) => {
    const bytes = [r, g, b, 255].map(Math.round);
    return new DataView(Uint8Array.from(bytes).buffer).getUint32(0, isLittleEndian);
  });
  for (let i = 0; i < pixels.length; i++) pixels[i] = colors[bytes[i]];
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
const isLittleEndian = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;

// A pattern is a byte per weight, row by row, each up to the diagonal; a byte is 255 times the square root.
export const byteAt = (pattern, i, j) => (j > i ? 0 : pattern[(i * (i + 1)) / 2 + j]);
export const weightAt = (pattern, i, j) => (byteAt(pattern, i, j) / 255) ** 2;
// A pattern as an image of at most `maxSize` × `maxSize` pixels, each the largest weight in its area.
export function patternImage(pattern, n, maxSize) {
  const size = Math.min(n, maxSize);
  const largest = new Uint8Array(size * size);
  let at = 0;
  for (let i = 0; i < n; i++) {
    const row = Math.floor((i * size) / n) * size;
    for (let j = 0; j <= i; j++, at++) {
      const pixel = row + Math.floor((j * size) / n);
      if (pattern[at] > largest[pixel]) largest[pixel] = pattern[at];
    }
  }
  return heatImage(largest, size);
}
