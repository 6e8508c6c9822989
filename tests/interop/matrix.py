"""The matrix of clients and CAs: what is played for a pair, and what came of it.

Every certificate is held against the records of the CA that issued it.  What a client lacks,
what a CA lacks and what Penstock does not do stands in tables with the reason, and becomes a
row of the report like everything that was played.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import enum
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.deployments.cas import OWN_ZONE, Deployment, updates_of
from tests.peers import authority
from tests.peers.acme_library import AcmeLibrary
from tests.peers.apache import ModMd
from tests.peers.bind import Bind
from tests.peers.caddy import Caddy
from tests.peers.certbot import DebianCertbot, StockCertbot
from tests.peers.client import ClientFailed, ExternalAccount, Obtained
from tests.peers.dehydrated import Dehydrated
from tests.peers.lego import StockLego
from tests.peers.process import PeerFailed
from tests.peers.stock import (
    DNS_01,
    HTTP_01,
    OF_A_CHALLENGE,
    TLS_ALPN_01,
    Key,
    Place,
    StockClient,
    Verb,
    Wish,
)
from tests.peers.uacme import Uacme

CLIENTS: Final[Mapping[str, type[StockClient]]] = {
    kind.kind: kind
    for kind in (
        StockCertbot,
        DebianCertbot,
        AcmeLibrary,
        StockLego,
        Dehydrated,
        Uacme,
        Caddy,
        ModMd,
    )
}

WAIT_SECONDS: Final = 60.0
"""Longest wait for a CA's record of what was just done."""


class Outcome(enum.StrEnum):
    """What became of one verb."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_OFFERED = "not offered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One verb of one client at one CA."""

    client: str
    ca: str
    challenge: str
    verb: str
    outcome: Outcome
    note: str = ""
    seconds: float = 0.0


class Part(enum.StrEnum):
    """What is played in one go: a test each."""

    HTTP_01 = HTTP_01
    DNS_01 = DNS_01
    TLS_ALPN_01 = TLS_ALPN_01
    ACCOUNT = "account"
    CERTIFICATE = "certificate"
    RENEWAL = "renewal"
    ADDRESSES = "addresses"


VERBS: Final[Mapping[Part, Sequence[Verb]]] = {
    Part.HTTP_01: OF_A_CHALLENGE,
    Part.DNS_01: OF_A_CHALLENGE,
    Part.TLS_ALPN_01: OF_A_CHALLENGE,
    Part.ACCOUNT: (Verb.EXTERNAL_ACCOUNT, Verb.CONTACT, Verb.KEY_CHANGE, Verb.DEACTIVATE),
    Part.CERTIFICATE: (
        Verb.RSA,
        Verb.P384,
        Verb.CSR,
        Verb.PROFILE,
        Verb.NOT_AFTER,
        Verb.CHAIN,
        Verb.REVOKE_BY_KEY,
    ),
    Part.RENEWAL: (Verb.RENEWAL_INFO,),
    Part.ADDRESSES: (Verb.IPV4, Verb.IPV6),
}

LABORATORY: Final[Mapping[str, Mapping[str, str]]] = {
    "step-ca": {Verb.CHAIN: "the CA has one chain"},
    "built-in": {Verb.CHAIN: "the CA has one chain"},
    "Vault PKI": {
        Verb.CHAIN: "the CA has one chain",
        Verb.NOT_AFTER: "the CA refuses it, and so does Penstock on its behalf",
        Verb.IPV4: "the CA looks at port 80 alone, which is not to be had here",
        Verb.IPV6: "the CA looks at port 80 alone, which is not to be had here",
    },
}
"""CA → verb → why it is not to be had there, whatever the client."""


