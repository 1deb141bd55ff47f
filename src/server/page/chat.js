// Chat: a conversation, of which any message can be changed, in the model's own chat template.
import { getJson } from "./api.js";
import { CHAT, showCode } from "./code.js";
import { createElement } from "./drawing.js";
import { download } from "./files.js";
import { Speaker, generate } from "./generation.js";
import { readLink, readSettings, requestBody, share, writeSettings } from "./settings.js";

const $ = (id) => document.getElementById(id);

// `model` returns the chosen model.
export function enableChat({ model }) {
  const isTouch = matchMedia("(pointer: coarse)");
  let messages = []; // { role, area, item }
  let running = null; // the controller of the request that is under way
  const speaker = new Speaker($("chat-spoken"));
  const say = (text) => ($("chat-status").textContent = text);
  const last = () => messages.at(-1);

  function add(role, text = "") {
    const number = messages.length + 1;
    const who = role === "user" ? "You" : "The model";
    const item = createElement("li", `message ${role}`);
    const area = createElement("textarea", "", "", { dir: "auto", rows: 1, spellcheck: "false" });
    area.setAttribute("aria-label", `Message ${number}: ${who}`);
    area.value = text;
    const head = createElement("div", "head");
    const buttons = createElement("span");
    const button = (name, act) => {
      const button = createElement("button", "", name, { "aria-label": `${name} message ${number}` });
      button.addEventListener("click", act);
      buttons.append(button);
    };
    if (role === "assistant") button("Regenerate", () => regenerate(message));
    button("Remove", () => remove(message));
    head.append(createElement("b", "", who), buttons);
    item.append(head, area);
    area.addEventListener("input", () => changed(message));
    const message = { role, area, item };
    messages.push(message);
    $("messages").append(item);
    fit(area);
    return message;
  }
  // Where an area does not grow with its text by itself.
  function fit(area) {
    if (CSS.supports("field-sizing", "content")) return;
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight}px`;
  }
  function changed({ area }) {
    fit(area);
    showCount(null); // it was that of other messages
  }
  function cut(from) {
    messages.splice(from).forEach(({ item }) => item.remove());
  }
  // What was said before messages were removed, for Undo.
  const before = [];
  function remember() {
    if (messages.length) before.push(messages.map(({ role, area }) => [role, area.value]));
    $("chat-undo").disabled = !before.length;
  }
  function undo() {
    if (running) return;
    cut(0);
    before.pop()?.forEach(([role, text]) => add(role, text));
    $("chat-undo").disabled = !before.length;
    showCount(null);
    say("");
    $("say").focus();
  }
  function remove(message) {
    if (running) return;
    remember();
    const rest = messages.splice(messages.indexOf(message)).slice(1);
    message.item.remove();
    rest.forEach(({ role, area, item }) => {
      item.remove();
      add(role, area.value);
    });
    showCount(null);
    $("say").focus();
  }
  // Answers once more what was said before a message of the model.
  function regenerate(message) {
    if (running) return;
    remember();
    cut(messages.indexOf(message));
    answer();
  }

  const conversation = () => {
    const system = $("system").value.trim();
    const said = messages.map(({ role, area }) => ({ role, content: area.value }));
    return system ? [{ role: "system", content: system }, ...said] : said;
  };
  const bodyOf = (messages) => requestBody({ model: model(), messages }, { ...readSettings(), n: null });

  function send() {
    if (running) return;
    const text = $("say").value.trim();
    if (text) add("user", text);
    $("say").value = "";
    if (last()?.role === "user") answer();
    else say("Write a message first.");
  }
  async function answer() {
    const body = bodyOf(conversation());
    const message = add("assistant");
    let pieces = 0;
    running = new AbortController();
    setBusy(true);
    const write = (piece) => {
      pieces++;
      message.area.value += piece;
      fit(message.area);
      message.item.scrollIntoView({ block: "nearest", behavior: "instant" });
      speaker.hear(piece);
    };
    try {
      const speed = (text) => ($("chat-speed").textContent = text);
      showCount(await generate(CHAT.path, body, running.signal, write, speed));
    } catch (error) {
      say(error.name === "AbortError" ? `Stopped after ${pieces} tokens.` : error.message);
      showCount(null);
      if (!pieces) cut(messages.indexOf(message));
    }
    speaker.end();
    running = null;
    setBusy(false);
    $("say").focus({ preventScroll: true });
  }
  function setBusy(busy) {
    $("chat-send").hidden = busy;
    $("chat-stop").hidden = !busy;
    $("messages").querySelectorAll("button").forEach((button) => (button.disabled = busy));
    messages.forEach(({ area }) => (area.readOnly = busy));
    $("chat-undo").disabled = busy || !before.length;
    if (busy) say("");
    if (busy) $("chat-speed").textContent = "";
  }

  // How much of the context the conversation takes, of each model asked for once.
  const contexts = new Map();
  async function showCount(usage) {
    $("chat-count").textContent = "";
    if (!usage) return;
    const id = model();
    if (!contexts.has(id)) {
      const asked = getJson("/tokenize", { body: { model: id, prompt: "" } });
      contexts.set(id, asked.then(({ max_model_len: length }) => length, () => null));
    }
    const length = await contexts.get(id);
    const used = usage.prompt_tokens + usage.completion_tokens;
    $("chat-count").textContent = `${used}${length ? ` of ${length}` : ""} tokens of the context used`;
  }

  $("chat-send").addEventListener("click", send);
  $("chat-stop").addEventListener("click", () => running?.abort());
  $("system").addEventListener("input", () => changed({ area: $("system") }));
  $("say").addEventListener("input", () => fit($("say")));
  $("chat-undo").addEventListener("click", undo);
  $("chat-clear").addEventListener("click", () => {
    running?.abort();
    remember();
    cut(0);
    showCount(null);
    say("");
    $("say").focus();
  });
  $("chat-code").addEventListener("click", () => {
    const text = $("say").value.trim();
    const said = conversation();
    if (text) said.push({ role: "user", content: text });
    // The request that has led to the last answer.
    if (said.at(-1)?.role === "assistant") said.pop();
    showCode(CHAT, bodyOf(said));
  });
  $("chat-share").addEventListener("click", async () =>
    say(await share({ messages: conversation(), settings: readSettings() })),
  );
  $("chat-save").addEventListener("click", () =>
    download("conversation.jsonl", JSON.stringify({ messages: conversation() }) + "\n"),
  );
  // Where there are no keys for a line break, Enter is it.
  const showKeys = () => {
    $("chat-keys").textContent = isTouch.matches
      ? ""
      : "Enter sends, Shift Enter begins a new line, Esc stops.";
  };
  $("write").addEventListener("keydown", (event) => {
    if ($("chat").hidden || event.isComposing) return;
    const command = event.ctrlKey || event.metaKey;
    const isEnter = event.key === "Enter" && event.target === $("say") && !event.shiftKey && !isTouch.matches;
    if (event.key === "Escape") running?.abort();
    else if (isEnter || (event.key === "Enter" && command)) send();
    else return;
    event.preventDefault();
  });

  // Shows the conversation or the text that is completed.
  for (const input of document.querySelectorAll('input[name="mode"]')) {
    input.addEventListener("change", () => {
      const isChat = input.value === "chat";
      $("chat").hidden = !isChat;
      $("complete").hidden = isChat;
      document.querySelectorAll('[data-mode="complete"]').forEach((element) => (element.hidden = isChat));
      showKeys();
      if (isChat) $("say").focus({ preventScroll: true });
    });
  }

  // The conversation of the link that the page was opened with.
  const linked = readLink(location.hash);
  if (linked?.messages) {
    writeSettings(linked.settings);
    for (const { role, content } of linked.messages) {
      if (role === "system") $("system").value = content;
      else add(role, content);
    }
    document.querySelector('input[name="mode"][value="chat"]').click();
  }
}
