"""Replaces a model server: the same port, paths and shutdown behavior, without a model.

`FAULT` makes it misbehave: crash, unready, wrong. On SIGTERM /readyz fails and each answer closes its connection for
`MLAPP_SERVE__GRACE` seconds; then it ends with 0.
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULT = os.environ.get("FAULT", "")
VERSION = os.environ.get("VERSION", "0")
GRACE = float(os.environ.get("MLAPP_SERVE__GRACE", "0"))
answered = {"200": 0, "500": 0}
stopping = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65536

    def log_message(self, *_):
        pass

    def answer(self, status, body, kind="application/json"):
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if stopping.is_set():
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == "/livez":
            return self.answer(200, "{}")
        if self.path == "/readyz":
            return self.answer(503 if stopping.is_set() or FAULT == "unready" else 200, "{}")
        if self.path == "/metrics":
            total = sum(answered.values())
            lines = [
                f'http_requests_total{{method="POST",handler="/predict",status="{status}"}} {count}'
                for status, count in answered.items()
            ]
            lines += [
                f'http_request_duration_seconds_sum{{method="POST",handler="/predict"}} {total * 0.001}',
                f'http_request_duration_seconds_count{{method="POST",handler="/predict"}} {total}',
            ]
            return self.answer(200, "\n".join(lines) + "\n", "text/plain")
        return self.answer(404, "{}")

    def do_POST(self):
        inputs = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))["inputs"]
        wrong = FAULT == "wrong" or (FAULT == "sometimes" and (answered["200"] + answered["500"]) % 3 == 2)
        answered["500" if wrong else "200"] += 1
        if wrong:
            return self.answer(500, json.dumps({"detail": "the predictor raised ValueError"}))
        color = os.environ.get("COLOR")
        return self.answer(200, json.dumps({"predictions": [len(inputs)], "version": VERSION, "color": color}))


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


def main():
    if FAULT == "crash":
        print("loading the model", flush=True)
        print("ModuleNotFoundError: No module named 'sklearn'", flush=True)
        sys.exit(3)
    server = Server(("", 8000), Handler)
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    print(f"version {VERSION} answers", flush=True)
    while not stopping.wait(0.5):
        pass
    print("told to stop", flush=True)
    time.sleep(GRACE)
    server.shutdown()
    time.sleep(0.5)


main()
