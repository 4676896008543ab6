// phoenix.js in a page of headless Chromium. The page has an origin of its own: what it asks of a node is cross-origin.

import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { chromium } from "playwright-core";
import { Client } from "./client.mjs";

const LIMIT_MS = 30_000;

const script = "text/javascript";
const FILES = {
  "/": ["page.html", "text/html"],
  "/client.mjs": ["client.mjs", script],
  "/phoenix_js.mjs": ["phoenix_js.mjs", script],
};

/** The server of the page, with phoenix.js of one version. */
async function serve(version) {
  const files = { ...FILES, "/phoenix.mjs": [`node_modules/phoenix-${version}/priv/static/phoenix.mjs`, script] };
  const server = createServer(async ({ url }, response) => {
    const [file, type] = files[url] ?? [];
    if (!file) return response.writeHead(404).end();
    const text = await readFile(new URL(file, import.meta.url)).catch(() => undefined);
    response.writeHead(text ? 200 : 500, { "content-type": type }).end(text);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server;
}

export class PageClient extends Client {
  static async start(version, how) {
    if (!process.env.CHROMIUM) throw new Error("CHROMIUM names no program: run `cargo e2e clients`");
    const client = new PageClient();
    try {
      await client.open(version, how);
    } catch (error) {
      await client.stop();
      throw error;
    }
    return client;
  }

  async open(version, how) {
    this.server = await serve(version);
    const args = ["--no-sandbox", "--disable-gpu"];
    this.browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args, timeout: LIMIT_MS });
    this.page = await this.browser.newPage();
    this.page.setDefaultTimeout(LIMIT_MS);
    this.page.on("pageerror", (error) => this.log.push({ did: "fault", text: String(error) }));
    await this.page.exposeFunction("say", (entry) => void this.log.push(entry));
    await this.page.goto(`http://127.0.0.1:${this.server.address().port}/`);
    await this.page.evaluate((how) => window.begin(how), how);
  }

  push(event, payload) {
    return this.page.evaluate(([event, payload]) => window.client.push(event, payload), [event, payload]);
  }

  leave() {
    return this.page.evaluate(() => window.client.leave());
  }

  join() {
    return this.page.evaluate(() => window.client.join());
  }

  async stop() {
    await this.browser?.close();
    this.server?.close();
    this.server?.closeAllConnections();
  }
}
