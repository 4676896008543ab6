// phoenix.js of one version, unmodified: in Node, and in a page, where this file is served as it is.

import { EVENT, follow } from "./client.mjs";

export class PhoenixJs {
  /** With `longPoll` by long-poll alone; with `fallbackMs` by it when a WebSocket is of no use. */
  constructor({ Socket, Presence, LongPoll, WebSocket, ...more }, how, say) {
    const { url, topic, user, status, longPoll, fallbackMs } = how;
    Object.assign(this, { Presence, topic, status, say });
    const transport = longPoll ? LongPoll : WebSocket;
    this.socket = new Socket(url, { ...more.options, transport, longPollFallbackMs: fallbackMs, params: { user } });
    this.socket.onOpen(() => {
      say({ did: "open", transport: this.socket.conn instanceof LongPoll ? "long-poll" : "WebSocket" });
    });
    this.socket.onClose(({ code }) => say({ did: "close", code }));
    this.socket.connect();
    this.join();
  }

  join() {
    this.channel = this.socket.channel(this.topic, { status: this.status });
    this.channel.on(EVENT, (payload) => this.say({ did: "hear", payload }));
    follow(this.Presence, this.channel, this.say);
    this.channel.join().receive("ok", () => this.say({ did: "join" }));
  }

  push(event, payload) {
    const push = this.channel.push(event, payload);
    for (const status of ["ok", "error", "timeout"]) {
      push.receive(status, (response) => this.say({ did: "reply", status, response }));
    }
  }

  leave() {
    this.channel.leave().receive("ok", () => this.say({ did: "left" }));
  }

  stop() {
    this.socket.disconnect();
  }
}
