"""Who the node is to the broker: its identity key, and the certificate that the node CA gave it.

Knows how to enrol, how to renew and how to come back after the identity has ended.  None of it
touches a certificate that is being served.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from agents import __version__, wire
from agents.clock import Clock
from agents.config import AgentConfig, Authentication, EnrolMethod
from agents.errors import Refused, Unreachable
from agents.mailbox import new_id
from agents.references import ReferenceFault, read_reference
from agents.state import Folder, write_durably
from agents.transport import Answer, ClientPair, Signer, Transport

__all__ = ["Identities", "Identity", "Waiting"]

RENEW_AT: Final = 2 / 3
"""Where in its life an identity is renewed: the last third is for a broker that is away."""

RENEWAL_PAUSE: Final = timedelta(minutes=10)
"""How long lies between tries to renew an identity; of one that lives for less than a hundred
minutes a tenth of its life, so that its last third has room for three."""

MAX_CHAIN_CHARS: Final = 64 * 1024
"""Longest identity chain that is believed, in characters of PEM; ours measure 2 KiB."""

_END: Final = "-----END CERTIFICATE-----"

Child = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class Waiting(Exception):
    """A person has to let the node in; it asks again in ``retry_seconds``."""

    def __init__(self, fingerprint: str, retry_seconds: float) -> None:
        super().__init__(f"waits for approval, fingerprint of the key is {fingerprint}")
        self.fingerprint = fingerprint
        self.retry_seconds = retry_seconds


@dataclass(frozen=True, slots=True)
class Identity:
    """An identity as it is kept."""

    node_id: str
    node: str
    key: str
    """Name of the key's file."""
    chain_pem: str
    fingerprint: str
    not_before: datetime
    not_after: datetime

    def is_alive(self, now: datetime) -> bool:
        """Whether its time is not over."""
        return now < self.not_after

    def renewal_at(self) -> datetime:
        """Return when it is renewed."""
        return self.not_before + (self.not_after - self.not_before) * RENEW_AT

    def renewal_pause(self) -> timedelta:
        """Return how long lies between tries to renew it."""
        return min(RENEWAL_PAUSE, (self.not_after - self.not_before) / 10)


