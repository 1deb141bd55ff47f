// Write: a page of text that the model continues in place.
import { Alternatives } from "./alternatives.js";
import { getJson } from "./api.js";
import { COMPLETION, showCode } from "./code.js";
import { createElement } from "./drawing.js";
import { Editor, SHADINGS, shadingScale } from "./editor.js";
import { download } from "./files.js";
import { Speaker, generate } from "./generation.js";
import { History } from "./history.js";
import {
  PRESETS,
  readLink,
  readSettings,
  requestBody,
  share,
  showDefaults,
  storePresets,
  storedPresets,
  writeSettings,
} from "./settings.js";

const $ = (id) => document.getElementById(id);
const SCORE_DELAY = 350; // milliseconds without a change
const EDIT_DELAY = 800;
const KEPT = "hornbook-text"; // the text of this tab, which survives a reload

// `model` returns the chosen model; `textChanged` is called with the text when it is another.
export function enableWrite({ model, textChanged }) {
  const editor = new Editor($("text"), $("shade"));
  const link = readLink(location.hash);
  const linked = link && "text" in link ? link : null;
  const kept = sessionStorage.getItem(KEPT);
  const first = linked ?? (kept === null ? PRESETS["A story"] : { text: kept, settings: {} });
  let shared = linked?.text ?? null; // the text of the link in the address bar
  editor.text = first.text;
  writeSettings(first.settings);
  const history = new History(editor.text);
  let running = null; // the controller of the request that is under way
  let finished = Promise.resolve(); // when that request is over
  let scoredBy = null; // the model whose defaults are shown
  let problem = null; // what is wrong with the text, as long as it is
  let room = null; // the tokens that the model can still write after a text
  const speaker = new Speaker($("spoken"));
  let [scoring, scoreTimer, editTimer] = [null, 0, 0];

  // What the model makes of the text, for the shades and the alternatives.
  async function score() {
    const text = editor.text;
    scoring?.abort();
    scoring = new AbortController();
    if (!text) return showCount(0);
    try {
      const body = { model: model(), prompt: text, predictions_only: true };
      const scored = await getJson("/lens", { body, signal: scoring.signal });
      if (text !== editor.text) return;
      editor.score(text, scored);
      showDefaults(scored.default_sampling);
      scoredBy = scored.model;
      showCount(scored.tokens.length, scored.n_positions);
      room = { text, tokens: scored.n_positions - scored.tokens.length };
      if (problem !== null && $("status").textContent === problem) say("");
      problem = null;
    } catch (error) {
      // The same place that says why nothing could be written, so that nothing is said twice.
      if (error.name === "AbortError") return;
      showCount(0); // it was that of another text
      say((problem = error.message));
    }
  }
  const showCount = (n, most) => {
    $("count").textContent = n ? `${n} of ${most} tokens` : "";
  };
  function scoreSoon() {
    clearTimeout(scoreTimer);
    if (!running) scoreTimer = setTimeout(score, SCORE_DELAY);
  }
  function changed(title) {
    if (title) history.add(editor.text, title);
    sessionStorage.setItem(KEPT, editor.text);
    if (shared !== null && editor.text !== shared) {
      window.history.replaceState(null, "", "#write"); // a reload shows this text, not that of the link
      shared = null;
    }
    $("undo").disabled = !history.canUndo;
    $("redo").disabled = !history.canRedo;
    drawHistory();
    scoreSoon();
    textChanged(editor.text);
  }
  // Shows another version of the text: what is being written belongs to this one, and ends.
  async function go(move) {
    alternatives.hide();
    stop();
    await finished;
    const text = move();
    if (text === null) return;
    editor.text = text;
    changed();
  }

  // Sends the text. With one completion it goes on in place; several are shown side by side. `title` is what
  // the history says of a text that was changed for this and is no version of its own.
  async function send(title = null) {
    if (running) return;
    alternatives.hide();
    const settings = readSettings();
    const n = settings.n ?? 1;
    if (!title || n > 1) commitEdit(title);
    if (settings.start_text) editor.append(settings.start_text);
    const prompt = editor.text;
    const body = requestBody({ model: model(), prompt }, settings);
    if (room?.text === prompt && room.tokens > 0 && body.max_tokens > room.tokens) body.max_tokens = room.tokens;
    let finish;
    finished = new Promise((resolve) => (finish = resolve));
    running = new AbortController();
    setBusy(true);
    const outputs = n > 1 ? sideBySide(n, prompt) : null;
    let pieces = 0;
    const write = (piece, index) => {
      pieces++;
      if (n > 1) return outputs[index].append(piece);
      editor.append(piece);
      speaker.hear(piece);
    };
    try {
      await generate(COMPLETION.path, body, running.signal, write, (text) => ($("speed").textContent = text));
      if (settings.restart_text && n === 1) editor.append(settings.restart_text);
    } catch (error) {
      $("speed").textContent = "";
      say(error.name === "AbortError" ? `Stopped after ${pieces} tokens.` : error.message);
    }
    speaker.end();
    running = null;
    setBusy(false);
    changed(n === 1 ? (title ?? "the model wrote") : null);
    if (n === 1) $("text").focus({ preventScroll: true });
    finish();
  }
  function stop() {
    running?.abort();
  }
  function setBusy(busy) {
    $("send").hidden = busy;
    $("stop-writing").hidden = !busy;
    $("text").readOnly = busy;
    if (!busy) return;
    if (document.activeElement !== $("text")) $("stop-writing").focus({ preventScroll: true }); // and hears Escape
    say("");
    showCount(0);
    $("speed").textContent = "";
  }
  const say = (text) => ($("status").textContent = text);
  function sideBySide(n, prompt) {
    $("choices").hidden = false;
    const cards = Array.from({ length: n }, (_, i) => {
      const output = createElement("p", "choice-text", "", { dir: "auto" });
      const use = createElement("button", "", "Go on with this one");
      use.addEventListener("click", () => {
        editor.text = prompt + output.textContent;
        $("choices").hidden = true;
        changed(`completion ${i + 1} of ${n}`);
      });
      const card = createElement("section", "choice", "", { "aria-label": `Completion ${i + 1}` });
      card.append(output, use);
      return { card, output };
    });
    $("choices").replaceChildren(...cards.map(({ card }) => card));
    return cards.map(({ output }) => output);
  }

  // What else a token could have been. What is chosen and what the model writes after it is one version.
  const alternatives = new Alternatives($("alternatives"), $("text"), (found, other) => {
    alternatives.hide();
    commitEdit();
    editor.text = editor.text.slice(0, found.start) + other.text;
    send(`“${other.text.trim()}” instead of “${found.text.trim()}”`);
  });
  function showAlternatives() {
    const caret = $("text").selectionStart;
    const found = !running && caret === $("text").selectionEnd ? editor.tokenAt(caret) : null;
    if (!found) return alternatives.hide();
    alternatives.show(found, editor.placeOf(found), $("shade").offsetWidth);
  }

  function drawHistory() {
    $("history").replaceChildren(
      ...history.outline().map(({ id, depth, title, text }) => {
        const item = createElement("li");
        const button = createElement("button", "", `${title}: …${text.slice(-40)}`);
        button.style.marginInlineStart = `${depth}em`;
        if (id === history.current) button.setAttribute("aria-current", "true");
        button.addEventListener("click", () => go(() => history.goTo(id)));
        item.append(button);
        return item;
      }),
    );
  }
  function commitEdit(title) {
    clearTimeout(editTimer);
    changed(title ?? "you wrote");
  }

  $("text").addEventListener("input", () => {
    alternatives.hide();
    say("");
    $("speed").textContent = "";
    clearTimeout(editTimer);
    editTimer = setTimeout(() => commitEdit(), EDIT_DELAY);
    scoreSoon();
  });
  $("text").addEventListener("click", showAlternatives);
  $("send").addEventListener("click", () => send());
  // The button stands where “Continue” was, and does not take the second half of a double click.
  $("stop-writing").addEventListener("click", (event) => event.detail < 2 && stop());
  $("undo").addEventListener("click", () => go(() => history.undo()));
  $("redo").addEventListener("click", () => go(() => history.redo()));
  $("look-up").addEventListener("click", async () => {
    if (!running && !editor.tokenAt($("text").selectionStart)) await score(); // it was typed just now
    showAlternatives();
    alternatives.focus();
  });
  $("write").addEventListener("keydown", (event) => {
    if ($("complete").hidden) return;
    const command = event.ctrlKey || event.metaKey;
    if (command && event.key === "Enter") send();
    else if (event.key === "Escape" && alternatives.isOpen) {
      alternatives.hide();
      $("text").focus();
    } else if (event.key === "Escape") stop();
    else if (command && event.key === " ") $("look-up").click();
    else if (event.target === $("text") && command && /^[zy]$/i.test(event.key)) {
      go(() => {
        if (history.nodes[history.current].text !== editor.text) commitEdit();
        return event.shiftKey || /y/i.test(event.key) ? history.redo() : history.undo();
      });
    } else return;
    event.preventDefault();
  });
  for (const input of document.querySelectorAll('input[name="shading"]')) {
    input.addEventListener("change", () => {
      editor.setMode(input.value);
      const shading = SHADINGS[input.value];
      $("shading-note").textContent = shading.note;
      $("shading-scale").replaceChildren(...shadingScale(shading));
      $("shading-scale").hidden = !shading.ticks.length;
      scoreSoon();
    });
  }

  // Presets, code, links and files.
  function drawPresets() {
    const option = (name) => createElement("option", "", name, { value: name });
    $("preset").replaceChildren(
      createElement("option", "", "Choose…", { value: "" }),
      ...Object.keys({ ...PRESETS, ...storedPresets() }).map(option),
    );
  }
  $("preset").addEventListener("change", () => {
    const preset = { ...PRESETS, ...storedPresets() }[$("preset").value];
    if (!preset) return;
    writeSettings(preset.settings);
    editor.text = preset.text;
    changed(`preset ${$("preset").value}`);
  });
  $("save-preset").addEventListener("click", () => {
    const name = $("preset-name").value.trim();
    if (!name) return $("preset-name").focus();
    storePresets({ ...storedPresets(), [name]: { text: editor.text, settings: readSettings() } });
    $("preset-name").value = "";
    drawPresets();
    $("preset").value = name;
  });
  const state = () => ({ text: editor.text, settings: readSettings() });
  $("share").addEventListener("click", async () => {
    shared = editor.text;
    say(await share(state()));
  });
  $("save").addEventListener("click", () => download("hornbook.txt", editor.text));
  $("show-code").addEventListener("click", async () => {
    if (scoredBy !== model()) await score(); // the command line needs the model's defaults
    const settings = readSettings();
    showCode(COMPLETION, requestBody({ model: model(), prompt: editor.text + settings.start_text }, settings));
  });
  // A range and a number beside it are one setting.
  for (const range of document.querySelectorAll("input[type=range][data-for]")) {
    const input = $(range.dataset.for);
    range.addEventListener("input", () => (input.value = range.value));
    input.addEventListener("input", () => (range.value = input.value || input.placeholder || 1));
  }

  addEventListener("pagehide", () => sessionStorage.setItem(KEPT, editor.text));
  drawPresets();
  changed();
  return {
    get text() {
      return editor.text;
    },
    set text(text) {
      editor.text = text;
      clearTimeout(editTimer);
      editTimer = setTimeout(() => commitEdit(), EDIT_DELAY);
    },
    modelChanged: scoreSoon,
  };
}
