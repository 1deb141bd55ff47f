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

test("counts characters and bytes, and keeps the last token selected as the sentence grows", async () => {
  const { page, close } = await learn();
  const type = async (sentence, told) => {
    await page.fill("#sentence", sentence);
    await page.waitForFunction(
      (told) => document.querySelector("#lesson [data-figure] .note")?.textContent.startsWith(told),
      told,
    );
  };
  await type("Café", "4 characters, 5 bytes, ");
  await type("The old man and the young queen were angry, they", "48 characters, 48 bytes, 11 tokens.");
  await turnTo(page, 9);
  const chosen = page.locator("#lesson .token[aria-pressed=true]");
  assert.equal(await chosen.textContent(), "·they");
  await close();
});

test("shows cosines to both sides of 0, and logits as they are", async () => {
  const { page, close } = await learn();
  await turnTo(page, 2);
  await page.waitForSelector("#lesson .both-sides");
  assert.equal(await page.textContent("#lesson .ends"), "−1: opposite01: the same");
  const bars = await page.locator("#lesson .both-sides").evaluate((box) => {
    const middle = (element) => element.getBoundingClientRect();
    const tracks = [...box.querySelectorAll(".track")];
    return tracks.map((track) => {
      const [outer, fill] = [middle(track), middle(track.firstChild)];
      const zero = outer.left + outer.width / 2;
      const [from, to] = [fill.left, fill.right].map((x) => (x - zero) / outer.width);
      return { from, to, text: track.nextSibling.textContent };
    });
  });
  for (const { from, to, text } of bars) {
    const value = number(text);
    const [end, beginning] = value < 0 ? [from, to] : [to, from];
    assert.ok(Math.abs(end - value / 2) < 0.01 && Math.abs(beginning) < 0.01, text);
  }
  assert.ok(bars.some(({ text }) => text.startsWith("−")));
  await turnTo(page, 9);
  await page.waitForSelector("#lesson .both-sides");
  const shown = await page.locator("#lesson .both-sides .value").allTextContents();
  const { id, tokens, predictions } = await page.evaluate(async () => {
    const body = JSON.stringify({ model: "fable", prompt: document.querySelector("#sentence").value });
    return (await fetch("/lens", { method: "POST", body })).json();
  });
  const last = tokens.length - 1;
  const logits = await page.evaluate(
    async (path) => [...new Float32Array(await (await fetch(path)).arrayBuffer())],
    `/lens/${id}/sites/logits?token=${last}`,
  );
  const top = predictions[last].top_logprobs;
  top.forEach(({ id, logprob }, i) => {
    const [logit, percent] = shown[i].split(", ");
    assert.ok(Math.abs(number(logit) - logits[id]) <= 0.006, shown[i]);
    assert.ok(Math.abs(number(percent) / 100 / Math.exp(logprob) - 1) < 0.06, shown[i]);
  });
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
    // What is wider than the page says that it scrolls, and fades where it goes on.
    const boxes = await page.locator("#lesson .scroll").evaluateAll((all) =>
      all.map((box) => ({
        isWide: box.scrollWidth > box.clientWidth + 1,
        classes: box.className,
        hint: getComputedStyle(box, "::after").content,
        mask: getComputedStyle(box).maskImage,
      })),
    );
    for (const { isWide, classes, hint, mask } of boxes) {
      assert.equal(/overflows more-after/.test(classes), isWide, `page ${lesson}: ${classes}`);
      const isTold = /scroll sideways/.test(hint) && /gradient/.test(mask);
      assert.equal(isTold, isWide, `page ${lesson}: ${hint} ${mask}`);
    }
    if ([1, 5, 7].includes(lesson)) assert.ok(boxes.some(({ isWide }) => isWide), `page ${lesson}`);
  }
  await page.locator("#lesson-list button").first().click();
  await page.waitForSelector("#lesson .overflows");
  await page.locator("#lesson .overflows").evaluate((box) => (box.scrollLeft = box.scrollWidth));
  await page.waitForSelector("#lesson .more-before:not(.more-after)");
  await close();
});
