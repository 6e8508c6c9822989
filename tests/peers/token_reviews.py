"""A stand-in for the part of a Kubernetes API server that Vault's auth method asks.

It mints the tokens of service accounts and reviews them: a token that it made, that has not ended,
was not revoked and is meant for an audience that was asked for is authenticated, any other is not.
"""

from __future__ import annotations

import json
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from josepy.b64 import b64encode

from tests.peers import authority, process
from tests.peers.loops import LoopThread

__all__ = ["TokenReviews"]

PATH: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
AUDIENCE: Final = "vault"
"""Audience of the tokens that are made without saying more."""


@dataclass(frozen=True, slots=True)
class Minted:
    """What a token says."""

    namespace: str
    account: str
    audiences: tuple[str, ...]
    ends: float


class TokenReviews:
    """An HTTPS server in a thread of its own that knows the tokens it minted."""

    def __init__(self, tmp: Path) -> None:
        tmp.mkdir(parents=True, exist_ok=True)
        self.port = process.free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        root = authority.make_root("kubernetes")
        server = authority.make_server(root, ["127.0.0.1", "localhost"])
        certificate, key, self.ca_bundle = authority.write_server_files(tmp, server, root)
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificate, key)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._minted: dict[str, Minted] = {}
        self.reviewed: list[str] = []
        """User name or refusal of each review, in order."""
        self.reviewer_token = self.mint("vault-reviewer", namespace="vault", audience=self.url)
        """What Vault shows for being allowed to ask."""
        self._loop = LoopThread()
        self._runner: web.AppRunner | None = None

    def mint(
        self,
        account: str,
        *,
        namespace: str = "penstock",
        audience: str = AUDIENCE,
        lifetime: timedelta = timedelta(minutes=10),
    ) -> str:
        """Return a token of a service account, as a projected volume would hold it."""
        now = authority.real_now()
        ends = (now + lifetime).timestamp()
        claims = {
            "iss": "https://kubernetes.default.svc",
            "sub": f"system:serviceaccount:{namespace}:{account}",
            "aud": [audience],
            "iat": int(now.timestamp()) - 10,
            "nbf": int(now.timestamp()) - 10,
            "exp": int(ends),
            "jti": secrets.token_hex(8),
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": {"name": account, "uid": _uid(namespace, account)},
            },
        }
        token = self._sign(claims)
        self._minted[token] = Minted(namespace, account, (audience,), ends)
        return token

    def revoke(self, token: str) -> None:
        """Forget *token*, as Kubernetes does when its pod is gone."""
        del self._minted[token]

    def _sign(self, claims: Mapping[str, Any]) -> str:
        parts = (json.dumps({"alg": "ES256", "kid": "stand-in"}), json.dumps(claims))
        signed = b".".join(b64encode(part.encode()) for part in parts)
        r, s = utils.decode_dss_signature(self._key.sign(signed, ec.ECDSA(hashes.SHA256())))
        return (signed + b"." + b64encode(r.to_bytes(32, "big") + s.to_bytes(32, "big"))).decode()

    def _status_of(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        minted = self._minted.get(spec.get("token", ""))
        if minted is None or minted.ends < authority.real_now().timestamp():
            return {"authenticated": False, "error": "invalid bearer token"}
        wanted = spec.get("audiences") or [self.url]
        audiences = [one for one in wanted if one in minted.audiences]
        if not audiences:
            return {"authenticated": False, "error": "token audiences are not the target ones"}
        name = f"system:serviceaccount:{minted.namespace}:{minted.account}"
        user = {"username": name, "uid": _uid(minted.namespace, minted.account)}
        return {"authenticated": True, "user": user, "audiences": audiences}

    async def _review(self, request: web.Request) -> web.Response:
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if shown not in self._minted:
            refusal = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 401}
            return web.json_response({**refusal, "reason": "Unauthorized"}, status=401)
        review = await request.json()
        status = self._status_of(review["spec"])
        user = status.get("user", {})
        self.reviewed.append(str(user.get("username") or status["error"]))
        return web.json_response({**review, "status": status}, status=201)

    def __enter__(self) -> TokenReviews:
        self._loop.start()
        self._loop.run(self._start())
        return self

    def __exit__(self, *ended: object) -> None:
        assert self._runner is not None
        self._loop.run(self._runner.cleanup())
        self._loop.stop()

    async def _start(self) -> None:
        application = web.Application()
        application.router.add_post(PATH, self._review)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls).start()


def _uid(namespace: str, account: str) -> str:
    return f"uid-of-{namespace}-{account}"
