// A server and a browser for the tests. A page that writes an error to the console fails its test.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { mkdirSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";

const servers = [];
let browser = null; // of all tests of a file, each with a context of its own
// What a test that fails leaves open, too.
after(async () => {
  servers.forEach((server) => server.kill("SIGKILL"));
  await browser?.close();
});

const require = createRequire(process.env.PACKAGES + "/");
const { chromium } = require("playwright-core");
const axe = require.resolve("axe-core/axe.min.js");

// Starts `hornbook serve` with options, on `port` or a free one.
export async function serve(options = [], port = 0) {
  const folder = mkdtempSync(join(tmpdir(), "hornbook-page-"));
  const env = { ...process.env, HORNBOOK_CONFIG: "", NO_COLOR: "1" };
  const args = ["serve", "--port", String(port), ...options];
  const server = spawn(process.env.HORNBOOK, args, { cwd: folder, env });
  servers.push(server);
  let log = "";
  const url = await new Promise((resolve, reject) => {
    const listen = (data) => {
      log += data;
      const found = log.match(/http:\/\/127\.0\.0\.1:\d+/);
      if (found && /ready|serving/i.test(log)) resolve(found[0]);
    };
    server.stdout.on("data", listen);
    server.stderr.on("data", listen);
    server.on("exit", () => reject(new Error(log)));
  });
  const stop = async () => {
    if (server.exitCode !== null) return;
    server.kill("SIGKILL");
    await once(server, "exit");
  };
  return { url, stop, folder };
}

// Opens the page. `errors` are those of the console so far; `close` asserts that there are none.
export async function open(url, { width = 1360, height = 900, theme = "light", ...options } = {}) {
  const args = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
  args.push("--disable-background-networking", "--disable-component-update", "--disable-sync");
  if (!browser?.isConnected()) browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args });
  const viewport = { width, height };
  const context = await browser.newContext({ viewport, colorScheme: theme, reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const errors = [];
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(error.stack));
  await page.goto(url);
  const close = async () => {
    await context.close();
    assert.deepEqual(errors, []);
  };
  return { page, errors, close };
}

// Lets answers arrive at 40 KB a second, so that a test can act before the last token is there.
export async function slowNetwork(page) {
  const session = await page.context().newCDPSession(page);
  const conditions = { offline: false, latency: 0, downloadThroughput: 40_000, uploadThroughput: -1 };
  await session.send("Network.emulateNetworkConditions", conditions);
}

// The widths and themes that a view is looked at in. The colours of a theme do not depend on the width, so not
// every width has both.
export const LOOKS = [
  { width: 360, theme: "light" },
  { width: 360, theme: "dark" },
  { width: 1360, theme: "light" },
  { width: 2560, theme: "dark" },
];

// What axe finds wrong with what is visible now.
export async function violations(page) {
  await page.evaluate(() => document.activeElement?.blur());
  const { readFileSync } = await import("node:fs");
  await page.evaluate(readFileSync(axe, "utf8"));
  const { violations } = await page.evaluate(() => window.axe.run(document));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 120)).join(" | ")}`);
}

export async function screenshot(page, name) {
  mkdirSync(process.env.SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`), fullPage: true });
}
