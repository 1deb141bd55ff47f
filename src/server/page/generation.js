// A request whose answer is streamed, and what is said of it meanwhile: what writing and chatting have in
// common.
import { stream } from "./api.js";

const REASONS = { length: " (the most there may be)", stop: " (the text ended)" };

// Streams the answers to a request. `write(text, index)` is called for each piece of an answer, `speed` with
// how fast they come. Returns the numbers of tokens.
export async function generate(path, body, signal, write, speed) {
  const started = performance.now();
  let [pieces, usage, reason] = [0, null, null];
  const showSpeed = (tokens, why = "") => {
    const seconds = (performance.now() - started) / 1000;
    speed(`${tokens} tokens${why}, ${(tokens / seconds).toFixed(0)} a second`);
  };
  const streamed = { ...body, stream: true, stream_options: { include_usage: true } };
  for await (const chunk of stream(path, streamed, signal)) {
    usage = chunk.usage ?? usage;
    for (const { text, delta, index, finish_reason } of chunk.choices) {
      const piece = text ?? delta?.content;
      if (piece) {
        write(piece, index);
        pieces++;
      }
      reason = finish_reason ?? reason;
    }
    showSpeed(pieces);
  }
  if (usage) showSpeed(usage.completion_tokens, REASONS[reason]);
  return usage;
}

// A live region that hears a text by sentences while it is written.
export class Speaker {
  #text = "";
  constructor(region) {
    this.region = region;
  }
  hear(piece) {
    this.#text += piece;
    this.#speak(this.#text.search(/[.!?…]["”’]?\s[^]*$/) + 1);
  }
  end() {
    this.#speak(this.#text.length);
  }
  #speak(end) {
    const said = this.#text.slice(0, end);
    if (said.trim()) this.region.textContent = said;
    this.#text = this.#text.slice(end);
  }
}
