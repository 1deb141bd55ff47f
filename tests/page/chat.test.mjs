// Chat: streaming, changing messages, regenerating, stopping, code; and what the views say of other models.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { open, screenshot, serve, slowNetwork } from "./browser.mjs";
import { writeTinyModel } from "./tiny_model.mjs";

let server;
before(async () => {
  const folder = process.env.SCREENSHOTS;
  const models = [
    writeTinyModel(join(folder, "tiny")),
    writeTinyModel(join(folder, "untold"), { chatTemplate: "{% oops" }),
    writeTinyModel(join(folder, "bare"), { hasTokenizer: false }),
  ];
  server = await serve(["--model", "fable", ...models.flatMap((model) => ["--model", model])]);
});
after(() => server.stop());

async function openChat(options = {}) {
  const opened = await open(server.url, options);
  await opened.page.waitForSelector("#model option", { state: "attached" });
  await opened.page.check("input[value=chat]");
  await opened.page.fill("#max-tokens", "30");
  await opened.page.fill("#seed", "7");
  return opened;
}
const messages = (page) => page.locator("#messages textarea").evaluateAll((all) => all.map((area) => area.value));
// Waits until the conversation has so many messages, and the last one is written.
async function written(page, count) {
  await page.waitForFunction(
    (n) => document.querySelectorAll(".message").length === n && document.querySelector("#chat-stop").hidden,
    count,
  );
}
async function say(page, text) {
  const before = (await messages(page)).length;
  await page.fill("#say", text);
  await page.press("#say", "Enter");
  await written(page, before + 2);
}

test("answers in the model's template, the same for the same seed, and counts the context", async () => {
  const { page, close } = await openChat();
  await page.fill("#system", "You are a fox.");
  await say(page, "Who are you?");
  const [question, answer] = await messages(page);
  assert.equal(question, "Who are you?");
  // What the API answers to a first question.
  const ask = async (content, seed) => {
    const messages = [{ role: "system", content: "You are a fox." }, { role: "user", content }];
    const body = JSON.stringify({ messages, max_tokens: 30, seed, model: "fable" });
    return (await fetch(`${server.url}/v1/chat/completions`, { method: "POST", body })).json();
  };
  const expected = await ask("Who are you?", 7);
  assert.equal(answer, expected.choices[0].message.content);
  const { prompt_tokens, completion_tokens } = expected.usage;
  await page.waitForFunction(() => document.querySelector("#chat-count").textContent);
  const used = `${prompt_tokens + completion_tokens} of 512 tokens of the context used`;
  assert.equal(await page.textContent("#chat-count"), used);
  const spoken = (await page.textContent("#chat-spoken")).trim();
  assert.ok(spoken && answer.trim().endsWith(spoken), spoken);

  // A conversation goes on, and its messages can be changed and removed.
  await say(page, "And then?");
  assert.equal((await messages(page)).length, 4);
  await page.fill("#messages textarea >> nth=0", "Who is the king?");
  await page.click("[aria-label='Regenerate message 2']");
  await written(page, 2);
  const changed = await messages(page);
  const answerTo = async (seed) => (await ask("Who is the king?", seed)).choices[0].message.content;
  assert.deepEqual(changed, ["Who is the king?", await answerTo(7)]);
  await page.fill("#seed", "8");
  await page.click("[aria-label='Regenerate message 2']");
  await written(page, 2);
  const again = (await messages(page))[1];
  assert.equal(again, await answerTo(8));
  assert.notEqual(again, changed[1]);
  await page.click("[aria-label='Remove message 1']");
  assert.equal((await messages(page)).length, 1);
  await page.click("#chat-clear");
  assert.equal((await messages(page)).length, 0);
  // What was removed comes back, step by step.
  const back = [[again], ["Who is the king?", again], changed];
  for (const expected of back) {
    await page.click("#chat-undo");
    assert.deepEqual(await messages(page), expected);
  }
  await close();
});

