// Two pages of the chat example in headless Chromium, driven by what a person sees and types.
//
//   node page.mjs CHROMIUM PAGE-URL SOCKET-URL [SCREENSHOT]
//
// Prints a JSON line when both have chatted; on a line on stdin waits until both have been moved, and prints another.

import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const LIMIT_MS = 120_000;
const [executablePath, page, socket, screenshot] = process.argv.slice(2);

setTimeout(() => process.exit(3), 4 * LIMIT_MS).unref();

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
const problems = [];

async function open(name) {
  const tab = await browser.newPage();
  tab.setDefaultTimeout(LIMIT_MS);
  tab.on("pageerror", (error) => problems.push(String(error)));
  await tab.goto(`${page}?name=${name}&room=page&socket=${encodeURIComponent(socket)}`);
  await tab.locator('#state[data-state="open"]').waitFor();
  return tab;
}

async function say(from, to, text) {
  await from.fill("#text", text);
  await from.press("#text", "Enter");
  await to.locator("#log .message", { hasText: text }).waitFor();
}

const pods = (tabs) => Promise.all(tabs.map((tab) => tab.textContent("#node")));

try {
  const tabs = [await open("Ada"), await open("Grace")];
  await say(tabs[0], tabs[1], "hello from Ada");
  await say(tabs[1], tabs[0], "hello from Grace");
  console.log(JSON.stringify({ pods: await pods(tabs), problems }));
  const lines = createInterface({ input: process.stdin });
  const { done } = await lines[Symbol.asyncIterator]().next();
  if (!done) {
    for (const tab of tabs) await tab.locator("#moves li").first().waitFor();
    await say(tabs[0], tabs[1], "still here");
    const moves = await Promise.all(tabs.map((tab) => tab.locator("#moves li").allTextContents()));
    if (screenshot) await tabs[0].screenshot({ path: screenshot });
    console.log(JSON.stringify({ pods: await pods(tabs), moves, problems }));
  }
} finally {
  await browser.close();
}
process.exit(0);
