// Train: a file is uploaded, a model is trained on it, and writes; jobs are paused and cancelled.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { LOOKS, open, screenshot, serve, violations } from "./browser.mjs";

let server;
before(async () => (server = await serve(["--store", "store"])));
after(() => server.stop());

// Examples that a model learns within a few steps.
const examples = (n) =>
  Array.from({ length: n }, (_, i) => {
    const prompt = `To ${["Anna", "Tom", "Mary"][i % 3]}:`;
    return JSON.stringify({ prompt, completion: " the garden is green and the dog sleeps." }) + "\n";
  }).join("");

async function openTrain(options = {}) {
  const opened = await open(`${server.url}/#train`, options);
  await opened.page.waitForSelector("#train-form:not([hidden])");
  await opened.page.waitForSelector("#training-file option", { state: "attached" });
  return opened;
}
async function upload(page, name, text, field = "training") {
  await page.setInputFiles(`#${field}-upload`, { name, mimeType: "text/plain", buffer: Buffer.from(text) });
  await page.waitForFunction((field) => document.querySelector(`#${field}-told`).textContent, field);
  return page.textContent(`#${field}-told`);
}
async function start(page, settings) {
  for (const [id, value] of Object.entries(settings)) await page.fill(`#${id}`, value);
  await page.click("#start-training");
  await page.waitForFunction(() => document.querySelector("#train-told").textContent);
  assert.equal(await page.textContent("#train-told"), "The job is created.");
}
const status = (page, pattern) =>
  page.waitForFunction(
    (source) => new RegExp(source).test(document.querySelector("#job-status").textContent),
    pattern,
  );

test("trains a model to the end, and writes with it", async () => {
  const { page, close } = await openTrain();
  assert.equal(await upload(page, "letters.jsonl", examples(40)), "letters.jsonl is uploaded.");
  assert.match(await page.locator("#training-file option:checked").textContent(), /^letters\.jsonl, \d+ kB$/);
  await start(page, { "n-epochs": "8", "batch-size": "4", "learning-rate-multiplier": "10", suffix: "letters" });
  await status(page, "^Succeeded");
  const name = (await page.textContent("#job-status")).match(/ft:fable::letters:\w{6}/)[0];
  assert.match(await page.locator("#jobs button").first().textContent(), /letters:\w{6} succeeded · from fable/);

  // The curve, by keys and by pointer, says what the table of the server has.
  const download = page.waitForEvent("download");
  await page.click("#save-table");
  const path = await (await download).path();
  const { readFileSync } = await import("node:fs");
  const rows = readFileSync(path, "utf8").trim().split("\n").slice(1).map((row) => row.split(",").map(Number));
  assert.ok(rows.at(-1)[1] < rows[0][1] / 2, "the loss falls");
  await page.focus("#losses");
  // The table has fewer digits, so the last one of the readout may differ.
  const shows = async (step) => {
    const [, found, loss] = (await page.textContent("#loss-readout")).match(/^Step (\d+): training ([\d.]+)/);
    assert.equal(Number(found), step);
    assert.ok(Math.abs(loss - rows[step - 1][1]) < 0.0011, `${loss}, in the table ${rows[step - 1][1]}`);
  };
  await page.keyboard.press("Home");
  await shows(1);
  await page.keyboard.press("ArrowRight");
  await shows(2);
  await page.keyboard.press("End");
  assert.match(await page.textContent("#loss-readout"), new RegExp(`^Step ${rows.length}: training .*, validation `));
  const box = await page.locator("#losses").boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + 100);
  const middle = Number((await page.textContent("#loss-readout")).match(/Step (\d+)/)[1]);
  assert.ok(Math.abs(middle - rows.length / 2) < rows.length / 5, `${middle} of ${rows.length}`);
  await page.click("summary >> text=As a table");
  assert.equal(await page.locator("#loss-table tbody tr").count(), rows.length);
  assert.ok((await page.locator("#samples li").count()) > 3, "samples");
  await page.click("summary >> text=Events");
  assert.match(await page.textContent("#job-events"), /Fine-tune succeeded.*Created fine-tune/s);

  await page.click("#use-model");
  assert.equal(await page.inputValue("#model"), name);
  await page.fill("#text", "To Tom:");
  await page.fill("#temperature", "0");
  await page.click("#send");
  await page.waitForFunction(() => document.querySelector("#text").value.length > 30);
  assert.match(await page.inputValue("#text"), /^To Tom: the garden is green/);
  // It is looked at from inside with its adapter, too.
  await page.click("#to-look");
  await page.waitForSelector("#look-panels [data-part=attribution] .cell");
  await page.click("#to-train");
  page.on("dialog", (dialog) => dialog.accept());
  await page.click("#delete-model");
  await status(page, "the model is deleted");
  assert.equal(await page.locator("#model option").count(), 1);
  assert.equal(await page.inputValue("#model"), "fable");
  await close();
});

