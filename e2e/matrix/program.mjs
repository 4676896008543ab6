// A client in another language: a program that is told what to do by JSON lines on stdin, and prints its log on stdout.
//
// Told `{ do: "push", event, payload }`, `{ do: "leave" }`, `{ do: "join" }`. Of presence it says what it receives,
// `{ did: "event", event, payload }`: `Presence` of phoenix.js makes of it what it makes of its own.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { Client, follow } from "./client.mjs";

export class Program extends Client {
  /** Without `hearsState`, the client gets what changes only: it is told of events once it has joined, and not before. */
  constructor(program, args, hearsState, Presence, { url, topic, user }) {
    super();
    const events = {};
    const channel = { on: (event, take) => (events[event] = take), joinRef: () => "1" };
    follow(Presence, channel, (entry) => this.log.push(entry));
    this.child = spawn(program, [...args, `${url}/websocket`, topic, user], { stdio: ["pipe", "pipe", "inherit"] });
    this.child.stdin.on("error", () => {}); // it has ended, which the log has
    createInterface({ input: this.child.stdout }).on("line", (line) => {
      const entry = JSON.parse(line);
      if (entry.did === "event") return events[entry.event](entry.payload);
      if (entry.did === "join" && !hearsState) events.presence_state({});
      this.log.push(entry);
    });
    this.child.on("exit", (code) => this.log.push({ did: "fault", text: `it ended with ${code}` }));
  }

  tell(what) {
    this.child.stdin.write(`${JSON.stringify(what)}\n`);
  }

  push(event, payload) {
    this.tell({ do: "push", event, payload });
  }

  leave() {
    this.tell({ do: "leave" });
  }

  join() {
    this.tell({ do: "join" });
  }

  stop() {
    this.child.stdin.end();
    this.child.kill("SIGKILL");
  }
}
