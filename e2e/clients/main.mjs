// Live phoenix.js clients driven by JSON lines.
//
// A command on stdin is `{"id": 1, "do": "open", …}`, its answer on stdout `{"id": 1, "ok": …}` or `{"id": 1, "error": "…"}`.
// Ends when stdin does, and by itself after LIFETIME: nothing that tests start may outlive them.

import { createInterface } from "node:readline";
import { Client, now } from "./client.mjs";
import { Publisher } from "./publisher.mjs";
import { byNode, report } from "./report.mjs";

const LIFETIME_MS = 25 * 60_000;
const MOST_CLIENTS = 10_000; // each is a socket: well below the open files that a process may have
const SAMPLE_MS = 100;
const MOST_SAMPLES = 20_000;

const groups = new Map();
const publishers = new Map();

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(check, timeoutMs) {
  const deadline = now() + timeoutMs;
  while (!check()) {
    if (now() > deadline) return false;
    await sleep(20);
  }
  return true;
}

function group(name) {
  const found = groups.get(name);
  if (!found) throw new Error(`no group ${name}: open it first`);
  return found;
}

function sample({ clients, samples }) {
  const counts = byNode(clients);
  const last = samples.at(-1);
  if (samples.length < MOST_SAMPLES && JSON.stringify(last?.counts) !== JSON.stringify(counts)) {
    samples.push({ at: now(), counts });
  }
}

const state = ({ clients }) => ({
  joined: clients.filter((client) => client.node !== null).length,
  byNode: byNode(clients),
  moved: clients.filter((client) => client.joins.length > 1).length,
  closes: clients.reduce((sum, client) => sum + client.closes.length, 0),
  errors: clients.flatMap((client) => client.errors).slice(0, 10),
});

const missing = (clients, ids) =>
  clients
    .map((client) => ({ client: client.index, ids: ids.filter((id) => !client.receipts.has(id)) }))
    .filter((entry) => entry.ids.length > 0);

const commands = {
  /**
   * Opens `count` clients on `urls` in turn, by WebSocket or by long-poll, and waits until all have joined. Adds to a
   * group that exists.
   */
  async open({ group: name, urls, topic, count = 1, params = {}, longPoll, spacingMs = 5, timeoutMs = 30_000 }) {
    const total = [...groups.values()].reduce((sum, { clients }) => sum + clients.length, count);
    if (total > MOST_CLIENTS) throw new Error(`${total} clients are more than ${MOST_CLIENTS}`);
    const made = groups.get(name) ?? { clients: [], samples: [], atStart: {}, opened: 0 };
    if (!groups.has(name)) {
      groups.set(name, made);
      made.sampler = setInterval(() => sample(made), SAMPLE_MS);
    }
    for (let i = 0; i < count; i += 1) {
      const index = made.opened;
      made.opened += 1;
      const client = new Client(name, index, urls[index % urls.length], topic, params, longPoll);
      made.clients.push(client);
      client.start();
      await sleep(spacingMs);
    }
    await until(() => made.clients.every((client) => client.node !== null), timeoutMs);
    made.atStart = byNode(made.clients);
    return state(made);
  },

  /** As `open`, with equally many clients on each of `pods` pods: those too many on their pod are closed again. */
  async openEvenly({ count, pods, ...how }) {
    const each = Math.ceil(count / pods);
    // A pod that has just begun to take clients is not known to every balancer yet.
    for (let round = 0; round < 60; round += 1) {
      if (round > 0) await sleep(250);
      await commands.open({ ...how, count: round === 0 ? count : pods * 2 });
      const made = group(how.group);
      const kept = {};
      for (const client of [...made.clients]) {
        kept[client.node] = (kept[client.node] ?? 0) + 1;
        if (client.node !== null && kept[client.node] <= each) continue;
        client.stop();
        made.clients.splice(made.clients.indexOf(client), 1);
      }
      made.atStart = byNode(made.clients);
      if (made.clients.length >= count) break;
    }
    const made = group(how.group);
    made.samples = [];
    return state(made);
  },

  state: ({ group: name }) => state(group(name)),

  push: ({ group: name, client = 0, event = "msg", payload, timeoutMs }) =>
    group(name).clients[client].push(event, payload, timeoutMs),

  /** Waits until every client of the group has all `ids`; answers what is still missing. */
  async waitReceived({ group: name, ids, timeoutMs = 10_000 }) {
    const { clients } = group(name);
    await until(() => missing(clients, ids).length === 0, timeoutMs);
    return { missing: missing(clients, ids) };
  },

  /** What the last join of each client was answered with. */
  answers: ({ group: name }) => group(name).clients.map((client) => client.answer),

  /** `leave`, `pause` or `resume` of each client of the group. */
  each({ group: name, act }) {
    if (!["leave", "pause", "resume"].includes(act)) throw new Error(`clients can't ${act}`);
    for (const client of group(name).clients) client[act]();
    return {};
  },

  received: ({ group: name, client = 0 }) => group(name).clients[client].messages,

  publishStart({ name, ...how }) {
    if (publishers.has(name)) throw new Error(`a publisher ${name} runs already`);
    publishers.set(name, new Publisher(name, how, () => group(how.group).clients));
    return {};
  },

  publishTo({ name, urls }) {
    publishers.get(name).urls = urls;
    return {};
  },

  publishStop: ({ name }) => publishers.get(name).stop(),

  /** What happened so far; a short wait first, for what is still on its way. */
  async report({ group: name, replicas = 1, settleMs = 600 }) {
    await sleep(settleMs);
    return report(group(name), [...publishers.values()].filter((p) => p.group === name), replicas);
  },

  close({ group: name }) {
    const { clients, sampler } = group(name);
    clearInterval(sampler);
    for (const client of clients) client.stop();
    groups.delete(name);
    return {};
  },
};

function answer(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

const lines = createInterface({ input: process.stdin });
lines.on("line", async (line) => {
  let id = null;
  try {
    const command = JSON.parse(line);
    id = command.id;
    if (!commands[command.do]) throw new Error(`no command ${command.do}`);
    answer({ id, ok: (await commands[command.do](command)) ?? {} });
  } catch (error) {
    answer({ id, error: String(error?.stack ?? error) });
  }
});
lines.on("close", () => process.exit(0));
setTimeout(() => process.exit(3), LIFETIME_MS).unref();
