// Learn: ten pages from text to the next token, through which the reader's own sentence flows.
import { getJson, request } from "./api.js";
import { createElement, setLabel } from "./drawing.js";
import { FIGURES } from "./figures.js";
import { labelOf } from "./label.js";

const $ = (id) => document.getElementById(id);
const TYPING_DELAY = 300; // milliseconds without a change
const MAX_TOKENS = 12; // so that every number can be read
const SENTENCE = "The queen was angry, because she";

// `model` returns the chosen model.
export function enableLearn({ model }) {
  let [lessons, page, sentence, timer, aborter] = [null, 0, null, 0, null];
  // What the figures have in common.
  const selection = { layer: 0, head: 0, token: null, key: null };

  async function load() {
    const html = await (await request("/page/learn.html")).text();
    lessons = [...new DOMParser().parseFromString(html, "text/html").querySelectorAll("article")];
    $("lesson-list").replaceChildren(
      ...lessons.map((lesson, i) => {
        const button = createElement("button", "", `${i + 1}. ${lesson.dataset.title}`);
        button.addEventListener("click", () => show(i));
        const item = createElement("li");
        item.append(button);
        return item;
      }),
    );
    $("sentence").value ||= SENTENCE;
    await run();
  }

  // Runs the sentence through the model.
  async function run() {
    clearTimeout(timer);
    aborter?.abort();
    aborter = new AbortController();
    const text = $("sentence").value;
    $("learn-problem").textContent = "";
    if (!text) return ($("learn-problem").textContent = "Write a sentence; the figures are those of the last one.");
    try {
      const body = { model: model(), prompt: text };
      const found = await getJson("/lens", { body, signal: aborter.signal });
      if (found.tokens.length > MAX_TOKENS) {
        $("learn-problem").textContent =
          `${found.tokens.length} tokens: the figures show the first ${MAX_TOKENS}, which can be followed by eye; the ` +
          "next token on the last page is that after all of them.";
      }
      // As the sentence grows, the last token stays selected.
      const wasLast = selection.token === null || selection.token === sentence.n - 1;
      sentence = new Sentence(found);
      selection.token = wasLast ? sentence.n - 1 : Math.min(selection.token, sentence.n - 1);
      selection.key = null;
      selection.layer = Math.min(selection.layer, found.n_layer - 1);
      selection.head = Math.min(selection.head, found.n_head - 1);
      show(page);
    } catch (error) {
      if (error.name !== "AbortError") $("learn-problem").textContent = error.message;
    }
  }

  async function show(i) {
    page = i;
    const lesson = document.importNode(lessons[i], true);
    lesson.prepend(createElement("h2", "", `${i + 1}. ${lesson.dataset.title}`, { tabindex: "-1" }));
    for (const link of lesson.querySelectorAll("a[data-source]")) {
      link.textContent = `src/${link.dataset.source}`;
      link.href = `/page/source/${link.dataset.source}#reference`;
      link.target = "_blank";
    }
    for (const formula of lesson.querySelectorAll("math")) {
      const box = createElement("div", "scroll", "", { tabindex: "0", role: "region", "aria-label": "Formula" });
      formula.replaceWith(box);
      box.append(formula);
    }
    $("lesson").replaceChildren(lesson);
    [...$("lesson-list").querySelectorAll("button")].forEach((button, j) => {
      if (i === j) button.setAttribute("aria-current", "page");
      else button.removeAttribute("aria-current");
    });
    $("previous").disabled = i === 0;
    $("next-lesson").disabled = i === lessons.length - 1;
    const figure = lesson.querySelector("[data-figure]");
    if (sentence) await draw(figure);
  }
  // Draws a figure, again when its selection changes.
  async function draw(figure) {
    try {
      const drawn = await FIGURES[figure.dataset.figure](sentence, selection, {
        redraw: () => draw(figure),
        append: (text) => {
          $("sentence").value += text;
          selection.token = null;
          run();
        },
      });
      const focused = figure.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
      figure.replaceChildren(...[drawn].flat());
      if (focused) figure.querySelector(`[data-focus="${focused}"]`)?.focus();
    } catch (error) {
      if (error.status === 404) return run(); // other texts have taken its place
      $("learn-problem").textContent = error.message;
    }
  }

  $("sentence").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(run, TYPING_DELAY);
  });
  const turn = (by) => {
    show(page + by);
    $("lesson").querySelector("h2").focus();
  };
  $("previous").addEventListener("click", () => turn(-1));
  $("next-lesson").addEventListener("click", () => turn(1));

  let isVisible = false;
  return {
    setVisible(visible) {
      isVisible = visible;
      if (visible && !lessons) load();
    },
    modelChanged: () => lessons && run(),
    recolor: () => isVisible && sentence && show(page),
  };
}

// The sentence and its activations, each fetched once.
class Sentence {
  #sites = new Map();

  constructor(found) {
    Object.assign(this, found);
    this.tokens = found.tokens.slice(0, MAX_TOKENS);
    this.n = this.tokens.length;
    this.labels = this.tokens.map(labelOf);
  }
  // The activations at a site as rows, one per token; those of one token with `token`.
  async site(name, token = null) {
    const query = token === null ? "" : `?token=${token}`;
    if (!this.#sites.has(name + query)) {
      const response = await request(`/lens/${this.id}/sites/${name}${query}`);
      const values = new Float32Array(await response.arrayBuffer());
      const width = Number(response.headers.get("x-shape").split(",").at(-1));
      const rows = Array.from({ length: values.length / width }, (_, i) =>
        values.subarray(i * width, (i + 1) * width),
      );
      this.#sites.set(name + query, rows);
    }
    return this.#sites.get(name + query);
  }
  // The queries, keys or values of a head: `name` is q, k or v.
  async ofHead(name, layer, head) {
    const rows = (await this.site(`blocks.${layer}.attn.hook_${name}`)).slice(0, this.n);
    const width = rows[0].length / this.n_head;
    return rows.map((row) => row.subarray(head * width, (head + 1) * width));
  }
  // A token as a bold label.
  bold(token) {
    return setLabel(createElement("b"), this.labels[token]);
  }
}
