"""A lone request: how long the model's own call takes, and how long servers take to answer one client.

`python alone.py MODEL SAMPLES SECONDS NAME=PORT …` prints, as JSON, a list of rounds; each is the medians, in
microseconds, of the model's own call (`own`) and of each named server's answers. In a round each has SLICE seconds, one
after the other: what a shared machine does to one, it does to the next, so that a round's ratios hold where its times
do not. Meanwhile processes that any other may push aside keep the processors awake: an idle one of a virtual machine
takes up to 50 microseconds to wake, which the own call never waits for.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time

import joblib
import numpy as np
import pandas as pd

SLICE = 0.02
SPIN = """
import os, sys
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while os.getppid() == int(sys.argv[1]):
    pass
"""
WARM_UP = 200
END = b"\r\n\r\n"


def client(port, body):
    """A function that asks the server again, over one connection."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    connection.sendall(request)
    answer = b""
    while END not in answer:
        answer += connection.recv(65536)
    head, _, rest = answer.partition(END)
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0])
    while len(rest) < length:
        rest += connection.recv(65536)
    status, size = answer[:12], len(head) + len(END) + length
    assert status == b"HTTP/1.1 200", head
    send, receive = connection.sendall, connection.recv

    def ask():
        send(request)
        answer = receive(65536)
        remaining = size - len(answer)
        while remaining:
            remaining -= len(receive(65536))
        assert answer[:12] == status

    return ask


def main(model, samples, seconds, *servers):
    model = joblib.load(model)
    with open(samples) as file:
        samples = json.load(file)
    row, features = samples["rows"][0], np.array(samples["rows"][:1])
    if hasattr(model, "feature_names_in_"):
        features = pd.DataFrame(features, columns=samples["columns"])
        row = dict(zip(samples["columns"], row, strict=True))
    body = json.dumps({"inputs": [row]}).encode()
    calls = {"own": lambda: model.predict(features).tolist()}
    for name, _, port in (server.rpartition("=") for server in servers):
        calls[name] = client(int(port), body)
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    rounds = []
    spinning = [subprocess.Popen([sys.executable, "-c", SPIN, str(os.getpid())]) for _ in range(os.cpu_count())]
    end = time.perf_counter() + float(seconds)
    while time.perf_counter() < end:
        rounds.append({name: _median(call) for name, call in calls.items()})
    for process in spinning:
        process.kill()
    print(json.dumps(rounds))


def _median(call):
    durations = []
    end = time.perf_counter() + SLICE
    while (start := time.perf_counter()) < end:
        call()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations) * 1e6


main(*sys.argv[1:])
