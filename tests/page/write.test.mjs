// Write: continuing, stopping, alternatives, undo, presets, code, links.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, test } from "node:test";
import { open, serve, slowNetwork } from "./browser.mjs";

let server;
before(async () => (server = await serve()));
after(() => server.stop());

const textOf = (page) => page.inputValue("#text");
async function done(page) {
  await page.waitForSelector("#stop-writing", { state: "hidden" });
}
// Sends the text with these settings and returns the text that is there then.
async function write(page, text, settings = {}) {
  await page.fill("#text", text);
  for (const [id, value] of Object.entries({ seed: "7", "max-tokens": "12", ...settings })) {
    await page.fill(`#${id}`, value);
  }
  await page.click("#send");
  await done(page);
  return textOf(page);
}

test("continues in place, the same for the same seed, and as the command line does", async () => {
  const { page, close } = await open(server.url);
  const prompt = "The king had a";
  const first = await write(page, prompt);
  assert.ok(first.startsWith(prompt) && first.length > prompt.length, first);
  assert.equal(await write(page, prompt), first);
  assert.match(await page.textContent("#speed"), /^12 tokens \(the most there may be\), \d+ a second$/);
  await page.waitForFunction(() => /of 512 tokens/.test(document.querySelector("#count").textContent));
  await page.fill("#text", prompt);
  await page.click("#show-code");
  await page.selectOption("#code-kind", "command line");
  const command = await page.textContent("#code");
  // What is not set is the model's own, for the command line, too; it only has another temperature and top p.
  const options = [...command.matchAll(/--([a-z-]+) (\S+)/g)].map(([, name, value]) => `${name} ${value}`);
  assert.deepEqual(options.sort(), ["max-tokens 12", "model 'fable'", "seed 7", "temperature 1", "top-p 1"]);
  const env = { ...process.env, PATH: `${process.env.HORNBOOK.replace(/\/[^/]*$/, "")}:${process.env.PATH}` };
  const output = execFileSync("bash", ["-c", command], { env, encoding: "utf8" });
  assert.equal((prompt + output).trimEnd(), first.trimEnd());
  await page.selectOption("#code-kind", "Python alone");
  const python = await page.textContent("#code");
  assert.equal((prompt + execFileSync("python3", ["-c", python], { encoding: "utf8" })).trimEnd(), first.trimEnd());
  await page.selectOption("#code-kind", "curl");
  const answer = JSON.parse(execFileSync("bash", ["-c", await page.textContent("#code")], { encoding: "utf8", stdio: "pipe" }));
  assert.equal(prompt + answer.choices[0].text, first);
  await close();
});

// Long texts that come slowly, to be interrupted.
async function writeSlowly(page) {
  await slowNetwork(page);
  await page.fill("#max-tokens", "480");
  await page.fill("#temperature", "1.9"); // which hardly ends
}

test("stops at Escape, and Ctrl+Enter sends", async () => {
  const { page, close } = await open(server.url);
  await writeSlowly(page);
  await page.fill("#text", "Once upon a time");
  await page.click("#send");
  await page.waitForFunction(() => document.querySelector("#text").value.length > 60);
  await page.keyboard.press("Escape");
  await done(page);
  assert.match(await page.textContent("#status"), /^Stopped after \d+ tokens\.$/);
  await page.fill("#text", "Once upon a time");
  await page.press("#text", "Control+Enter");
  await page.waitForFunction(() => document.querySelector("#text").value.length > 60);
  await page.keyboard.press("Escape");
  await done(page);
  assert.match(await page.textContent("#status"), /^Stopped after \d+ tokens\.$/);
  await close();
});

test("Undo ends what is being written, and a reload keeps the text", async () => {
  const { page, close } = await open(server.url);
  await writeSlowly(page);
  await page.fill("#text", "The frog sat by the well");
  await page.press("#text", "Control+Enter");
  await page.waitForFunction(() => document.querySelector("#text").value.length > 60);
  await page.click("#undo");
  await page.waitForFunction(() => document.querySelector("#text").value === "The frog sat by the well");
  await page.waitForTimeout(500); // nothing more comes
  assert.equal(await textOf(page), "The frog sat by the well");
  assert.ok(await page.isHidden("#stop-writing"));
  await page.reload();
  assert.equal(await textOf(page), "The frog sat by the well");
  await close();
});

