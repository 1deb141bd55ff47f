// What the charts of Measure have in common: SVG elements, numbers with their units, and lines over time.
import { createElement } from "./drawing.js";

export function svg(name, attributes = {}, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

const three = (x) => (x >= 100 ? Math.round(x).toLocaleString("en") : String(Number(x.toPrecision(3))));
export const number = (x) => (x === 0 ? "0" : x < 0.001 ? x.toExponential(1) : three(x));
export function duration(seconds) {
  if (seconds >= 1) return `${three(seconds)} s`;
  return seconds >= 1e-3 ? `${three(seconds * 1e3)} ms` : `${three(seconds * 1e6)} µs`;
}
export function bytes(n) {
  if (n >= 1e9) return `${three(n / 1e9)} GB`;
  return n >= 1e6 ? `${three(n / 1e6)} MB` : `${three(n / 1e3)} kB`;
}
export const plural = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : noun.endsWith("s") ? "es" : "s"}`;

// A table; a row's first cell is its header.
export function table(caption, columns, rows) {
  const table = createElement("table", "measured");
  table.append(createElement("caption", "unseen", caption));
  const head = table.createTHead().insertRow();
  head.append(...columns.map((column) => createElement("th", "", column, { scope: "col" })));
  const body = table.createTBody();
  for (const [name, ...cells] of rows) {
    const row = body.insertRow();
    row.append(createElement("th", "", name, { scope: "row" }), ...cells.map((cell) => createElement("td", "", cell)));
  }
  return table;
}
// A region that scrolls sideways, also by keys.
export function scrolling(label, content) {
  const box = createElement("div", "scroll", "", { tabindex: "0", role: "region", "aria-label": label });
  box.append(content);
  return box;
}

const LEFT = 46;
const HEIGHT = 110;

// A line over the last seconds; `points` are [seconds ago, value].
export function lineChart(width, seconds, points, label) {
  const most = Math.max(...points.map(([, value]) => value), 1);
  const unit = 10 ** Math.floor(Math.log10(most));
  const top = Math.ceil(most / unit) * unit;
  const toX = (ago) => LEFT + (1 - ago / seconds) * (width - LEFT - 4);
  const toY = (value) => HEIGHT - 20 - (value / top) * (HEIGHT - 30);
  const chart = svg("svg", { width, height: HEIGHT, role: "img", "aria-label": label });
  for (const value of [0, top / 2, top]) {
    chart.append(
      svg("path", { class: "grid", d: `M${LEFT} ${toY(value)}H${width - 4}` }),
      svg("text", { x: LEFT - 6, y: toY(value) + 4, "text-anchor": "end" }, number(value)),
    );
  }
  for (const ago of [seconds, seconds / 2, 0]) {
    const anchor = ago === 0 ? "end" : ago === seconds ? "start" : "middle";
    const text = ago ? `${ago} s ago` : "now";
    chart.append(svg("text", { x: toX(ago), y: HEIGHT - 4, "text-anchor": anchor }, text));
  }
  const line = points.map(([ago, value]) => `${toX(ago).toFixed(1)} ${toY(value).toFixed(1)}`).join("L");
  if (points.length > 1) chart.append(svg("path", { class: "line", d: `M${line}` }));
  return chart;
}