@dataclass
class Ground:
    """What all that is played at one CA shares."""

    ca: str
    deployment: Deployment
    name_server: Bind
    tmp: Path
    lacks: Mapping[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(2))
    _loopback: asyncio.Lock = field(default_factory=asyncio.Lock)

    def place(self, address: str | None = None) -> Place:
        """Return an address that no other client of this CA uses, or the one that is asked for."""
        number = next(self._numbers)
        return Place(
            address=address or f"127.{1 + number // 250}.{number % 250}.7",
            http_port=self.deployment.client_port,
            tls_port=self.deployment.tls_port,
            updates=updates_of(self.name_server),
        )

    def names(self, place: Place, *, with_wildcard: bool = False) -> list[str]:
        """Return two names that lead to *place*, the second one a wildcard if asked for."""
        label = f"h{place.address.replace('.', '-')}-{self.ca.lower().replace(' ', '-')}"
        base = f"{label}.{OWN_ZONE}"
        self.name_server.add_a(base, place.address)
        if with_wildcard:
            return [base, f"*.{base}"]
        self.name_server.add_a(f"b.{base}", place.address)
        return [base, f"b.{base}"]

    @contextlib.asynccontextmanager
    async def client(
        self, kind: type[StockClient], place: Place, external: ExternalAccount | None = None
    ) -> AsyncIterator[StockClient]:
        """Yield a client with nothing in its store, and end what it leaves running."""
        tmp = self.tmp / f"{kind.__name__}-{next(self._numbers)}"
        penstock = self.deployment.penstock
        where = (tmp, penstock.directory_url, penstock.ca_bundle, place)
        made = kind(*where, external_account=external)
        try:
            yield made
        finally:
            await made.close()

    def check(self, obtained: Obtained, names: Sequence[str]) -> x509.Certificate:
        """See that key, names, chain and origin are as asked for; return the certificate."""
        leaf = obtained.leaf()
        assert obtained.names() == sorted(names), obtained.names()
        roots = [self.deployment.root_pem(), self.deployment.alternate_root_pem() or b""]
        anchors = x509.load_pem_x509_certificates(b"".join(roots))
        chain = [leaf, *obtained.issuers()]
        for child, issuer in itertools.pairwise(chain):
            child.verify_directly_issued_by(issuer)
        (anchor,) = [one for one in anchors if one.subject == chain[-1].issuer]
        if chain[-1] != anchor:
            chain[-1].verify_directly_issued_by(anchor)
        if obtained.key is not None:
            key = serialization.load_pem_private_key(obtained.key.read_bytes(), None)
            assert key.public_key() == leaf.public_key()
        assert leaf.serial_number in self.deployment.issued_serials(), "the CA knows nothing of it"
        return leaf

    @contextlib.asynccontextmanager
    async def loopback(self) -> AsyncIterator[None]:
        """Keep the one address of each kind that CAs reach Penstock by to one client."""
        async with self._loopback:
            yield


Step = Callable[[], Awaitable[None]]