class Identities:
    """Keeps the identity, and gets another when it is time."""

    def __init__(
        self,
        config: AgentConfig,
        folder: Folder,
        transport: Transport,
        clock: Clock,
        child: Child | None = None,
    ) -> None:
        self._config = config
        self._folder = folder
        self._transport = transport
        self._clock = clock
        self._given_child = child
        self._identity = _read(folder.get("identity"))
        if self._identity is not None:
            self._place(self._identity)

    def use(self, config: AgentConfig) -> None:
        """Enrol by another configuration from now on."""
        self._config = config

    @property
    def current(self) -> Identity | None:
        """The identity that there is, whether it is alive or not."""
        return self._identity

    def is_usable(self) -> bool:
        """Tell whether there is one and its time is not over."""
        return self._identity is not None and self._identity.is_alive(self._clock.now())

    def is_renewal_due(self) -> bool:
        """Tell whether it is time for another."""
        return self._identity is not None and self._clock.now() >= self._identity.renewal_at()

    def renewal_pause(self) -> float:
        """Return how long lies between tries to renew it, in seconds."""
        pause = RENEWAL_PAUSE if self._identity is None else self._identity.renewal_pause()
        return pause.total_seconds()

    def pair(self) -> ClientPair | None:
        """Return what TLS shows of the node; None where a load balancer ends it."""
        if self._config.broker.authentication is not Authentication.TLS or self._identity is None:
            return None
        return ClientPair(self._file("chain.pem"), self._file(self._identity.key))

    def signer(self) -> Signer | None:
        """Return what signs requests; None where TLS shows who asks."""
        if self._config.broker.authentication is not Authentication.SIGNED:
            return None
        return self._signer()

    # ---------------------------------------------------------------------------- to get one

    def enrol(self) -> Identity:
        """Return a new identity: by the key of the former one, else as the configuration says.

        Raises:
            Waiting: A person has to approve it first.
            Refused: The broker does not let it in.
            Unreachable: It could not be asked, or what it needs is not there.
        """
        if self._identity is not None:
            try:
                return self._ask("former", self._identity.key, sign=self._signer())
            except Refused:
                pass  # away for too long, or revoked: it comes as a stranger would, by another key
        return self._enrol_anew()

    def _enrol_anew(self) -> Identity:
        section = self._config.enrol
        kept = self._folder.get("enrolling") or {}
        key = str(kept.get("key") or f"key-{new_id()}.pem")
        if "/" in key:
            key = f"key-{new_id()}.pem"
        request = kept.get("request")
        self._folder.put("enrolling", {"key": key, "request": request})
        credential, pair = None, None
        try:
            if section.method is EnrolMethod.CERTIFICATE:
                pair = ClientPair(section.certificate or "", section.key or "")
            elif section.method is not EnrolMethod.APPROVAL and section.credential is not None:
                credential = read_reference(section.credential)
        except ReferenceFault as fault:
            raise Unreachable(f"enrol.credential: {fault}") from None
        made = self._ask(
            str(section.method), key, credential=credential, request=request, pair=pair
        )
        self._folder.remove("enrolling")
        return made

    def _ask(
        self,
        method: str,
        key: str,
        *,
        credential: str | None = None,
        request: object = None,
        pair: ClientPair | None = None,
        sign: Signer | None = None,
    ) -> Identity:
        made = self._make_request(key)
        body: dict[str, Any] = {
            "version": str(wire.VERSION),
            "method": method,
            "node": self._config.node.name,
            "csr_der": made["csr_der"],
            "credential": credential,
            "agent": __version__,
            "request": request,
            "facts": _facts(),
        }
        answer = self._transport.call(
            "POST", wire.PATHS["enrol"], body=_encode(body), pair=pair, sign=sign
        )
        if answer.status == 202:
            self._wait(answer, key)
        return self._keep(answer, key, str(made["spki_sha256"]))

    def _wait(self, answer: Answer, key: str) -> None:
        found = answer.members()
        self._folder.put("enrolling", {"key": key, "request": found.get("request")})
        seconds = found.get("retry_seconds")
        retry = float(seconds) if isinstance(seconds, int | float) else 30.0
        raise Waiting(str(found.get("fingerprint", ""))[:100], min(max(retry, 1.0), 600.0))

    def renew(self) -> Identity:
        """Return a new identity for the same key, in place of one that is alive; raises like
        ``enrol``."""
        identity = self._identity
        if identity is None:
            return self.enrol()
        made = self._make_request(identity.key)
        body = {"version": str(wire.VERSION), "csr_der": made["csr_der"]}
        answer = self._transport.call(
            "POST",
            wire.PATHS["identity"],
            body=_encode(body),
            pair=self.pair(),
            sign=self.signer(),
        )
        return self._keep(answer, identity.key, str(made["spki_sha256"]))

    # --------------------------------------------------------------------------- to keep it

    def _child(self, work: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have the child do something; raises Unreachable, for it is tried again."""
        if self._given_child is not None:
            return self._given_child(work)
        from agents.child import ChildFault, run_child  # an agent that waits starts no process

        try:
            return run_child(work)
        except ChildFault as fault:
            raise Unreachable(f"the identity key cannot be used: {fault.reason}") from None

    def _make_request(self, key: str) -> Mapping[str, Any]:
        path = self._file(key)
        return self._child({"do": "identity-request", "path": path})

    def _keep(self, answer: Answer, key: str, spki_sha256: str) -> Identity:
        """Keep what the broker gave, once it has been seen to be for this key."""
        found = answer.members()
        chain = found.get("chain_pem")
        node_id = found.get("node_id") or (self._identity.node_id if self._identity else None)
        if (
            not isinstance(chain, str)
            or len(chain) > MAX_CHAIN_CHARS
            or not isinstance(node_id, str)
        ):
            raise Unreachable("the broker's answer holds no identity")
        leaf = self._inspect(chain)
        if leaf["spki_sha256"] != spki_sha256:
            raise Unreachable("the identity in the broker's answer is for another key")
        document = {
            "node_id": node_id,
            "node": str(found.get("node") or self._config.node.name),
            "key": key,
            "chain_pem": chain,
            "fingerprint": leaf["fingerprint"],
            "not_before": leaf["not_before"],
            "not_after": leaf["not_after"],
        }
        identity = _read(document)
        if identity is None:
            raise Unreachable("the identity in the broker's answer cannot be read")
        self._folder.put("identity", document)
        self._place(identity)
        self._identity = identity
        return identity

    def _inspect(self, chain: str) -> Mapping[str, Any]:
        at = int(self._clock.now().timestamp())
        try:
            found = self._child({"do": "inspect", "pem": chain, "anchors": None, "at": at})
            leaf: Mapping[str, Any] = found["certificates"][0]
            return leaf
        except (KeyError, IndexError):
            raise Unreachable("the identity in the broker's answer cannot be read") from None

    def _place(self, identity: Identity) -> None:
        """Put the chain where TLS reads it; the document is what counts."""
        # The leaf alone: the broker knows its own CAs, and a chain costs it memory.
        leaf = identity.chain_pem.partition(_END)
        octets = (leaf[0] + leaf[1] + "\n").encode("ascii", "replace")
        path = self._file("chain.pem")
        try:
            with open(path, "rb") as file:
                if file.read() == octets:
                    return
        except OSError:
            pass
        write_durably(path, octets)

    def _file(self, name: str) -> str:
        return os.path.join(self._folder.path, name)

    def _signer(self) -> Signer:
        identity = self._identity
        if identity is None:
            raise Unreachable("there is no identity to sign with")

        def sign(method: str, path: str, query: str, body: bytes) -> Mapping[str, str]:
            digest = wire.content_digest(body)
            parameters = wire.signature_input(
                created=int(self._clock.now().timestamp()),
                nonce=new_id(),
                key_id=identity.fingerprint,
            )
            base = wire.signature_base(
                method=method, path=path, query=query, digest=digest, parameters=parameters
            )
            return {
                "Content-Digest": digest,
                "Signature-Input": f"penstock={parameters}",
                "Signature": f"penstock=:{self._sign(identity.key, base)}:",
            }

        return sign

    def _sign(self, key: str, base: bytes) -> str:
        import base64

        work = {"do": "sign", "key": self._file(key), "data": [wire.encode_bytes(base)]}
        try:
            octets = wire.decode_bytes(str(self._child(work)["signatures"][0]), "signature")
        except (KeyError, IndexError, wire.WireFault) as fault:
            raise Unreachable(f"the identity key cannot sign: {fault}") from None
        return base64.b64encode(octets).decode("ascii")


def _read(document: Mapping[str, Any] | None) -> Identity | None:
    if document is None:
        return None
    try:
        return Identity(
            node_id=str(document["node_id"]),
            node=str(document["node"]),
            key=os.path.basename(str(document["key"])),
            chain_pem=str(document["chain_pem"]),
            fingerprint=str(document["fingerprint"]),
            not_before=_time(document["not_before"]),
            not_after=_time(document["not_after"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _time(seconds: object) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(str(seconds)))


def _encode(body: Mapping[str, Any]) -> bytes:
    import json

    return json.dumps(body, separators=(",", ":")).encode("utf-8")


def _facts() -> dict[str, str]:
    """Return what is told to whoever approves the node; nothing of it is believed."""
    system = os.uname()
    return {"host": system.nodename, "system": f"{system.sysname} {system.release}"}
