"""The function {{name}}: a payload of "Ada" is answered with {"hello": "Ada"}."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def answer(payload):
    """Returns the answer to a payload; both are what JSON can say."""
    return {"hello": payload}


class Handler(BaseHTTPRequestHandler):
    # Connections are kept, and an answer does not wait for the acknowledgement of its head.
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            payload = json.loads(body)
        except ValueError as error:
            # Any status but 2xx says that the invocation failed.
            return self.reply(400, {"error": f"the payload is no JSON: {error}"})
        self.reply(200, answer(payload))

    def reply(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def server(host, port):
    return ThreadingHTTPServer((host, port), Handler)


if __name__ == "__main__":
    server(os.environ.get("HOST", ""), int(os.environ.get("PORT", "8080"))).serve_forever()
