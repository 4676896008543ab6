// One live client: a stock phoenix.js Socket with one joined channel, and what happened to it.

import { LongPoll, Socket } from "phoenix";
import WebSocket from "ws";

const KEPT_MESSAGES = 1_000; // payloads kept for `received`; ids are kept all

/** Milliseconds since the epoch, with fractions: the one clock of clients, publishers and tests. */
export const now = () => performance.timeOrigin + performance.now();

export class Client {
  constructor(group, index, url, topic, params, longPoll = false) {
    Object.assign(this, { group, index, url, topic });
    this.joins = []; // { at, node }
    this.closes = []; // { at, code, node, joined }
    this.away = []; // milliseconds from a close to the join after it
    this.errors = []; // refused joins and handshakes, the first few
    this.receipts = new Map(); // message id -> times received
    this.caughtUp = 0; // messages that it has from the history of a join alone
    this.messages = [];
    this.node = null; // the pod it is joined on, null while away
    this.answer = null; // what its last join was answered with
    this.opened = false;
    const transport = longPoll ? LongPoll : WebSocket;
    this.socket = new Socket(url, { transport, params: { client: `${group}-${index}`, ...params } });
    this.socket.onOpen(() => (this.opened = true));
    this.socket.onError((error) => this.note(String(error?.message ?? error?.type ?? error)));
    this.socket.onClose((event) => this.closed(event?.code ?? 1006));
    this.channel = this.socket.channel(topic, {});
    this.channel.onMessage = (event, payload) => {
      // phoenix.js itself passes null here when a push times out that was already given up.
      if (event !== null && !/^(phx|chan_reply)_/.test(event)) this.received(event, payload);
      return payload;
    };
  }

  start() {
    this.socket.connect();
    this.joining = this.channel.join();
    this.joining.receive("ok", (reply) => this.joined(reply));
    this.joining.receive("error", (reason) => this.note(`join refused: ${JSON.stringify(reason)}`));
    this.joining.receive("timeout", () => this.note("join timed out"));
  }

  joined(reply) {
    const at = now();
    const last = this.closes.at(-1);
    if (last && this.joins.length > 0 && last.at >= this.joins.at(-1).at) this.away.push(at - last.at);
    this.node = reply?.node ?? "(unnamed)";
    this.answer = reply;
    this.joins.push({ at, node: this.node });
    // What it has heard before is in there too.
    for (const { payload } of reply?.history ?? []) {
      const id = payload?.id;
      if (id === undefined || this.receipts.has(id)) continue;
      this.receipts.set(id, 1);
      this.caughtUp += 1;
    }
  }

  closed(code) {
    if (!this.opened) return; // a refused handshake: no connection was lost
    this.opened = false;
    this.closes.push({ at: now(), code, node: this.node, joined: this.node !== null });
    this.node = null;
  }

  received(event, payload) {
    const id = payload?.id;
    if (id !== undefined) this.receipts.set(id, (this.receipts.get(id) ?? 0) + 1);
    if (this.messages.length < KEPT_MESSAGES) this.messages.push({ event, payload });
  }

  note(error) {
    if (this.errors.length < 10) this.errors.push(error);
  }

  /** Pushes an event and gives the reply: `{ status, response }`. */
  push(event, payload, timeout = 10_000) {
    return new Promise((resolve) => {
      const push = this.channel.push(event, payload, timeout);
      for (const status of ["ok", "error"]) push.receive(status, (response) => resolve({ status, response }));
      push.receive("timeout", () => resolve({ status: "timeout", response: {} }));
    });
  }

  /** Whether it was joined without a break from `from` to `to`. */
  joinedThrough(from, to) {
    return this.joins.some(({ at }) => {
      if (at > from) return false;
      const end = this.closes.find((close) => close.at >= at)?.at ?? Infinity;
      return end >= to;
    });
  }

  /** Leaves the topic; the socket stays open. */
  leave() {
    this.channel.leave();
    this.node = null;
  }

  /** Reads nothing from its connection until `resume`, as a client does that has no time. */
  pause() {
    this.socket.conn.pause();
  }

  resume() {
    this.socket.conn.resume();
  }

  stop() {
    this.opened = false;
    this.socket.disconnect();
  }
}
