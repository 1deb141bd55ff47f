// The request of the page as code that runs as it stands, for five ways of sending it.

// A text in single quotes may have line breaks.
const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const python = (value) => {
  if (value === null) return "None";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  // JSON's strings are Python's, where surrogates are not written as pairs of \u.
  return JSON.stringify(value);
};
const keywords = (body, names = {}) =>
  Object.entries(body).map(([field, value]) => `    ${names[field] ?? field}=${python(value)},`).join("\n");

export const CODE = {
  curl: ({ origin, key, body }) =>
    `curl ${origin}/v1/completions \\\n` +
    (key ? `  -H "Authorization: Bearer $OPENAI_API_KEY" \\\n` : "") +
    `  -H 'Content-Type: application/json' \\\n  -d ${shell(JSON.stringify(body, null, 2))}`,

  "openai (Python)": ({ origin, key, body }) =>
    `from openai import OpenAI\n\n` +
    `client = OpenAI(base_url="${origin}/v1"${key ? "" : ', api_key="none"'})\n` +
    `completion = client.completions.create(\n${keywords(body)}\n)\n` +
    `for choice in completion.choices:\n    print(choice.text)`,

  "openai 0.28": ({ origin, key, body }) =>
    `import openai\n\nopenai.api_base = "${origin}/v1"\n` +
    (key ? "" : `openai.api_key = "none"\n`) +
    `completion = openai.Completion.create(\n${keywords(body)}\n)\n` +
    `for choice in completion.choices:\n    print(choice.text)`,

  "Python alone": ({ origin, key, body }) =>
    `import json${key ? ", os" : ""}\nfrom urllib.request import Request, urlopen\n\n` +
    `body = {\n${Object.entries(body).map(([field, value]) => `    "${field}": ${python(value)},`).join("\n")}\n}\n` +
    `headers = {"Content-Type": "application/json"${
      key ? `, "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]` : ""
    }}\n` +
    `request = Request("${origin}/v1/completions", json.dumps(body).encode(), headers)\n` +
    `for choice in json.load(urlopen(request))["choices"]:\n    print(choice["text"])`,

  // The command line has other defaults, so all values are written.
  "command line": ({ body, defaults }) => {
    const { model, prompt, stop = [], n, ...numbers } = { ...defaults, ...body };
    const options = Object.entries(numbers).map(([field, value]) => `--${field.replaceAll("_", "-")} ${value}`);
    if (n) options.push(`-n ${n}`);
    options.push(...stop.map((text) => `--stop ${shell(text)}`));
    return [`hornbook generate --model ${shell(model)} ${shell(prompt)}`, ...options].join(" \\\n  ");
  },
};