test("streams, stops at Escape, and keeps what has arrived; Shift+Enter begins a line", async () => {
  const { page, close } = await openChat();
  await slowNetwork(page);
  await page.selectOption("#model", "tiny"); // which goes on and on
  await page.fill("#max-tokens", "400");
  await page.fill("#seed", "5");
  await page.fill("#say", "Tell me");
  await page.press("#say", "Shift+Enter");
  await page.locator("#say").pressSequentially("a story");
  await page.press("#say", "Enter");
  await page.waitForFunction(() => document.querySelectorAll(".message textarea")[1]?.value.length > 20);
  await page.keyboard.press("Escape");
  await written(page, 2);
  const [question, answer] = await messages(page);
  assert.equal(question, "Tell me\na story");
  assert.ok(answer.length > 20);
  assert.match(await page.textContent("#chat-status"), /^Stopped after \d+ tokens\.$/);
  await close();
});

test("Enter is a line break where there is no keyboard", async () => {
  const { page, close } = await openChat({ width: 360, hasTouch: true, isMobile: true });
  await page.fill("#say", "One");
  await page.press("#say", "Enter");
  assert.equal(await page.inputValue("#say"), "One\n");
  assert.equal(await page.textContent("#chat-keys"), "");
  await page.press("#say", "Control+Enter");
  await written(page, 2);
  await close();
});

