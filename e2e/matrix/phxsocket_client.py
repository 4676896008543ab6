"""phxsocket as a client of the matrix: joins, joins again when its connection was lost, does what it is told.

Usage: phxsocket_client.py URL TOPIC USER. What to do comes as JSON lines on stdin; what happened goes as JSON lines to
stdout (see program.mjs).
"""

import json
import sys
import threading
import time

import phxsocket
import websockets

url, topic, user = sys.argv[1:]
out = threading.Lock()
lost = threading.Event()


def say(did, **more):
    with out:
        print(json.dumps({"did": did, **more}), flush=True)


def closed(_socket):
    say("close")
    lost.set()


socket = phxsocket.Client(url, {"user": user})
socket.on_close = closed
channel = socket.channel(topic)
channel.on("msg", lambda payload: say("hear", payload=payload))
for event in ["presence_state", "presence_diff"]:
    channel.on(event, lambda payload, event=event: say("event", event=event, payload=payload))


def join():
    channel.join()
    say("join")


def stay():
    """Connects and joins, whenever that is to be done: the library leaves it to its user."""
    while True:
        lost.clear()
        try:
            socket.connect()
            join()
        except (OSError, websockets.WebSocketException):
            time.sleep(0.1)
            continue
        lost.wait()
        socket.thread.join()


threading.Thread(target=stay, daemon=True).start()
for line in sys.stdin:
    told = json.loads(line)
    match told["do"]:
        case "push":
            channel.push(told["event"], told["payload"], lambda reply: say("reply", **reply))
        case "leave":
            channel.leave()  # does not wait for the answer
            say("left")
        case "join":
            join()
