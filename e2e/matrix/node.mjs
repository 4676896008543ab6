// One channel-node on this machine, started, ended and started again on the same port.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EVENT } from "./client.mjs";
import { until } from "./wait.mjs";

const PROGRAM = process.env.CHANNEL_NODE;

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

export class ChannelNode {
  static async start() {
    if (!PROGRAM) throw new Error("CHANNEL_NODE names no program: run `cargo e2e clients`");
    const node = new ChannelNode();
    node.folder = mkdtempSync(join(tmpdir(), "sluice-matrix-"));
    node.port = await freePort();
    node.url = `ws://127.0.0.1:${node.port}/socket`;
    const any = "127.0.0.1:0";
    const listen = { http: `127.0.0.1:${node.port}`, mesh: any, admin: any, publish: any };
    const live = join(node.folder, "live.json");
    const presence = { keyParam: "user", metaFields: ["status"] };
    const channels = [{ topic: "room:*", events: [EVENT], presence }];
    writeFileSync(live, JSON.stringify({ channels, drain: { initialDelaySeconds: 0 } }));
    node.config = join(node.folder, "node.json");
    const socket = { checkOrigin: ["//127.0.0.1"] };
    writeFileSync(node.config, JSON.stringify({ listen, liveFile: live, socket }));
    await node.begin();
    return node;
  }

  async begin() {
    let said = "";
    const child = spawn(PROGRAM, ["--config", this.config], { stdio: ["ignore", "ignore", "pipe"] });
    child.stderr.on("data", (text) => (said += text));
    this.child = child;
    await until("the node to serve", () => {
      if (child.exitCode !== null) throw new Error(`channel-node ended with ${child.exitCode}: ${said}`);
      return said.includes("the node serves");
    });
  }

  async end(signal) {
    this.child.kill(signal);
    await until("the node to end", () => this.child.exitCode !== null || this.child.signalCode !== null);
  }

  async close() {
    await this.end("SIGKILL");
    rmSync(this.folder, { recursive: true, force: true });
  }
}
