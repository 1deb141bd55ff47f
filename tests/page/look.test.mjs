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
  const kl = Number((await part(page, "effectNote").textContent()).match(/divergence ([\d.]+)/)[1]);
  assert.ok(Math.abs(kl - expected.kl_divergence) < 1e-4, `${kl} ${expected.kl_divergence}`);
  await part(page, "restore").click();
  await page.waitForSelector("#look-panels [data-part=effect]", { state: "hidden" });
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
