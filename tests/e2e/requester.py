"""A requester that sends exactly what it is told to, for trying the front door.

It is written without the code under test, and without asyncio: one keep-alive connection, raw
header lines in, every header line out.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import json
import re
import secrets
import select
import ssl
import time
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.deployments.penstock import Penstock
from tests.peers import process
from tests.unit.protocol.builders import b64url, jwk_json, make_csr, private_key, sign

JOSE: Final = "application/jose+json"
URN: Final = "urn:ietf:params:acme:error:"

ANSWER_SECONDS: Final = 5.0
"""Longest time to a refusal, on a busy machine too: what is refused was cheap to refuse."""

TRUSTED_ZONE: Final = "farm.example.test"
"""Names below it are granted without a challenge to whoever holds the EAB key ``farm``."""

NATURAL: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
"""The JWS algorithm of each curve."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer with every header line it came with."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    seconds: float

    def all(self, name: str) -> list[str]:
        """Return the values of every line of this header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: str) -> str:
        """Return the value of a header that stands there exactly once."""
        values = self.all(name)
        assert len(values) == 1, f"{name}: {values} in an answer {self.status} {self.body[:300]!r}"
        return values[0]

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)

    @property
    def nonce(self) -> str:
        """The fresh nonce, which every answer has exactly once."""
        return self.one("Replay-Nonce")

    @property
    def problem(self) -> str:
        """The problem's type without its prefix; "" where the answer is none."""
        if self.all("Content-Type") != ["application/problem+json"]:
            return ""
        return str(self.json()["type"]).removeprefix(URN)


