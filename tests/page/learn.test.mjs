// Learn: from the first page to the last, with the numbers of the model.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { open, screenshot, serve, violations } from "./browser.mjs";

let server;
before(async () => (server = await serve()));
after(() => server.stop());

const number = (text) => Number(text.replace("−", "-").replace(/[ %+]/g, ""));
async function learn(options = {}) {
  const opened = await open(`${server.url}/#learn`, options);
  await opened.page.waitForSelector("#lesson [data-figure] *");
  return opened;
}
async function turnTo(page, lesson) {
  await page.locator("#lesson-list button").nth(lesson - 1).click();
  await page.waitForFunction((n) => document.querySelector("#lesson h2").textContent.startsWith(`${n}.`), lesson);
  await page.waitForSelector("#lesson [data-figure] *");
}

test("leads from the first page to the last", async () => {
  const { page, close } = await learn();
  for (let lesson = 1; lesson <= 10; lesson++) {
    assert.match(await page.textContent("#lesson h2"), new RegExp(`^${lesson}\\. `));
    await page.waitForSelector("#lesson [data-figure] *");
    assert.deepEqual(await violations(page), [], `page ${lesson}`);
    if (lesson === 5) await screenshot(page, "learn");
    for (const link of await page.locator("#lesson a").evaluateAll((all) => all.map((a) => a.href))) {
      const response = await page.request.get(link);
      assert.equal(response.status(), 200, link);
    }
    if (lesson < 10) await page.click("#next-lesson");
  }
  assert.ok(await page.isDisabled("#next-lesson"));
  await close();
});

test("shows the dot product, the weights and the weighted sum of a head", async () => {
  const { page, close } = await learn();
  await turnTo(page, 5);
  await page.locator("#lesson .cell").nth(8).click();
  const scores = await page.locator("#lesson .numbers tr:nth-child(4) .cell").allTextContents();
  assert.equal(scores.length, 4);
  const told = await page.textContent("#lesson .readout");
  assert.match(told, /^·angry looks at ·was: .* divided by √64: /);
  const score = number(told.match(/√64: (.*)$/)[1]);
  assert.ok(Math.abs(score - number(scores[2])) <= 0.051, `${score} ${scores[2]}`);
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => /^, looks at ·was/.test(document.querySelector("#lesson .readout").textContent));
  await turnTo(page, 6);
  await page.waitForSelector("#lesson .numbers .cell");
  const rows = await page.locator("#lesson .numbers tbody tr").evaluateAll((rows) =>
    rows.map((row) => [...row.querySelectorAll("td")].map((cell) => cell.textContent)),
  );
  const [z, ...values] = [rows.at(-1), ...rows.slice(0, -1)].map((row) => row.slice(1).map(number));
  const weights = values.map(([percent]) => percent / 100);
  assert.ok(Math.abs(weights.reduce((a, b) => a + b) - 1) < 0.03);
  const sum = values.reduce((sum, row, j) => sum + weights[j] * row[1], 0);
  assert.ok(Math.abs(sum - z[1]) < 0.03, `${sum} ${z[1]}`);
  await close();
});

test("moves the distribution with the temperature, and draws a token", async () => {
  const { page, close } = await learn();
  await turnTo(page, 10);
  const first = () => page.locator("#lesson .bars .value").first().textContent().then(number);
  const before = await first();
  await page.locator("#lesson input[type=range]").first().fill("0.2");
  await page.waitForFunction(() => document.querySelector("#lesson label").textContent.includes("0.20"));
  assert.ok((await first()) > before + 20);
  assert.match(await page.textContent("#lesson .note"), /^4,096 tokens are left/); // top p is 1
  await page.locator("#lesson input[type=range]").nth(1).fill("0.3");
  await page.waitForFunction(() => document.querySelector("#lesson .note").textContent.startsWith("1 token is left"));
  const sentence = await page.inputValue("#sentence");
  const likeliest = (await page.locator("#lesson .bars .name").first().textContent()).replaceAll("·", " ");
  await page.click("#lesson .primary");
  await page.waitForFunction((old) => document.querySelector("#sentence").value !== old, sentence);
  assert.equal(await page.inputValue("#sentence"), sentence + likeliest);
  await close();
});

test("fits a phone in the dark", async () => {
  const { page, close } = await learn({ width: 360, theme: "dark" });
  for (let lesson = 1; lesson <= 10; lesson++) {
    await turnTo(page, lesson);
    await page.waitForTimeout(300);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `page ${lesson} scrolls sideways by ${overflow} pixels`);
    assert.deepEqual(await violations(page), [], `page ${lesson}`);
  }
  await close();
});