class Play:
    """One part played by one client at one CA; its rows say what came of it."""

    def __init__(self, ground: Ground, kind: type[StockClient], part: Part) -> None:
        self.ground = ground
        self.kind = kind
        self.part = part
        self.rows: list[Row] = []
        self.challenge = self._challenge()

    def _challenge(self) -> str:
        """Return the challenge of this part, or the cheapest that this client has."""
        if self.part in (Part.HTTP_01, Part.DNS_01, Part.TLS_ALPN_01):
            return str(self.part)
        return self.kind.challenges()[0]

    def why_not(self, verb: Verb) -> str | None:
        """Return why *verb* is not to be had, or None."""
        lacking = self.ground.lacks
        if self.challenge in lacking:
            return f"Penstock: {lacking[self.challenge]}"
        if self.challenge in self.kind.lacks:
            return f"client: {self.kind.lacks[self.challenge]}"
        if verb in self.kind.lacks:
            return f"client: {self.kind.lacks[verb]}"
        if verb in lacking:
            return f"Penstock: {lacking[verb]}"
        at_the_ca = LABORATORY.get(self.ground.ca, {})
        return f"CA: {at_the_ca[verb]}" if verb in at_the_ca else None

    async def run(self, verbs: Sequence[Verb] | None = None) -> list[Row]:
        """Play the part's verbs, or those of them that are named; return a row for each."""
        played = {
            Part.ACCOUNT: self._account,
            Part.CERTIFICATE: self._certificate,
            Part.RENEWAL: self._renewal,
            Part.ADDRESSES: self._addresses,
        }.get(self.part, self._challenged)
        wanted = [verb for verb in VERBS[self.part] if verbs is None or verb in verbs]
        offered = []
        for verb in wanted:
            reason = self.why_not(verb)
            if reason is None:
                offered.append(verb)
            else:
                self._note(verb, Outcome.NOT_OFFERED, reason)
        if offered:
            await played(offered)
        self.ground.rows.extend(self.rows)
        return self.rows

    async def _step(self, verb: Verb, wanted: Sequence[Verb], step: Step) -> bool:
        """Play one step and note what came of it; a step that is not wanted is nothing."""
        if verb not in wanted:
            return True
        started = time.monotonic()
        try:
            await step()
        except (PeerFailed, AssertionError, OSError, ValueError) as error:
            self._note(verb, Outcome.FAILED, str(error), time.monotonic() - started)
            return False
        self._note(verb, Outcome.PASSED, "", time.monotonic() - started)
        return True

    def _note(self, verb: Verb, outcome: Outcome, note: str, seconds: float = 0.0) -> None:
        row = Row(
            client=self.kind.kind,
            ca=self.ground.ca,
            challenge=self.challenge,
            verb=verb,
            outcome=outcome,
            note=note,
            seconds=round(seconds, 1),
        )
        self.rows.append(row)

    # ------------------------------------------------------------------------------ challenges

    async def _challenged(self, wanted: Sequence[Verb]) -> None:
        ground, place = self.ground, self.ground.place()
        # Caddy orders a certificate for each name, and only the first is looked at.
        names = ground.names(place, with_wildcard=self.challenge == DNS_01)
        names = names[:1] if self.kind is Caddy else names
        held: list[Obtained] = []
        async with ground.client(self.kind, place) as client:

            async def obtain() -> None:
                held.append(await client.obtain(names, self.challenge))
                ground.check(held[-1], names)

            async def renew() -> None:
                before = held[-1].leaf().serial_number
                held.append(await client.renew())
                assert ground.check(held[-1], names).serial_number != before

            async def revoke() -> None:
                await self._revoke(client.revoke, held[-1])

            for verb, step in ((Verb.OBTAIN, obtain), (Verb.RENEW, renew), (Verb.REVOKE, revoke)):
                if not await self._step(verb, wanted, step):
                    return

    async def _revoke(
        self, revoke: Callable[[Obtained], Awaitable[None]], obtained: Obtained
    ) -> None:
        leaf, deployment = obtained.leaf(), self.ground.deployment
        assert not await deployment.is_revoked(leaf), "was revoked before"
        await revoke(obtained)
        deadline = time.monotonic() + WAIT_SECONDS
        while not await deployment.is_revoked(leaf):
            assert time.monotonic() < deadline, "the CA has not revoked it"
            await asyncio.sleep(0.2)

    # ------------------------------------------------------------------------------ account

    async def _account(self, wanted: Sequence[Verb]) -> None:
        ground, place = self.ground, self.ground.place()
        names = ground.names(place)[:1]
        penstock = ground.deployment.penstock
        label = f"{self.kind.kind} {place.address}"
        minted = await penstock.a_json("eab", "mint", "--label", label, "--reason", "a test")
        external = ExternalAccount(minted["key_id"], minted["mac_key"])
        async with ground.client(self.kind, place, external) as client:

            async def bind() -> None:
                ground.check(await client.obtain(names, self.challenge), names)
                assert await self._bound(external.kid), "no account is bound by the key"

            async def contact() -> None:
                address = f"new-{place.address.replace('.', '-')}@example.com"
                await client.update_contact(address)
                shown = await self._bound(external.kid)
                assert f"mailto:{address}" in str(shown), shown

            async def change() -> None:
                await client.change_key()
                ground.check(await client.renew(), names)

            async def deactivate() -> None:
                await client.deactivate()
                shown = await self._bound(external.kid)
                assert [one["status"] for one in shown] == ["deactivated"], shown

            steps = (
                (Verb.EXTERNAL_ACCOUNT, bind),
                (Verb.CONTACT, contact),
                (Verb.KEY_CHANGE, change),
                (Verb.DEACTIVATE, deactivate),
            )
            for verb, step in steps:
                if not await self._step(verb, wanted, step) and verb is Verb.EXTERNAL_ACCOUNT:
                    return

    async def _bound(self, key_id: str) -> list[Any]:
        accounts = await self.ground.deployment.penstock.a_json("account", "list")
        return [one for one in accounts if key_id in str(one)]

    # ------------------------------------------------------------------------------ certificate

    async def _certificate(self, wanted: Sequence[Verb]) -> None:
        wishes: dict[Verb, Wish] = {
            Verb.RSA: Wish(key=Key.RSA_2048),
            Verb.P384: Wish(key=Key.P384),
            Verb.PROFILE: Wish(profile="short"),
            Verb.REVOKE_BY_KEY: Wish(),
        }
        wishes[Verb.NOT_AFTER] = Wish(not_after=soon())
        other = self.ground.deployment.alternate_root_pem()
        if other is not None:
            wishes[Verb.CHAIN] = Wish(chain_of=common_name(other))
        for verb in wanted:
            place = self.ground.place()
            names = self.ground.names(place)[:1]
            wish = wishes.get(verb, Wish())
            if verb is Verb.CSR:
                wish = Wish(csr=write_csr(self.ground.tmp / f"{names[0]}.csr.pem", names))

            async def step(
                place: Place = place,
                names: Sequence[str] = names,
                verb: Verb = verb,
                wish: Wish = wish,
            ) -> None:
                async with self.ground.client(self.kind, place) as client:
                    obtained = await client.obtain(names, self.challenge, wish)
                    leaf = self.ground.check(obtained, names)
                    check_wish(wish, leaf, obtained)
                    if verb is Verb.REVOKE_BY_KEY:
                        await self._revoke(client.revoke_by_key, obtained)

            await self._step(verb, wanted, step)

    # ------------------------------------------------------------------------------ renewal

    async def _renewal(self, wanted: Sequence[Verb]) -> None:
        ground, place = self.ground, self.ground.place()
        names = ground.names(place)[:1]

        async def told() -> None:
            async with ground.client(self.kind, place) as client:
                obtained = await client.obtain(names, self.challenge)
                leaf = ground.check(obtained, names)
                digest = leaf.fingerprint(hashes.SHA256()).hex()
                # A certificate that its CA revoked is one to replace now (RFC 9773 §4.2).
                why = ["--code", "superseded", "--reason", "a test"]
                await ground.deployment.penstock.a_json("cert", "revoke", digest, *why)
                renewed = ground.check(await client.renew_when_told(), names)
                assert renewed.serial_number != leaf.serial_number, "nothing was renewed"

        await self._step(Verb.RENEWAL_INFO, wanted, told)

    # ------------------------------------------------------------------------------ addresses

    async def _addresses(self, wanted: Sequence[Verb]) -> None:
        for verb, address in ((Verb.IPV4, "127.0.0.1"), (Verb.IPV6, "::1")):

            async def step(address: str = address) -> None:
                async with self.ground.loopback():
                    place = self.ground.place(address)
                    async with self.ground.client(self.kind, place) as client:
                        obtained = await client.obtain([address], self.challenge)
                        self.ground.check(obtained, [address])

            await self._step(verb, wanted, step)


