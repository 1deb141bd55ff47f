// Measure: the roofline of the latest completion, the engine as it is, attention kernels compared.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { LOOKS, open, screenshot, serve, violations } from "./browser.mjs";

let server;
before(async () => (server = await serve()));
after(() => server.stop());

const idle = (page) => page.waitForFunction(() => !document.querySelector("#measure [data-busy]"));
async function measure(options = {}) {
  const opened = await open(`${server.url}/#measure`, options);
  await opened.page.waitForSelector("#facts div");
  return opened;
}
async function runCompletion(page, prompt = 100, tokens = 20) {
  await page.fill("#prompt-tokens", String(prompt));
  await page.fill("#generated-tokens", String(tokens));
  await page.click("#measure-completion");
  await page.waitForSelector("#roofline .dot");
  await idle(page);
}
const state = (page) => page.evaluate(async () => (await fetch("/measure")).json());
const cells = (page, table) =>
  page
    .locator(`${table} tbody tr`)
    .evaluateAll((rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent)));
const number = (text) => Number(text.match(/\d[\d.,]*(e-?\d+)?/)[0].replaceAll(",", ""));
const near = (text, value) =>
  assert.ok(Math.abs(number(text) - value) <= 0.006 * Math.abs(value) + 1e-9, `${text} is not ${value}`);

test("says that there is nothing yet, then measures a completion", async () => {
  const { page, close } = await measure();
  assert.ok(await page.isVisible("#no-latest"));
  await runCompletion(page);
  assert.ok(await page.isHidden("#no-latest"));
  const { latest, limits } = await state(page);
  assert.equal(latest.prompt_tokens, 100);
  const decode = latest.phases[1];
  assert.equal(decode.tokens, 19);
  const rows = await cells(page, "#operations");
  const byTime = decode.operations.toSorted((a, b) => b.seconds - a.seconds);
  assert.equal(rows.length, byTime.length);
  byTime.forEach((operation, i) => {
    const [name, , share, gigabytes, gflops, bound, reached] = rows[i];
    assert.equal(name, `${i + 1} ${operation.operation}`);
    assert.ok(Math.abs(number(share) - (100 * operation.seconds) / decode.seconds) <= 0.51, share);
    near(gigabytes, operation.bytes / operation.seconds / 1e9);
    if (operation.flops) near(gflops, operation.flops / operation.seconds / 1e9);
    assert.equal(bound, operation.bound_by);
    assert.ok(Math.abs(number(reached) - 100 * operation.fraction_of_roofline) <= 0.51, reached);
  });
  const line = await page.locator("#roofline .limit").allTextContents();
  near(line[0], limits.bandwidth_gb_per_s);
  near(line[1], limits.peak_gflops);
  await close();
});

test("names operations where no line and no other name is", async () => {
  for (const width of [360, 1360]) {
    const { page, close } = await measure({ width });
    await runCompletion(page);
    const order = await page.locator("#roofline svg").evaluate((svg) => {
      const all = [...svg.querySelectorAll("path, text")];
      const last = (selector) => all.findLastIndex((element) => element.matches(selector));
      const lines = Math.max(...[".grid", ".roof", ".lead", ".dot"].map(last));
      return { lines, names: all.findIndex((element) => element.matches(".limit")) };
    });
    assert.ok(order.lines < order.names, "names are drawn over lines");
    const boxes = await page.locator("#roofline .name").evaluateAll((all) =>
      all.map((name) => [name.textContent, name.getBoundingClientRect().toJSON()]),
    );
    for (const [i, [a, one]] of boxes.entries()) {
      for (const [b, other] of boxes.slice(i + 1)) {
        const [x, y] = [["left", "right"], ["top", "bottom"]].map(
          ([from, to]) => Math.min(one[to], other[to]) - Math.max(one[from], other[from]),
        );
        assert.ok(x <= 0 || y <= 4, `${a} and ${b} overlap by ${x} × ${y} at ${width} pixels`);
      }
    }
    await close();
  }
});

