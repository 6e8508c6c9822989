"""The issuer of a cluster's service-account tokens: it signs what a test asks for."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from broker.protocol.jwk import jwk_from_public_key

__all__ = ["AUDIENCE", "ISSUER", "ClusterIssuer", "encoded"]

ISSUER = "https://kubernetes.default.svc.cluster.local"
AUDIENCE = "penstock"


def encoded(value: bytes | dict[str, Any]) -> str:
    """Return base64url of octets, or of an object as JSON."""
    octets = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


class ClusterIssuer:
    """Makes tokens as an API server does for projected volumes."""

    def __init__(self, key: Any, key_id: str = "key-1", issuer: str = ISSUER) -> None:
        self.key = key
        self.key_id = key_id
        self.issuer = issuer

    @property
    def alg(self) -> str:
        """The algorithm that fits the key."""
        return "RS256" if isinstance(self.key, rsa.RSAPrivateKey) else "ES256"

    def key_set(self, **more: Any) -> bytes:
        """Return the key set that the issuer publishes."""
        jwk = jwk_from_public_key(self.key.public_key()).to_json()
        entry = {**jwk, "use": "sig", "alg": self.alg, "kid": self.key_id, **more}
        return json.dumps({"keys": [entry]}).encode()

    def claims(self, at: datetime, **changes: Any) -> dict[str, Any]:
        """Return the claims of a token of the pod mail/postfix-0; None takes a claim away."""
        made: dict[str, Any] = {
            "iss": self.issuer,
            "sub": "system:serviceaccount:mail:postfix",
            "aud": [AUDIENCE],
            "iat": int(at.timestamp()),
            "nbf": int(at.timestamp()),
            "exp": int((at + timedelta(hours=1)).timestamp()),
            "kubernetes.io": {
                "namespace": "mail",
                "serviceaccount": {"name": "postfix", "uid": "u-1"},
                "pod": {"name": "postfix-0", "uid": "u-2"},
                "node": {"name": "worker-1", "uid": "u-3"},
            },
        }
        made |= changes
        return {name: value for name, value in made.items() if value is not None}

    def token(self, at: datetime, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """Return a token with changed claims, under a changed header."""
        heading = {"alg": self.alg, "kid": self.key_id, **(header or {})}
        heading = {name: value for name, value in heading.items() if value is not None}
        return self.signed(encoded(heading), encoded(self.claims(at, **changes)))

    def signed(self, header: str, claims: str) -> str:
        """Return the token of two encoded parts."""
        message = f"{header}.{claims}".encode()
        return f"{header}.{claims}.{encoded(self._sign(message))}"

    def _sign(self, message: bytes) -> bytes:
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        r, s = utils.decode_dss_signature(self.key.sign(message, ec.ECDSA(hashes.SHA256())))
        return bytes(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
