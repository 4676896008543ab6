// A chat on the stock Phoenix Channels client. All it adds is watching: which pod the reply to a
// join names, and how long a move from one pod to another takes.
//
//   ?room=lobby  ?name=Ada  ?node-port=30400  ?socket=wss://chat.example/socket

import { Socket } from "./phoenix.mjs";

const asked = new URLSearchParams(location.search);
const $ = (id) => document.getElementById(id);
const room = (asked.get("room") || "lobby").slice(0, 64);
const endpoint = asked.get("socket")
  || `ws://${location.hostname || "localhost"}:${asked.get("node-port") || 30400}/socket`;

const names = ["Ada", "Barbara", "Edsger", "Grace", "Joe", "Ken", "Leslie", "Margaret", "Radia", "Robert"];
$("name").value = asked.get("name") || sessionStorage.getItem("name")
  || names[Math.floor(Math.random() * names.length)];
$("name").addEventListener("change", () => sessionStorage.setItem("name", $("name").value));
$("room").textContent = room;
$("endpoint").textContent = endpoint;

// Where we are. `away` is set from a close until the next join.
let node = null;
let joinedAt = 0;
let away = null;
let moves = 0;

const socket = new Socket(endpoint, { params: {} });
socket.onOpen(() => show("joining"));
socket.onError(() => show("connecting"));
socket.onClose((event) => {
  show("connecting");
  // In a hidden tab the client waits until the tab is looked at.
  if (node && !away) away = { at: performance.now(), code: event?.code ?? 0, hidden: document.hidden };
});

const channel = socket.channel(`room:${room}`, {});
channel.on("message", (message) => line(message));
channel.on("moved", ({ name, from, to }) => note(`${name} moved`, from, to));
channel.on("arrived", ({ name, node }) => note(`${name} arrived on`, node));
channel.join()
  .receive("ok", (reply) => joined(reply?.node ?? "a pod"))
  .receive("error", (reason) => show("refused", JSON.stringify(reason)))
  .receive("timeout", () => show("joining", "no answer, trying again"));
socket.connect();

// Called on the first join and, by the client itself, on each one after a reconnect.
function joined(now) {
  show("open");
  const before = node;
  node = now;
  joinedAt = Date.now();
  paintNode();
  const name = $("name").value;
  if (before === null) {
    channel.push("arrived", { name, node: now });
  } else if (away) {
    move(before, now, away);
    channel.push("moved", { name, from: before, to: now });
  }
  away = null;
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  // While away the client keeps it and sends it after the next join.
  channel.push("message", { name: $("name").value, text, node: node ?? "?" })
    .receive("error", (reason) => note(`not sent: ${JSON.stringify(reason)}`))
    .receive("timeout", () => note("not sent: no answer"));
});

function line({ name, text, node: from }) {
  const item = element("li", "message");
  const head = element("p", "who");
  head.append(element("b", "", String(name)), pod(from));
  item.append(head, element("p", "text", String(text)));
  append(item);
}

function note(text, ...pods) {
  const item = element("li", "note", text);
  pods.forEach((name, i) => item.append(i ? " → " : " ", pod(name)));
  append(item);
}

function append(item) {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(item);
  while (log.children.length > 300) log.firstChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function move(from, to, { at, code, hidden }) {
  const took = `in ${Math.round(performance.now() - at)} ms${hidden ? " (tab was hidden)" : ""}`;
  moves += 1;
  $("count").textContent = moves;
  $("hint").hidden = true;
  const item = element("li");
  const path = element("p");
  path.append("moved from ", pod(from), " to ", pod(to));
  item.append(path, element("p", "detail", `${took} · close code ${code} · ${new Date().toLocaleTimeString()}`));
  $("moves").prepend(item);
}

function paintNode() {
  $("node").replaceChildren(pod(node));
  $("since").textContent = `since ${new Date(joinedAt).toLocaleTimeString()}`;
}

function show(state, detail) {
  $("state").dataset.state = state;
  $("state").textContent = detail ? `${state}: ${detail}` : state;
}

// A pod's name, in a colour of its own.
function pod(name) {
  const text = String(name);
  let hash = 0;
  for (const c of text) hash = (hash * 31 + c.codePointAt(0)) >>> 0;
  const tag = element("span", "tag", text);
  tag.style.setProperty("--hue", (hash * 137) % 360);
  return tag;
}

function element(kind, style = "", text = "") {
  const made = document.createElement(kind);
  if (style) made.className = style;
  if (text) made.textContent = text;
  return made;
}