test("explains operations by pointer and by keys, prefill and decode apart", async () => {
  const { page, close } = await measure();
  await runCompletion(page);
  const told = () => page.textContent("#operation");
  await page.locator("#roofline .dot").first().focus();
  const first = await told();
  await page.keyboard.press("ArrowRight");
  const second = await told();
  assert.notEqual(first, second);
  assert.match(second, / calls, .* % of the time; .* GB\/s, .* GFLOP\/s; its bound is (memory|compute)/);
  assert.equal(await page.locator("#roofline [aria-selected=true]").count(), 1);
  const dot = page.locator("#roofline [data-operation=lm_head]");
  const box = await dot.boundingBox();
  await page.locator("#roofline [data-operation='wte + wpe']").hover();
  assert.match(await told(), /^wte \+ wpe: looks up/);
  assert.ok(box.width > 4);
  await page.check("input[name=phase][value=prefill]");
  const { latest } = await state(page);
  const slowest = latest.phases[0].operations.toSorted((a, b) => b.seconds - a.seconds)[0];
  assert.equal((await cells(page, "#operations"))[0][0], `1 ${slowest.operation}`);
  await close();
});

test("follows the engine while it is looked at, and only then", async () => {
  const { page, close } = await measure();
  let looks = 0;
  page.on("request", (request) => (looks += /\/measure\?/.test(request.url()) ? 1 : 0));
  await runCompletion(page, 10, 300);
  await page.waitForTimeout(2500);
  assert.ok(looks >= 3, `${looks}`);
  const [first, time] = [looks, Date.now()];
  await page.waitForTimeout(3000);
  assert.ok(looks - first <= (Date.now() - time) / 1000 + 1, `${looks - first}`);
  const labels = await page.locator("#rates svg").evaluateAll((all) => all.map((svg) => svg.getAttribute("aria-label")));
  assert.match(labels[1], /^decode: .* at most [1-9]/);
  const { engine } = await state(page);
  const facts = await page.textContent("#facts");
  assert.ok(facts.includes(`${engine.prompt_tokens.toLocaleString("en")} computed`), facts);
  await page.click("#measure details summary");
  assert.ok((await cells(page, "#rate-table")).length >= 2);
  await page.click("#to-write");
  await page.waitForTimeout(300);
  const before = looks;
  await page.waitForTimeout(2500);
  assert.equal(looks, before);
  await close();
});

test("compares attention kernels", async () => {
  const { page, close } = await measure();
  const { run } = await state(page);
  await page.fill("#kernel-length", "64");
  await page.selectOption("#kernel-phase", "decode");
  await page.focus("#compare-kernels");
  await page.keyboard.press("Enter");
  await page.waitForFunction((n) => document.querySelectorAll("#kernel-table tbody tr").length === n, run.kernels.length);
  await idle(page);
  const rows = await cells(page, "#kernel-table");
  assert.deepEqual(
    rows.map(([name]) => name),
    run.kernels,
  );
  for (const [kernel, time, ratio, , , error] of rows) {
    assert.match(time, / (ms|µs)$/, kernel);
    assert.ok(Number(ratio) > 0 && Number(error) < 1e-4, `${kernel}: ${ratio} ${error}`);
  }
  assert.equal(await page.locator("#kernel-bars .fill").count(), run.kernels.length);
  await close();
});

test("shows why something cannot be measured", async () => {
  const { page, errors } = await measure();
  await page.fill("#kernel-length", "5000");
  await page.click("#compare-kernels");
  assert.ok(await page.$eval("#kernel-length", (input) => input.matches(":invalid:focus")), "told at the field");
  await page.fill("#prompt-tokens", "5000");
  await page.click("#measure-completion");
  const told = /tokens, and 512 fit into the model’s context/;
  await page.locator("#measure-status").filter({ hasText: told }).waitFor();
  await idle(page);
  assert.ok(errors.every((error) => /status of 400/.test(error)), errors.join("\n"));
  await page.context().browser().close();
});

for (const { width, theme } of LOOKS) {
  test(`is accessible and fits ${width} pixels, ${theme}`, async () => {
    const { page, close } = await measure({ width, theme });
    await runCompletion(page);
    await page.fill("#kernel-length", "32");
    await page.click("#compare-kernels");
    await page.waitForSelector("#kernel-table tbody tr:nth-child(7)");
    await idle(page);
    assert.deepEqual(await violations(page), []);
    await screenshot(page, `measure-${width}-${theme}`);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `scrolls sideways by ${overflow} pixels`);
    await close();
  });
}
