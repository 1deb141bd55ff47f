// One text in one model: its tokens, the attention of all heads, and what leads to the prediction after the
// selected token. Heads and MLPs can be switched off.
import { getBytes, getJson } from "./api.js";
import { AttentionMap, headGrid, headName } from "./attention_map.js";
import {
  addScale,
  bars,
  beforeAndAfter,
  createElement,
  diverging,
  enableRovingFocus,
  entropyText,
  heat,
  heatImage,
  paint,
  percent,
  setLabel,
  signed,
  unsigned,
} from "./drawing.js";
import { headWords } from "./head_words.js";
import { labelOf, partsOfCharacters, visible } from "./label.js";

const TYPING_DELAY = 300; // milliseconds without a change
const LARGEST_CONTRIBUTIONS = 14;
const SALIENT_HEADS = 6;
const SALIENCY =
  "the attention, on average, that a token gives to one that is not the first, the one before or itself";

export class LookPanel {
  #part = {};
  #analysis = null;
  #selected = { token: 0, layer: null, head: null };
  #patterns = new Map();
  #ablated = new Set();
  #request = null;
  #timer = 0;

  // `model` returns the model, unless the panel has its own choice among `models`, a select element.
  constructor(parent, { model, models, textEdited = () => {}, headSelected }) {
    this.root = document.getElementById("look-panel").content.firstElementChild.cloneNode(true);
    for (const element of this.root.querySelectorAll("[data-part]")) {
      this.#part[element.dataset.part] = element;
    }
    const { text, map, pair, legend, ownModel, modelChoice, attribution, restore, toggleHead } = this.#part;
    this.model = models ? () => modelChoice.value : model;
    ownModel.hidden = !models;
    if (models) {
      modelChoice.replaceChildren(...Array.from(models.options, (option) => option.cloneNode(true)));
      modelChoice.value = models.value;
      modelChoice.addEventListener("change", () => this.#run());
    }
    addScale(legend);
    this.headSelected = headSelected;
    this.map = new AttentionMap(map, pair, {
      hover: (token) => this.#showNext(token ?? this.#selected.token),
      select: (token) => this.selectToken(token),
    });
    text.addEventListener("input", () => {
      textEdited(text.value);
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#run(), TYPING_DELAY);
    });
    toggleHead.addEventListener("click", () => this.#toggle(headName(this.#selected.layer, this.#selected.head)));
    restore.addEventListener("click", () => {
      this.#ablated.clear();
      this.#run();
    });
    attribution.addEventListener("click", ({ target }) => target.dataset.mlp && this.#toggle(target.dataset.mlp));
    parent.append(this.root);
  }
  remove() {
    this.#request?.abort();
    this.root.remove();
  }

  get text() {
    return this.#part.text.value;
  }
  setText(text) {
    this.#part.text.value = text;
    this.#run();
  }

  // Runs the text through the model.
  async #run() {
    clearTimeout(this.#timer);
    this.#request?.abort();
    this.#request = new AbortController();
    const { problem, content, summary } = this.#part;
    const fail = (message) => {
      problem.textContent = message;
      summary.textContent = ""; // it is that of another text or model, as all below
      content.hidden = true;
    };
    if (!this.text) return fail("Write something above.");
    try {
      const body = { model: this.model(), prompt: this.text, ablate: [...this.#ablated] };
      const found = await getJson("/lens", { body, signal: this.#request.signal });
      problem.textContent = "";
      content.hidden = false;
      this.#show(found);
    } catch (error) {
      if (error.name === "AbortError") return;
      fail(error.message);
    }
  }
  #toggle(component) {
    if (!this.#ablated.delete(component)) this.#ablated.add(component);
    this.#run();
  }

  #show(found) {
    const before = this.#analysis;
    const wasLast = !before || this.#selected.token === before.tokens.length - 1;
    const isOtherModel = before && (before.n_layer !== found.n_layer || before.n_head !== found.n_head);
    this.#analysis = found;
    this.#patterns.clear();
    this.labels = found.tokens.map(labelOf);
    this.parts = partsOfCharacters(found.tokens);
    this.thumbnails = Uint8Array.from(atob(found.thumbnails), (c) => c.charCodeAt(0));
    const last = found.tokens.length - 1;
    this.#selected.token = wasLast ? last : Math.min(this.#selected.token, last);
    if (this.#selected.layer === null || isOtherModel) {
      const salient = found.saliency.indexOf(Math.max(...found.saliency));
      this.#selected.layer = Math.floor(salient / found.n_head);
      this.#selected.head = salient % found.n_head;
    }
    this.#showTokens();
    this.#showHeads();
    this.#showEffect();
    this.#showHead();
    this.selectToken(this.#selected.token);
  }

  // The tokens, shaded by surprisal.
  #showTokens() {
    const { tokens, predictions } = this.#analysis;
    let most = [0, 0];
    const buttons = tokens.map((_, t) => {
      const target = t > 0 && predictions[t - 1].target;
      const bits = target ? -target.logprob / Math.LN2 : null;
      if (bits > most[0]) most = [bits, t];
      const said = bits === null ? "the first" : `surprisal ${bits.toFixed(1)} bits`;
      const title = [`token ${t}`, said, this.parts[t]].filter(Boolean).join(", ");
      const button = createElement("button", "token", "", { role: "option", title });
      setLabel(button, this.labels[t]);
      button.append(createElement("small", "", bits === null ? "–" : bits.toFixed(1)));
      button.style.setProperty("--tint", `${Math.min(55, 4 * (bits ?? 0))}%`);
      button.addEventListener("click", () => this.selectToken(t));
      return button;
    });
    this.tokenButtons = buttons;
    this.#part.tokens.replaceChildren(...buttons);
    enableRovingFocus(buttons, buttons.length, this.#selected.token);
    const { summary } = this.#part;
    const mean = predictions.slice(0, -1).reduce((sum, { target }) => sum - target.logprob / Math.LN2, 0);
    summary.textContent = "";
    if (tokens.length < 2) return;
    const surprising = createElement("button", "", "");
    setLabel(surprising, this.labels[most[1]]);
    surprising.addEventListener("click", () => this.selectToken(most[1]));
    summary.append(
      `${tokens.length} tokens, ${(mean / (tokens.length - 1)).toFixed(2)} bits of surprisal on average. The most surprising is `,
      surprising,
      ` with ${most[0].toFixed(1)} bits.`,
    );
  }

  // The thumbnails of all heads.
  #showHeads() {
    const { n_layer, n_head, saliency, thumbnail_size: size } = this.#analysis;
    const { thumbs, salient } = this.#part;
    const area = size * size;
    this.thumbs = headGrid(thumbs, {
      layers: n_layer,
      heads: n_head,
      selected: this.#selected.layer * n_head + this.#selected.head,
      describe: (i) => `saliency ${percent(saliency[i])}${this.#isOff(i) ? ", switched off" : ""}`,
      select: (layer, head) => {
        this.selectHead(layer, head);
        this.headSelected(layer, head, this);
      },
    });
    this.thumbs.forEach((thumb, i) => {
      thumb.append(heatImage(this.thumbnails.subarray(i * area, (i + 1) * area), size));
      thumb.classList.toggle("off", this.#isOff(i));
    });
    const order = saliency.map((value, i) => [value, i]).sort((a, b) => b[0] - a[0]);
    salient.replaceChildren(createElement("span", "", "Highest saliency: ", { title: SALIENCY }));
    for (const [value, i] of order.slice(0, SALIENT_HEADS)) {
      const [layer, head] = [Math.floor(i / n_head), i % n_head];
      const button = createElement("button", "", `${headName(layer, head)} ${percent(value)}`, {
        title: `${headName(layer, head)}: saliency ${percent(value)}; ${SALIENCY}`,
      });
      button.addEventListener("click", () => this.thumbs[i].click());
      salient.append(button);
    }
  }
  #isOff(index) {
    const { n_head } = this.#analysis;
    return this.#ablated.has(headName(Math.floor(index / n_head), index % n_head));
  }

  selectHead(layer, head) {
    if (!this.#analysis || layer >= this.#analysis.n_layer || head >= this.#analysis.n_head) return;
    Object.assign(this.#selected, { layer, head });
    this.#showHead();
  }
  async #showHead() {
    const { layer, head } = this.#selected;
    const { id, n_head } = this.#analysis;
    const name = headName(layer, head);
    const { selectedHead, toggleHead } = this.#part;
    selectedHead.textContent = `Layer ${layer}, head ${head}`;
    toggleHead.textContent = this.#ablated.has(name) ? `Switch ${name} on again` : `Switch ${name} off`;
    this.thumbs.forEach((thumb, i) => thumb.setAttribute("aria-pressed", i === layer * n_head + head));
    try {
      if (!this.#patterns.has(name)) {
        this.#patterns.set(name, await getBytes(`/lens/${id}/attention/${layer}/${head}`));
      }
    } catch (error) {
      if (error.status === 404) return this.#run(); // other texts have taken its place
      this.#part.problem.textContent = error.message;
      return;
    }
    const isCurrent = this.#selected.layer === layer && this.#selected.head === head && this.#analysis.id === id;
    if (!isCurrent) return;
    const pattern = this.#patterns.get(name);
    this.map.show(layer, head, pattern, this.labels);
    const ids = this.#analysis.tokens.map((token) => token.id);
    this.#part.headWords.textContent = headWords(name, pattern, ids, this.labels);
  }

  // Selects a token: what follows it, and how the model comes to that.
  async selectToken(token) {
    this.#selected.token = token;
    this.tokenButtons.forEach((button, t) => button.setAttribute("aria-selected", t === token));
    this.root.querySelectorAll(".here").forEach((element) => setLabel(element, this.labels[token]));
    this.map.selectToken(token);
    this.#showNext(token);
    const { id } = this.#analysis;
    try {
      const found = await getJson(`/lens/${id}/tokens/${token}`);
      if (this.#analysis.id !== id || this.#selected.token !== token) return;
      this.found = found;
      this.#showLens();
      this.#showAttribution();
    } catch (error) {
      if (error.status === 404) return this.#run();
      this.#part.problem.textContent = error.message;
    }
  }
  // The most likely tokens after a token, and the one that follows.
  #showNext(token) {
    if (token >= this.labels.length) return; // of a longer text that has been replaced
    const { top_logprobs: top, entropy, target } = this.#analysis.predictions[token];
    const largest = Math.exp(top[0].logprob);
    const row = (name, logprob, actual) => ({
      name,
      fraction: Math.exp(logprob) / largest,
      value: percent(Math.exp(logprob)),
      actual,
    });
    const rows = top.map((other) => row(labelOf(other), other.logprob, other.id === target?.id));
    if (target && !top.some((other) => other.id === target.id)) {
      rows.push(row(this.labels[token + 1], target.logprob, true));
    }
    this.#part.next.replaceChildren(bars(rows));
    setLabel(this.#part.nextAfter, this.labels[token]);
    const follows = target ? ` What follows has rank ${(target.rank + 1).toLocaleString("en")}.` : "";
    const part = this.parts[token] ? `${this.labels[token]} is ${this.parts[token]}. ` : "";
    this.#part.nextNote.textContent = `${part}Entropy ${entropyText(entropy / Math.LN2)}.${follows}`;
  }
  // The prediction at every depth.
  #showLens() {
    const table = createElement("table");
    const head = table.createTHead().insertRow();
    for (const name of ["after", "1st", "2nd", "3rd", "what follows"]) {
      head.append(createElement("th", "", name, { scope: "col" }));
    }
    const body = table.createTBody();
    this.found.logit_lens.forEach(({ top_logprobs: top, target }, depth) => {
      const row = body.insertRow();
      row.append(createElement("th", "", depth ? `block ${depth - 1}` : "embedding", { scope: "row" }));
      for (const { logprob, ...token } of top.slice(0, 3)) {
        const cell = setLabel(row.insertCell(), labelOf(token));
        const p = Math.exp(logprob);
        cell.append(createElement("small", "", ` ${percent(p)}`));
        paint(cell, heat(p));
      }
      row.insertCell().textContent = `rank ${(target.rank + 1).toLocaleString("en")}`;
    });
    this.#part.lens.replaceChildren(table);
  }
  // The contributions of all components to the logit.
  #showAttribution() {
    const { n_layer, n_head, components, tokens } = this.#analysis;
    const { target, logit, mean_logit: mean, centered } = this.found.direct_logit_attribution;
    const of = Object.fromEntries(components.map((name, i) => [name, centered[i]]));
    const largest = Math.max(...centered.map(Math.abs), 1e-9);
    const table = createElement("table");
    const columns = Array.from({ length: n_head }, (_, head) => `H${head}`).concat("MLP");
    const first = table.createTHead().insertRow();
    first.append(createElement("td"), ...columns.map((name) => createElement("th", "", name, { scope: "col" })));
    const body = table.createTBody();
    for (let layer = 0; layer < n_layer; layer++) {
      const row = body.insertRow();
      row.append(createElement("th", "", `block ${layer}`, { scope: "row" }));
      for (let head = 0; head <= n_head; head++) {
        const name = head < n_head ? headName(layer, head) : `mlp${layer}`;
        const isOff = this.#ablated.has(name);
        const does = head < n_head ? "look at it" : isOff ? "switch it on again" : "switch it off";
        const shown = isOff ? "off" : signed(of[name], 1);
        const cell = createElement("button", "cell", shown, {
          title: `${name}: ${signed(of[name], 3)}; ${does}`,
          "aria-label": `${name}: ${shown}; ${does}`,
        });
        if (head < n_head) cell.addEventListener("click", () => this.thumbs[layer * n_head + head].click());
        else cell.dataset.mlp = name;
        paint(cell, diverging(of[name] / largest));
        row.insertCell().append(cell);
      }
    }
    enableRovingFocus([...table.querySelectorAll(".cell")], n_head + 1);
    this.#part.attribution.replaceChildren(table);
    const order = components.map((name, i) => [centered[i], name]).sort((a, b) => Math.abs(b[0]) - Math.abs(a[0]));
    this.#part.largest.replaceChildren(
      bars(
        order.slice(0, LARGEST_CONTRIBUTIONS).map(([value, name]) => ({
          name,
          fraction: Math.abs(value) / largest,
          value: signed(value),
          kind: value < 0 ? "negative" : "positive",
        })),
      ),
    );
    const isLast = this.#selected.token === tokens.length - 1;
    setLabel(this.#part.target, labelOf(target));
    this.#part.attributionNote.textContent =
      `${isLast ? "The most likely next token" : "The token that follows"}: its logit is ${unsigned(logit)}, the ` +
      `mean of all tokens’ logits ${unsigned(mean)}. The contributions sum to the difference. Select a head to see ` +
      "its attention, or an MLP to switch it off.";
  }
  // What switching components off does to the prediction after the last token.
  #showEffect() {
    const { intervention } = this.#analysis;
    const { effect, effectNote, shifts } = this.#part;
    effect.hidden = !intervention;
    if (!intervention) return;
    const { edits, next_token, kl_divergence: kl } = intervention;
    effectNote.textContent =
      `Switched off: ${edits.map((edit) => edit.split(" ")[0]).join(", ")}. KL divergence ` +
      `${kl === null ? "∞" : (kl / Math.LN2).toFixed(4)} bits, of the prediction after the last token. ` +
      "Everything else here shows the model without them.";
    shifts.replaceChildren(
      beforeAndAfter(next_token.map(({ token, ...shift }) => ({ name: visible(token ?? `#${shift.id}`), ...shift }))),
    );
  }

  // The size of the panel has changed.
  redraw() {
    this.map.draw();
  }
  recolor() {
    if (!this.#analysis) return;
    this.#showHeads();
    this.#showHead();
    this.map.recolor();
    if (this.found) {
      this.#showLens();
      this.#showAttribution();
    }
  }
}
