"""A function of the http contract that does what its payload says: `{"say": …}`, `{"fail": true}`, `{"sleep": s}`, `{"stream": [pieces]}`.

usage: PORT=… python aws_function.py
"""

import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        payload = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or "{}")
        if "say" in payload:
            print(payload["say"], flush=True)
        time.sleep(payload.get("sleep", 0))
        if payload.get("fail"):
            self.answer(500, {"why": "asked to fail"})
        elif "stream" in payload:
            self.send_response(200)
            self.send_header("content-type", "text/plain")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for piece in payload["stream"]:
                self.wfile.write(f"{len(piece):x}\r\n{piece}\r\n".encode())
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.answer(200, {"got": payload, "mode": os.environ.get("MODE")})

    def answer(self, status, told):
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
