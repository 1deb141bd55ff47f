// Train: examples are uploaded, a fine-tuning job is created, and followed to the model that it makes.
import { getJson } from "./api.js";
import { createElement } from "./drawing.js";
import { upload } from "./files.js";
import { JobPanel, isFinal, titleOf } from "./job.js";

const $ = (id) => document.getElementById(id);
// The server notes it in the page, so that nothing has to be requested that is not there.
const HAS_STORE = "store" in document.documentElement.dataset;
const POLL_DELAY = 1000; // milliseconds, while a job runs
const IDLE_DELAY = 10_000;
const JOBS_PER_PAGE = 20;
const DATE = { dateStyle: "medium", timeStyle: "short" };
const MARKS = { succeeded: "✓", failed: "✕", cancelled: "–", paused: "‖", running: "▶" };

// `loadModels` lists the models again and returns them, `leaveModel` chooses another than one, `useModel` writes
// with one.
export function enableTrain({ loadModels, leaveModel, useModel }) {
  let [isVisible, timer, polling] = [false, 0, null];
  let [chosen, most] = [null, JOBS_PER_PAGE];
  let problem = null; // why the jobs could not be listed
  let [models, finished] = [[], null]; // the models are listed again when another job has ended
  const changed = async () => {
    finished = null;
    await polling; // it may have seen what was before
    return poll();
  };
  const panel = new JobPanel({ changed, leaveModel, useModel });
  const inputs = ["training", "validation"].map((name) => new FileInput(name));

  // Looks how the jobs are; again after a while, as long as somebody looks at this view.
  function poll() {
    clearTimeout(timer);
    polling ??= refresh().finally(() => (polling = null));
    return polling;
  }
  async function refresh() {
    let delay = IDLE_DELAY;
    if (!HAS_STORE) return setPresent(false);
    try {
      const { data: jobs, has_more } = await getJson(`/v1/fine_tuning/jobs?limit=${most}`);
      setPresent(true);
      if ($("train-told").textContent === problem) $("train-told").textContent = "";
      const ended = jobs.filter(isFinal).map(({ id }) => id).join();
      if (ended !== finished) models = await loadModels();
      finished = ended;
      if (!jobs.every(isFinal)) delay = POLL_DELAY;
      drawBaseModels();
      drawJobs(jobs);
      $("more-jobs").hidden = !has_more;
      const job = jobs.find(({ id }) => id === chosen) ?? jobs[0];
      if (job) await panel.show(job, models.map(({ id }) => id));
      else panel.hide();
    } catch (error) {
      $("train-told").textContent = problem = error.message;
    }
    clearTimeout(timer);
    if (isVisible && !document.hidden) timer = setTimeout(poll, delay);
  }
  function setPresent(isPresent) {
    $("train-absent").hidden = isPresent;
    $("train-form").hidden = $("training").hidden = !isPresent;
  }

  function drawBaseModels() {
    const names = models.filter(({ parent }) => !parent).map(({ id }) => id);
    const shown = Array.from($("base-model").options, ({ value }) => value);
    if (names.join() === shown.join()) return;
    $("base-model").replaceChildren(...names.map((id) => createElement("option", "", id, { value: id })));
  }
  let drawn = "";
  function drawJobs(jobs) {
    $("no-jobs").hidden = jobs.length > 0;
    chosen ??= jobs[0]?.id;
    const now = JSON.stringify([chosen, ...jobs.map(({ id, status }) => [id, status])]);
    if (now === drawn) return;
    drawn = now;
    const focused = document.activeElement?.dataset?.job;
    $("jobs").replaceChildren(
      ...jobs.map((job) => {
        const item = createElement("li");
        const button = createElement("button");
        button.dataset.job = job.id;
        if (job.id === chosen) button.setAttribute("aria-current", "true");
        const status = job.status.replace("_", " ");
        const when = new Date(job.created_at * 1000).toLocaleString("en", DATE);
        const name = createElement("span");
        const details = createElement("small", "", `${status} · from ${job.model} · ${when}`);
        name.append(createElement("b", "", titleOf(job)), " ", details);
        const mark = createElement("span", `mark ${job.status}`, MARKS[job.status] ?? "…");
        mark.setAttribute("aria-hidden", "true");
        button.append(mark, name);
        button.addEventListener("click", () => {
          chosen = job.id;
          changed();
        });
        item.append(button);
        return item;
      }),
    );
    if (focused) $("jobs").querySelector(`[data-job="${focused}"]`)?.focus();
  }
  $("more-jobs").addEventListener("click", () => {
    most = Math.min(100, most + JOBS_PER_PAGE);
    changed();
  });

  $("train-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const number = (id) => ($(id).value === "" ? "auto" : Number($(id).value));
    const body = {
      model: $("base-model").value,
      training_file: $("training-file").value,
      hyperparameters: {
        n_epochs: number("n-epochs"),
        learning_rate_multiplier: number("learning-rate-multiplier"),
        batch_size: number("batch-size"),
      },
    };
    if ($("validation-file").value) body.validation_file = $("validation-file").value;
    // A job does not tell its suffix, so it is noted.
    const suffix = $("suffix").value;
    if (suffix) Object.assign(body, { suffix, metadata: { suffix } });
    if ($("train-seed").value) body.seed = Number($("train-seed").value);
    if ($("method").value === "full") body.metadata = { ...body.metadata, hornbook: "full" };
    $("train-told").textContent = "";
    try {
      const job = await getJson("/v1/fine_tuning/jobs", { body });
      chosen = job.id;
      $("train-told").textContent = "The job is created.";
      await changed();
      $("job").scrollIntoView({ block: "nearest", behavior: "instant" });
    } catch (error) {
      $("train-told").textContent = error.message;
    }
  });
  document.addEventListener("visibilitychange", () => {
    if (isVisible && !document.hidden) poll();
  });

  return {
    async setVisible(visible) {
      isVisible = visible;
      clearTimeout(timer);
      if (!visible) return;
      await poll();
      if (!$("train-form").hidden) inputs.forEach((input) => input.list());
    },
    recolor: () => panel.recolor(),
  };
}

