// Every client of the matrix, each behind the same few words (client.mjs).

import WebSocket from "ws";
import { Client } from "./client.mjs";
import { PageClient } from "./page.mjs";
import { PhoenixJs } from "./phoenix_js.mjs";
import { Program } from "./program.mjs";

const LAST = "1.8.16";
/** The first that can long-poll in Node, which has no XMLHttpRequest: it asks by `fetch`. */
const POLLING = ["1.8.0", "1.8.12", LAST];

/** What a close after each signal to the node is told as: by codes of a WebSocket, and by those that LongPoll makes up. */
const closes = { SIGTERM: [1012], SIGKILL: [1006] };
const breaks = { SIGTERM: [1011, 3410], SIGKILL: [1011] };

/** The ways to a node; `proxy` lets no WebSocket through. */
const webSocket = { way: "WebSocket", transport: "WebSocket", codes: closes };
const longPoll = { way: "long-poll", transport: "long-poll", codes: breaks, options: { longPoll: true } };
const fallback = (way, proxy) => ({ ...longPoll, way, proxy, options: { fallbackMs: 1000 } });
const refused = fallback("long-poll after a refused WebSocket", { silent: false });
const unanswered = fallback("long-poll after a WebSocket without an answer", { silent: true });

/** phoenix.js in this process. */
class NodeClient extends Client {
  constructor(module, how) {
    super();
    // It remembers that a WebSocket failed for all sockets of a session, where there is one: each client has its own.
    const sessionStorage = { getItem: () => null, setItem: () => {} };
    const parts = { ...module, WebSocket, options: { sessionStorage } };
    this.js = new PhoenixJs(parts, how, (entry) => this.log.push(entry));
  }

  push(event, payload) {
    this.js.push(event, payload);
  }

  leave() {
    this.js.leave();
  }

  join() {
    this.js.join();
  }

  stop() {
    this.js.stop();
  }
}

const phoenixJs = async (version) => {
  const module = await import(`phoenix-${version}`);
  const ways = POLLING.includes(version) ? [webSocket, longPoll, refused] : [webSocket];
  return ways.map(({ way, ...more }) => ({
    ...more,
    name: `phoenix ${version} (npm), ${way}`,
    hearsState: true,
    start: (how) => new NodeClient(module, { ...how, ...more.options }),
  }));
};

const chromium = ({ way, ...more }) => ({
  ...more,
  name: `phoenix ${LAST} in Chromium, ${way}`,
  hearsState: true,
  start: (how) => PageClient.start(LAST, { ...how, ...more.options }),
});

const program = (name, variable, args, hearsState) => ({
  name,
  hearsState,
  start: async (how) => {
    if (!process.env[variable]) throw new Error(`${variable} names no program: run \`cargo e2e clients\``);
    const { Presence } = await import(`phoenix-${LAST}`);
    return new Program(process.env[variable], args, hearsState, Presence, how);
  },
});

const python = [new URL("phxsocket_client.py", import.meta.url).pathname];

export const clients = [
  ...(await Promise.all(["1.6.16", "1.7.21", ...POLLING].map(phoenixJs))).flat(),
  ...[webSocket, longPoll, refused, unanswered].map(chromium),
  program("phxsocket 0.1.5 (PyPI, V1)", "MATRIX_PYTHON", python, true),
  program("phoenix_channels_client 0.1.2 (crates.io)", "MATRIX_RUST", [], false),
];

/** The one that the others talk with. */
export const partner = clients.find(({ name }) => name === `phoenix ${LAST} (npm), WebSocket`);
