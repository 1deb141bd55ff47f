// The figures of Learn, each from the activations of the reader's sentence. A figure returns elements; what a
// reader selects in one stays selected in the next.
import { activationPlot } from "./activation_plot.js";
import { getJson } from "./api.js";
import { plural } from "./chart.js";
import {
  bars,
  createElement,
  css,
  diverging,
  enableRovingFocus,
  heat,
  paint,
  percent,
  setLabel,
  signed,
} from "./drawing.js";
import { labelOf, visible } from "./label.js";

const SHOWN_VALUES = 8;
const LN2 = Math.LN2;
const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const norm = (a) => Math.sqrt(dot(a, a));
const mean = (a) => a.reduce((sum, x) => sum + x, 0) / a.length;
const note = (text) => createElement("p", "note", text);

// Buttons of which one is chosen.
function choice(labels, chosen, select, what) {
  const group = createElement("div", "tokens", "", { role: "group", "aria-label": what });
  const buttons = labels.map((label, i) => {
    const button = setLabel(createElement("button", "token"), label);
    button.setAttribute("aria-pressed", i === chosen);
    button.dataset.focus = `${what} ${i}`;
    button.addEventListener("click", () => select(i));
    return button;
  });
  group.append(...buttons);
  enableRovingFocus(buttons, buttons.length, chosen);
  return group;
}
function chooseToken(sentence, selection, redraw) {
  return choice(sentence.labels, selection.token, (token) => {
    Object.assign(selection, { token, key: null });
    redraw();
  }, "Token");
}
function chooseHead(sentence, selection, redraw, fields = ["layer", "head"]) {
  const box = createElement("p", "actions");
  for (const name of fields) {
    const count = sentence[`n_${name}`];
    const select = createElement("select");
    select.dataset.focus = name;
    select.append(...Array.from({ length: count }, (_, i) => createElement("option", "", i, { value: i })));
    select.value = selection[name];
    select.addEventListener("change", () => {
      Object.assign(selection, { [name]: Number(select.value), key: null });
      redraw();
    });
    const label = createElement("label", "", `${name[0].toUpperCase()}${name.slice(1)} `);
    label.append(select);
    box.append(label);
  }
  return box;
}

// Rows of numbers as colors, a row per token.
function strips(rows, labels, scale = Math.max(...rows.flatMap((row) => [...row].map(Math.abs)))) {
  const canvas = createElement("canvas", "strips", "", { role: "img" });
  canvas.setAttribute("aria-label", `${rows.length} rows of ${rows[0].length} numbers, for ${labels.join(", ")}`);
  canvas.width = rows[0].length;
  canvas.height = rows.length;
  const context = canvas.getContext("2d");
  rows.forEach((row, i) =>
    row.forEach((x, j) => {
      context.fillStyle = css(diverging(x / scale));
      context.fillRect(j, i, 1, 1);
    }),
  );
  canvas.style.height = `${rows.length * 22}px`;
  const box = createElement("div", "strip-rows");
  const names = createElement("div", "strip-labels");
  names.append(...labels.map((label) => setLabel(createElement("span"), label)));
  box.append(names, canvas);
  return box;
}
// A table with a header column; cells are numbers or elements.
function table(columns, rows) {
  const element = createElement("table", "numbers");
  const head = element.createTHead().insertRow();
  head.append(createElement("td"));
  head.append(...columns.map((name) => setLabel(createElement("th", "", "", { scope: "col" }), name)));
  const body = element.createTBody();
  for (const [name, cells] of rows) {
    const row = body.insertRow();
    row.append(setLabel(createElement("th", "", "", { scope: "row" }), name));
    cells.forEach((cell) => row.insertCell().append(cell));
  }
  const box = createElement("div", "scroll", "", { tabindex: "0", role: "region", "aria-label": "Numbers" });
  box.append(element);
  return box;
}
// Bars to both sides of 0, each [name, value, written value, whether it is emphasized]. `ends` are written
// below: what the left end, the middle and the right end mean.
function signedBars(rows, largest, ends) {
  const box = bars(
    rows.map(([name, value, text, actual]) => {
      const kind = value < 0 ? "negative" : "positive";
      return { name, fraction: Math.abs(value) / largest / 2, value: text, kind, actual };
    }),
  );
  box.classList.add("both-sides");
  if (ends) {
    const axis = createElement("span", "ends");
    axis.append(...ends.map((end) => createElement("small", "", end)));
    box.append(createElement("span"), axis, createElement("span"));
  }
  return box;
}
// What a reader takes for one character may be several code points.
const charactersOf = (text) =>
  [...(globalThis.Intl?.Segmenter ? new Intl.Segmenter().segment(text) : text)].length;
const some = (values, digits = 2) => [...values.slice(0, SHOWN_VALUES)].map((x) => signed(x, digits, ""));