// A file of examples: one that is uploaded already, or a new one.
class FileInput {
  constructor(name) {
    const parts = ["file", "upload", "progress", "told"].map((part) => $(`${name}-${part}`));
    [this.select, this.input, this.progress, this.told] = parts;
    this.none = name === "validation" ? "a twentieth of the examples" : "choose…";
    const { input } = this;
    const box = document.querySelector(`[data-file="${name}"]`);
    input.addEventListener("change", () => input.files[0] && this.#upload(input.files[0]));
    box.addEventListener("dragover", (event) => {
      event.preventDefault();
      box.classList.add("over");
    });
    box.addEventListener("dragleave", () => box.classList.remove("over"));
    box.addEventListener("drop", (event) => {
      event.preventDefault();
      box.classList.remove("over");
      const [file] = event.dataTransfer.files;
      if (file) this.#upload(file);
    });
  }

  // Lists the files that are uploaded, and keeps the chosen one, or chooses another.
  async list(chosen = this.select.value) {
    try {
      const { data } = await getJson("/v1/files?purpose=fine-tune");
      const option = ({ id, filename, bytes }) =>
        createElement("option", "", `${filename}, ${size(bytes)}`, { value: id });
      const none = createElement("option", "", this.none, { value: "" });
      this.select.replaceChildren(none, ...data.map(option));
      this.select.value = data.some(({ id }) => id === chosen) ? chosen : "";
    } catch (error) {
      this.told.textContent = error.message;
    }
  }

  async #upload(file) {
    this.told.textContent = "";
    this.progress.hidden = false;
    try {
      const form = new FormData();
      form.append("purpose", "fine-tune");
      form.append("file", /\.txt$/i.test(file.name) ? await asJsonLines(file) : file);
      const { id } = await upload("/v1/files", form, (part) => (this.progress.value = part));
      await this.list(id);
      this.told.textContent = `${file.name} is uploaded.`;
    } catch (error) {
      this.told.textContent = error.message;
    }
    this.progress.hidden = true;
    this.input.value = "";
  }
}

const size = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
// The texts of a file, which <|endoftext|> separates, as lines of JSON.
async function asJsonLines(file) {
  const texts = (await file.text()).split("<|endoftext|>").filter((text) => text.trim());
  const lines = texts.map((text) => JSON.stringify({ text }) + "\n");
  return new File(lines, file.name.replace(/\.txt$/i, ".jsonl"));
}
