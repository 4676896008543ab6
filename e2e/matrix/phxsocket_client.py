"""phxsocket as a client of the matrix: joins, joins again when its connection was lost, pushes what it is told.

Usage: phxsocket_client.py URL TOPIC EVENT. Payloads to push come as JSON lines on stdin; what happened goes as JSON lines
to stdout (see clients.mjs).
"""

import json
import sys
import threading
import time

import phxsocket
import websockets

url, topic, event = sys.argv[1:]
out = threading.Lock()
lost = threading.Event()


def say(did, **more):
    with out:
        print(json.dumps({"did": did, **more}), flush=True)


def closed(_socket):
    say("close")
    lost.set()


socket = phxsocket.Client(url)
socket.on_close = closed
channel = socket.channel(topic)
channel.on(event, lambda payload: say("hear", payload=payload))


def stay():
    """Connects and joins, whenever that is to be done: the library leaves it to its user."""
    while True:
        lost.clear()
        try:
            socket.connect()
            channel.join()
        except (OSError, websockets.WebSocketException):
            time.sleep(0.1)
            continue
        say("join")
        lost.wait()
        socket.thread.join()


threading.Thread(target=stay, daemon=True).start()
for line in sys.stdin:
    channel.push(event, json.loads(line), lambda reply: say("reply", **reply))
