"""An auction in a backend of 90 lines, without a library: the node holds the sockets, this decides.

    python3 backend.py SECRET_FILE [[HOST:]PORT]

Clients connect with ?user=anna, join `auction:LOT`, and push `bid` with {"amount": 70}.
"""
import base64, hashlib, hmac, json, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRETS = [line.strip() for line in open(sys.argv[1]) if line.strip()]
LOTS = {"auction:lamp": {"user": None, "amount": 10}, "auction:chair": {"user": None, "amount": 40}}
LOCK = threading.Lock()  # calls come at the same time


def is_signed(headers, body):
    """Whether the call is the node's, and of now: https://www.standardwebhooks.com"""
    call, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not at.isdigit() or abs(time.time() - int(at)) > 300:
        return False
    got = headers.get("webhook-signature", "").split()
    for secret in SECRETS:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        digest = hmac.new(key, f"{call}.{at}.".encode() + body, hashlib.sha256).digest()
        want = "v1," + base64.b64encode(digest).decode()
        if any(hmac.compare_digest(want, signature) for signature in got):
            return True
    return False


def connect(data):
    user = data["params"].get("user")
    if not isinstance(user, str) or not user:
        return {"allow": False}
    # A real one checks a session here: `webhooks.headers: [cookie]` shows it.
    return {"allow": True, "id": f"users:{user}", "claims": {"sub": user}}


def join(data):
    lot = LOTS.get(data["topic"])
    if lot is None:
        return {"allow": False, "reason": "no such lot"}
    return {"allow": True, "response": lot}


def event(data):
    lot, user = LOTS[data["topic"]], data["socket"]["claims"]["sub"]
    amount = (data.get("payload") or {}).get("amount")
    if data["event"] != "bid" or not isinstance(amount, int):
        return {"allow": False, "reason": "send `bid` with an `amount`"}
    with LOCK:
        if amount <= lot["amount"]:
            reason = {"reason": "too low", "highest": lot["amount"]}
            return {"allow": True, "broadcast": False, "reply": {"status": "error", "response": reason}}
        lot.update(user=user, amount=amount)
    # What others see is made here: a client can't bid in another's name.
    return {"allow": True, "broadcast": {"event": "highest", "payload": {"user": user, "amount": amount}}}


def told(data):
    """A leave or a disconnect: any 2xx will do."""
    with LOCK:  # a line is whole
        print(json.dumps(data), flush=True)
    return {}


CALLS = {"connect": connect, "join": join, "event": event, "leave": told, "disconnect": told}


class Backend(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # the node keeps its connections

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if not is_signed(self.headers, body):
            return self.answer(400, {"error": "the signature is not the node's"})
        call = json.loads(body)
        self.answer(200, CALLS[call["type"]](call["data"]))

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


host, _, port = (sys.argv[2] if len(sys.argv) > 2 else "8000").rpartition(":")
server = ThreadingHTTPServer((host or "127.0.0.1", int(port)), Backend)
print(f"http://{server.server_name}:{server.server_port}/", flush=True)
server.serve_forever()
