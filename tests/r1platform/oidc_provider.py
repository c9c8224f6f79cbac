"""A small OpenID Connect provider: real HTTP, signed tokens, PKCE and the client's secret checked. It does wrong on request."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT_ID, SECRET, KEY_ID = "r1", "the client's secret", "key-1"


@cache
def key(number: int = 0) -> rsa.RSAPrivateKey:
    """Key 0 is the provider's own."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class OidcProvider:
    """`claims` are those of the next sign-in, beside what it must say; None takes one out."""

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {"sub": "subject-1", "email": "erin@example.org", "email_verified": True}
        self.userinfo: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.header: dict[str, Any] = {"kid": KEY_ID}
        self.algorithm, self.signed_with = "RS256", key()
        self.redirects_tokens_to = ""
        self.asked: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                self.answer(*provider.get(parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()}))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self.answer(*provider.token({name: values[0] for name, values in parse_qs(body).items()}))

            def answer(self, status: int, told: Any) -> None:
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", told)
                    told = {}
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(told).encode())

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def get(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        self.asked.append(path)
        match path:
            case "/.well-known/openid-configuration":
                places = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys", "userinfo_endpoint": "userinfo"}
                return 200, {"issuer": self.url, **{name: f"{self.url}/{place}" for name, place in places.items()}, **self.config}
            case "/keys":
                public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key().public_key()))
                return 200, {"keys": [{**public, "kid": KEY_ID, "use": "sig", "alg": "RS256"}]}
            case "/userinfo":
                return 200, self.userinfo
            case "/authorize":
                assert query["client_id"] == CLIENT_ID and query["code_challenge_method"] == "S256" and query["nonce"]
                code = secrets.token_urlsafe(8)
                self._codes[code] = query
                return 302, f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"
        return 404, {}

    def token(self, form: dict[str, str]) -> tuple[int, Any]:
        self.asked.append("/token")
        if self.redirects_tokens_to:
            return 302, self.redirects_tokens_to
        asked = self._codes.pop(form["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        is_ours = (form["client_id"], form["client_secret"]) == (CLIENT_ID, SECRET)
        if asked is None or not is_ours or challenge != asked["code_challenge"] or form["redirect_uri"] != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        return 200, {"access_token": "access", "token_type": "Bearer", "id_token": self._id_token(asked["nonce"])}

    def _id_token(self, nonce: str) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": nonce, **self.claims}
        told = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(told, self.signed_with, algorithm=self.algorithm, headers=self.header)
