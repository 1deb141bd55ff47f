// A request of the page as code that runs as it stands, for five ways of sending it.
import { getKey } from "./api.js";
import { createElement } from "./drawing.js";
import { readDefaults } from "./settings.js";

const $ = (id) => document.getElementById(id);

// The names of the two kinds of requests in OpenAI's clients, today's and the one before 1.0, and where the text
// of a choice is.
export const COMPLETION = {
  path: "/v1/completions",
  create: "completions.create",
  legacy: "Completion.create",
  text: ["text"],
};
export const CHAT = {
  path: "/v1/chat/completions",
  create: "chat.completions.create",
  legacy: "ChatCompletion.create",
  text: ["message", "content"],
};

// A text in single quotes may have line breaks.
const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const python = (value) => {
  if (value === null) return "None";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  // JSON's strings are Python's, where surrogates are not written as pairs of \u.
  return JSON.stringify(value);
};
// Today's client takes fields that are not OpenAI's in an argument of their own.
const OUR_OWN = ["min_p", "repetition_penalty"];
function clientArguments(body) {
  const ours = OUR_OWN.filter((field) => field in body).map((field) => `"${field}": ${body[field]}`);
  const theirs = Object.entries(body).filter(([field]) => !OUR_OWN.includes(field));
  const extra = ours.length ? `\n    extra_body={${ours.join(", ")}},` : "";
  return keywords(Object.fromEntries(theirs)) + extra;
}
const keywords = (body) => Object.entries(body).map(([field, value]) => `    ${field}=${python(value)},`).join("\n");
const attributes = ({ text }) => ["choice", ...text].join(".");

const WAYS = {
  curl: ({ kind, origin, key, body }) =>
    `curl ${origin}${kind.path} \\\n` +
    (key ? `  -H "Authorization: Bearer $OPENAI_API_KEY" \\\n` : "") +
    `  -H 'Content-Type: application/json' \\\n  -d ${shell(JSON.stringify(body, null, 2))}`,

  "openai (Python)": ({ kind, origin, key, body }) =>
    `from openai import OpenAI\n\n` +
    `client = OpenAI(base_url="${origin}/v1"${key ? "" : ', api_key="none"'})\n` +
    `completion = client.${kind.create}(\n${clientArguments(body)}\n)\n` +
    `for choice in completion.choices:\n    print(${attributes(kind)})`,

  "openai 0.28": ({ kind, origin, key, body }) =>
    `import openai\n\nopenai.api_base = "${origin}/v1"\n` +
    (key ? "" : `openai.api_key = "none"\n`) +
    `completion = openai.${kind.legacy}(\n${keywords(body)}\n)\n` +
    `for choice in completion.choices:\n    print(${attributes(kind)})`,

  "Python alone": ({ kind, origin, key, body }) =>
    `import json${key ? ", os" : ""}\nfrom urllib.request import Request, urlopen\n\n` +
    `body = {\n${Object.entries(body).map(([field, value]) => `    "${field}": ${python(value)},`).join("\n")}\n}\n` +
    `headers = {"Content-Type": "application/json"${
      key ? `, "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]` : ""
    }}\n` +
    `request = Request("${origin}${kind.path}", json.dumps(body).encode(), headers)\n` +
    `for choice in json.load(urlopen(request))["choices"]:\n` +
    `    print(choice${kind.text.map((name) => `["${name}"]`).join("")})`,

  // The command line takes the model's own values, too. Where a model has none, the API takes 1, at which
  // these two do nothing, and the command line other values; so they are written where they are 1.
  "command line": ({ body, defaults }) => {
    const { model, prompt, stop = [], n, ...numbers } = body;
    const options = Object.entries(numbers).map(([field, value]) => `--${field.replaceAll("_", "-")} ${value}`);
    for (const field of ["temperature", "top_p"]) {
      if (!(field in body) && defaults[field] === 1) options.push(`--${field.replaceAll("_", "-")} 1`);
    }
    if (n) options.push(`-n ${n}`);
    options.push(...stop.map((text) => `--stop=${shell(text)}`));
    // After -- a prompt that begins with a dash is no option.
    return [`hornbook generate --model ${shell(model)}`, ...options, `-- ${shell(prompt)}`].join(" \\\n  ");
  },
};
// `hornbook chat` has no request to begin with.
const waysOf = (kind) => Object.keys(WAYS).filter((way) => kind === COMPLETION || way !== "command line");

let shown = null;
function draw() {
  const request = { origin: location.origin, key: getKey(), defaults: readDefaults(), ...shown };
  $("code").textContent = WAYS[$("code-kind").value](request);
}
// Shows a request as code.
export function showCode(kind, body) {
  shown = { kind, body };
  const [ways, chosen] = [waysOf(kind), $("code-kind").value];
  $("code-kind").replaceChildren(...ways.map((way) => createElement("option", "", way)));
  if (ways.includes(chosen)) $("code-kind").value = chosen;
  draw();
  $("code-dialog").showModal();
}
$("code-kind").addEventListener("change", draw);
$("copy-code").addEventListener("click", async () => {
  await navigator.clipboard?.writeText($("code").textContent).catch(() => {});
  $("copy-code").textContent = "Copied";
  setTimeout(() => ($("copy-code").textContent = "Copy"), 1500);
});
