// Whether the harness sees what it is there to see: moves, close codes, lost and doubled messages. The server here is a
// stub that misbehaves on purpose; the product is never tested against it.

import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { WebSocketServer } from "ws";
import { Client, now } from "./client.mjs";
import { report } from "./report.mjs";

const settle = (check) =>
  new Promise((resolve, reject) => {
    const started = now();
    const timer = setInterval(() => {
      if (!check() && now() - started < 5_000) return;
      clearInterval(timer);
      if (check()) resolve();
      else reject(new Error(`not within 5 s: ${check}`));
    }, 5);
  });

async function stub(node) {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  await once(server, "listening");
  server.on("connection", (socket) =>
    socket.on("message", (data) => {
      const [joinRef, ref, topic, event] = JSON.parse(data);
      const response = event === "phx_join" ? { node } : {};
      socket.send(JSON.stringify([joinRef, ref, topic, "phx_reply", { status: "ok", response }]));
    }),
  );
  const tell = (id) => {
    for (const socket of server.clients) socket.send(JSON.stringify([null, null, "room:a", "msg", { id }]));
  };
  const close = (code) => [...server.clients].forEach((socket) => socket.close(code));
  const url = `ws://127.0.0.1:${server.address().port}/socket`;
  return { url, tell, close, end: () => server.close() };
}

const group = (clients) => ({ clients, samples: [], atStart: {} });

test("a client that is closed and joins again has moved once, with its close code", async (t) => {
  const server = await stub("chat-0");
  const client = new Client("a", 0, server.url, "room:a", {});
  t.after(() => (client.stop(), server.end()));
  client.start();
  await settle(() => client.node === "chat-0");
  server.close(1012);
  await settle(() => client.joins.length === 2);
  const figures = report(group([client]), [], 1);
  assert.deepEqual(figures.moves, { mean: 1, counts: { 1: 1 } });
  assert.deepEqual(figures.closeCodes, { 1012: 1 });
  assert.equal(client.away.length, 1);
  assert.deepEqual(figures.rejoins, [Math.round(client.joins[1].at)]);
  assert.ok(figures.closesByNode["chat-0"].every((at) => at <= now()));
});

test("a message lost while joined, one lost while away and one received twice are told apart", async (t) => {
  const server = await stub("chat-0");
  const client = new Client("a", 0, server.url, "room:a", {});
  t.after(() => (client.stop(), server.end()));
  client.start();
  await settle(() => client.node !== null);
  const at = now();
  server.tell("p:0");
  server.tell("p:0");
  await settle(() => client.receipts.get("p:0") === 2);
  const long = 1_000;
  const sent = [
    { id: "p:0", from: at, to: at },
    { id: "p:lost", from: at, to: at },
    { id: "p:away", from: at + 2 * long, to: at + 2 * long },
  ];
  client.closes.push({ at: at + long, code: 1012, node: "chat-0", joined: true });
  client.joins.push({ at: at + 3 * long, node: "chat-1" });
  const { deliveries } = report(group([client]), [{ sent }], 1);
  assert.equal(deliveries.expected, 3);
  assert.equal(deliveries.missedWhileJoined, 1);
  assert.equal(deliveries.examples[0].id, "p:lost");
  assert.equal(deliveries.missedWhileMoving, 1);
  assert.equal(deliveries.duplicates, 1);
});

test("a refused handshake is no close", async (t) => {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, verifyClient: (_, answer) => answer(false, 503) });
  await once(server, "listening");
  const client = new Client("a", 0, `ws://127.0.0.1:${server.address().port}/socket`, "room:a", {});
  t.after(() => (client.stop(), server.close()));
  client.start();
  await settle(() => client.errors.length > 0);
  assert.deepEqual(report(group([client]), [], 1).closeCodes, {});
  assert.match(client.errors[0], /503/);
});

test("the peak is the most clients on one pod over the mean", () => {
  const clients = Array.from({ length: 4 }, () => ({ joins: [{ at: 1 }], closes: [], away: [], receipts: new Map(), errors: [], node: "a" }));
  const samples = [{ at: 1, counts: { a: 2, b: 2 } }, { at: 2, counts: { a: 3, b: 1 } }];
  const { peakOverMean } = report({ clients, samples, atStart: { a: 2, b: 2 } }, [], 2);
  assert.deepEqual(peakOverMean, { start: 1, during: 1.5 });
});
