// A fine-tuning job: where it stands, its losses, what the model writes meanwhile, and what happened.
import { getJson, request } from "./api.js";
import { createElement } from "./drawing.js";
import { download } from "./files.js";
import { LossCurve } from "./loss_curve.js";

const $ = (id) => document.getElementById(id);
const JOBS = "/v1/fine_tuning/jobs";
const MAX_EVENTS = 100; // of a page

export const isFinal = ({ status }) => ["succeeded", "failed", "cancelled"].includes(status);
// What a model's name ends with, which follows from its job.
export const titleOf = ({ id, metadata }) =>
  [metadata.suffix, id.replace("ftjob-", "").slice(8, 14)].filter(Boolean).join(":");

const time = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en", { hour12: false });
function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} seconds`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} minutes` : `${(seconds / 3600).toFixed(1)} hours`;
}

export class JobPanel {
  #job = null;
  #events = []; // the oldest first
  #table = null; // the losses of all steps, once the job has succeeded: [step, loss]
  #models = [];

  // `changed` is called when something was done to the job, `leaveModel` with a model that is to be deleted,
  // `useModel` with the model to write with.
  constructor({ changed, leaveModel, useModel }) {
    this.curve = new LossCurve($("losses"), $("loss-readout"));
    const act = (id, does) =>
      $(id).addEventListener("click", async () => {
        $("job-problem").textContent = "";
        try {
          await does(this.#job);
        } catch (error) {
          $("job-problem").textContent = error.message;
        }
        changed();
      });
    for (const action of ["pause", "resume", "cancel"]) {
      act(`${action}-job`, ({ id }) => getJson(`${JOBS}/${id}/${action}`, { body: {} }));
    }
    act("use-model", ({ fine_tuned_model: name }) => useModel(name));
    act("save-table", async ({ result_files: [file] }) => download("losses.csv", await this.#result(file)));
    act("delete-model", async ({ fine_tuned_model: name }) => {
      if (!confirm(`Delete ${name} and its files? Nothing brings it back.`)) return;
      leaveModel(name);
      await getJson(`/v1/models/${encodeURIComponent(name)}`, { method: "DELETE" });
    });
    addEventListener("resize", () => this.curve.draw());
  }
  get id() {
    return this.#job?.id;
  }
  #result = async (file) => (await request(`/v1/files/${file}/content`)).text();

  // Shows a job as it is now, with what has happened since the last time. `models` are the names of all models.
  async show(job, models) {
    if (job.id !== this.#job?.id) {
      [this.#events, this.#table] = [[], null];
      $("job-problem").textContent = "";
    }
    [this.#job, this.#models] = [job, models];
    $("job").hidden = false;
    try {
      const fresh = await this.#newEvents(job.id);
      if (job.id !== this.#job.id) return; // another was chosen meanwhile
      this.#events.push(...fresh);
      if (job.result_files.length && !this.#table) {
        const csv = await this.#result(job.result_files[0]);
        if (job.id !== this.#job.id) return;
        this.#table = csv.trim().split("\n").slice(1).map((row) => row.split(",").slice(0, 2).map(Number));
      }
      if (fresh.length || this.shown !== job.id) this.#drawEvents();
      this.shown = job.id;
    } catch (error) {
      $("job-problem").textContent = error.message;
    }
    this.#drawStatus();
  }
  hide() {
    $("job").hidden = true;
    this.#job = null;
  }
  recolor() {
    this.curve.recolor();
  }

  // The events that are not known yet, the oldest first.
  async #newEvents(id) {
    const newest = this.#events.at(-1)?.id;
    const events = [];
    for (let after = ""; ; after = `&after=${events.at(-1).id}`) {
      const { data, has_more } = await getJson(`${JOBS}/${id}/events?limit=${MAX_EVENTS}${after}`);
      const known = data.findIndex((event) => event.id === newest);
      events.push(...(known < 0 ? data : data.slice(0, known)));
      if (known >= 0 || !has_more) return events.reverse();
    }
  }

  #drawStatus() {
    const job = this.#job;
    const { status, fine_tuned_model: name, estimated_finish, error } = job;
    const step = this.#measured().at(-1)?.step ?? 0;
    const isServed = this.#models.includes(name);
    const told = isServed ? `the model is ${name}` : "the model is deleted";
    const text = status.replace("_", " ") + (status === "succeeded" ? `: ${told}.` : ".");
    const steps = [!isFinal(job) && step && `Step ${step} of ${this.#steps()}`];
    if (status === "running" && estimated_finish) {
      steps.push(`${duration(estimated_finish - Date.now() / 1000)} left`);
    }
    setText($("job-title"), titleOf(job));
    setText($("job-status"), text[0].toUpperCase() + text.slice(1));
    setText($("job-step"), steps.filter(Boolean).join(", "));
    if (error) setText($("job-problem"), error.message);
    $("job-progress").hidden = isFinal(job);
    $("job-progress").max = this.#steps();
    $("job-progress").value = step;
    $("use-model").hidden = $("delete-model").hidden = !isServed;
    $("pause-job").hidden = !["queued", "validating_files", "running"].includes(status);
    $("resume-job").hidden = status !== "paused";
    $("cancel-job").hidden = isFinal(job);
    $("save-table").hidden = !job.result_files.length;
    const { n_epochs, batch_size, learning_rate_multiplier } = job.hyperparameters;
    const facts = {
      Job: job.id,
      "Begins with": job.model,
      "What is trained": job.metadata.hornbook === "full" ? "all weights" : "an adapter (LoRA)",
      Examples: job.training_file,
      "Validation examples": job.validation_file ?? "a twentieth of the examples",
      Epochs: n_epochs,
      "Examples per step": batch_size,
      "Learning rate multiplier": learning_rate_multiplier,
      Seed: job.seed,
      "Tokens trained on": job.trained_tokens?.toLocaleString("en"),
    };
    const rows = Object.entries(facts).filter(([, value]) => value !== undefined);
    $("job-facts").replaceChildren(
      ...rows.flatMap(([key, value]) => [createElement("dt", "", key), createElement("dd", "", value)]),
    );
  }

  #measured() {
    return this.#events.filter(({ type }) => type === "metrics").map(({ data }) => data);
  }
  #steps() {
    return this.#measured().at(-1)?.total_steps ?? 1;
  }

  #drawEvents() {
    // What was measured of one step may be told twice, with and without the validation loss.
    const rows = new Map(this.#table?.map(([step, train]) => [step, { step, train }]));
    for (const { step, train_loss, valid_loss } of this.#measured()) {
      const row = rows.get(step) ?? { step };
      rows.set(step, { ...row, train: train_loss, valid: valid_loss ?? row.valid });
    }
    this.curve.show([...rows.values()].sort((a, b) => a.step - b.step), this.#steps());

    const table = createElement("table", "numbers");
    const head = table.createTHead().insertRow();
    const columns = ["step", "training loss, nats", "accuracy", "validation loss, nats", "accuracy"];
    columns.forEach((name) => head.append(createElement("th", "", name, { scope: "col" })));
    const body = table.createTBody();
    const all = new Map();
    for (const data of this.#measured()) all.set(data.step, { ...all.get(data.step), ...data });
    for (const data of all.values()) {
      const row = body.insertRow();
      row.append(createElement("th", "", data.step, { scope: "row" }));
      const number = (value, show) => (row.insertCell().textContent = value === undefined ? "" : show(value));
      const loss = (value) => value.toFixed(3);
      const share = (value) => `${(100 * value).toFixed(1)} %`;
      number(data.train_loss, loss);
      number(data.train_mean_token_accuracy, share);
      number(data.valid_loss, loss);
      number(data.valid_mean_token_accuracy, share);
    }
    $("loss-table").replaceChildren(table);

    const samples = this.#events.filter(({ data }) => data?.sample !== undefined).reverse();
    $("samples-part").hidden = !samples.length;
    $("samples").replaceChildren(
      ...samples.map(({ data }) => {
        const item = createElement("li");
        const text = createElement("p", "choice-text", data.sample.trim(), { dir: "auto" });
        item.append(createElement("b", "", `Step ${data.step}`), text);
        return item;
      }),
    );
    const others = this.#events.filter(({ data }) => !data).reverse();
    $("job-events").replaceChildren(
      ...others.map(({ created_at, level, message }) => {
        const item = createElement("li", level === "error" ? "problem" : "");
        item.append(createElement("time", "", time(created_at)), ` ${message}`);
        return item;
      }),
    );
  }
}

// A live region speaks of what changes only.
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