def soon() -> datetime.datetime:
    """Return an end that every CA grants that grants any: 20 hours from now."""
    return authority.real_now().replace(microsecond=0) + datetime.timedelta(hours=20)


def common_name(pem: bytes) -> str:
    """Return the common name of a certificate's subject."""
    subject = x509.load_pem_x509_certificate(pem).subject
    return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def write_csr(path: Path, names: Sequence[str]) -> Path:
    """Write a CSR whose key nobody keeps."""
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(alternatives, critical=False)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    path.write_bytes(csr.public_bytes(serialization.Encoding.PEM))
    return path


def check_wish(wish: Wish, leaf: x509.Certificate, obtained: Obtained) -> None:
    """See that a certificate is what was wished for."""
    key = leaf.public_key()
    if wish.csr is not None:
        csr = x509.load_pem_x509_csr(wish.csr.read_bytes())
        assert key == csr.public_key()
    elif wish.key is Key.RSA_2048:
        assert isinstance(key, rsa.RSAPublicKey)
    else:
        curve = {Key.P256: "secp256r1", Key.P384: "secp384r1"}[wish.key]
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.curve.name == curve
    if wish.profile == "short":
        left = leaf.not_valid_after_utc - authority.real_now()
        assert left <= datetime.timedelta(days=5), left
    if wish.not_after is not None:
        off = abs(leaf.not_valid_after_utc - wish.not_after)
        assert off < datetime.timedelta(minutes=2), leaf.not_valid_after_utc
    if wish.chain_of is not None:
        issuer = [leaf, *obtained.issuers()][-1].issuer
        assert issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == wish.chain_of


__all__ = ["CLIENTS", "VERBS", "ClientFailed", "Ground", "Outcome", "Part", "Play", "Row"]
