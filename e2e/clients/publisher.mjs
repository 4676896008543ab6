// A background publisher: numbered messages at a steady pace, by push from a group's clients in turn or by HTTP.

import { now } from "./client.mjs";

const MOST = 100_000;

export class Publisher {
  constructor(name, { via, everyMs, topic, group, urls, token, event = "msg" }, clients) {
    Object.assign(this, { name, via, topic, group, urls: urls ?? [], token, event, clients });
    this.sent = []; // { id, by, from, to }: acknowledged; by the pod that took it, from before to after
    this.unsure = new Map(); // reason -> count: neither acknowledged nor surely unsent
    this.started = 0;
    this.pending = new Set();
    this.timer = setInterval(() => this.tick(), Math.max(5, everyMs));
  }

  tick() {
    if (this.started >= MOST) return;
    const number = this.started;
    const work = this.via === "http" ? this.post(number) : this.push(number);
    if (!work) return;
    this.started += 1;
    const pending = work.finally(() => this.pending.delete(pending));
    this.pending.add(pending);
  }

  push(number) {
    const clients = this.clients();
    for (let i = 0; i < clients.length; i += 1) {
      const client = clients[(number + i) % clients.length];
      if (client.node !== null) return this.record(number, client.node, (payload) => client.push(this.event, payload));
    }
    return null; // nobody is joined: nothing is sent
  }

  post(number) {
    if (this.urls.length === 0) return null;
    const url = this.urls[number % this.urls.length];
    return this.record(number, new URL(url).hostname, async (payload) => {
      const response = await fetch(url, {
        method: "POST",
        headers: { authorization: `Bearer ${this.token}`, "content-type": "application/json" },
        body: JSON.stringify({ topic: this.topic, event: this.event, payload }),
        signal: AbortSignal.timeout(5_000),
      });
      await response.arrayBuffer();
      return { status: response.ok ? "ok" : `http ${response.status}` };
    });
  }

  async record(number, by, send) {
    const id = `${this.name}:${number}`;
    const from = now();
    let status;
    try {
      ({ status } = await send({ id }));
    } catch (error) {
      status = error?.cause?.code ?? error?.name ?? "failed";
    }
    if (status === "ok") this.sent.push({ id, by, from, to: now() });
    else this.unsure.set(status, (this.unsure.get(status) ?? 0) + 1);
  }

  async stop() {
    clearInterval(this.timer);
    await Promise.allSettled([...this.pending]);
    return { sent: this.sent.length, unsure: Object.fromEntries(this.unsure) };
  }
}