export const FIGURES = {
  tokens(sentence) {
    const ids = sentence.tokens.map(({ id }) => String(id));
    const bytes = sentence.tokens.map(({ bytes }) => bytes.join(" "));
    const rows = [["id", ids], ["bytes", bytes]];
    const all = sentence.tokens.flatMap(({ bytes }) => bytes);
    const text = new TextDecoder().decode(Uint8Array.from(all));
    const counts = { character: charactersOf(text), byte: all.length, token: sentence.n };
    const amounts = Object.entries(counts).map(([noun, count]) => plural(count, noun));
    return [table(sentence.labels, rows), note(`${amounts.join(", ")}.`)];
  },

  async embedding(sentence, selection, { redraw }) {
    const rows = (await sentence.site("hook_embed")).slice(0, sentence.n);
    const cosine = (a, b) => dot(a, b) / norm(a) / norm(b);
    const own = rows[selection.token];
    const alike = rows.map((row, i) => [`${sentence.labels[i]}`, cosine(own, row)]);
    const cosines = alike.map(([name, value]) => [name, value, signed(value)]);
    const title = createElement("h3");
    title.append("Cosine with the row of ", sentence.bold(selection.token));
    return [
      strips(rows, sentence.labels),
      chooseToken(sentence, selection, redraw),
      title,
      signedBars(cosines, 1, ["−1: opposite", "0", "1: the same"]),
    ];
  },

  async positions(sentence, selection, { redraw }) {
    const [embed, position, sum] = await Promise.all(
      ["hook_embed", "hook_pos_embed", "blocks.0.hook_resid_pre"].map((site) => sentence.site(site)),
    );
    const t = selection.token;
    const columns = Array.from({ length: SHOWN_VALUES }, (_, i) => `${i}`);
    return [
      chooseToken(sentence, selection, redraw),
      table(columns, [
        [`wte[${sentence.tokens[t].id}]`, some(embed[t], 3)],
        [`+ wpe[${t}]`, some(position[t], 3)],
        ["= x", some(sum[t], 3)],
      ]),
      note(`The first ${SHOWN_VALUES} of ${sum[t].length} numbers.`),
      strips(position.slice(0, sentence.n), sentence.labels),
      note("The rows that are added: most are like their neighbors."),
    ];
  },

  async norm(sentence, selection, { redraw }) {
    const [before, after] = await Promise.all(
      ["blocks.0.hook_resid_pre", "blocks.0.ln1.hook_normalized"].map((site) => sentence.site(site)),
    );
    const t = selection.token;
    const variance = (row) => mean(row.map((x) => (x - mean(row)) ** 2));
    const columns = [...Array.from({ length: SHOWN_VALUES }, (_, i) => `${i}`), "mean", "variance"];
    const line = (row) => [...some(row), signed(mean(row), 3, ""), variance(row).toFixed(3)];
    const standard = before[t].map((x) => (x - mean(before[t])) / Math.sqrt(variance(before[t]) + 1e-5));
    return [
      chooseToken(sentence, selection, redraw),
      table(columns, [
        ["x", line(before[t])],
        ["mean 0, variance 1", line(standard)],
        ["· weight + bias", line(after[t])],
      ]),
    ];
  },

  async scores(sentence, selection, { redraw }) {
    const { layer, head } = selection;
    const [q, k] = await Promise.all(["q", "k"].map((name) => sentence.ofHead(name, layer, head)));
    const root = Math.sqrt(q[0].length);
    const i = selection.token;
    const j = Math.min(selection.key ?? i, i);
    const largest = Math.max(...q.flatMap((query, i) => k.slice(0, i + 1).map((key) => Math.abs(dot(query, key) / root))));
    const cells = [];
    const rows = q.map((query, row) => [
      sentence.labels[row],
      k.map((key, column) => {
        if (column > row) return createElement("span", "masked", "−∞");
        const score = dot(query, key) / root;
        const name = `${sentence.labels[row]} looks at ${sentence.labels[column]}: `;
        const cell = createElement("button", "cell", signed(score, 1), { "aria-label": name + signed(score, 1) });
        cell.dataset.focus = `score ${row} ${column}`;
        if (row === i && column === j) cell.setAttribute("aria-pressed", "true");
        paint(cell, diverging(score / largest));
        cell.addEventListener("click", () => {
          Object.assign(selection, { token: row, key: column });
          redraw();
        });
        cells.push(cell);
        return cell;
      }),
    ]);
    cells.forEach((cell) => (cell.tabIndex = cell.ariaPressed === "true" ? 0 : -1));
    moveInTriangle(cells);
    const products = [...q[i]].map((x, d) => [x * k[j][d], d]).sort((a, b) => Math.abs(b[0]) - Math.abs(a[0]));
    const rest = products.slice(SHOWN_VALUES).reduce((sum, [x]) => sum + x, 0);
    const told = createElement("p", "readout", "", { "aria-live": "polite" });
    told.append(sentence.bold(i), " looks at ", sentence.bold(j), ": ");
    products.slice(0, SHOWN_VALUES).forEach(([, d], at) => {
      const [a, b] = [q[i][d], k[j][d]].map((x) => signed(x, 2, ""));
      told.append(`${at ? " + " : ""}${a} · ${b}`);
    });
    told.append(
      ` + … (${products.length - SHOWN_VALUES} more: ${signed(rest, 2, "")}) = ${signed(dot(q[i], k[j]), 2, "")}; ` +
        `divided by √${q[0].length}: ${signed(dot(q[i], k[j]) / root, 2, "")}`,
    );
    return [chooseHead(sentence, selection, redraw), table(sentence.labels, rows), told];
  },

  async values(sentence, selection, { redraw }) {
    const { layer, head, token: i } = selection;
    const [q, k, v] = await Promise.all(["q", "k", "v"].map((name) => sentence.ofHead(name, layer, head)));
    const z = (await sentence.ofHead("z", layer, head))[i];
    const scores = k.slice(0, i + 1).map((key) => dot(q[i], key) / Math.sqrt(key.length));
    const powers = scores.map((score) => Math.exp(score - Math.max(...scores)));
    const total = powers.reduce((sum, x) => sum + x, 0);
    const weights = powers.map((x) => x / total);
    const rows = weights.map((weight, j) => {
      const cell = createElement("span", "cell", percent(weight));
      paint(cell, heat(weight));
      return [sentence.labels[j], [signed(scores[j], 2, ""), cell, ...some(v[j])]];
    });
    const columns = ["score", "weight", ...Array.from({ length: SHOWN_VALUES }, (_, d) => `v ${d}`)];
    rows.push(["= z", ["", "100 %", ...some(z)]]);
    const told = createElement("p", "readout", "");
    const most = weights.indexOf(Math.max(...weights));
    told.append(sentence.bold(i), " takes most from ", sentence.bold(most), `: ${percent(weights[most])}.`);
    return [
      chooseHead(sentence, selection, redraw),
      chooseToken(sentence, selection, redraw),
      table(columns, rows),
      told,
      note(`The first ${SHOWN_VALUES} of ${z.length} numbers of every value; the last line is their weighted sum.`),
    ];
  },

  async mlp(sentence, selection, { redraw }) {
    const { layer, token: t } = selection;
    const at = (name) => sentence.site(`blocks.${layer}.mlp.hook_${name}`);
    const [[pre], [post]] = (await Promise.all([at("pre"), at("post")])).map((rows) => [rows[t]]);
    const order = [...post].map((x, i) => [x, i]).sort((a, b) => b[0] - a[0]);
    const active = post.filter((x) => x > 0.1).length;
    const largest = Math.max(order[0][0], 1e-9);
    return [
      chooseHead(sentence, selection, redraw, ["layer"]),
      chooseToken(sentence, selection, redraw),
      activationPlot(pre, post),
      note(
        `Every point is one of ${post.length.toLocaleString("en")} neurons: to the right its number before ` +
          `the curve, upward that after it. ${active.toLocaleString("en")} are above 0.1 after it.`,
      ),
      bars(
        order.slice(0, SHOWN_VALUES).map(([x, i]) => ({
          name: `neuron ${i}`,
          fraction: x / largest,
          value: signed(x),
          kind: "positive",
        })),
      ),
    ];
  },

  async stream(sentence, selection, { redraw }) {
    const t = selection.token;
    const sites = ["hook_embed", "hook_pos_embed"];
    const names = ["wte", "wpe"];
    for (let layer = 0; layer < sentence.n_layer; layer++) {
      sites.push(`blocks.${layer}.hook_attn_out`, `blocks.${layer}.hook_mlp_out`);
      names.push(`attention ${layer}`, `MLP ${layer}`);
    }
    const added = await Promise.all(sites.map(async (site) => (await sentence.site(site))[t]));
    let x = added[0].map(() => 0);
    const rows = added.map((vector, i) => {
      x = x.map((value, d) => value + vector[d]);
      return [`${i ? "+= " : ""}${names[i]}`, [norm(vector).toFixed(1), norm(x).toFixed(1), ...some(x)]];
    });
    const columns = ["adds", "length", ...Array.from({ length: SHOWN_VALUES }, (_, d) => `x ${d}`)];
    return [
      chooseToken(sentence, selection, redraw),
      table(columns, rows),
      note("“Adds” is the length of the vector that is added, “length” that of the sum so far."),
    ];
  },

  async logits(sentence, selection, { redraw }) {
    const prediction = sentence.predictions[selection.token];
    const [logits] = await sentence.site("logits", selection.token);
    const { top_logprobs: top, target } = prediction;
    const shown = target && !top.some(({ id }) => id === target.id) ? [...top, target] : top;
    const largest = Math.max(...shown.map(({ id }) => Math.abs(logits[id])));
    const rows = shown.map(({ logprob, ...token }) => [
      labelOf(token),
      logits[token.id],
      `${signed(logits[token.id])}, ${percent(Math.exp(logprob))}`,
      token.id === target?.id,
    ]);
    const range = [Math.min(...logits), Math.max(...logits)].map((x) => signed(x));
    const count = logits.length.toLocaleString("en");
    const entropy = (prediction.entropy / LN2).toFixed(2);
    const follows = target ? " What follows in your sentence is emphasized." : "";
    return [
      chooseToken(sentence, selection, redraw),
      signedBars(rows, largest, [-largest, 0, largest].map((x) => signed(x, 1))),
      note(
        "The highest logits after this token, and the probabilities that the next page makes of them." +
          `${follows} All ${count} logits are between ${range[0]} and ${range[1]}, ${signed(mean(logits))} ` +
          `on average. Entropy of the probabilities: ${entropy} bits.`,
      ),
    ];
  },

  async sampling(sentence, selection, { append }) {
    const last = sentence.predictions.length - 1;
    const [logits] = await sentence.site("logits", last);
    selection.temperature ??= 1;
    selection.topP ??= 1;
    const texts = new Map(sentence.predictions[last].top_logprobs.map(({ id, text }) => [id, text]));
    const drawn = createElement("div");
    let [candidates, turns] = [[], 0];
    // Only what the sliders change is drawn again: a slider that was replaced could not be dragged.
    async function fill() {
      const turn = ++turns;
      const found = distribution(logits, selection.temperature, selection.topP);
      candidates = found.candidates;
      const shown = candidates.slice(0, 10);
      const rows = await Promise.all(
        shown.map(async ([id, p]) => ({
          name: visible(await textOf(id, texts)),
          fraction: p / shown[0][1],
          value: percent(p),
        })),
      );
      if (turn !== turns) return;
      const words = found.kept === 1 ? "1 token is left" : `${found.kept.toLocaleString("en")} tokens are left`;
      drawn.replaceChildren(bars(rows), note(`${words} to draw from.`));
    }
    const slider = (name, field, min, max, step) => {
      const label = createElement("label");
      const value = createElement("span");
      const show = () => (value.textContent = `${name}: ${selection[field].toFixed(2)} `);
      const input = createElement("input", "", "", { type: "range", min, max, step, "aria-label": name });
      input.value = selection[field];
      input.addEventListener("input", () => {
        selection[field] = Number(input.value);
        show();
        fill();
      });
      show();
      label.append(value, input);
      return label;
    };
    const sliders = createElement("div", "actions");
    sliders.append(slider("Temperature", "temperature", 0.1, 2, 0.05), slider("Top p", "topP", 0.05, 1, 0.05));
    const draw = createElement("button", "primary", "Draw a token and add it");
    draw.dataset.focus = "draw";
    draw.addEventListener("click", async () => {
      let at = Math.random();
      const [id] = candidates.find(([, p]) => (at -= p) < 0) ?? candidates[0];
      append(await textOf(id, texts));
    });
    await fill();
    return [sliders, drawn, draw];
  },
};

