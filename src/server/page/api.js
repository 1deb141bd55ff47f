// Requests to the server that this page comes from, with the API key if it needs one. The key is kept in this
// tab only.

const KEY = "hornbook-key";

export const getKey = () => sessionStorage.getItem(KEY) ?? "";
export const setKey = (key) => sessionStorage.setItem(KEY, key);

// An answer other than 2xx, with OpenAI's error object.
export class ApiError extends Error {
  constructor(status, error) {
    super(tooLong(error) ?? error?.message ?? `The server answered with status ${status}.`);
    Object.assign(this, { status, code: error?.code });
  }
}

// What to do about a text for which the context is too short. The server's sentence is that of OpenAI's API,
// which programs look for; a reader of this page needs the numbers and what to do.
function tooLong(error) {
  if (error?.code !== "context_length_exceeded") return null;
  const numbers = error.message.match(/length is (\d+) tokens.*\((\d+) in your prompt; (\d+) for/);
  if (!numbers) return null;
  const [fit, prompt, more] = numbers.slice(1).map(Number);
  const [n, room, rest] = [prompt, fit, more].map((count) => count.toLocaleString("en"));
  if (prompt > fit) {
    return `There are ${n} tokens, and ${room} fit into the model’s context: shorten the text.`;
  }
  return (
    `There are ${n} tokens and up to ${rest} are to follow, but ${room} fit into the model’s context: ` +
    "shorten the text, or let fewer follow."
  );
}

// Called when the server wants a key; resolves when there is a new one, or rejects.
let askForKey = () => Promise.reject(new Error("The server needs an API key."));
export const onKeyNeeded = (ask) => (askForKey = ask);

export const UNREACHABLE = "The server cannot be reached. Is hornbook serve still running?";

export async function request(path, { method, body, signal } = {}) {
  const key = getKey();
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const options = { headers, signal, method };
  if (body) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(UNREACHABLE);
  }
  if (response.status === 401) {
    // Another request may have asked meanwhile.
    if (getKey() === key) await askForKey(key ? "The server does not accept this key." : "");
    return request(path, { method, body, signal });
  }
  if (!response.ok) {
    const answer = await response.json().catch(() => ({}));
    throw new ApiError(response.status, answer.error);
  }
  return response;
}

export const getJson = async (path, options) => (await request(path, options)).json();
export const getBytes = async (path, options) =>
  new Uint8Array(await (await request(path, options)).arrayBuffer());

// The objects of a stream of server-sent events. Throws if it ends before [DONE].
export async function* stream(path, body, signal) {
  const response = await request(path, { body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      return { done: true };
    });
    if (done) throw new Error("The connection was lost. What has arrived is kept; send again to go on.");
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.startsWith("data: ") ? event.slice(6) : "";
      if (data === "[DONE]") return;
      if (!data) continue;
      const object = JSON.parse(data);
      if (object.error) throw new ApiError(0, object.error);
      yield object;
    }
  }
}
