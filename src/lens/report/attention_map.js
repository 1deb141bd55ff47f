// One head's attention pattern in full: the tokens at the left attend to the tokens at the top. Pointer and
// arrow keys select a pair of tokens, whose weight is written below.
import {
  byteAt,
  createElement,
  css,
  enableRovingFocus,
  heat,
  patternImage,
  percent,
  rgb,
  setLabel,
  textOn,
  weightAt,
} from "./drawing.js";

export const headName = (layer, head) => `L${layer}H${head}`;
const shortLabel = (label) => (label.length > 12 ? label.slice(0, 11) + "…" : label);

export class AttentionMap {
  // `hover(token or null)` and `select(token)` are called for what the pointer and the keys do.
  constructor(canvas, readout, { hover, select }) {
    Object.assign(this, { canvas, readout, hover, select, pair: null, token: 0, labels: [], pattern: null });
    canvas.addEventListener("pointermove", (event) => this.#pointer(event));
    canvas.addEventListener("pointerleave", () => {
      this.pair = null;
      this.hover(null);
      this.draw();
    });
    canvas.addEventListener("click", () => this.pair && this.select(this.pair[0]));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#unpair());
  }

  // Shows a head's pattern; `labels` are those of the tokens.
  show(layer, head, pattern, labels) {
    Object.assign(this, { layer, head, pattern, labels, n: labels.length, image: null, colors: null });
    this.token = Math.min(this.token, this.n - 1);
    this.#unpair();
  }
  // Another token is selected, maybe one of a text whose pattern is yet to come.
  selectToken(token) {
    this.token = token;
    if (token < this.n) this.#unpair();
  }
  // The colors have changed.
  recolor() {
    this.image = this.colors = null;
    this.draw();
  }

  weight(i, j) {
    return weightAt(this.pattern, i, j);
  }

  #unpair() {
    this.pair = null;
    this.draw();
  }
  #pointer(event) {
    if (!this.pattern) return;
    const { margin, cell } = this.frame;
    const [i, j] = [event.offsetY, event.offsetX].map((x) => Math.floor((x - margin) / cell));
    const pair = i >= 0 && i < this.n ? [i, Math.max(0, Math.min(i, j))] : null;
    if (String(pair) === String(this.pair)) return;
    this.hover(pair?.[0] ?? null);
    this.pair = pair;
    this.draw();
  }
  #key(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step || !this.pattern) return;
    event.preventDefault();
    const [i, j] = this.pair ?? [this.token, this.token];
    const row = Math.max(0, Math.min(this.n - 1, i + step[0]));
    if (row !== this.token) this.select(row);
    this.pair = [row, Math.max(0, Math.min(row, j + step[1]))];
    this.draw();
  }

  draw() {
    if (!this.pattern) return;
    const { canvas, n, layer, head, pair } = this;
    const context = canvas.getContext("2d");
    const width = canvas.clientWidth || 600;
    const scale = devicePixelRatio || 1;
    this.colors ??= {
      mono: getComputedStyle(document.documentElement).getPropertyValue("--mono"),
      names: ["accent", "dim"].map((name) => css(rgb(name))),
    };
    const { mono } = this.colors;
    const font = (size, bold) => `${bold ? "700 " : ""}${size}px ${mono}`;
    const size = Math.max(8, Math.min(13, (0.9 * (width - 70)) / n));
    const names = this.labels.map(shortLabel);
    const longest = names.reduce((a, b) => (b.length > a.length ? b : a), "");
    context.font = font(size, true);
    const margin = Math.min(context.measureText(longest).width + 8, 0.3 * width);
    const cell = Math.min((width - margin) / n, 96);
    this.frame = { margin, cell };
    const [pixelWidth, pixelHeight] = [width, margin + n * cell + 2].map((x) => Math.round(x * scale));
    if (canvas.width !== pixelWidth || canvas.height !== pixelHeight) {
      [canvas.width, canvas.height] = [pixelWidth, pixelHeight];
      canvas.style.height = `${margin + n * cell + 2}px`;
    }
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.imageSmoothingEnabled = false;
    context.clearRect(0, 0, canvas.width, canvas.height);
    this.image ??= patternImage(this.pattern, n, n);
    context.drawImage(this.image, margin, margin, n * cell, n * cell);

    const row = pair?.[0] ?? this.token;
    const [accent, text] = this.colors.names;
    context.strokeStyle = accent;
    context.lineWidth = 1.5;
    // What the token attends to.
    context.strokeRect(margin, margin + row * cell, (row + 1) * cell, cell);
    const column = pair?.[1] ?? row;
    context.globalAlpha = 0.75;
    // Tokens that attend to it.
    context.strokeRect(margin + column * cell, margin + column * cell, cell, (n - column) * cell);
    context.globalAlpha = 1;
    if (pair) {
      context.lineWidth = 2.5;
      context.strokeRect(margin + pair[1] * cell, margin + pair[0] * cell, cell, cell);
    }
    if (cell >= 30) this.#drawNumbers(context, font(Math.min(13, cell / 3), false));
    // As many labels as fit, and always those of the selected row and column.
    const labelInterval = Math.ceil(8 / cell);
    context.textBaseline = "middle";
    const hasLabel = (t, selected) =>
      t === selected || (t % labelInterval === 0 && Math.abs(t - selected) >= labelInterval);
    for (let t = 0; t < n; t++) {
      const [isRow, isColumn] = [t === row, t === column];
      if (hasLabel(t, row)) {
        context.font = font(size, isRow);
        context.fillStyle = isRow ? accent : text;
        context.textAlign = "right";
        context.fillText(names[t], margin - 5, margin + (t + 0.5) * cell, margin - 6);
      }
      if (hasLabel(t, column)) {
        context.save();
        context.translate(margin + (t + 0.5) * cell, margin - 5);
        context.rotate(-Math.PI / 2);
        context.font = font(size, isColumn);
        context.fillStyle = isColumn ? accent : text;
        context.textAlign = "left";
        context.fillText(names[t], 0, 0, margin - 6);
        context.restore();
      }
    }
    canvas.setAttribute(
      "aria-label",
      `Attention pattern of layer ${layer}, head ${head}: ${n} by ${n} tokens. Arrow keys select a pair.`,
    );
    this.#describe();
  }

  // The weights in percent, where the cells are large enough.
  #drawNumbers(context, font) {
    const { margin, cell } = this.frame;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.font = font;
    for (let i = 0; i < this.n; i++) {
      for (let j = 0; j <= i; j++) {
        const weight = this.weight(i, j);
        context.fillStyle = textOn(heat(weight));
        if (weight >= 0.005)
          context.fillText((100 * weight).toFixed(0), margin + (j + 0.5) * cell, margin + (i + 0.5) * cell);
      }
    }
  }

  // Describes the selected pair, or the largest weights of the selected token.
  #describe() {
    const bold = (t) => setLabel(createElement("b"), this.labels[t]);
    const [i, j] = this.pair ?? [this.token, null];
    this.readout.replaceChildren(bold(i));
    if (j !== null) {
      const weight = j > i ? "0 % (masked)" : percent(this.weight(i, j));
      this.readout.append(" attends to ", bold(j), ` with ${weight}`);
      return;
    }
    const weights = Array.from({ length: i + 1 }, (_, j) => [byteAt(this.pattern, i, j), j]);
    weights.sort((a, b) => b[0] - a[0]);
    this.readout.append(" attends most to ");
    weights.slice(0, 3).forEach(([byte, j], rank) => {
      this.readout.append(rank ? ", " : "", bold(j), ` ${percent((byte / 255) ** 2)}`);
    });
  }
}

// The thumbnails of all heads as buttons, a row per layer. `select(layer, head)` is called for the one chosen;
// `describe(index)` is what is said of a head.
export function headGrid(grid, { layers, heads, selected, describe, select }) {
  grid.style.gridTemplateColumns = `max-content repeat(${heads}, minmax(0, 132px))`;
  grid.replaceChildren(
    createElement("span"),
    ...Array.from({ length: heads }, (_, head) => createElement("span", "", `H${head}`)),
  );
  const thumbs = [];
  for (let layer = 0; layer < layers; layer++) {
    grid.append(createElement("span", "", `L${layer}`));
    for (let head = 0; head < heads; head++) {
      const description = describe(layer * heads + head);
      const thumb = createElement("button", "thumb", "", {
        "aria-label": `Layer ${layer}, head ${head}: ${description}`,
        title: `${headName(layer, head)}: ${description}`,
      });
      thumb.addEventListener("click", () => select(layer, head));
      thumbs.push(grid.appendChild(thumb));
    }
  }
  enableRovingFocus(thumbs, heads, selected);
  return thumbs;
}
