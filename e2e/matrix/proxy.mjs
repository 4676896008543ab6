// A proxy that lets no WebSocket through, as they stand in the way of some users. All else it hands on.

import { once } from "node:events";
import { createServer, request } from "node:http";

/**
 * How far away the node seems. Nearer than 10 ms, phoenix.js 1.8.12 is lost at times: the close of the WebSocket that it
 * gave up makes it deaf to that of the poll, unless the reconnect that it brings about comes before the poll opens.
 */
const DELAY_MS = 50;
const REFUSAL = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

function handOn(port, asked, answer) {
  const { method, url: path, headers } = asked;
  const onward = request({ host: "127.0.0.1", port, method, path, headers, agent: false });
  onward.on("response", (response) => {
    answer.writeHead(response.statusCode, response.headers);
    response.pipe(answer);
    response.on("error", () => answer.destroy());
  });
  onward.on("error", () => answer.destroy());
  answer.on("close", () => onward.destroy());
  asked.pipe(onward);
}

export class PollingProxy {
  /** How many WebSockets were tried. */
  tried = 0;
  held = [];

  /** To a node's port; a WebSocket gets a refusal, or with `silent` no answer at all. */
  static async start(port, silent) {
    const proxy = new PollingProxy();
    proxy.server = createServer((asked, answer) => {
      const timer = setTimeout(() => handOn(port, asked, answer), DELAY_MS);
      answer.on("close", () => clearTimeout(timer));
    });
    proxy.server.on("upgrade", (_, socket) => {
      proxy.tried += 1;
      socket.on("error", () => {}); // the client has gone
      if (silent) proxy.held.push(socket);
      else socket.end(REFUSAL);
    });
    proxy.server.listen(0, "127.0.0.1");
    await once(proxy.server, "listening");
    proxy.url = `ws://127.0.0.1:${proxy.server.address().port}/socket`;
    return proxy;
  }

  close() {
    for (const socket of this.held) socket.destroy();
    this.server.close();
    this.server.closeAllConnections();
  }
}
