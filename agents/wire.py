"""The vocabulary of the channel between agent and broker: messages as values, versioned.

Pure: no socket, no clock, no key.  It is the one module that both sides read, so it knows neither
side.  An agent's requests carry a batch of messages and acknowledge what it has taken in; the
broker's messages come as server-sent events or by long polling, each with a sequence number that
counts up for one node.  docs/adr/0022 tells why it is so.

Versions are ``MAJOR.MINOR``.  Within a major version members and kinds are only ever added: members
that a reader does not know are passed over, a kind that it does not know is acknowledged and left
alone, and a writer sends to a peer nothing that is newer than the lower of both versions.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = [
    "BROKER_KINDS",
    "CLOCK_TOLERANCE_SECONDS",
    "KINDS",
    "MAX_BATCH",
    "MAX_BATCH_BYTES",
    "NODE_KINDS",
    "PATHS",
    "VERSION",
    "VERSIONS",
    "Batch",
    "Message",
    "Refusal",
    "Reply",
    "Version",
    "WireFault",
    "content_digest",
    "decode_bytes",
    "encode_bytes",
    "format_event",
    "negotiate",
    "parse_batch",
    "parse_message",
    "parse_reply",
    "signature_base",
    "signature_input",
]

MAX_BATCH: Final = 256
"""Most messages in one request; an agent with more sends several."""

MAX_BATCH_BYTES: Final = 4 * 1024 * 1024
"""Largest request or answer of the channel, in bytes: a full batch of certificates with long chains
measures under 3 MiB."""

MAX_ID_CHARS: Final = 64
"""Longest id of a message, in characters; ours have 22."""

CLOCK_TOLERANCE_SECONDS: Final = 300
"""How far the time in a signature may lie from the reader's, in seconds: hosts without a time
service drift by less in a month, and a replayed signature is remembered for as long."""


class WireFault(ValueError):
    """What came over the channel cannot be read; says what and where."""


# ---------------------------------------------------------------------------------- versions


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A version of this vocabulary."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @classmethod
    def parse(cls, text: object) -> Version:
        """Return the version that *text* names; raises WireFault."""
        major, dot, minor = str(text).partition(".")
        if not (isinstance(text, str) and dot and _is_number(major) and _is_number(minor)):
            raise WireFault(f"version {str(text)[:20]!r} is not MAJOR.MINOR")
        return cls(int(major), int(minor))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 3


VERSION: Final = Version(1, 0)
"""What this side speaks at most."""

VERSIONS: Final = ("1.0",)
"""Every version that this side can still speak, oldest first: three minor ones, once there are."""


def negotiate(theirs: Version, ours: Version = VERSION) -> Version:
    """Return the version that both speak: the lower minor of the same major.

    Raises:
        WireFault: The majors differ; the older side has to be updated.
    """
    if theirs.major != ours.major:
        raise WireFault(f"wire version {theirs} cannot be spoken with, expected {ours.major}.x")
    return min(theirs, ours)


# ------------------------------------------------------------------------------------- kinds

PATHS: Final = {
    "enrol": "/agent/v1/enrol",
    "identity": "/agent/v1/identity",
    "messages": "/agent/v1/messages",
    "stream": "/agent/v1/stream",
}
"""Where the broker listens, below the URL that the agent is configured with."""

_TEXT, _NUMBER, _LIST, _OBJECT, _TRUTH = str, int, list, dict, bool

BROKER_KINDS: Final[Mapping[str, Mapping[str, type]]] = {
    # Make a key, or take the one there is, and send a CSR.
    "want-csr": {
        "delivery": _TEXT,
        "certificate": _TEXT,
        "names": _LIST,
        "key_kind": _TEXT,
        "is_new_key": _TRUTH,
    },
    # A certificate to check, install, reload and look at.  Generations of one name only go up.
    # "tell_within" may be there too: how many seconds the node may take to tell that it went well,
    # where many are sent one at once.
    "certificate": {
        "delivery": _TEXT,
        "certificate": _TEXT,
        "generation": _NUMBER,
        "chain_pem": _TEXT,
        "spki_sha256": _TEXT,
        "longest_seconds": _NUMBER,
        "keep_previous_seconds": _NUMBER,
    },
    # Something that the node asked for is not granted; what it has stays.
    "refused": {"certificate": _TEXT, "reason": _TEXT},
    # Why a certificate has not come yet, for whoever looks at the node; nothing follows from it.
    "waits": {"certificate": _TEXT, "reason": _TEXT},
    # Serve the answer to a challenge until it is withdrawn, or until the time that is named.
    "answer-challenge": {
        "challenge": _TEXT,
        "type": _TEXT,
        "identifier": _TEXT,
        "token": _TEXT,
        "key_authorization": _TEXT,
        "seconds": _NUMBER,
    },
    "withdraw-challenge": {"challenge": _TEXT},
    # Trust anchors or revocation lists, for a bundle file of their own.
    "bundle": {"bundle": _TEXT, "content": _TEXT, "version": _NUMBER, "pem": _TEXT},
    # Renew the identity now, whatever its age.
    "renew-identity": {},
}
"""What the broker sends, each kind with the members that it must have."""

NODE_KINDS: Final[Mapping[str, Mapping[str, type]]] = {
    # All that the node serves and wants served: at each connection, and when it changes.
    "stated": {"instance": _TEXT, "agent": _TEXT, "certificates": _LIST},
    # Taken over as it is served: the broker renews it from now on.
    "adopted": {"certificate": _TEXT, "chain_pem": _TEXT},
    "csr": {"delivery": _TEXT, "certificate": _TEXT, "csr_der": _TEXT},
    # How far a delivery has come: checked, installed, reloaded, seen, refused, failed, restored.
    "receipt": {
        "delivery": _TEXT,
        "certificate": _TEXT,
        "generation": _NUMBER,
        "stage": _TEXT,
        "fingerprint": _TEXT,
        "at": _NUMBER,
    },
    # It cannot be done, now or for good.
    "unable": {"delivery": _TEXT, "reason": _TEXT, "is_final": _TRUTH},
    "challenge-answered": {"challenge": _TEXT},
    "challenge-failed": {"challenge": _TEXT, "reason": _TEXT},
    "bundle-installed": {"bundle": _TEXT, "version": _NUMBER},
}
"""What an agent sends, each kind with the members that it must have."""

KINDS: Final = {**BROKER_KINDS, **NODE_KINDS}

STATEMENT: Final[Mapping[str, type]] = {
    "name": _TEXT,
    "names": _LIST,
    "key_kind": _TEXT,
}
"""Members that each of ``stated.certificates`` must have.  Optional ones: ``profile``; of what is
served now: ``fingerprint``, ``not_after`` (seconds since 1970), ``generation``, ``is_seen``,
``fault``."""

STAGES: Final = ("checked", "installed", "reloaded", "seen", "refused", "failed", "restored")
"""What a receipt can tell.  ``refused``: the certificate failed the node's own checks and nothing
was touched.  ``failed``: it could not be installed, and the old one is in place.  ``restored``: it
was installed, did not come to be served, and the old one was put back."""

ENDS: Final = frozenset({"seen", "refused", "failed", "restored"})
"""Stages that nothing follows."""


# ---------------------------------------------------------------------------------- messages


@dataclass(frozen=True, slots=True)
class Message:
    """One message.  ``seq`` counts the broker's messages to a node; an agent's have 0."""

    id: str
    kind: str
    body: Mapping[str, Any] = field(default_factory=dict)
    seq: int = 0
    re: str | None = None
    """Id of the message that it answers."""

    @property
    def is_known(self) -> bool:
        """Whether this version knows the kind; others are acknowledged and left alone."""
        return self.kind in KINDS

    def document(self) -> dict[str, Any]:
        """Return the message as JSON has it."""
        made: dict[str, Any] = {"id": self.id, "kind": self.kind, "body": dict(self.body)}
        if self.seq:
            made["seq"] = self.seq
        if self.re is not None:
            made["re"] = self.re
        return made


@dataclass(frozen=True, slots=True)
class Batch:
    """What an agent posts: its messages, and up to where it has taken in the broker's."""

    version: Version
    ack: int
    messages: tuple[Message, ...]

    def encode(self) -> bytes:
        """Return the request's body."""
        return _encode(
            {
                "version": str(self.version),
                "ack": self.ack,
                "messages": [one.document() for one in self.messages],
            }
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that the broker did not take; one with ``is_final`` is not to be sent again."""

    id: str
    reason: str
    is_final: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """What the broker answers: which messages it keeps, which not, and its own for a poll."""

    version: Version
    accepted: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()
    messages: tuple[Message, ...] = ()

    def encode(self) -> bytes:
        """Return the answer's body."""
        refused = [
            {"id": one.id, "reason": one.reason, "is_final": one.is_final} for one in self.refused
        ]
        return _encode(
            {
                "version": str(self.version),
                "accepted": list(self.accepted),
                "refused": refused,
                "messages": [one.document() for one in self.messages],
            }
        )


def parse_message(document: object) -> Message:
    """Return the message that *document*, as read from JSON, holds.

    A kind that is known must have its members; others it may have as well.

    Raises:
        WireFault: A member is missing or of another type.
    """
    members = _object(document, "message")
    kind = _text(members, "kind", "message")
    number = members.get("seq", 0)
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise WireFault("message seq is no count")
    re = members.get("re")
    if re is not None and not isinstance(re, str):
        raise WireFault("message re is no text")
    body = _object(members.get("body", {}), f"body of {kind[:40]!r}")
    wanted = KINDS.get(kind)
    if wanted is not None:
        _check_members(body, wanted, f"message {kind!r}")
    if kind == "stated":
        for number_, one in enumerate(body["certificates"]):
            _check_members(
                _object(one, f"certificate {number_}"), STATEMENT, f"certificate {number_}"
            )
    return Message(_id(members), kind, body, number, re)


def parse_batch(body: bytes) -> Batch:
    """Return what an agent posted; raises WireFault."""
    members = _read(body)
    ack = members.get("ack", 0)
    if not isinstance(ack, int) or isinstance(ack, bool) or ack < 0:
        raise WireFault("ack is no count")
    return Batch(Version.parse(members.get("version")), ack, _messages(members))


def parse_reply(body: bytes) -> Reply:
    """Return what the broker answered; raises WireFault."""
    members = _read(body)
    accepted = _list(members, "accepted")
    refused = []
    for one in _list(members, "refused"):
        entry = _object(one, "refusal")
        _check_members(entry, {"id": str, "reason": str, "is_final": bool}, "refusal")
        refused.append(Refusal(entry["id"], entry["reason"], entry["is_final"]))
    return Reply(
        Version.parse(members.get("version")),
        tuple(str(one) for one in accepted),
        tuple(refused),
        _messages(members),
    )


def format_event(message: Message) -> bytes:
    """Return *message* as one server-sent event, whose id is its sequence number."""
    text = json.dumps(message.document(), separators=(",", ":"))
    return f"id: {message.seq}\nevent: message\ndata: {text}\n\n".encode()


# -------------------------------------------------------------------------------- signatures
#
# Where a load balancer ends TLS, an agent signs each request with the key of its identity
# (RFC 9421), over method, path, query and digest of the body (RFC 9530 §2).


def content_digest(body: bytes) -> str:
    """Return the value of ``Content-Digest`` for *body* (RFC 9530 §2)."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def signature_input(*, created: int, nonce: str, key_id: str) -> str:
    """Return the parameters of a signature, as they stand in ``Signature-Input`` behind
    ``penstock=``; *key_id* is the SHA-256 of the identity certificate's DER, in lower case hex."""
    covered = '"@method" "@path" "@query" "content-digest"'
    return f'({covered});created={created};nonce="{nonce}";keyid="{key_id}";alg="ecdsa-p256-sha256"'


def signature_base(*, method: str, path: str, query: str, digest: str, parameters: str) -> bytes:
    """Return the octets that are signed (RFC 9421 §2.5); *query* begins with ``?``."""
    lines = (
        f'"@method": {method}',
        f'"@path": {path}',
        f'"@query": {query}',
        f'"content-digest": {digest}',
        f'"@signature-params": {parameters}',
    )
    return "\n".join(lines).encode("ascii")


# ----------------------------------------------------------------------------------- helpers


def encode_bytes(octets: bytes) -> str:
    """Return *octets* as they stand in a message: base64url without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


def decode_bytes(text: str, what: str) -> bytes:
    """Return the octets that *text* stands for; raises WireFault, naming *what*."""
    if any(one in text for one in "+/="):
        # The reader below takes both alphabets.
        raise WireFault(f"{what} is not base64url")
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise WireFault(f"{what} is not base64url") from None


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode("utf-8")


def _read(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BATCH_BYTES:
        raise WireFault(f"{len(body)} bytes are past the limit of {MAX_BATCH_BYTES}")
    try:
        return _object(json.loads(body), "body")
    except (ValueError, RecursionError) as error:
        if isinstance(error, WireFault):
            raise
        raise WireFault("body is no JSON") from None


def _messages(members: Mapping[str, Any]) -> tuple[Message, ...]:
    found = _list(members, "messages")
    if len(found) > MAX_BATCH:
        raise WireFault(f"{len(found)} messages are past the limit of {MAX_BATCH}")
    return tuple(parse_message(one) for one in found)


def _id(members: Mapping[str, Any]) -> str:
    found = _text(members, "id", "message")
    if not 0 < len(found) <= MAX_ID_CHARS or not found.isascii() or not found.isprintable():
        raise WireFault(f"message id is not 1 to {MAX_ID_CHARS} printable characters")
    return found


def _list(members: Mapping[str, Any], name: str) -> list[Any]:
    found = members.get(name, [])
    if not isinstance(found, list):
        raise WireFault(f"{name} is no list")
    return found


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WireFault(f"{what} is no object")
    return value


def _text(members: Mapping[str, Any], name: str, what: str) -> str:
    found = members.get(name)
    if not isinstance(found, str):
        raise WireFault(f"{what} has no {name}")
    return found


def _check_members(body: Mapping[str, Any], wanted: Mapping[str, type], what: str) -> None:
    for name, kind in wanted.items():
        found = body.get(name)
        is_fit = isinstance(found, kind) and (kind is bool or not isinstance(found, bool))
        if not is_fit:
            raise WireFault(f"{what} has no {name} of type {kind.__name__}")
        if name == "names":
            _check_texts(body[name], name, what)


def _check_texts(values: Iterable[object], name: str, what: str) -> None:
    if not all(isinstance(one, str) for one in values):
        raise WireFault(f"{what} has something else than text in {name}")