test("shows alternatives of a token, goes on from another, and undoes it", async () => {
  const { page, close } = await open(server.url);
  const written = await write(page, "Once upon a time there was a");
  await page.waitForFunction(() => document.querySelectorAll("#shade span").length > 10);
  await page.evaluate(() => {
    const text = document.querySelector("#text");
    text.focus();
    text.setSelectionRange(13, 13); // in "time"
    document.querySelector("#look-up").click();
  });
  await page.waitForSelector("#alternatives button");
  assert.match(await page.textContent("#alternatives h3"), /“time”/);
  const labels = await page.locator("#alternatives button").evaluateAll((all) => all.map((e) => e.ariaLabel));
  assert.equal(labels.length, 10);
  const probabilities = labels.map((label) => parseFloat(label.match(/, ([\d.]+) %/)[1]));
  assert.deepEqual(probabilities, [...probabilities].sort((a, b) => b - a));
  const other = labels.findIndex((label) => !label.startsWith("·time,"));
  const chosen = labels[other].split(",")[0].replaceAll("·", " ");
  const origin = /The probabilities are the model’s own: at temperature 1/;
  assert.match(await page.textContent("#alternatives"), origin);
  // The keys lead from the token that is there to another one, which Enter chooses.
  const own = labels.findIndex((label) => label.startsWith("·time,"));
  assert.equal(await page.evaluate(() => document.activeElement.ariaLabel), labels[Math.max(0, own)]);
  const key = other > Math.max(0, own) ? "ArrowDown" : "ArrowUp";
  for (let i = 0; i < Math.abs(other - Math.max(0, own)); i++) await page.keyboard.press(key);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#alternatives", { state: "hidden" });
  await done(page);
  assert.ok((await textOf(page)).startsWith(`Once upon a${chosen}`), await textOf(page));
  await page.click("#undo");
  assert.equal(await textOf(page), written);
  await page.press("#text", "Control+z");
  assert.equal(await textOf(page), "Once upon a time there was a");
  await page.press("#text", "Control+Shift+z");
  assert.equal(await textOf(page), written);
  await page.click("summary >> text=All versions");
  assert.ok((await page.locator("#history li").count()) >= 3);
  await close();
});

test("has the caret in the text at once; arrow keys lead into the list that a click opened", async () => {
  const { page, close } = await open(server.url);
  await page.waitForFunction(() => document.activeElement.id === "text");
  await page.keyboard.type(" cat");
  assert.equal(await textOf(page), "Once upon a time there was a cat");
  await page.waitForFunction(() => document.querySelector("#shade").lastElementChild?.textContent === " cat");
  await page.locator("#text").click({ position: { x: 90, y: 30 } });
  await page.waitForSelector("#alternatives h3");
  await page.keyboard.press("ArrowDown");
  assert.equal(await page.evaluate(() => document.activeElement.className), "alternative");
  await page.keyboard.press("Escape");
  assert.equal(await page.evaluate(() => document.activeElement.id), "text");
  await close();
});

test("shows a character of several tokens with the probability of each, and of all together", async () => {
  const { page, close } = await open(server.url);
  const text = "The king’s 🦊";
  await page.fill("#text", text);
  await page.locator("#shade span:last-of-type").filter({ hasText: "🦊" }).waitFor();
  await page.evaluate(() => {
    const text = document.querySelector("#text");
    text.setSelectionRange(text.value.length, text.value.length);
    document.querySelector("#look-up").click();
  });
  await page.waitForSelector("#alternatives li");
  assert.match(await page.textContent("#alternatives h3"), /“🦊”/);
  const said = await page.locator("#alternatives li").allTextContents();
  const { tokens, predictions } = await page.evaluate(async (prompt) => {
    const body = JSON.stringify({ model: "fable", prompt, predictions_only: true });
    return (await fetch("/lens", { method: "POST", body })).json();
  }, text);
  const last = tokens.slice(-said.length);
  assert.equal(last.reduce((sum, { bytes }) => sum + bytes.length, 0), 4, "the fox has four bytes");
  const before = predictions.slice(tokens.length - said.length - 1, -1);
  const surprisals = before.map(({ target }) => -target.logprob / Math.LN2);
  said.forEach((line, i) => {
    assert.ok(line.startsWith(`byte ${i + 1} of 4: `), line);
    assert.ok(line.endsWith(`, ${surprisals[i].toFixed(1)} bits`), line);
  });
  const bits = surprisals.reduce((a, b) => a + b).toFixed(1);
  assert.match(await page.textContent("#alternatives"), new RegExp(`together, ${bits} bits:`));
  await close();
});

test("shades tokens in three ways", async () => {
  const { page, close } = await open(server.url);
  await page.fill("#text", "Once upon a time the xylophone");
  const shades = async (mode) => {
    await page.check(`input[value=${mode}]`);
    await page.waitForFunction(() => document.querySelector("#shade").textContent.startsWith("Once upon a time the x"));
    await page.waitForTimeout(600);
    return page.locator("#shade span").evaluateAll((all) =>
      all.map((piece) => [piece.textContent, parseFloat(piece.style.getPropertyValue("--shade") || "0")]),
    );
  };
  const chosen = await shades("chosen");
  assert.equal(chosen.map(([text]) => text).join(""), "Once upon a time the xylophone");
  assert.ok(chosen.find(([text]) => text === " time")[1] < 20, "an expected word is pale");
  assert.ok(Math.max(...chosen.slice(5).map(([, shade]) => shade)) > 60, "an unexpected one is not");
  assert.match(await page.textContent("#shading-scale"), /^surprisal in bits.*12\+$/);
  assert.notDeepEqual(await shades("rank"), chosen);
  assert.notDeepEqual(await shades("entropy"), chosen);
  assert.match(await page.textContent("#shading-scale"), /^entropy in bits.*10\+$/);
  assert.ok((await shades("off")).every(([, shade]) => shade === 0));
  await close();
});

