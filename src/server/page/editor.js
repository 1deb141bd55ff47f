// The text that is written: a text area, and behind it the same text in which every token is shaded by how
// the model predicted it.
import { createElement } from "./drawing.js";

const LN2 = Math.LN2;
// How strongly a token is shaded, from 0 to 1, and what is said of the mode.
// The ticks are those of the scale below: where they are, from 0 to 1, and the value there; above the last
// one the color is no stronger.
export const SHADINGS = {
  off: { note: "", ticks: [] },
  chosen: {
    strength: (p) => p.target && -p.target.logprob / LN2 / 12,
    note: "Stronger color: the model gave this token less probability, at temperature 1.",
    unit: "surprisal in bits",
    ticks: [[0, "0"], [1 / 4, "3"], [1 / 2, "6"], [3 / 4, "9"], [1, "12+"]],
  },
  rank: {
    strength: (p) => p.target && Math.log2(p.target.rank + 1) / 10,
    note: "Stronger color: more tokens were more likely than this one.",
    unit: "rank",
    ticks: [[0, "1"], [0.332, "10"], [0.664, "100"], [1, "1,000+"]],
  },
  entropy: {
    strength: (p) => p.entropy / LN2 / 10,
    note: "Stronger color: the model was less sure of what comes here, at temperature 1.",
    unit: "entropy in bits",
    ticks: [[0, "0"], [1 / 4, "2.5"], [1 / 2, "5"], [3 / 4, "7.5"], [1, "10+"]],
  },
};

// The scale of a shading.
export function shadingScale({ unit, ticks }) {
  if (!ticks.length) return [];
  const scale = createElement("div", "scale shade-scale");
  for (const [place, value] of ticks) {
    scale.appendChild(createElement("span", "", value)).style.left = `${100 * place}%`;
  }
  return [unit, scale];
}

// The prediction of a piece of text by those of its tokens: all have to be there. The place was as open as
// before the first one.
function together(predictions) {
  const isKnown = predictions.every((prediction) => prediction?.target);
  if (predictions.length === 1 || !isKnown) return predictions[0];
  const targets = predictions.map(({ target }) => target);
  const logprob = targets.reduce((sum, target) => sum + target.logprob, 0);
  const rank = Math.max(...targets.map((target) => target.rank));
  return { ...predictions[0], target: { ...targets[0], logprob, rank } };
}

export class Editor {
  constructor(area, shade) {
    Object.assign(this, { area, shade, tokens: [], scored: "", mode: "off" });
    area.addEventListener("input", () => this.#fit());
    addEventListener("resize", () => this.#fit());
  }

  get text() {
    return this.area.value;
  }
  set text(text) {
    const atEnd = this.area.selectionStart === this.area.value.length;
    this.area.value = text;
    if (atEnd) this.area.setSelectionRange(text.length, text.length);
    this.#fit();
  }
  append(text) {
    this.text += text;
    this.area.scrollIntoView({ block: "end", behavior: "instant" });
  }

  // Where the area does not grow with its text by itself.
  #fit() {
    if (!CSS.supports("field-sizing", "content")) {
      this.area.style.height = "auto";
      this.area.style.height = `${this.area.scrollHeight}px`;
    }
    this.#draw();
  }

  // Takes the predictions of a text, `/lens` with predictions_only.
  score(text, { tokens, predictions }) {
    const decoder = new TextDecoder();
    let [offset, first] = [0, 0];
    this.tokens = [];
    tokens.forEach((token, i) => {
      const piece = decoder.decode(Uint8Array.from(token.bytes ?? []), { stream: i + 1 < tokens.length });
      if (!piece) return; // part of a character: shown with the token that completes it
      const [start, end] = [offset, offset + piece.length];
      const parts = Array.from({ length: i + 1 - first }, (_, k) => ({
        token: tokens[first + k],
        prediction: predictions[first + k - 1],
      }));
      const prediction = together(parts.map((part) => part.prediction));
      this.tokens.push({ start, end, text: piece, parts, prediction });
      [offset, first] = [end, i + 1];
    });
    this.scored = text;
    this.after = predictions.at(-1);
    this.#draw();
  }

  // The token at a place in the text, if the text up to there is the one that was scored.
  tokenAt(offset) {
    const token = this.tokens.find(({ start, end }) => start <= offset && offset < end) ?? this.tokens.at(-1);
    return token && this.#isScored(token) ? token : null;
  }
  #isScored({ end }) {
    return this.text.startsWith(this.scored.slice(0, end));
  }
  // The place of a token on the page, from the top left of the text.
  placeOf(token) {
    const piece = this.shade.querySelector(`[data-start="${token.start}"]`);
    return piece && { left: piece.offsetLeft, bottom: piece.offsetTop + piece.offsetHeight };
  }

  setMode(mode) {
    this.mode = mode;
    this.#draw();
  }
  #draw() {
    const { strength } = SHADINGS[this.mode];
    const pieces = [];
    let end = 0;
    for (const token of this.tokens) {
      if (!this.#isScored(token)) break;
      const piece = createElement("span", "", token.text);
      piece.dataset.start = token.start;
      const shade = strength && token.prediction ? strength(token.prediction) : 0;
      if (shade) piece.style.setProperty("--shade", `${Math.round(100 * Math.min(1, Math.max(0, shade)))}%`);
      pieces.push(piece);
      end = token.end;
    }
    // A line break at the end has a line of its own only if something follows.
    this.shade.replaceChildren(...pieces, this.text.slice(end) + "\u200b");
  }
}
