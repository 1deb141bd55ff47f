// What else a token could have been: a box below it, from which another token is chosen.
import { bars, createElement, enableRovingFocus, percent } from "./drawing.js";
import { bytesFrom, labelOf, visible } from "./label.js";

const chance = (logprob) => (logprob < Math.log(1e-8) ? "below 0.000001 %" : percent(Math.exp(logprob)));

export class Alternatives {
  #buttons = [];
  // `area` is the text, to which the keys go back; `choose` is called with what was found and another token.
  constructor(box, area, choose) {
    Object.assign(this, { box, area, choose });
    // From the text, the arrow keys lead into the list that is open.
    area.addEventListener("keydown", (event) => {
      const isArrow = event.key === "ArrowDown" || event.key === "ArrowUp";
      const isChanged = event.shiftKey || event.ctrlKey || event.metaKey || event.altKey;
      if (!isArrow || isChanged || box.hidden || !this.#buttons.length) return;
      event.preventDefault();
      this.focus();
    });
  }
  get isOpen() {
    return !this.box.hidden;
  }
  hide() {
    this.box.hidden = true;
  }
  // Focuses the token that is there, or the most likely one.
  focus() {
    (this.#buttons.find((button) => button.tabIndex === 0) ?? this.#buttons[0])?.focus();
  }

  // Shows the alternatives of a piece of text, of which `found` tells the tokens and predictions.
  show(found, place, width) {
    const { box } = this;
    const { parts, prediction, text } = found;
    const name = text.trim() || visible(text);
    const title = createElement("h3", "", "");
    title.append("What else “", createElement("b", "", name), "” could have been");
    box.replaceChildren(title, ...this.#facts(found, name));
    this.#buttons = [];
    if (prediction) this.#list(found, parts[0]);
    box.hidden = false;
    if (!place) return;
    box.style.left = `${Math.max(0, Math.min(place.left, width - box.offsetWidth))}px`;
    box.style.top = `${place.bottom + 4}px`;
  }

  #facts({ parts, prediction }, name) {
    const note = (text) => createElement("p", "note", text);
    if (!prediction) return [note("It is the first token, which the model does not predict.")];
    const odds = ({ target }) => {
      const bits = (-target.logprob / Math.LN2).toFixed(1);
      return [chance(target.logprob), `rank ${(target.rank + 1).toLocaleString("en")}`, `${bits} bits`];
    };
    if (parts.length === 1) {
      const [probability, rank, bits] = odds(prediction);
      return [note(`Probability ${probability}, ${rank}, ${bits}.`)];
    }
    const [probability, , bits] = odds(prediction);
    const list = createElement("ul", "note");
    const total = parts.reduce((sum, { token }) => sum + token.bytes.length, 0);
    let from = 1;
    for (const part of parts) {
      const count = part.token.bytes.length;
      const said = part.prediction ? odds(part.prediction).join(", ") : "not predicted";
      list.append(createElement("li", "", `${bytesFrom(from, count)} of ${total}: ${said}`));
      from += count;
    }
    return [
      note(`“${name}” is made of ${parts.length} tokens, probability ${probability} together, ${bits}:`),
      list,
      note("Instead of the first one:"),
    ];
  }

  #list(found, { token, prediction }) {
    const largest = Math.exp(prediction.top_logprobs[0].logprob);
    let hasParts = false;
    for (const other of prediction.top_logprobs) {
      const button = createElement("button", "alternative");
      const probability = Math.exp(other.logprob);
      const name = labelOf(other);
      const row = { name, fraction: probability / largest, value: percent(probability) };
      button.append(bars([{ ...row, actual: other.id === token.id }]));
      button.setAttribute("aria-label", `${name}, ${percent(probability)}: go on with it`);
      button.disabled = other.text.includes("\ufffd"); // a part of a character, which a text cannot end with
      hasParts ||= button.disabled;
      button.addEventListener("click", () => this.choose(found, other));
      this.box.append(button);
      if (!button.disabled) this.#buttons.push(button);
    }
    const own = this.#buttons.findIndex((button) => button.querySelector(".actual"));
    enableRovingFocus(this.#buttons, 1, Math.max(0, own));
    const parts = "A name such as \\xE2 is a byte of a character, which a text cannot end with. ";
    const at = "The probabilities are the model’s own: at temperature 1, before top p and penalties.";
    this.box.append(createElement("p", "note", (hasParts ? parts : "") + at));
  }
}
