"""Platforms of functions that check who calls, each as its documentation says, and a Kinesis that is throttled.

usage: clouds.py PORT

Google Cloud: a token service that takes assertions of one service account, and a function behind a check of ID tokens.
Azure: a function with a key. OpenWhisk: the actions of a namespace. The first line that is written has the keys.
"""

import base64
import json
import sys
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

PORT = int(sys.argv[1])
BASE = f"http://127.0.0.1:{PORT}"
EMAIL = "caller@project.iam.gserviceaccount.com"
WHISK_KEY = "23bc46b1:123zO3xZ"
AZURE_KEY = "azure-function-key=="
ACCOUNT = rsa.generate_private_key(public_exponent=65537, key_size=2048)
GOOGLE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
# How often something was asked for.
COUNTS = {"token": 0, "later": 0}


def encode(part):
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def decode(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def sign(claims):
    head = encode(json.dumps({"alg": "RS256", "typ": "JWT"}).encode())
    signed = f"{head}.{encode(json.dumps(claims).encode())}"
    return f"{signed}.{encode(GOOGLE.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def claims_of(token, key):
    """The claims of a JWT, or None when it was not signed with the key."""
    try:
        signed, signature = token.rsplit(".", 1)
        key.verify(decode(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return json.loads(decode(signed.split(".")[1]))
    except (InvalidSignature, ValueError):
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if path == "/token":
            return self.token(body)
        if path == "/gcloud/function":
            return self.gcloud(body)
        if path == "/azure/api/function":
            return self.azure(body)
        if path.startswith("/api/v1/namespaces/"):
            return self.openwhisk(path, urllib.parse.parse_qs(query), body)
        if path == "/kinesis/":
            return self.kinesis(json.loads(body))
        return self.say(404, {"error": f"there is nothing at {path}"})

    def token(self, body):
        COUNTS["token"] += 1
        form = urllib.parse.parse_qs(body.decode())
        claims = claims_of(form["assertion"][0], ACCOUNT.public_key())
        now = time.time()
        why = None
        if form["grant_type"][0] != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            why = "unsupported_grant_type"
        elif claims is None:
            why = "Invalid JWT Signature."
        elif claims["iss"] != EMAIL or claims["aud"] != f"{BASE}/token":
            why = "Invalid issuer or audience."
        elif not claims["iat"] - 60 <= now <= claims["exp"] <= claims["iat"] + 3600:
            why = "Invalid JWT: Token must be a short-lived token."
        if why:
            return self.say(400, {"error": "invalid_grant", "error_description": why})
        token = {
            "iss": "https://accounts.google.com",
            "aud": claims["target_audience"],
            "email": claims["iss"],
            "iat": int(now),
            "exp": int(now) + 3600,
        }
        return self.say(200, {"id_token": sign(token)})

    def gcloud(self, body):
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        claims = claims_of(token, GOOGLE.public_key()) if scheme == "Bearer" else None
        if claims is None or claims["exp"] < time.time() or claims["aud"] != f"{BASE}/gcloud/function":
            challenge = 'Bearer error="invalid_token" error_description="The access token could not be verified"'
            return self.say(401, None, {"www-authenticate": challenge})
        got = {"email": claims["email"], "tokens": COUNTS["token"], "got": json.loads(body)}
        return self.say(200, got)

    def azure(self, body):
        if self.headers.get("x-functions-key") != AZURE_KEY:
            return self.say(401, None)
        return self.say(200, {"got": json.loads(body)})

    def openwhisk(self, path, query, body):
        expected = "Basic " + base64.b64encode(WHISK_KEY.encode()).decode()
        if self.headers.get("authorization") != expected:
            said = "The supplied authentication is invalid."
            return self.say(401, {"error": said, "code": "c1"})
        if query.get("blocking") != ["true"]:
            return self.say(202, {"activationId": "a0"})
        name = path.removeprefix("/api/v1/namespaces/guest/actions/")
        if name == "tools/echo":
            status, ended, result = 200, "success", {"got": json.loads(body)}
        elif name == "tools/broken":
            status, ended, result = 502, "application error", {"error": "it is broken"}
        else:
            said = "The requested resource does not exist."
            return self.say(404, {"error": said, "code": "c2"})
        response = {"status": ended, "success": status == 200, "result": result}
        return self.say(status, {"activationId": "a1", "logs": [], "response": response})

    def kinesis(self, asked):
        COUNTS["later"] += 1
        if asked["StreamName"] == "later" and COUNTS["later"] % 3 == 0:
            return self.say(200, {"SequenceNumber": "495", "ShardId": "s"})
        said = "Rate exceeded for shard s."
        return self.say(400, {"__type": "ProvisionedThroughputExceededException", "message": said})

    def say(self, status, body, headers=None):
        text = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
pem = ACCOUNT.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
account = {
    "type": "service_account",
    "project_id": "project",
    "private_key_id": "k1",
    "private_key": pem.decode(),
    "client_email": EMAIL,
    "token_uri": f"{BASE}/token",
}
print(json.dumps({"account": account, "azure": AZURE_KEY, "openwhisk": WHISK_KEY}), flush=True)
server.serve_forever()
