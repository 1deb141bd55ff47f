// Measure: where the time goes. The latest completion operation by operation, what the engine does now, and
// attention kernels compared.
import { getJson } from "./api.js";
import { compareKernels } from "./attention_kernels.js";
import { bytes, duration, lineChart, number, plural, table } from "./chart.js";
import { bars, createElement, percent } from "./drawing.js";
import { describe, noOperations, operationTable, operationsByTime, roofline } from "./roofline.js";

const $ = (id) => document.getElementById(id);
const INTERVAL = 1000; // milliseconds between two looks
const SECONDS = 120; // that the charts show

// Names, values, and what they mean.
function showFacts(list, facts) {
  list.replaceChildren(
    ...facts.map(([name, value, meaning]) => {
      const [fact, description] = [createElement("div"), createElement("dd")];
      description.append(createElement("b", "", value), createElement("span", "", meaning));
      fact.append(createElement("dt", "", name), description);
      return fact;
    }),
  );
}

// `model` returns the chosen model.
export function enableMeasure({ model }) {
  let [isVisible, timer, looks, state] = [false, 0, 0, null];
  let samples = []; // of tokens per second: time, prefill, decode
  let drawn = ""; // what the roofline shows
  const isShown = () => isVisible && document.visibilityState === "visible";
  const phase = () => document.querySelector("input[name=phase]:checked").value;

  // Looks once a second while somebody sees it. After an error it waits to be told to go on.
  async function look() {
    clearTimeout(timer);
    const own = ++looks;
    if (!isShown()) return;
    try {
      const found = await getJson(`/measure?model=${encodeURIComponent(model())}`);
      if (own !== looks) return; // another one has begun
      if (state?.model === found.model) sample(state, found);
      state = found;
      $("measure-problem").textContent = "";
      $("measure-resume").hidden = true;
      draw();
      timer = setTimeout(look, INTERVAL);
    } catch (error) {
      if (own !== looks) return;
      $("measure-problem").textContent = error.message;
      $("measure-resume").hidden = false;
    }
  }
  function sample(before, now) {
    const seconds = now.seconds - before.seconds;
    if (seconds <= 0) return;
    const rate = (name) => (now.engine[name] - before.engine[name]) / seconds;
    samples.push({ time: now.seconds, prefill: rate("prompt_tokens"), decode: rate("generated_tokens") });
    samples = samples.filter(({ time }) => now.seconds - time <= SECONDS);
  }
  function draw() {
    drawRates();
    drawEngine();
    const key = JSON.stringify([state.latest, state.limits, phase(), $("roofline").clientWidth]);
    if (key !== drawn) drawLatest();
    drawn = key;
  }

  function drawRates() {
    const width = $("rates").clientWidth;
    const line = (name, title) => {
      const points = samples.map((one) => [state.seconds - one.time, one[name]]);
      const now = number(Math.round(points.at(-1)?.[1] ?? 0));
      const most = number(Math.round(Math.max(0, ...points.map(([, value]) => value))));
      const heading = createElement("p", "rate");
      heading.append(createElement("b", "", now), ` tokens a second, ${title}`);
      const label = `${title}: ${now} tokens a second now, at most ${most} in the last ${SECONDS} seconds`;
      return [heading, lineChart(width, SECONDS, points, label)];
    };
    $("rates").replaceChildren(...line("prefill", "prefill"), ...line("decode", "decode"));
    const rows = samples
      .slice(-10)
      .reverse()
      .map(({ time, prefill, decode }) => [
        `${Math.round(state.seconds - time)} s ago`,
        number(Math.round(prefill)),
        number(Math.round(decode)),
      ]);
    $("rate-table").replaceChildren(table("Tokens a second", ["When", "Prefill", "Decode"], rows));
  }

  function drawEngine() {
    const { engine, memory } = state;
    const { prefix_cache_hits: hits, prefix_cache_misses: misses } = engine;
    const all = hits + misses;
    const facts = [
      ["Running", plural(engine.running, "sequence"), `of at most ${engine.max_concurrency} in a batch`],
      ["Waiting", plural(engine.waiting, "sequence"), "in the queue"],
      ["KV cache", bytes(engine.kv_bytes), "of the sequences that run"],
      [
        "Prefix cache",
        plural(engine.prefix_cache_entries, "text"),
        `${bytes(engine.prefix_cache_bytes)} kept, so that what begins like them is not computed again`,
      ],
      ["Cache hits", all ? percent(hits / all) : "–", `${hits} of ${plural(all, "request")} began like another`],
      [
        "Prompt tokens",
        `${engine.prompt_tokens.toLocaleString("en")} computed`,
        `${engine.prompt_tokens_cached.toLocaleString("en")} copied from the cache`,
      ],
      ["Memory", bytes(memory.anonymous_bytes ?? 0), `of this program, ${bytes(memory.file_bytes ?? 0)} of mapped files`],
      ["Free memory", bytes(memory.available_bytes), "on this machine"],
    ];
    showFacts($("facts"), facts);
    const sizes = engine.batch_sizes.map((passes, size) => ({ passes, size })).filter(({ passes }) => passes > 0);
    const most = Math.max(1, ...sizes.map(({ passes }) => passes));
    const rows = sizes.map(({ passes, size }) => ({
      name: plural(size, "sequence"),
      fraction: passes / most,
      value: plural(passes, "pass"),
    }));
    $("batch-sizes").replaceChildren(
      rows.length ? bars(rows) : createElement("p", "note", "There was no forward pass yet."),
    );
  }

  function drawLatest() {
    const { latest, limits } = state;
    $("latest").hidden = !latest;
    $("measure-limits").textContent = limits ? "Measure the machine again" : "Measure the machine";
    $("no-latest").hidden = Boolean(latest);
    if (!latest) return;
    const [prefill, decode] = latest.phases;
    showFacts($("latest-facts"), summary(latest, prefill, decode));
    const shown = phase() === "prefill" ? prefill : decode;
    const focused = document.activeElement?.dataset?.operation;
    if (!shown.operations.length) {
      $("roofline").replaceChildren(noOperations());
      $("operations").replaceChildren();
      $("operation").textContent = "";
      return;
    }
    const operations = operationsByTime(shown);
    const say = (operation) => ($("operation").textContent = describe(operation));
    $("roofline").replaceChildren(roofline($("roofline").clientWidth, operations, limits, say));
    $("operations").replaceChildren(operationTable(operations, shown.phase));
    $("operation").textContent = describe(operations[0]);
    $("limits-note").hidden = Boolean(limits);
    if (focused) document.querySelector(`[data-operation="${focused}"]`)?.focus();
  }
  function summary({ prompt_tokens: prompt, cached_tokens: cached }, prefill, decode) {
    const part = (name, { tokens, passes, seconds }) => [
      name,
      passes ? `${number(Math.round(tokens / seconds))} tokens a second` : "–",
      `${plural(tokens, "token")} in ${plural(passes, "pass")}, ${duration(seconds)}`,
    ];
    const most = Math.max(prefill.max_batch_size, decode.max_batch_size);
    const shared = "times are those of all of them together";
    return [
      ["Prompt", plural(prompt, "token"), cached ? `of which ${cached} came from the prefix cache` : "none from the cache"],
      part("Prefill", prefill),
      part("Decode", decode),
      ["Batch", most > 1 ? `up to ${most} sequences` : "1 sequence", most > 1 ? shared : "it had the passes for itself"],
    ];
  }

  // Buttons that measure something; one at a time.
  async function measured(button, text, work) {
    if (document.querySelector("#measure [data-busy]")) return;
    button.dataset.busy = "";
    $("measure-status").textContent = text;
    try {
      await work();
      $("measure-status").textContent = "";
    } catch (error) {
      $("measure-status").textContent = error.message;
      $("measure-status").scrollIntoView({ block: "nearest" });
    }
    delete button.dataset.busy;
    await look();
  }
  const measureLimits = () => getJson("/measure/limits", { body: { model: model() } });
  $("measure-limits").addEventListener("click", (event) =>
    measured(event.target, "Measuring memory bandwidth and peak …", measureLimits),
  );
  $("measure-completion").addEventListener("click", (event) =>
    measured(event.target, "Computing …", async () => {
      if (!state?.limits) await measureLimits();
      const { vocab_size: size } = state.run;
      const prompt = Array.from({ length: Number($("prompt-tokens").value) }, () => Math.floor(Math.random() * size));
      const generated = Number($("generated-tokens").value);
      await getJson("/v1/completions", { body: { model: model(), prompt, max_tokens: generated, ignore_eos: true } });
    }),
  );
  $("compare-kernels").addEventListener("click", (event) => {
    if (!$("kernel-length").reportValidity()) return; // the browser says it at the field
    measured(event.target, "Measuring attention …", () =>
      compareKernels(model(), state.run, (text) => ($("measure-status").textContent = text)),
    );
  });
  document.querySelectorAll("input[name=phase]").forEach((radio) => radio.addEventListener("change", () => state && draw()));
  $("measure-resume").addEventListener("click", look);
  document.addEventListener("visibilitychange", look);
  addEventListener("resize", () => isVisible && state && draw());

  return {
    setVisible(visible) {
      isVisible = visible;
      look();
    },
    modelChanged() {
      [samples, state, drawn] = [[], null, ""];
      look();
    },
  };
}
