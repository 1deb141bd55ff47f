// The page: its views, the model, the theme, and the key if the server wants one.
import { getJson, onKeyNeeded, setKey } from "./api.js";
import { enableChat } from "./chat.js";
import { createElement, enableThemes } from "./drawing.js";
import { enableLearn } from "./learn.js";
import { enableLook } from "./look.js";
import { enableMeasure } from "./measure.js";
import { enableScrollHints } from "./scroll_hint.js";
import { enableTrain } from "./train.js";
import { enableWrite } from "./write.js";

const $ = (id) => document.getElementById(id);
const VIEWS = ["write", "look", "learn", "train", "measure"];

// All requests that need a key wait for the same one.
let asked = null;
onKeyNeeded((problem) => {
  asked ??= new Promise((resolve, reject) => {
    $("key-problem").textContent = problem;
    $("key-dialog").showModal();
    $("key-dialog").onclose = () => {
      asked = null;
      if ($("key-dialog").returnValue !== "use") return reject(new Error("The server needs an API key."));
      setKey($("key").value.trim());
      resolve();
    };
  });
  return asked;
});

const model = () => $("model").value;
let look = null;
const write = enableWrite({ model, textChanged: (text) => look?.textChanged(text) });
enableChat({ model });
look = enableLook({ model, text: () => write.text, setText: (text) => (write.text = text) });
const learn = enableLearn({ model });
const train = enableTrain({ loadModels, leaveModel, useModel });
const measure = enableMeasure({ model });
enableThemes(
  $("theme"),
  () => [look, learn, train].forEach((view) => view.recolor()),
  localStorage,
);
enableScrollHints();

function showView() {
  const named = location.hash.slice(1).split(":")[0];
  const view = VIEWS.includes(named) ? named : "write";
  for (const name of VIEWS) {
    $(name).hidden = name !== view;
    if (name === view) $(`to-${name}`).setAttribute("aria-current", "page");
    else $(`to-${name}`).removeAttribute("aria-current");
  }
  look.setVisible(view === "look");
  learn.setVisible(view === "learn");
  train.setVisible(view === "train");
  measure.setVisible(view === "measure");
}
addEventListener("hashchange", showView);

const modelChanged = () => [write, look, learn, measure].forEach((view) => view.modelChanged());
$("model").addEventListener("change", modelChanged);

// Lists the models, keeps the chosen one if it is still there, and returns all.
async function loadModels() {
  const { data } = await getJson("/v1/models");
  const chosen = model();
  const name = ({ id, parent }) => (parent && !id.startsWith("ft:") ? `${id} (adapter)` : id);
  $("model").replaceChildren(...data.map((one) => createElement("option", "", name(one), { value: one.id })));
  if (data.some(({ id }) => id === chosen)) $("model").value = chosen;
  else if (chosen) modelChanged();
  return data;
}
// Chooses another model than one that is about to be deleted, so that nothing more is requested of it.
function leaveModel(id) {
  const other = Array.from($("model").options, ({ value }) => value).find((value) => value !== id);
  if (model() !== id || !other) return;
  $("model").value = other;
  modelChanged();
}
// Writes with a model.
function useModel(id) {
  $("model").value = id;
  modelChanged();
  location.hash = "#write";
}

try {
  await loadModels();
} catch (error) {
  $("status").textContent = error.message;
}
showView();
// The view was hidden until now, so that no attribute could focus what is in it.
if (!$("write").hidden && document.activeElement === document.body) {
  $($("chat").hidden ? "text" : "say").focus({ preventScroll: true });
}
write.modelChanged();
