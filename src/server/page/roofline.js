// The roofline of a phase: every operation's arithmetic intensity against its speed, under the machine's limits
// (Williams, Waterman and Patterson 2009).
import { duration, number, scrolling, svg, table } from "./chart.js";
import { createElement, enableRovingFocus, percent } from "./drawing.js";

export const OPERATIONS = {
  "wte + wpe": "looks up the embeddings of tokens and positions",
  ln_1: "layer norm before attention",
  "attn.c_attn": "matrix product that makes queries, keys and values",
  "kv cache": "stores the new keys and values",
  attention: "scores, softmax, and the weighted sum of values",
  "attn.c_proj": "matrix product that joins the heads’ outputs",
  ln_2: "layer norm before the MLP",
  "mlp.c_fc": "matrix product that makes the MLP’s neurons, and their activation",
  "mlp.c_proj": "matrix product from the neurons back to the residual stream",
  ln_f: "the last layer norm",
  lm_head: "matrix product that makes a logit for every token",
  sampling: "chooses the next token from the logits",
};

const [LEFT, RIGHT, TOP, BOTTOM] = [52, 12, 26, 42];
const RIM = 4; // around what is written

// Operations by time, with what follows from their times.
export function operationsByTime({ operations, seconds }) {
  const derive = (operation) => ({
    ...operation,
    share: operation.seconds / seconds,
    intensity: operation.flops / operation.bytes,
    gflops: operation.flops / operation.seconds / 1e9,
    gigabytes: operation.bytes / operation.seconds / 1e9,
  });
  return operations.map(derive).sort((a, b) => b.seconds - a.seconds);
}

// What there is to say of an operation.
export function describe(operation) {
  const { operation: name, seconds, calls, share, gigabytes, gflops, bound_by: limit } = operation;
  const bound = limit && `; its bound is ${limit}, of which it reaches ${percent(operation.fraction_of_roofline)}`;
  const speed = operation.flops ? `, ${number(gflops)} GFLOP/s` : "";
  const time = `${duration(seconds)} in ${calls.toLocaleString("en")} calls, ${percent(share)} of the time`;
  return `${name}: ${OPERATIONS[name]}. ${time}; ${number(gigabytes)} GB/s${speed}${bound ?? ""}.`;
}

export function operationTable(operations, phase) {
  const rows = operations.map((operation, i) => [
    `${i + 1} ${operation.operation}`,
    duration(operation.seconds),
    percent(operation.share),
    number(operation.gigabytes),
    operation.flops ? number(operation.gflops) : "–",
    operation.bound_by ?? "–",
    operation.bound_by ? percent(operation.fraction_of_roofline) : "–",
    OPERATIONS[operation.operation],
  ]);
  const columns = ["Operation", "Time", "Share", "GB/s", "GFLOP/s", "Bound by", "Of its bound", "What it does"];
  return scrolling(`Operations of ${phase}`, table(`Operations of ${phase}, by time`, columns, rows));
}

// An axis in whole powers of ten around some values.
function logAxis(values, from, to) {
  const logs = values.filter((value) => value > 0).map(Math.log10);
  const first = Math.floor(Math.min(...logs));
  const last = Math.max(Math.ceil(Math.max(...logs)), first + 1);
  const place = (value) => from + ((Math.log10(value) - first) / (last - first)) * (to - from);
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => 10 ** (first + i));
  return { place, ticks, first: 10 ** first, last: 10 ** last };
}

// Draws the operations that have FLOPs. `selected` is called with the one that is pointed at or focused.
export function roofline(width, operations, limits, selected) {
  const height = Math.round(Math.min(460, Math.max(280, width * 0.6)));
  const shown = operations.filter(({ flops }) => flops > 0);
  const ridge = limits ? limits.peak_gflops / limits.bandwidth_gb_per_s : 1;
  const x = logAxis([...shown.map(({ intensity }) => intensity), ridge * 2], LEFT, width - RIGHT);
  const peak = limits ? [limits.peak_gflops * 1.1] : [];
  const y = logAxis([...shown.map(({ gflops }) => gflops), ...peak], height - BOTTOM, TOP);
  const chart = svg("svg", { width, height, class: "roofline" });
  chart.append(axes(x, y, width, height));
  const [line, limitNames] = limits ? roof(x, y, ridge, limits, width) : [];
  if (line) chart.append(line);
  const dots = svg("g", { role: "listbox", "aria-label": "Operations by time; arrow keys move" });
  const [leads, labels] = [svg("g", { "aria-hidden": "true" }), svg("g", { "aria-hidden": "true" })];
  const largest = Math.min(24, width / 20);
  const [taken, marks] = [[], []];
  const items = shown.map((operation) => {
    const [cx, cy] = [x.place(operation.intensity), y.place(operation.gflops)];
    const radius = Math.max(4, largest * Math.sqrt(operation.share));
    const dot = svg("path", {
      d: operation.bound_by === "compute" ? square(cx, cy, radius) : circle(cx, cy, radius),
      class: `dot ${operation.bound_by ?? ""}`,
      role: "option",
      "aria-label": describe(operation),
      "aria-selected": "false",
      "data-operation": operation.operation,
    });
    const select = () => {
      items.forEach((item) => item.setAttribute("aria-selected", String(item === dot)));
      selected(operation);
    };
    dot.addEventListener("focus", select);
    dot.addEventListener("pointerenter", select);
    dot.addEventListener("click", () => dot.focus());
    const rank = operations.indexOf(operation) + 1;
    const text = width > 460 ? `${rank} ${operation.operation}` : String(rank);
    marks.push({ text, cx, cy, radius });
    return dot;
  });
  for (const mark of marks.sort((a, b) => a.cy - b.cy)) {
    const { lead, name } = label(mark, marks, width, taken);
    if (lead) leads.append(lead);
    labels.append(name);
  }
  dots.append(...items); // the largest first, below the others
  // All lines first: what is written has a rim in the color of the card, which no line crosses.
  chart.append(dots, leads, limitNames ?? "", labels);
  enableRovingFocus(items, Math.max(1, items.length));
  return chart;
}

