// Look: a text seen from inside the model, as it is typed. A second panel compares another text or model.
import { LookPanel } from "./look_panel.js";

const $ = (id) => document.getElementById(id);

// `model` returns the chosen model, `text` the text of Write; `setText` changes it.
export function enableLook({ model, text, setText }) {
  const first = new LookPanel($("look-panels"), { model, textEdited: setText, headSelected });
  let second = null;
  let [isVisible, isStale] = [false, true];

  // The same head is looked at in both panels.
  function headSelected(layer, head, from) {
    for (const panel of [first, second]) if (panel && panel !== from) panel.selectHead(layer, head);
  }
  const refresh = () => {
    if (!isVisible || !isStale) return;
    isStale = false;
    first.setText(text());
  };

  $("compare").addEventListener("click", () => {
    if (second) {
      second.remove();
      second = null;
    } else {
      second = new LookPanel($("look-panels"), { headSelected, models: $("model") });
      second.setText(first.text);
    }
    $("compare").setAttribute("aria-pressed", Boolean(second));
    $("look-panels").classList.toggle("two", Boolean(second));
    first.redraw();
  });
  addEventListener("resize", () => [first, second].forEach((panel) => isVisible && panel?.redraw()));

  return {
    setVisible(visible) {
      isVisible = visible;
      refresh();
      if (visible) first.redraw();
    },
    textChanged(text) {
      if (text === first.text) return;
      isStale = true;
      refresh();
    },
    modelChanged() {
      isStale = true;
      refresh();
    },
    recolor: () => [first, second].forEach((panel) => panel?.recolor()),
  };
}
