// Every client of the matrix against one channel-node: connect, join, push and reply, broadcasts both ways, and the way
// back after the node was ended, gently and not.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { clients, partner } from "./clients.mjs";
import { ChannelNode } from "./node.mjs";
import { until } from "./wait.mjs";

const topic = "room:matrix";

for (const { name, codes, start } of clients) {
  describe(name, () => {
    let node, client, other;
    before(async () => {
      node = await ChannelNode.start();
      client = start(node.url, topic);
      other = partner.start(node.url, topic);
    });
    after(async () => {
      client?.stop();
      other?.stop();
      await node?.close();
    });

    const joined = (times) =>
      until(`join ${times} of both`, () => [client, other].every((one) => one.all("join").length >= times));

    const talk = async (id) => {
      const replies = client.all("reply").length;
      client.push({ id });
      const reply = await until("the reply", () => client.all("reply")[replies]);
      assert.deepEqual({ status: reply.status, response: reply.response }, { status: "ok", response: {} });
      await until("its broadcast at the other", () => other.heard(id));
      await until("its broadcast at itself", () => client.heard(id));
      other.push({ id: `${id} back`, text: "zażółć 🦀", nested: [1, { a: null }] });
      await until("the other's broadcast", () => client.heard(`${id} back`));
      const { payload } = client.all("hear").find((heard) => heard.payload.id === `${id} back`);
      assert.deepEqual(payload, { id: `${id} back`, text: "zażółć 🦀", nested: [1, { a: null }] });
      for (const one of [client, other]) assert.equal(one.heard(id) + one.heard(`${id} back`), 2, "each heard once");
    };

    it("connects and joins", () => joined(1));

    it("pushes, is answered, hears and is heard", () => talk("first"));

    for (const [times, signal, code] of [[2, "SIGTERM", 1012], [3, "SIGKILL", 1006]]) {
      it(`joins again by itself after ${signal} to the node`, async () => {
        await node.end(signal);
        await until("the close", () => client.all("close").length >= times - 1);
        if (codes) assert.equal(client.all("close")[times - 2].code, code);
        await node.begin();
        await joined(times);
        await talk(signal);
      });
    }
  });
}
