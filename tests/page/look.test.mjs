// Look: the numbers are those of `hornbook inspect --json`; heads, tokens, switching off, comparing.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, test } from "node:test";
import { LOOKS, open, screenshot, serve, violations } from "./browser.mjs";

let server;
before(async () => (server = await serve()));
after(() => server.stop());

const TEXT = "The cat sat on the mat because it was tired";
const part = (page, name) => page.locator(`#look-panels [data-part=${name}]`).first();

async function look(text = TEXT, options = {}) {
  const opened = await open(`${server.url}/#look`, options);
  await part(opened.page, "text").fill(text);
  await opened.page.waitForFunction(
    (n) => document.querySelectorAll("#look-panels .token").length >= n,
    Math.min(9, text.split(" ").length),
  );
  await opened.page.waitForSelector("#look-panels [data-part=attribution] .cell");
  return opened;
}
function inspect(...options) {
  const args = ["inspect", TEXT, "--json", ...options];
  return JSON.parse(execFileSync(process.env.HORNBOOK, args, { encoding: "utf8", maxBuffer: 1 << 28 }));
}

test("shows the numbers of inspect --json", async () => {
  const { page, close } = await look();
  const expected = inspect();
  const request = (path, body) =>
    page.evaluate(
      async ([path, body]) => {
        const options = body && { method: "POST", body: JSON.stringify(body) };
        return (await fetch(path, options)).json();
      },
      [path, body],
    );
  const found = await request("/lens", { prompt: TEXT });
  assert.deepEqual(
    found.tokens.map(({ id, text }) => [id, text]),
    expected.tokens.map(({ id, text }) => [id, text]),
  );
  assert.deepEqual(found.predictions.slice(0, -1), expected.predictions.slice(0, -1));
  assert.deepEqual(found.residual_norms, expected.residual_norms);
  const t = 4;
  const token = await request(`/lens/${found.id}/tokens/${t}`);
  assert.deepEqual(token.direct_logit_attribution, expected.direct_logit_attribution[t]);
  assert.deepEqual(token.logit_lens, expected.logit_lens.map((depth) => depth[t]));
  const { layer, head, pattern } = expected.attention;
  const bytes = await page.evaluate(
    async (path) => [...new Uint8Array(await (await fetch(path)).arrayBuffer())],
    `/lens/${found.id}/attention/${layer}/${head}`,
  );
  const expectedBytes = pattern.flatMap((row, i) =>
    row.slice(0, i + 1).map((weight) => Math.round(255 * Math.sqrt(weight))),
  );
  bytes.forEach((byte, i) => assert.ok(Math.abs(byte - expectedBytes[i]) <= 1, `${i}: ${byte}`));
  // What is written on the page is rounded from these.
  const bits = await page.locator("#look-panels .token small").allTextContents();
  expected.tokens.forEach(({ surprisal_bits: own }, i) => {
    assert.equal(bits[i], own === null ? "–" : own.toFixed(1));
  });
  await close();
});

test("follows what is typed, and shares the text with Write", async () => {
  const { page, close } = await look();
  await part(page, "text").press("End");
  await part(page, "text").pressSequentially(" and old");
  await page.waitForFunction(() => document.querySelectorAll("#look-panels .token").length === 13 ||
    [...document.querySelectorAll("#look-panels .token")].at(-1)?.textContent.startsWith("·old"));
  await page.click("#to-write");
  assert.equal(await page.inputValue("#text"), TEXT + " and old");
  await close();
});

test("selects tokens and heads by pointer and by keys", async () => {
  const { page, close } = await look();
  await page.locator("#look-panels .token").nth(2).click();
  assert.equal(await page.locator("#look-panels .here").first().textContent(), "·sat");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Enter");
  assert.equal(await page.locator("#look-panels .here").first().textContent(), "·on");
  await page.locator("#look-panels .thumb").nth(5).click();
  assert.equal(await part(page, "selectedHead").textContent(), "Layer 1, head 1");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("[data-part=selectedHead]").textContent === "Layer 2, head 1");
  const map = part(page, "map");
  await page.waitForTimeout(300);
  await map.focus();
  await page.keyboard.press("ArrowUp");
  await page.keyboard.press("ArrowLeft");
  assert.match(await part(page, "pair").textContent(), /attends to .* with [\d.]+ %/);
  const box = await map.boundingBox();
  await page.mouse.move(box.x + box.width * 0.6, box.y + box.height * 0.9);
  assert.match(await part(page, "pair").textContent(), /attends to .* with [\d.]+ %/);
  await close();
});

test("switches a head and an MLP off, and shows before and after", async () => {
  const { page, close } = await look();
  await page.locator("#look-panels .thumb").nth(4).click();
  await part(page, "toggleHead").click();
  await page.waitForSelector("#look-panels [data-part=effect]:not([hidden])");
  assert.match(await part(page, "effectNote").textContent(), /^Switched off: L1H0\./);
  await page.waitForFunction(() => document.querySelector("[data-mlp=mlp0]"));
  await page.locator("#look-panels [data-mlp=mlp0]").click();
  await page.waitForFunction(() => document.querySelector("[data-part=effectNote]").textContent.includes("mlp0"));
  const expected = inspect("--ablate", "L1H0,mlp0").intervention;
  const kl = Number((await part(page, "effectNote").textContent()).match(/divergence ([\d.]+) bits/)[1]);
  assert.ok(Math.abs(kl - expected.kl_divergence / Math.LN2) < 1e-4, `${kl} ${expected.kl_divergence}`);
  await part(page, "restore").click();
  await page.waitForSelector("#look-panels [data-part=effect]", { state: "hidden" });
  await close();
});

