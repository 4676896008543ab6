// Every client of the matrix against one channel-node: connect, join, push and both replies, broadcasts both ways,
// presence, leave, and the way back after the node was ended, gently and not.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { EVENT } from "./client.mjs";
import { clients, partner } from "./clients.mjs";
import { ChannelNode } from "./node.mjs";
import { PollingProxy } from "./proxy.mjs";
import { until } from "./wait.mjs";

const topic = "room:matrix";

for (const { name, transport, proxy: obstacle, codes, hearsState, start } of clients) {
  describe(name, () => {
    let node, proxy, client, other, failed;
    const guests = [];
    before(async () => {
      node = await ChannelNode.start();
      proxy = obstacle && (await PollingProxy.start(node.port, obstacle.silent));
      client = await start({ url: proxy?.url ?? node.url, topic, user: "client" });
      other = await partner.start({ url: node.url, topic, user: "partner" });
    });
    after(async () => {
      for (const one of [client, other, ...guests]) await one?.stop();
      proxy?.close();
      await node?.close();
    });

    /** A test; each goes on where the one before ended, so that one which fails is the last. */
    const step = (what, work) =>
      it(what, async (test) => {
        if (failed) return test.skip("one before it failed");
        failed = true;
        await work();
        failed = false;
      });

    const talk = async (id) => {
      const answer = client.next("reply");
      await client.push(EVENT, { id });
      const reply = await until("the reply", answer);
      assert.deepEqual({ status: reply.status, response: reply.response }, { status: "ok", response: {} });
      await until("its broadcast at the other", () => other.heard(id));
      await until("its broadcast at itself", () => client.heard(id));
      other.push(EVENT, { id: `${id} back`, text: "zażółć 🦀", nested: [1, { a: null }] });
      await until("the other's broadcast at both", () => client.heard(`${id} back`) && other.heard(`${id} back`));
      const { payload } = client.all("hear").find((heard) => heard.payload.id === `${id} back`);
      assert.deepEqual(payload, { id: `${id} back`, text: "zażółć 🦀", nested: [1, { a: null }] });
      for (const one of [client, other]) assert.equal(one.heard(id) + one.heard(`${id} back`), 2, "each heard once");
      assert.deepEqual(client.all("fault"), []);
    };

    /** Waits until a client lists just these, each once. */
    const lists = (one, ...keys) =>
      until(`a list of ${keys}`, () => {
        const present = Object.entries(one.present ?? {}).map(([key, count]) => `${key} ${count}`);
        return present.sort().join() === keys.map((key) => `${key} 1`).join();
      });
    const both = async () => {
      if (hearsState) await lists(client, "client", "partner");
      await lists(other, "client", "partner");
    };

    step("connects and joins", async () => {
      await until("the join of both", () => [client, other].every((one) => one.all("join").length === 1));
      if (transport) assert.equal(client.all("open").at(-1).transport, transport);
      if (proxy) assert.equal(proxy.tried, 1, "a WebSocket was tried first, and no more");
    });

    step("pushes, is answered, hears and is heard", () => talk("first"));

    step("is answered with an error", async () => {
      const answer = client.next("reply");
      await client.push("unheard-of", {});
      const { status, response } = await until("the reply", answer);
      assert.equal(status, "error");
      assert.equal(typeof response.reason, "string");
    });

    step("sees who is there, who comes and who goes", async () => {
      await both();
      const come = async (status) => {
        const seen = client.next("enter", "guest");
        const guest = await partner.start({ url: node.url, topic, user: "guest", status });
        guests.push(guest);
        const { before, metas } = await until("the guest", seen);
        assert.equal(metas.length, 1);
        return { guest, seen: { before, status: metas[0].status } };
      };
      const go = async (guest) => {
        const seen = client.next("gone", "guest");
        guest.stop();
        return (await until("the guest to go", seen)).left;
      };
      const first = await come("typing");
      assert.deepEqual(first.seen, { before: 0, status: "typing" });
      const second = await come("away");
      assert.deepEqual(second.seen, { before: 1, status: "away" });
      await until("both guests in its list", () => client.present.guest === 2);
      assert.equal(await go(first.guest), 1);
      assert.equal(await go(second.guest), 0);
      await both();
    });

    step("sees a guest whose key every object has, and everybody else as before", async () => {
      for (const user of ["constructor", "__proto__"]) {
        const seen = client.next("enter");
        const guest = await partner.start({ url: node.url, topic, user });
        guests.push(guest);
        const { key } = await until("the guest", seen);
        assert.notEqual(key, user, "another key is made up");
        const left = client.next("gone", key);
        guest.stop();
        await until("the guest to go", left);
      }
      await both();
      assert.deepEqual(client.all("fault"), []);
    });

    step("leaves, and joins anew", async () => {
      const left = client.next("left");
      await client.leave();
      await until("the leave", left);
      await lists(other, "partner");
      other.push(EVENT, { id: "missed" });
      await until("the other's broadcast at itself", () => other.heard("missed"));
      const join = client.next("join");
      await client.join();
      await until("the join", join);
      await talk("anew");
      await both();
      assert.equal(client.heard("missed"), 0);
    });

    for (const signal of ["SIGTERM", "SIGKILL"]) {
      step(`joins again by itself after ${signal} to the node`, async () => {
        const events = ["close", "join"].map((did) => client.next(did));
        const again = other.next("join");
        await node.end(signal);
        const { code } = await until("the close", events[0]);
        if (codes) assert.ok(codes[signal].includes(code), `close code ${code}`);
        await node.begin();
        await until("the join", events[1]);
        await until("the other's join", again);
        await talk(signal);
        await both();
        if (transport) assert.equal(client.all("open").at(-1).transport, transport);
      });
    }
  });
}
