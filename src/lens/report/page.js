// Shared by all views: the data and the selection.

const data = JSON.parse(document.getElementById("data").textContent);
const n = data.tokens.length;
const $ = (id) => document.getElementById(id);

// The selected token and head. `hovered` is the token under the pointer, which takes precedence.
const selection = { token: n - 1, hovered: null, layer: data.layer, head: data.head };
const currentToken = () => selection.hovered ?? selection.token;

// Listeners are called when the "token", the "head" or the "theme" changes.
const listeners = { token: [], head: [], theme: [] };
const on = (events, listener) => events.split(" ").forEach((event) => listeners[event].push(listener));
const emit = (event) => listeners[event].forEach((listener) => listener());

function selectToken(token) {
  selection.token = Math.max(0, Math.min(n - 1, token));
  selection.hovered = null;
  emit("token");
}
function hoverToken(token) {
  if (selection.hovered !== token) {
    selection.hovered = token;
    emit("token");
  }
}
function selectHead(layer, head) {
  Object.assign(selection, { layer, head });
  emit("head");
}

const label = (id) => data.labels[id] ?? `#${id}`;
const tokenLabel = (t) => label(data.tokens[t]);

enableThemes($("theme"), () => emit("theme"));
document.querySelectorAll(".legend").forEach(addScale);

// The header and the tokens.
{
  $("model").textContent =
    `${data.model}: ${n} token${n === 1 ? "" : "s"} through ${data.layers} layers of ${data.heads} heads`;
  // It does not follow the pointer: the page would jump where the text wraps.
  on("token", () => {
    const [ids, probabilities, entropy] = data.logit_lens.at(-1)[selection.token];
    $("summary").replaceChildren(
      "The most likely token after ",
      setLabel(createElement("b"), tokenLabel(selection.token)),
      " is ",
      setLabel(createElement("b"), label(ids[0])),
      ` (${percent(probabilities[0])}). The entropy is ${entropyText(entropy)}.`,
    );
  });
  const buttons = data.tokens.map((id, t) => {
    const bits = data.surprisal_bits[t];
    const description = bits === null ? "the first" : `surprisal ${bits.toFixed(1)} bits`;
    const button = setLabel(
      createElement("button", "token", "", {
        role: "option",
        "aria-label": `${label(id)}, token ${t}, ${description}`,
      }),
      label(id),
    );
    button.append(createElement("small", "", bits === null ? "–" : bits.toFixed(1)));
    button.style.setProperty("--tint", `${Math.min(70, 4.5 * (bits ?? 0))}%`);
    button.addEventListener("click", () => selectToken(t));
    button.addEventListener("focus", () => selectToken(t));
    button.addEventListener("pointerenter", () => hoverToken(t));
    button.addEventListener("pointerleave", () => hoverToken(null));
    return $("tokens").appendChild(button);
  });
  enableRovingFocus(buttons, n, n - 1);
  on("token", () => {
    buttons.forEach((button, t) => button.setAttribute("aria-selected", t === selection.token));
    if (selection.hovered === null) scrollIntoContainer($("tokens"), buttons[selection.token]);
    document.querySelectorAll(".here").forEach((element) => setLabel(element, tokenLabel(currentToken())));
  });
}
