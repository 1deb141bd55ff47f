// The losses of a job over its steps: a line for the training examples, and points with a dashed line for the
// validation examples. Pointer and arrow keys select a step, whose losses are written below.
import { createElement, css, rgb } from "./drawing.js";

const HEIGHT = 260;
const MARGIN = { left: 46, right: 14, top: 26, bottom: 30 };

// Round numbers from `low` to `high`, about `count` of them.
export function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
  const first = Math.ceil(low / step);
  const length = Math.floor(high / step) - first + 1;
  return Array.from({ length }, (_, i) => Number(((first + i) * step).toPrecision(6)));
}

export class LossCurve {
  #rows = []; // { step, train, valid }, each loss a number or undefined
  #chosen = null; // the index of a row
  #colors = null;

  constructor(canvas, readout) {
    Object.assign(this, { canvas, readout, steps: 1 });
    canvas.addEventListener("pointermove", (event) => this.#choose(this.#nearest(event.offsetX)));
    canvas.addEventListener("pointerleave", () => this.#choose(null));
    canvas.addEventListener("blur", () => this.#choose(null));
    canvas.addEventListener("keydown", (event) => {
      const last = this.#rows.length - 1;
      const at = this.#chosen ?? last;
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
      if (to === undefined || last < 0) return;
      event.preventDefault();
      this.#choose(Math.max(0, Math.min(last, to)));
    });
  }

  // Shows the losses of a job that takes so many steps.
  show(rows, steps) {
    this.#rows = rows;
    this.steps = Math.max(steps, rows.at(-1)?.step ?? 1);
    if (this.#chosen >= rows.length) this.#chosen = null;
    this.draw();
  }
  recolor() {
    this.#colors = null;
    this.draw();
  }

  #choose(row) {
    if (row === this.#chosen) return;
    this.#chosen = row;
    this.draw();
  }
  #nearest(x) {
    if (!this.#rows.length) return null;
    const distance = ({ step }) => Math.abs(this.x(step) - x);
    return this.#rows.reduce((best, row, i) => (distance(row) < distance(this.#rows[best]) ? i : best), 0);
  }

  draw() {
    const { canvas } = this;
    const rows = this.#rows;
    canvas.hidden = !rows.length;
    if (!rows.length) this.readout.textContent = "Nothing has been measured.";
    const width = canvas.clientWidth;
    if (!rows.length || !width) return; // not visible
    const scale = devicePixelRatio || 1;
    this.#colors ??= ["accent", "warm", "dim", "line", "card"].map((name) => css(rgb(name)));
    const [accent, warm, dim, line, card] = this.#colors;
    [canvas.width, canvas.height] = [width, HEIGHT].map((size) => Math.round(size * scale));
    canvas.style.height = `${HEIGHT}px`;
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.font = "12px system-ui, sans-serif";
    const losses = rows.flatMap(({ train, valid }) => [train, valid]).filter((loss) => loss !== undefined);
    let [low, high] = [Math.min(...losses), Math.max(...losses)];
    const margin = (high - low) * 0.06 || 0.1;
    [low, high] = [Math.max(0, low - margin), high + margin];
    const right = width - MARGIN.right;
    const bottom = HEIGHT - MARGIN.bottom;
    this.x = (step) => MARGIN.left + ((step - 1) / Math.max(1, this.steps - 1)) * (right - MARGIN.left);
    const y = (loss) => bottom - ((loss - low) / (high - low)) * (bottom - MARGIN.top);

    context.lineWidth = 1;
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const loss of ticks(low, high, 5)) {
      context.strokeStyle = line;
      context.beginPath();
      context.moveTo(MARGIN.left, y(loss));
      context.lineTo(right, y(loss));
      context.stroke();
      context.fillStyle = dim;
      context.fillText(String(loss), MARGIN.left - 6, y(loss));
    }
    context.textBaseline = "top";
    context.textAlign = "center";
    const marks = ticks(1, this.steps, Math.min(8, width / 70)).filter((step) => Number.isInteger(step) && step >= 1);
    context.fillStyle = dim;
    marks.forEach((step) => context.fillText(step.toLocaleString("en"), this.x(step), bottom + 6));
    context.textAlign = "right";
    if (!marks.length) context.fillText("step 1", right, bottom + 6);

    const draw = (field, color, dash, hasPoints) => {
      const points = rows.filter((row) => row[field] !== undefined).map((row) => [this.x(row.step), y(row[field])]);
      context.strokeStyle = context.fillStyle = color;
      context.lineWidth = 2;
      context.setLineDash(dash);
      context.beginPath();
      points.forEach(([x, y]) => context.lineTo(x, y));
      context.stroke();
      context.setLineDash([]);
      if (hasPoints || points.length === 1) points.forEach(([x, y]) => dot(x, y, 3.5));
    };
    const dot = (x, y, radius) => {
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.fill();
    };
    draw("train", accent, [], false);
    draw("valid", warm, [5, 4], true);

    // The legend.
    context.textAlign = "left";
    context.textBaseline = "middle";
    let at = MARGIN.left;
    for (const [name, color, dash] of [["training", accent, []], ["validation", warm, [5, 4]]]) {
      context.strokeStyle = context.fillStyle = color;
      context.setLineDash(dash);
      context.beginPath();
      context.moveTo(at, 11);
      context.lineTo(at + 26, 11);
      context.stroke();
      if (dash.length) dot(at + 13, 11, 3.5);
      context.fillStyle = dim;
      context.fillText(name, at + 32, 11);
      at += 32 + context.measureText(name).width + 20;
    }
    context.setLineDash([]);

    const chosen = rows[this.#chosen];
    if (chosen) {
      context.strokeStyle = dim;
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(this.x(chosen.step), MARGIN.top);
      context.lineTo(this.x(chosen.step), bottom);
      context.stroke();
      for (const [field, color] of [["train", accent], ["valid", warm]]) {
        if (chosen[field] === undefined) continue;
        context.fillStyle = card;
        dot(this.x(chosen.step), y(chosen[field]), 6.5);
        context.fillStyle = color;
        dot(this.x(chosen.step), y(chosen[field]), 4.5);
      }
    }
    this.#describe(chosen ?? rows.at(-1));
  }

  #describe(row) {
    const steps = `${this.steps} steps, ${this.#rows.length} of them measured`;
    const label = `Training and validation loss over ${steps}. Arrow keys select a step.`;
    this.canvas.setAttribute("aria-label", label);
    // What a reader selects is spoken, not each step that is taken.
    this.readout.setAttribute("aria-live", this.#chosen === null ? "off" : "polite");
    const { step, train, valid } = row;
    const losses = [
      train !== undefined && `training ${train.toFixed(3)} nats`,
      valid !== undefined && `validation ${valid.toFixed(3)} nats`,
    ];
    const name = createElement("b", "", `Step ${step.toLocaleString("en")}`);
    this.readout.replaceChildren(name, `: ${losses.filter(Boolean).join(", ")}`);
  }
}
