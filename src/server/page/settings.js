// The settings of a request: the fields of the form, presets, and the link that shares them with the text or
// the conversation.

const $ = (id) => document.getElementById(id);

// A field of the form by its id, with how its value is read.
const number = (id) => () => ($(id).value === "" ? null : Number($(id).value));
const lines = (id) => () => $(id).value.split("\n").filter(Boolean).map(unescapeText);
const text = (id) => () => unescapeText($(id).value);
const FIELDS = {
  temperature: number("temperature"),
  top_p: number("top-p"),
  min_p: number("min-p"),
  repetition_penalty: number("repetition-penalty"),
  max_tokens: number("max-tokens"),
  n: number("n"),
  seed: number("seed"),
  frequency_penalty: number("frequency-penalty"),
  presence_penalty: number("presence-penalty"),
  stop: lines("stop"),
  start_text: text("start-text"),
  restart_text: text("restart-text"),
};
const idOf = (field) => field.replaceAll("_", "-");

// In the fields, \n is a line break and \t a tab.
function unescapeText(text) {
  return text.replace(/\\(n|t|\\)/g, (_, c) => ({ n: "\n", t: "\t", "\\": "\\" })[c]);
}
function escapeText(text) {
  return text.replace(/[\\\n\t]/g, (c) => ({ "\n": "\\n", "\t": "\\t", "\\": "\\\\" })[c]);
}

const DEFAULTS = {
  temperature: null, top_p: null, min_p: null, repetition_penalty: null, max_tokens: 120, n: 1, seed: null,
  frequency_penalty: 0, presence_penalty: 0,
  stop: [], start_text: "", restart_text: "",
};
export const PRESETS = {
  "A story": { text: "Once upon a time there was a", settings: {} },
  "The likeliest words": {
    text: "The old king had three",
    settings: { temperature: 0, repetition_penalty: 1, max_tokens: 40 },
  },
  "Wild": { text: "In the middle of the night", settings: { temperature: 1.3, top_p: 1 } },
  "A talk between two": {
    text: "“Who are you?” asked the fox.\n“I am",
    settings: { stop: ["\n\n"], max_tokens: 60 },
  },
  "Four at once": { text: "Far away in the forest lived a", settings: { n: 4, max_tokens: 40 } },
};

export const readSettings = () =>
  Object.fromEntries(Object.entries(FIELDS).map(([field, read]) => [field, read()]));

export function writeSettings(settings) {
  for (const [field, value] of Object.entries({ ...DEFAULTS, ...settings })) {
    if (!(field in FIELDS)) continue;
    const input = $(idOf(field));
    if (Array.isArray(value)) input.value = value.map(escapeText).join("\n");
    else input.value = typeof value === "string" ? escapeText(value) : (value ?? "");
    input.dispatchEvent(new Event("input"));
  }
}

// Shows the model's own values where nothing is written.
let defaults = { temperature: 1, top_p: 1 };
export const readDefaults = () => defaults;
export function showDefaults(sampling) {
  // Seven digits are all that a 32-bit float has.
  const rounded = Object.entries(sampling).map(([field, value]) => [field, Number(value.toPrecision(7))]);
  defaults = Object.fromEntries(rounded);
  for (const [field, value] of rounded) {
    const input = $(idOf(field));
    input.placeholder = value;
    if (input.value === "") input.dispatchEvent(new Event("input"));
  }
}

// The body of a request: `body` is its model, and its prompt or messages.
export function requestBody(body, settings) {
  const { start_text, restart_text, stop, ...numbers } = settings;
  for (const [field, value] of Object.entries(numbers)) {
    if (value !== null && value !== ({ n: 1, frequency_penalty: 0, presence_penalty: 0 })[field]) {
      body[field] = value;
    }
  }
  if (stop.length) body.stop = stop;
  return body;
}

// Presets of one's own, kept by the browser.
const STORED = "hornbook-presets";
export function storedPresets() {
  try {
    return JSON.parse(localStorage.getItem(STORED)) ?? {};
  } catch {
    return {};
  }
}
export const storePresets = (presets) => localStorage.setItem(STORED, JSON.stringify(presets));

// A link to this page with settings and a text or a conversation in it, and what such a link holds.
const toBase64 = (text) =>
  btoa(Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join(""))
    .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
function shareLink(state) {
  const changed = Object.entries(state.settings).filter(
    ([field, value]) => JSON.stringify(value) !== JSON.stringify(DEFAULTS[field]),
  );
  const json = JSON.stringify({ ...state, settings: Object.fromEntries(changed) });
  return `${location.origin}${location.pathname}#write:${toBase64(json)}`;
}
// Puts the link into the address bar and the clipboard, and returns what to say of it.
export async function share(state) {
  const link = shareLink(state);
  history.replaceState(null, "", link);
  const isCopied = await navigator.clipboard?.writeText(link).then(() => true, () => false);
  return `The link is in the address bar${isCopied ? " and copied" : ""}.`;
}
export function readLink(hash) {
  const [, packed] = hash.match(/^#write:(.+)$/) ?? [];
  if (!packed) return null;
  try {
    const bytes = atob(packed.replaceAll("-", "+").replaceAll("_", "/"));
    const state = JSON.parse(new TextDecoder().decode(Uint8Array.from(bytes, (c) => c.charCodeAt(0))));
    const isText = (value) => typeof value === "string";
    const isMessage = ({ role, content }) => /^(system|user|assistant)$/.test(role) && isText(content);
    const isKnown = isText(state.text) || (Array.isArray(state.messages) && state.messages.every(isMessage));
    return isKnown ? { ...state, settings: state.settings ?? {} } : null;
  } catch {
    return null;
  }
}