test("says which line of a file is wrong, and which setting", async () => {
  const { page, errors } = await openTrain();
  assert.match(await upload(page, "bad.jsonl", examples(2) + "{oops\n"), /line 3/);
  assert.equal(await page.inputValue("#training-file"), "");
  await page.click("#start-training");
  await page.waitForFunction(() => /training_file/.test(document.querySelector("#train-told").textContent));
  assert.equal(await upload(page, "good.jsonl", examples(6)), "good.jsonl is uploaded.");
  await page.fill("#n-epochs", "70");
  await page.click("#start-training");
  await page.waitForFunction(() => /n_epochs: found 70/.test(document.querySelector("#train-told").textContent));
  assert.ok(errors.every((error) => /status of 400/.test(error)), errors.join("\n"));
  await page.context().close();
});

test("pauses, resumes and cancels; all weights, a text file, validation examples", async () => {
  const { page, close } = await openTrain();
  const text = "The garden is green.<|endoftext|>The dog sleeps.<|endoftext|>".repeat(20);
  assert.equal(await upload(page, "garden.txt", text), "garden.txt is uploaded.");
  await page.click("#train-form summary");
  assert.equal(await upload(page, "held-out.jsonl", examples(3), "validation"), "held-out.jsonl is uploaded.");
  await page.selectOption("#method", "full");
  await start(page, { "n-epochs": "50", "batch-size": "1", "train-seed": "3" });
  await status(page, "^Running");
  await page.waitForFunction(() => /^Step \d+ of \d+/.test(document.querySelector("#job-step").textContent));
  await page.click("#pause-job");
  await status(page, "^Paused");
  await page.click("#resume-job");
  await status(page, "^(Running|Queued)");
  const facts = await page.textContent("#job-facts");
  assert.match(facts, /all weights.*file-.*file-.*Epochs50.*Seed3/s);
  await page.click("#cancel-job");
  await status(page, "^Cancelled");
  assert.ok(await page.isHidden("#use-model"));
  assert.ok(await page.isHidden("#pause-job"));
  await close();
});

test("is dropped onto the page, and polls only while it is looked at", async () => {
  const { page, close } = await openTrain();
  await page.evaluate((text) => {
    const data = new DataTransfer();
    data.items.add(new File([text], "dropped.jsonl"));
    const box = document.querySelector("[data-file=training]");
    box.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
  }, examples(5));
  const told = page.locator("#training-told");
  await told.filter({ hasText: "dropped.jsonl is uploaded" }).waitFor();
  await page.click("#to-write");
  await page.waitForTimeout(300);
  let requests = 0;
  page.on("request", (request) => (requests += request.url().includes("/fine_tuning/") ? 1 : 0));
  await page.waitForTimeout(2000);
  assert.equal(requests, 0);
  await page.click("#to-train");
  await page.waitForTimeout(500);
  assert.ok(requests > 0);
  await close();
});

test("says how to start the server where there is no store", async () => {
  const own = await serve();
  const { page, close } = await open(`${own.url}/#train`);
  await page.waitForSelector("#train-absent:not([hidden])");
  assert.match(await page.textContent("#train-absent"), /Start it with hornbook serve --store DIR\.$/);
  assert.ok(await page.isHidden("#train-form"));
  await close(); // nothing was requested that is not there
  await own.stop();
});

for (const { width, theme } of LOOKS) {
  test(`is accessible and fits ${width} pixels, ${theme}`, async () => {
    const { page, close } = await openTrain({ width, theme });
    await page.locator("#jobs button").last().click(); // the model that was trained
    await status(page, "^Succeeded");
    for (const summary of await page.locator("#train summary").all()) await summary.click();
    assert.deepEqual(await violations(page), []);
    await screenshot(page, `train-${width}-${theme}`);
    const overflow = () => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok((await overflow()) <= 0, `scrolls sideways by ${await overflow()} pixels`);
    // So does the chat.
    await page.click("#to-write");
    await page.check("input[value=chat]");
    await page.fill("#say", "Who are you?");
    await page.click("#chat-send");
    await page.locator("#chat-count").filter({ hasText: "tokens of the context" }).waitFor();
    assert.deepEqual(await violations(page), []);
    await screenshot(page, `chat-${width}-${theme}`);
    assert.ok((await overflow()) <= 0, `scrolls sideways by ${await overflow()} pixels`);
    await close();
  });
}
