"""Requests with one thing wrong, each made from a good one.

A case says where the good request goes, what is spoilt in it and which refusal is due.  Trying a
case sends the spoilt request, looks at the refusal, and then sends the good request with the
nonce that came with the refusal: that one has to pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.e2e.front_door import PROVABLE, FrontDoor
from tests.e2e.requester import (
    JOSE,
    Client,
    Reply,
    check_refusal,
    fresh_name,
    members,
    target_of,
)
from tests.unit.protocol.builders import b64url, jwk_json, make_csr

DROP: Final = object()
"""Stands for a member that is taken away."""

READABLE: Final = ("account", "order", "authz", "challenge", "certificate")
"""Resources that the owner reads by POST-as-GET."""


@dataclass
class Draft:
    """A request that can still be changed, down to its octets."""

    url: str
    protected: Any
    """The protected header, or the octets in its place."""
    payload: bytes
    key: Any
    holdings: Holdings = field(repr=False)
    target: str = ""
    method: str = "POST"
    headers: list[tuple[str, str]] = field(default_factory=lambda: [("Content-Type", JOSE)])
    after_signing: list[Callable[[dict[str, Any]], Any]] = field(default_factory=list)
    """What is done to the members of the JWS; what comes of it is written as JSON, octets as
    they are."""

    def header(self, **changes: object) -> None:
        """Replace members of the protected header, before it is signed."""
        for name, value in changes.items():
            self.protected.pop(name, None)
            if value is not DROP:
                self.protected[name] = value

    def outer(self, **changes: object) -> None:
        """Replace members of the JWS, after it is signed."""

        def change(jws: dict[str, Any]) -> dict[str, Any]:
            kept = {name: value for name, value in jws.items() if name not in changes}
            return kept | {name: value for name, value in changes.items() if value is not DROP}

        self.after_signing.append(change)

    def sign_with(self, key: Any, **header: object) -> None:
        """Use another account key, embedded, with *header* on top."""
        self.key = key
        self.header(jwk=jwk_json(key), **header)

    def encoded(self) -> bytes:
        """Return the body."""
        value: Any = members(self.protected, self.payload, self.key)
        for change in self.after_signing:
            value = change(value)
        return value if isinstance(value, bytes) else json.dumps(value).encode()


@dataclass
class Holdings:
    """An owner with one object of each kind, all of them open."""

    door: FrontDoor
    owner: Client
    urls: dict[str, str]
    csr_der: bytes

    @classmethod
    def of(cls, door: FrontDoor) -> Holdings:
        """Make the owner and what it owns."""
        owner = door.trusted()
        name = fresh_name()
        csr_der = make_csr([name])
        order_url, order = owner.new_order(name)
        certificate = owner.finalize(order, csr_der).json()["certificate"]
        _, pending = owner.new_order(PROVABLE[0])
        authorization = owner.post(pending["authorizations"][0]).json()
        urls = {
            "account": owner.kid or "",
            "order": order_url,
            "finalize": order["finalize"],
            "certificate": certificate,
            "authz": pending["authorizations"][0],
            "challenge": authorization["challenges"][0]["url"],
        }
        for resource in ("new-account", "new-order", "revoke-cert", "directory", "new-nonce"):
            urls[resource] = owner.url(resource)
        return cls(door, owner, urls, csr_der)

    def draft(self, where: str, *, nonce: str | None = None) -> Draft:
        """Return a good request to a resource."""
        url = self.urls[where]
        header = self.owner.header(url, by_key=where == "new-account")
        if nonce is not None:
            header["nonce"] = nonce
        payload = self._payload(where)
        octets = b"" if payload is None else json.dumps(payload).encode()
        return Draft(url, header, octets, self.owner.key, self, target=target_of(url))

    def _payload(self, where: str) -> Mapping[str, Any] | None:
        if where == "new-account":
            return {"onlyReturnExisting": True}
        if where == "new-order":
            return {"identifiers": [{"type": "dns", "value": fresh_name()}]}
        if where == "finalize":
            return {"csr": b64url(self.csr_der)}
        if where == "revoke-cert":
            _, leaf = self.owner.certificate(fresh_name())
            return {"certificate": b64url(leaf)}
        return None

    def send(self, draft: Draft) -> Reply:
        """Send a request as it stands."""
        body = None if draft.method in {"GET", "HEAD", "DELETE"} else draft.encoded()
        return self.door.wire.send(draft.method, draft.target, body, draft.headers)


@dataclass(frozen=True, slots=True)
class Bad:
    """One case: what is spoilt where, and how that is refused."""

    id: str
    where: str
    spoil: Callable[[Draft], object]
    kind: str
    says: str
    """A pattern found in the sentence."""
    status: int = 400

    def __str__(self) -> str:
        return f"{self.where}: {self.id}"


def refuse_then_pass(holdings: Holdings, bad: Bad) -> dict[str, Any]:
    """See the spoilt request refused with nothing made, and the good one pass right after it.

    Returns the problem document.
    """
    draft = holdings.draft(bad.where)
    bad.spoil(draft)
    before = holdings.door.penstock.counts()
    refused = holdings.send(draft)
    assert holdings.door.penstock.counts() == before
    document = check_refusal(refused, bad.kind, bad.status, bad.says)
    passed = holdings.send(holdings.draft(bad.where, nonce=refused.nonce))
    assert passed.status in {200, 201, 204}, passed.body
    return document


def names_of(cases: list[Bad]) -> list[str]:
    """Return the ids of a table, having seen that none stands there twice."""
    ids = [str(case) for case in cases]
    assert len(set(ids)) == len(ids), sorted(one for one in ids if ids.count(one) > 1)
    return ids