const circle = (x, y, r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
const square = (x, y, r) => `M${x - 0.9 * r} ${y - 0.9 * r}h${1.8 * r}v${1.8 * r}h${-1.8 * r}z`;

function axes(x, y, width, height) {
  const group = svg("g", { "aria-hidden": "true" });
  for (const tick of x.ticks) {
    const at = x.place(tick);
    group.append(
      svg("path", { class: "grid", d: `M${at} ${TOP}V${height - BOTTOM}` }),
      svg("text", { x: at, y: height - BOTTOM + 15, "text-anchor": "middle" }, number(tick)),
    );
  }
  for (const tick of y.ticks) {
    const at = y.place(tick);
    group.append(
      svg("path", { class: "grid", d: `M${LEFT} ${at}H${width - RIGHT}` }),
      svg("text", { x: LEFT - 6, y: at + 4, "text-anchor": "end" }, number(tick)),
    );
  }
  group.append(
    svg("text", { x: (LEFT + width - RIGHT) / 2, y: height - 8, "text-anchor": "middle" }, "FLOPs per byte"),
    svg("text", { x: LEFT, y: 12 }, "GFLOP/s"),
  );
  return group;
}

// The lower of the two limits: its line and its names.
function roof(x, y, ridge, { bandwidth_gb_per_s: bandwidth, peak_gflops: peak }, width) {
  const start = Math.max(x.first, y.first / bandwidth);
  const [x0, y0, x1, y1] = [x.place(start), y.place(start * bandwidth), x.place(ridge), y.place(peak)];
  const d = `M${x0} ${y0}L${x1} ${y1}H${width - RIGHT}`;
  const line = svg("path", { class: "roof", d, "aria-hidden": "true" });
  const names = svg("g", { "aria-hidden": "true" });
  const angle = (Math.atan2(y1 - y0, x1 - x0) * 180) / Math.PI;
  const turned = { x: 8, y: -8, class: "limit", transform: `translate(${x0} ${y0}) rotate(${angle})` };
  names.append(
    svg("text", turned, `${width > 460 ? "memory " : ""}${number(bandwidth)} GB/s`),
    svg("text", { x: width - RIGHT, y: y1 - 6, "text-anchor": "end", class: "limit" }, `peak ${number(peak)} GFLOP/s`),
  );
  return [line, names];
}

// A label beside a dot and all dots that this one touches, below the labels that are there already; a line
// leads to one that is farther away.
function label({ text, cx, cy, radius }, marks, width, taken) {
  const length = 7 * text.length;
  const isNear = (other) => Math.hypot(other.cx - cx, other.cy - cy) < other.radius + radius;
  const near = marks.filter(isNear);
  const right = Math.max(...near.map((other) => other.cx + other.radius)) + 4;
  const isLeft = right + length + 2 > width - RIGHT;
  const left = isLeft ? Math.min(...near.map((other) => other.cx - other.radius)) - 4 - length : right;
  let y = cy + 4;
  const overlaps = (other) =>
    Math.abs(other.y - y) < 13 && left - RIM < other.left + other.length && other.left < left + length + RIM;
  while (taken.some(overlaps)) y += 13;
  taken.push({ left, y, length });
  const x = isLeft ? left + length : left;
  const name = svg("text", { x, y, "text-anchor": isLeft ? "end" : "start", class: "name" }, text);
  const lead = svg("path", { class: "lead", d: `M${cx} ${cy}L${isLeft ? x + 2 : x - 2} ${y - 4}` });
  const isFar = y - cy > 10 || Math.abs((isLeft ? x : left) - cx) > radius + 8;
  return { name, lead: isFar ? lead : null };
}

export const noOperations = () => createElement("p", "note", "Nothing has been computed in this phase.");