class Wire:
    """One keep-alive connection to the broker."""

    def __init__(self, penstock: Penstock) -> None:
        self.context = ssl.create_default_context(cafile=str(penstock.ca_bundle))
        self._connection = http.client.HTTPSConnection(
            "127.0.0.1", penstock.port, timeout=30, context=self.context
        )
        self.host = f"127.0.0.1:{penstock.port}"

    def send(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> Reply:
        """Send one request as it is; Host and Content-Length are added unless given."""
        given = {name.lower() for name, _ in headers}
        lines = [] if "host" in given else [("Host", self.host)]
        if body is not None and not given & {"content-length", "transfer-encoding"}:
            lines.append(("Content-Length", str(len(body))))
        connection = self._connection
        self._close_if_the_broker_did()
        started = time.monotonic()
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in [*lines, *headers]:
            connection.putheader(name, value)
        # A refusal may come before the body has been taken: it is an answer all the same.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.endheaders(body)
        response = connection.getresponse()
        content = response.read()
        seconds = time.monotonic() - started
        return Reply(response.status, tuple(response.getheaders()), content, seconds)

    def _close_if_the_broker_did(self) -> None:
        """See whether an idle connection was closed: nothing else makes it readable now."""
        talk = self._connection.sock
        if talk is not None and select.select([talk], [], [], 0)[0]:
            self._connection.close()

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()


def check_refusal(reply: Reply, kind: str, status: int, says: str) -> dict[str, Any]:
    """See that an answer is a refusal as it should be, and return its problem document.

    *says* is looked for in the sentence, and in those of the subproblems.
    """
    assert (reply.status, reply.problem) == (status, kind), reply.body[:600]
    document: dict[str, Any] = reply.json()
    assert document["status"] == status
    assert document["type"] == URN + kind
    allowed = {"type", "detail", "status", "instance", "algorithms", "subproblems"}
    assert set(document) <= allowed
    sentences = [each["detail"] for each in (document, *document.get("subproblems", ()))]
    assert any(re.search(says, sentence) for sentence in sentences), sentences
    assert all(sentence.isprintable() for sentence in sentences)
    assert not any(sentence.endswith(".") for sentence in sentences)
    assert re.fullmatch(r"[A-Za-z0-9_-]{16,}", reply.nonce)
    assert reply.one("Cache-Control") == "no-store"
    assert reply.all("Server") == reply.all("Location") == []
    assert reply.seconds < ANSWER_SECONDS, f"{reply.seconds:.2f} s"
    return document


# --------------------------------------------------------------------------------- the clients


def natural_algorithm(key: Any) -> str:
    """Return the JWS algorithm that fits a private key."""
    if hasattr(key, "curve"):
        return NATURAL[key.curve.name]
    return "RS256" if hasattr(key, "private_numbers") else "EdDSA"


def thumbprint(key: Any) -> str:
    """Return the JWK thumbprint of a private key (RFC 7638), without the code under test."""
    canonical = json.dumps(jwk_json(key), sort_keys=True, separators=(",", ":"))
    return b64url(hashlib.sha256(canonical.encode()).digest())


@dataclass
class Client:
    """One account key in one community."""

    wire: Wire
    base: str
    """The URL of the community."""
    key: Any = field(default_factory=lambda: private_key("ES256", secrets.token_hex(8)))
    kid: str | None = None

    @property
    def alg(self) -> str:
        """The algorithm that fits the key."""
        return natural_algorithm(self.key)

    def url(self, resource: str) -> str:
        """Return the URL of a resource of the community."""
        return f"{self.base}/{resource}"

    def nonce(self) -> str:
        """Return a fresh nonce."""
        return self.wire.send("HEAD", target_of(self.url("new-nonce"))).nonce

    def header(self, url: str, *, by_key: bool = False) -> dict[str, Any]:
        """Return a good protected header, its nonce fresh."""
        whose = {"jwk": jwk_json(self.key)} if by_key or not self.kid else {"kid": self.kid}
        return {"alg": self.alg, "nonce": self.nonce(), "url": url, **whose}

    def post(
        self, url: str, payload: Any = None, *, by_key: bool = False, nonce: str | None = None
    ) -> Reply:
        """Send a good request; *payload* None makes it POST-as-GET."""
        header = self.header(url, by_key=by_key) | ({"nonce": nonce} if nonce else {})
        octets = b"" if payload is None else json.dumps(payload).encode()
        return self.wire.send(
            "POST", target_of(url), sealed(header, octets, self.key), [("Content-Type", JOSE)]
        )

    def register(self, *, mac_key: bytes | None = None, **members: Any) -> Reply:
        """Create or find the account, bound to the EAB key ``farm`` where its MAC key is given."""
        url = self.url("new-account")
        payload = {"termsOfServiceAgreed": True, **members}
        if mac_key is not None:
            payload["externalAccountBinding"] = binding(url, self.key, mac_key)
        reply = self.post(url, payload, by_key=True)
        if reply.status in {200, 201}:
            self.kid = reply.one("Location")
        return reply

    def order(self, *names: str, **members: Any) -> Reply:
        """Ask for an order."""
        identifiers = [{"type": "dns", "value": name} for name in names]
        return self.post(self.url("new-order"), {"identifiers": identifiers, **members})

    def new_order(self, *names: str) -> tuple[str, dict[str, Any]]:
        """Make an order and return its URL and object."""
        reply = self.order(*names)
        assert reply.status == 201, reply.body
        return reply.one("Location"), reply.json()

    def finalize(self, order: Mapping[str, Any], csr_der: bytes) -> Reply:
        """Send a CSR to an order."""
        return self.post(order["finalize"], {"csr": b64url(csr_der)})

    def certificate(self, *names: str, key: Any = None) -> tuple[dict[str, Any], bytes]:
        """Get a certificate for trusted names; returns its order and its leaf in DER."""
        _, order = self.new_order(*names)
        reply = self.finalize(order, make_csr(names, key=key))
        assert reply.json()["status"] == "valid", reply.body
        chain = self.post(reply.json()["certificate"])
        return reply.json(), leaf_of(chain.body)

    def prove(self, answers: MutableMapping[str, str], order: Mapping[str, Any]) -> None:
        """Answer http-01 for every name of an order and wait until all are valid."""
        for url in order["authorizations"]:
            authorization = self.post(url).json()
            (challenge,) = [c for c in authorization["challenges"] if c["type"] == "http-01"]
            token = challenge["token"]
            answers[token] = f"{token}.{thumbprint(self.key)}"
            self.post(challenge["url"], {})
            process.wait_until(
                lambda url=url: self.post(url).json()["status"] == "valid",  # type: ignore[misc]
                60,
                f"{authorization['identifier']} is proved",
            )


def target_of(url: str) -> str:
    """Return the path and query of an absolute URL."""
    return "/" + url.split("/", 3)[3]


def sealed(header: Mapping[str, Any] | bytes, payload: bytes, key: Any) -> bytes:
    """Return a flattened JWS, signed as the header's ``alg`` says where that is possible."""
    return json.dumps(members(header, payload, key)).encode()


def members(header: Mapping[str, Any] | bytes, payload: bytes, key: Any) -> dict[str, Any]:
    """Return the three members of a flattened JWS."""
    octets = header if isinstance(header, bytes) else json.dumps(header).encode()
    message = f"{b64url(octets)}.{b64url(payload)}"
    signature = sign(key, message.encode(), natural_algorithm(key))
    return {
        "protected": b64url(octets),
        "payload": b64url(payload),
        "signature": b64url(signature),
    }


def binding(url: str, key: Any, mac_key: bytes, key_id: str = "farm") -> dict[str, str]:
    """Return an external account binding for an account key (RFC 8555 §7.3.4)."""
    header = b64url(json.dumps({"alg": "HS256", "kid": key_id, "url": url}).encode())
    payload = b64url(json.dumps(jwk_json(key)).encode())
    mac = hmac.digest(mac_key, f"{header}.{payload}".encode(), "sha256")
    return {"protected": header, "payload": payload, "signature": b64url(mac)}


def leaf_of(chain_pem: bytes) -> bytes:
    """Return the DER of the first certificate of a chain."""
    (leaf, *_) = x509.load_pem_x509_certificates(chain_pem)
    return leaf.public_bytes(Encoding.DER)


def fresh_name(zone: str = TRUSTED_ZONE) -> str:
    """Return a name that nobody has asked for."""
    return f"h{secrets.token_hex(6)}.{zone}"