const REPEATED = "Mr. Dorkel and Mrs. Dorkel met Mr. Plumb and Mrs. Plumb. Mr. Dorkel said to Mrs. Plumb";
test("says what a head does, from its pattern", async () => {
  const { page, close } = await look(REPEATED);
  const told = async (head, words) => {
    await page.locator("#look-panels .thumb").nth(head).click();
    const start = new RegExp(`^In this text, ${words}`);
    const element = part(page, "headWords").filter({ hasText: start });
    await element.waitFor();
    return element.textContent();
  };
  // Those that `hornbook heads` finds in this model.
  const words = await told(12, "L3H0 looks mostly at the token before, with ");
  assert.match(words, /with \d\d % of its attention on average\./);
  await told(21, "L5H1 .*what followed earlier copies of the same token");
  await told(0, "L0H0 spreads its attention almost evenly");
  // The scores, on patterns of which they are known: all attention on one place is a byte of 255.
  const scores = await page.evaluate(async () => {
    const { headScores } = await import("/page/head_words.js");
    const ids = [5, 6, 7, 5, 6, 7];
    const row = (i, place) => ids.slice(0, i + 1).map((_, j) => (j === place ? 255 : 0));
    const pattern = (place) => Uint8Array.from(ids.flatMap((_, i) => row(i, Math.max(0, place(i)))));
    const of = (place) => headScores(pattern(place), ids).kinds.map(({ score }) => score);
    return [of((i) => i - 1), of(() => 0), of((i) => i), of((i) => i - 3), of((i) => i - 2)];
  });
  scores.forEach((row, kind) => assert.equal(row[kind], 1, `${kind}: ${row}`));
  await part(page, "text").fill("Two words");
  await part(page, "headWords").filter({ hasText: "too short" }).waitFor();
  await close();
});

test("shows nothing of the last text where the next one cannot be read", async () => {
  const { page, errors } = await look();
  assert.match(await part(page, "summary").textContent(), /tokens/);
  await part(page, "text").fill("word ".repeat(600));
  await part(page, "problem").filter({ hasText: /^There are [\d,]+ tokens, and 512 fit/ }).waitFor();
  assert.equal(await part(page, "summary").textContent(), "");
  assert.ok(errors.every((error) => /status of 400/.test(error)), errors.join("\n"));
  await page.context().close();
});

test("names the bytes of a character that is several tokens", async () => {
  const { page, close } = await look("The café was old and quiet again today");
  const tokens = page.locator("#look-panels .token");
  const titles = await tokens.evaluateAll((all) => all.map((token) => token.title));
  const at = titles.findIndex((title) => title.endsWith(", byte 1 of 2 of “é”"));
  assert.ok(at > 0 && titles[at + 1].endsWith(", byte 2 of 2 of “é”"), titles.join("\n"));
  await tokens.nth(at + 1).click();
  assert.match(await part(page, "nextNote").textContent(), /^\\xA9 is byte 2 of 2 of “é”\. Entropy/);
  await close();
});

test("compares two texts, with the same head in both", async () => {
  const { page, close } = await look();
  await page.click("#compare");
  await page.waitForFunction(() => document.querySelectorAll("[data-part=selectedHead]").length === 2);
  const second = page.locator("#look-panels article").nth(1);
  await second.locator("[data-part=text]").fill("The dog sat on the rug");
  await page.waitForFunction(() => document.querySelectorAll("article:nth-child(2) .token").length < 9);
  await page.locator("article:nth-child(1) .thumb").nth(7).click();
  assert.equal(await second.locator("[data-part=selectedHead]").textContent(), "Layer 1, head 3");
  assert.equal(await second.locator(".legend .scale span").count(), 6);
  await screenshot(page, "compare");
  await page.click("#compare");
  assert.equal(await page.locator("#look-panels article").count(), 1);
  await close();
});

test("follows the pointer over a map of 500 tokens, and tells the time of a frame", async () => {
  const { page, close } = await look("a b c d e f g h ".repeat(200).slice(0, 1000));
  await page.waitForTimeout(1500);
  const map = part(page, "map");
  await map.scrollIntoViewIfNeeded();
  const box = await map.boundingBox();
  const times = await page.evaluate(async (box) => {
    const canvas = document.querySelector("#look-panels [data-part=map]");
    const times = [];
    for (let i = 0; i < 100; i++) {
      await new Promise(requestAnimationFrame);
      const start = performance.now();
      const at = { clientX: box.x + 80 + i * 4, clientY: box.y + box.height - 2 * i - 4, bubbles: true };
      canvas.dispatchEvent(new PointerEvent("pointermove", at));
      times.push(performance.now() - start);
    }
    return times.sort((a, b) => a - b);
  }, box);
  const tokens = await page.locator("#look-panels .token").count();
  console.log(`${tokens} tokens: median ${times[50].toFixed(1)} ms, 95 % ${times[94].toFixed(1)} ms`);
  assert.ok(tokens > 400, `${tokens}`);
  assert.match(await part(page, "pair").textContent(), /attends to .* with [\d.]+ %/);
  await close();
});

for (const { width, theme } of LOOKS) {
  test(`is accessible and fits ${width} pixels, ${theme}`, async () => {
    const { page, close } = await open(server.url, { width, theme });
    await page.check("input[value=chosen]");
    await page.click("#send");
    await page.waitForSelector("#stop-writing", { state: "hidden" });
    await page.waitForTimeout(800);
    assert.deepEqual(await violations(page), []);
    await screenshot(page, `write-${width}-${theme}`);
    await page.click("#to-look");
    await page.waitForSelector("#look-panels [data-part=attribution] .cell");
    await page.waitForTimeout(500);
    assert.deepEqual(await violations(page), []);
    await screenshot(page, `look-${width}-${theme}`);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `scrolls sideways by ${overflow} pixels`);
    await close();
  });
}
