"""An OpenID provider: it signs the access tokens that a test asks for, and publishes its keys."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from broker.issuance.errors import Unreachable
from tests.fakes.cluster_issuer import ClusterIssuer

__all__ = ["AUDIENCE", "ISSUER", "FakeDocuments", "TokenIssuer"]

ISSUER = "https://login.corp.example/realms/staff"
AUDIENCE = "penstock-operators"


class TokenIssuer(ClusterIssuer):
    """Makes tokens as RFC 9068 has them."""

    def __init__(self, key: Any, key_id: str = "key-1", issuer: str = ISSUER) -> None:
        super().__init__(key, key_id, issuer)

    def claims(self, at: datetime, **changes: Any) -> dict[str, Any]:
        """Return the claims of a token of jane's; None takes a claim away."""
        made: dict[str, Any] = {
            "iss": self.issuer,
            "sub": "00u-jane",
            "aud": AUDIENCE,
            "iat": int(at.timestamp()),
            "exp": int((at + timedelta(minutes=10)).timestamp()),
            "client_id": "penstock-cli",
            "jti": "t-1",
            "groups": [],
        }
        made |= changes
        return {name: value for name, value in made.items() if value is not None}

    def token(self, at: datetime, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """Return a token with changed claims, under a changed header."""
        return super().token(at, {"typ": "at+jwt", **(header or {})}, **changes)

    def discovery(self, **changes: Any) -> bytes:
        """Return the discovery document."""
        made = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys", **changes}
        return json.dumps(
            {name: value for name, value in made.items() if value is not None}
        ).encode()


class FakeDocuments:
    """The provider's web server: remembers what was asked, and may be away."""

    def __init__(self, documents: dict[str, bytes]) -> None:
        self.documents = documents
        self.asked: list[str] = []
        self.is_away = False

    async def read(self, url: str) -> bytes:
        """Return what lies at *url*; raises Unreachable."""
        self.asked.append(url)
        if self.is_away or url not in self.documents:
            raise Unreachable(f"{url}: answered 503, expected 200")
        return self.documents[url]