// The probabilities at a temperature of the likeliest tokens that together have `topP`, in order.
export function distribution(logits, temperature, topP) {
  const order = [...logits].map((logit, id) => [id, logit / temperature]).sort((a, b) => b[1] - a[1]);
  const largest = order[0][1];
  const powers = order.map(([id, logit]) => [id, Math.exp(logit - largest)]);
  const total = powers.reduce((sum, [, x]) => sum + x, 0);
  let [kept, sum] = [0, 0];
  // At 1 all are kept; the sum reaches the total earlier, as the last powers are lost in rounding.
  while (kept < powers.length && (topP >= 1 || sum < topP * total)) sum += powers[kept++][1];
  return { kept, candidates: powers.slice(0, kept).map(([id, x]) => [id, x / sum]) };
}

// The text of a token: of those that are known, or from the server.
async function textOf(id, texts) {
  if (!texts.has(id)) {
    const model = document.getElementById("model").value;
    const { content } = await getJson("/detokenize", { body: { model, tokens: [id] } });
    texts.set(id, content);
  }
  return texts.get(id);
}

// Arrow keys in the lower triangle of cells, in the order of rows.
function moveInTriangle(cells) {
  const index = (row, column) => (row * (row + 1)) / 2 + column;
  cells.forEach((cell) =>
    cell.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      const [row, column] = cell.dataset.focus.split(" ").slice(1).map(Number);
      const to = [row + step[0], column + step[1]];
      if (to[1] >= 0 && to[1] <= to[0]) cells[index(...to)]?.focus();
    }),
  );
}