test("gives code that runs and answers the same", async () => {
  const { page, close } = await openChat();
  await page.fill("#system", "Be “brief”.");
  await page.click(".settings summary");
  await page.fill("#repetition-penalty", "1.1"); // which OpenAI's clients do not know
  await say(page, "Who's there?\nSay it.");
  const [, answer] = await messages(page);
  await page.click("#chat-code");
  const code = async (kind) => {
    await page.selectOption("#code-kind", kind);
    return page.textContent("#code");
  };
  const run = (program, args) => execFileSync(program, args, { encoding: "utf8", stdio: "pipe" });
  const curl = JSON.parse(run("bash", ["-c", await code("curl")]));
  assert.equal(curl.choices[0].message.content, answer);
  assert.equal(run("python3", ["-c", await code("Python alone")]).trimEnd(), answer.trimEnd());
  assert.match(await code("openai (Python)"), /client\.chat\.completions\.create\(/);
  assert.match(await code("openai (Python)"), /extra_body=\{"repetition_penalty": 1\.1\}/);
  assert.match(await code("openai 0.28"), /openai\.ChatCompletion\.create\(/);
  const clients = existsSync(process.env.CLIENTS) ? readdirSync(process.env.CLIENTS) : [];
  for (const client of clients.filter((name) => /^openai-[\d.]+$/.test(name))) {
    const python = join(process.env.CLIENTS, client, "bin/python");
    const kind = client.startsWith("openai-0.") ? "openai 0.28" : "openai (Python)";
    assert.equal(run(python, ["-c", await code(kind)]).trimEnd(), answer.trimEnd(), client);
  }
  assert.equal(await page.locator("#code-kind option").count(), 4);
  await close();
});

test("says what a model whose template is broken, or that has no tokenizer, cannot do", async () => {
  const { page, errors } = await openChat();
  const choose = (name) => page.selectOption("#model", name);
  await choose("untold");
  await page.fill("#say", "Who are you?");
  await page.click("#chat-send");
  await page.waitForFunction(() => /no usable chat template/.test(document.querySelector("#chat-status").textContent));
  assert.deepEqual(await messages(page), ["Who are you?"]);
  await choose("bare");
  await page.check("input[value=complete]");
  const told = /^prompt: the model `bare` has no tokenizer, expected token ids$/;
  await page.click("#send");
  await page.waitForSelector("#stop-writing", { state: "hidden" });
  await page.waitForFunction(() => document.querySelector("#status").textContent);
  assert.match(await page.textContent("#status"), told);
  await page.click("#to-look");
  await page.waitForFunction(() => document.querySelector("#look-panels [data-part=problem]").textContent);
  assert.match(await page.textContent("#look-panels [data-part=problem]"), told);
  await page.click("#to-learn");
  await page.waitForFunction(() => document.querySelector("#learn-problem").textContent);
  assert.match(await page.textContent("#learn-problem"), told);
  assert.ok(errors.every((error) => /status of 400/.test(error)), errors.join("\n"));
  await page.context().close();
});

test("shows a text of 1,024 tokens from inside", async () => {
  const { page, close } = await open(server.url);
  await page.waitForSelector("#model option", { state: "attached" });
  await page.selectOption("#model", "tiny");
  await page.fill("#text", "abcdefgh".repeat(128));
  await page.waitForFunction(() => document.querySelector("#count").textContent === "1024 of 1024 tokens");
  await page.click("#to-look");
  await page.waitForFunction(() => document.querySelectorAll("#look-panels .token").length === 1024);
  await page.locator("#look-panels .token").nth(1000).click();
  const map = page.locator("#look-panels [data-part=map]");
  await page.waitForSelector("#look-panels [data-part=attribution] .cell");
  await map.focus();
  await page.keyboard.press("ArrowUp");
  assert.match(await page.textContent("#look-panels [data-part=pair]"), /attends to .* with [\d.]+ %/);
  await close();
});

test("writes text that runs from right to left, and shows its bytes", async () => {
  const { page, close } = await open(server.url);
  await page.fill("#text", "היה היה פעם מלך.\nOnce, said המלך, there was");
  await page.check("input[value=chosen]");
  await page.waitForFunction(() => document.querySelectorAll("#shade span").length > 20);
  // The shades lie under the characters: the first line begins at the right, the second at the left.
  const places = await page.locator("#shade span").evaluateAll((all) =>
    all.map((piece) => [piece.textContent, piece.getBoundingClientRect().left]),
  );
  const middle = await page.evaluate(() => {
    const { left, width } = document.querySelector("#text").getBoundingClientRect();
    return left + width / 2;
  });
  assert.ok(places[0][1] > middle && places[1][1] < places[0][1], JSON.stringify(places.slice(0, 3)));
  assert.ok(places.find(([text]) => /Once|On/.test(text))[1] < middle);
  await screenshot(page, "write-right-to-left");
  await page.click("#to-look");
  await page.waitForSelector("#look-panels .token");
  assert.match(await page.locator("#look-panels .token").first().textContent(), /^(\\x[0-9A-F]{2}|ה)/);
  await close();
});

test("shares a conversation as a link", async () => {
  const { page, close } = await openChat();
  await page.fill("#system", "Be “brief”.");
  await page.fill("#temperature", "0.4");
  await say(page, "Wer bist du, 🦊?");
  const conversation = await messages(page);
  await page.click("#chat-share");
  await page.locator("#chat-status").filter({ hasText: /^The link is in the address bar/ }).waitFor();
  const other = await open(page.url());
  await other.page.waitForSelector("#messages textarea");
  assert.ok(await other.page.isChecked("input[value=chat]"));
  assert.deepEqual(await messages(other.page), conversation);
  assert.equal(await other.page.inputValue("#system"), "Be “brief”.");
  assert.equal(await other.page.inputValue("#temperature"), "0.4");
  assert.equal(await other.page.inputValue("#max-tokens"), "30");
  await say(other.page, "And I?");
  await other.close();
  await close();
});

test("streams over a slow network", async () => {
  const { page, close } = await openChat();
  await say(page, "Who are you?");
  const [, answer] = await messages(page);
  await page.click("#chat-clear");
  const session = await page.context().newCDPSession(page);
  const conditions = { offline: false, latency: 300, downloadThroughput: 2000, uploadThroughput: 2000 };
  await session.send("Network.emulateNetworkConditions", conditions);
  await say(page, "Who are you?");
  assert.equal((await messages(page))[1], answer);
  await close();
});