test("writes several completions side by side, and goes on with one", async () => {
  const { page, close } = await open(server.url);
  await write(page, "The wolf said", { n: "3" });
  const texts = await page.locator(".choice-text").allTextContents();
  assert.equal(new Set(texts).size, 3);
  await page.click(".choice >> nth=1 >> button");
  assert.equal(await textOf(page), "The wolf said" + texts[1]);
  await close();
});

test("puts text before and after, and stops where it is told to", async () => {
  const { page, close } = await open(server.url);
  await page.click("summary >> text=More");
  const text = await write(page, "Who is there?", { "start-text": "\\n— ", "restart-text": "\\n* ", stop: "\\n" });
  assert.ok(text.startsWith("Who is there?\n— "), JSON.stringify(text));
  assert.ok(text.endsWith("\n* "), JSON.stringify(text));
  assert.equal(text.split("\n").length, 3);
  await close();
});

test("keeps presets, and shares text and settings as a link", async () => {
  const { page, close } = await open(server.url);
  await page.fill("#text", "Ein Prinz, „schön“ 🦊");
  await page.fill("#temperature", "0.3");
  await page.fill("#preset-name", "mine");
  await page.click("#save-preset");
  await page.selectOption("#preset", "Wild");
  assert.equal(await page.inputValue("#temperature"), "1.3");
  await page.selectOption("#preset", "mine");
  assert.equal(await textOf(page), "Ein Prinz, „schön“ 🦊");
  await page.click("#share");
  const other = await open(page.url());
  assert.equal(await textOf(other.page), "Ein Prinz, „schön“ 🦊");
  assert.equal(await other.page.inputValue("#temperature"), "0.3");
  await other.close();
  await close();
});

test("says what is wrong with a setting, and where the text is too long", async () => {
  const { page, errors } = await open(server.url);
  await write(page, "A", { temperature: "9" });
  assert.match(await page.textContent("#status"), /temperature.*9/);
  await write(page, "word ".repeat(600), { temperature: "1" });
  const told = /^There are [\d,]+ tokens, and 512 fit into the model’s context: shorten the text\.$/;
  await page.waitForTimeout(800); // the text was scored meanwhile
  assert.match(await page.textContent("#status"), told);
  assert.equal(await page.textContent("#count"), "");
  assert.equal((await page.textContent("#complete .readout")).match(/context/g).length, 1, "it is said once");
  await write(page, "word ".repeat(300), { "max-tokens": "400" });
  await page.fill("#text", "A short one.");
  await page.waitForFunction(() => /^\d+ of 512 tokens$/.test(document.querySelector("#count").textContent));
  assert.equal(await page.textContent("#status"), "");
  assert.ok(errors.every((error) => /status of 400/.test(error)), errors.join("\n"));
  await page.context().close();
});

test("keeps what has arrived when the server goes, and goes on when it is back", async () => {
  const own = await serve();
  const { page } = await open(own.url);
  await writeSlowly(page);
  await page.fill("#text", "Once upon a time");
  await page.click("#send");
  await page.waitForFunction(() => document.querySelector("#text").value.length > 60);
  await own.stop();
  await done(page);
  assert.match(await page.textContent("#status"), /lost|reached/);
  const kept = await textOf(page);
  assert.ok(kept.length > 60);
  const again = await serve([], new URL(own.url).port);
  await page.fill("#max-tokens", "8");
  await page.click("#send");
  await done(page);
  assert.ok((await textOf(page)).length > kept.length);
  await again.stop();
  await page.context().close();
});

test("asks for a key, and keeps it in the tab", async () => {
  const keys = ["keys", "add", "anna", "--keys", "keys.json"];
  const folder = server.folder;
  const output = execFileSync(process.env.HORNBOOK, keys, { cwd: folder, encoding: "utf8", stdio: "pipe" });
  const key = output.match(/sk-\S+/)[0];
  const own = await serve(["--keys", `${folder}/keys.json`]);
  const { page } = await open(own.url);
  await page.waitForSelector("#key-dialog[open]");
  await page.fill("#key", "sk-wrong");
  await page.click("#key-dialog button.primary");
  await page.waitForFunction(() => document.querySelector("#key-problem").textContent.includes("does not accept"));
  await page.fill("#key", key);
  await page.click("#key-dialog button.primary");
  await page.waitForSelector("#model option", { state: "attached" });
  const text = await write(page, "The");
  assert.ok(text.length > 3);
  assert.equal(await page.evaluate(() => localStorage.getItem("hornbook-key")), null);
  await page.reload();
  await page.waitForSelector("#model option", { state: "attached" });
  await own.stop();
  await page.context().close();
});
