// The clients of the matrix, each behind the same few words.
//
// A client joins one topic by itself, and again whenever its connection was lost. What it says happened is in `log`:
// `{ did: "join" }`, `{ did: "close", code }`, `{ did: "hear", payload }`, `{ did: "reply", status, response }`.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import WebSocket from "ws";

const EVENT = "msg";

class Logged {
  log = [];

  all(did) {
    return this.log.filter((entry) => entry.did === did);
  }

  heard(id) {
    return this.all("hear").filter(({ payload }) => payload.id === id).length;
  }
}

/** phoenix.js of one version, unmodified, in this process. */
class PhoenixJs extends Logged {
  constructor({ Socket }, url, topic) {
    super();
    this.socket = new Socket(url, { transport: WebSocket });
    this.socket.onClose(({ code }) => this.log.push({ did: "close", code }));
    this.socket.connect();
    this.channel = this.socket.channel(topic, {});
    this.channel.on(EVENT, (payload) => this.log.push({ did: "hear", payload }));
    this.channel.join().receive("ok", () => this.log.push({ did: "join" }));
  }

  push(payload) {
    const push = this.channel.push(EVENT, payload);
    for (const status of ["ok", "error", "timeout"]) {
      push.receive(status, (response) => this.log.push({ did: "reply", status, response }));
    }
  }

  stop() {
    this.socket.disconnect();
  }
}

/** A client in another language: a program that is told payloads to push on stdin, and prints its log on stdout. */
class Program extends Logged {
  constructor(program, args, url, topic) {
    super();
    this.child = spawn(program, [...args, `${url}/websocket`, topic, EVENT], { stdio: ["pipe", "pipe", "inherit"] });
    createInterface({ input: this.child.stdout }).on("line", (line) => this.log.push(JSON.parse(line)));
    this.child.on("exit", (code) => this.log.push({ did: "exit", code }));
  }

  push(payload) {
    this.child.stdin.write(`${JSON.stringify(payload)}\n`);
  }

  stop() {
    this.child.stdin.end();
    this.child.kill("SIGKILL");
  }
}

const phoenixJs = async (version) => {
  const module = await import(`phoenix-${version}`);
  return { name: `phoenix ${version} (npm)`, codes: true, start: (...how) => new PhoenixJs(module, ...how) };
};

const program = (name, variable, args) => ({
  name,
  codes: false,
  start: (...how) => {
    if (!process.env[variable]) throw new Error(`${variable} names no program: run \`cargo e2e clients\``);
    return new Program(process.env[variable], args, ...how);
  },
});

/** Every client that is tested; the last phoenix.js is the one that the others talk with. */
export const clients = [
  ...(await Promise.all(["1.6.16", "1.7.21", "1.8.0", "1.8.12", "1.8.16"].map(phoenixJs))),
  program("phxsocket 0.1.5 (PyPI, V1)", "MATRIX_PYTHON", [new URL("phxsocket_client.py", import.meta.url).pathname]),
  program("phoenix_channels_client 0.1.2 (crates.io)", "MATRIX_RUST", []),
];

export const partner = clients.find(({ name }) => name.includes("1.8.16"));
