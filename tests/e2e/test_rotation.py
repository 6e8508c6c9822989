"""The built-in CA is rotated under a running broker, with OpenSSL looking on."""

import asyncio
import contextlib
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from broker.clock import SystemClock
from tests.deployments.penstock import NAMES, Penstock
from tests.deployments.requester import Placed, Requester
from tests.fakes.hostile_ca.envelope import b64
from tests.peers import process

pytestmark = pytest.mark.e2e

FIRST, SECOND = "ca-local-issuing-1", "ca-local-issuing-2"


class OwnTls(Penstock):
    """A broker whose listener has a certificate from elsewhere: its CA issues to clients alone."""

    def prepare(self) -> None:
        """Make the CA, and a certificate for the listener that signs itself."""
        self.make_own_certificate()
        super().prepare()

    def make_own_certificate(self) -> None:
        """Make the certificate for the listener."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        today = SystemClock().now()
        own = (
            x509.CertificateBuilder(subject_name=name, issuer_name=name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(today - timedelta(days=1))
            .not_valid_after(today + timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]),
                critical=False,
            )
            .sign(key, hashes.SHA256())
        )
        self.own_bundle.write_bytes(own.public_bytes(Encoding.PEM))
        self.own_key.touch(mode=0o600)
        self.own_key.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )

    @property
    def own_bundle(self) -> Path:
        """What the listener shows, and what its clients trust."""
        return self.directory / "listener.pem"

    @property
    def own_key(self) -> Path:
        """The listener's key."""
        return self.directory / "listener.key"

    def config_document(self) -> dict[str, Any]:
        """Return the configuration with the listener's certificate from files."""
        document = super().config_document()
        acme = document["listen"]["acme"]
        del acme["from"]
        acme |= {"certificate": str(self.own_bundle), "key": str(self.own_key)}
        return document


class Site:
    """A broker whose requester needs no challenges, and a folder for OpenSSL."""

    def __init__(self, directory: Path) -> None:
        self.folder = directory / "openssl"
        self.folder.mkdir()
        trusted = {
            "eab": ["farm"],
            "names": list(NAMES),
            "profiles": ["server"],
            "because": "this test is about the CA",
        }
        self.broker = OwnTls(directory, validation_http_port=9, policy={"trusted": [trusted]})

    @contextlib.asynccontextmanager
    async def requester(self) -> AsyncIterator[Requester]:
        """Give a requester whom policy trusts."""
        minted = await self.broker.a_json("eab", "mint", "--id", "farm", "--reusable")
        async with Requester(self.broker.directory_url, self.broker.own_bundle) as made:
            await made.bind("farm", minted["mac_key"])
            yield made

    def openssl(self, *arguments: str) -> tuple[bool, str]:
        """Run OpenSSL; return whether it was content, and what it said."""
        done = subprocess.run(
            ["openssl", *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            cwd=self.folder,
            check=False,
        )
        return done.returncode == 0, done.stdout + done.stderr

    def verify(self, chain: list[x509.Certificate], *, crl: bytes | None) -> tuple[bool, str]:
        """Have OpenSSL verify a chain as a client does, against a revocation list if given."""
        leaf, *issuers = (one.public_bytes(Encoding.PEM) for one in chain)
        (self.folder / "leaf.pem").write_bytes(leaf)
        (self.folder / "issuers.pem").write_bytes(b"".join(issuers))
        (self.folder / "root.pem").write_bytes(self.broker.ca_bundle.read_bytes())
        options = ["-x509_strict", "-purpose", "sslserver"]
        if crl is not None:
            (self.folder / "list.crl").write_bytes(crl)
            options += ["-crl_check", "-CRLfile", "list.crl"]
        return self.openssl(
            "verify", *options, "-CAfile", "root.pem", "-untrusted", "issuers.pem", "leaf.pem"
        )

    def roles(self) -> dict[str, str]:
        """Return the role of each issuer."""
        shown = self.broker.json("ca", "show")
        return {one["key_id"]: one["role"] for one in shown["issuers"]}

    def keys(self) -> set[str]:
        """Return the names of the CA keys on the disk."""
        return {one.stem for one in (self.broker.state / "keys").glob("ca-*.pem")}

    def events(self) -> list[str]:
        """Return what happened to the CA, read past the broker."""
        with contextlib.closing(
            sqlite3.connect(f"file:{self.broker.database}?mode=ro", uri=True)
        ) as db:
            rows = db.execute("SELECT kind FROM events WHERE kind LIKE 'ca-%' ORDER BY seq")
            return [kind for (kind,) in rows]


def crl_of(leaf: x509.Certificate) -> bytes:
    """Fetch the revocation list from where the certificate says."""
    points = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    return process.get(points[0].full_name[0].value)


def issuer_of(leaf: x509.Certificate) -> x509.Certificate:
    """Fetch the issuer from where the certificate says."""
    access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    (url,) = (
        one.access_location.value
        for one in access
        if one.access_method == AuthorityInformationAccessOID.CA_ISSUERS
    )
    return x509.load_der_x509_certificate(process.get(url))


async def revoke(requester: Requester, leaf: x509.Certificate) -> None:
    """Revoke a certificate as the account that ordered it."""
    body = {"certificate": b64(leaf.public_bytes(Encoding.DER)), "reason": 4}
    answer = await requester.post(requester.directory["revokeCert"], body)
    assert answer.status == 200, answer.body


@pytest.fixture
def site(tmp_path: Path) -> Any:
    """A broker that runs."""
    made = Site(tmp_path)
    with made.broker:
        yield made


async def test_rotation_under_a_running_broker(site: Site) -> None:
    """Chains of the old issuer and of the new one verify, each with its own list, to the end."""
    async with site.requester() as requester:
        old = await issued(requester, "old.example.test")
        assert site.verify(old, crl=crl_of(old[0]))[0]

        await asyncio.to_thread(site.broker.run, "ca", "rotate", "prepare", "local")
        still = await issued(requester, "still.example.test")
        assert still[1] == old[1]
        assert site.roles() == {FIRST: "current", SECOND: "next"}
        published = process.get(f"http://127.0.0.1:{site.broker.plain_port}/ca/{SECOND}.crt")

        await asyncio.to_thread(site.broker.run, "ca", "rotate", "activate", "local")
        new = await issued(requester, "new.example.test")
        assert new[1].public_bytes(Encoding.DER) == published
        for chain in (old, still, new):
            assert issuer_of(chain[0]) == chain[1]
            assert site.verify(chain, crl=crl_of(chain[0]))[0]

        refused = await asyncio.to_thread(
            site.broker.run, "ca", "rotate", "retire", "local", status=1
        )
        assert f"2 certificates of '{FIRST}' in force" in refused.stderr
        assert "old.example.test until" in refused.stderr

        await revoke(requester, old[0])
        is_content, said = site.verify(old, crl=crl_of(old[0]))
        assert not is_content
        assert "certificate revoked" in said
        assert site.verify(still, crl=crl_of(still[0]))[0]
        assert site.verify(old, crl=None)[0]
        await revoke(requester, still[0])
    await asyncio.to_thread(site.broker.run, "ca", "rotate", "retire", "local")
    assert site.roles() == {FIRST: "retired", SECOND: "current"}
    assert site.keys() == {"ca-local-root-1", SECOND}
    assert site.events()[-4:] == [
        "ca-issuer-prepared",
        "ca-issuer-activated",
        "ca-issuer-retired",
        "ca-key-destroyed",
    ]
    for chain in (old, still):
        is_content, said = site.verify(chain, crl=crl_of(chain[0]))
        assert not is_content
        assert "certificate revoked" in said
        assert issuer_of(chain[0]) == chain[1]
    assert site.verify(new, crl=crl_of(new[0]))[0]


async def issued(requester: Requester, name: str) -> list[x509.Certificate]:
    """Order a certificate and return its chain."""
    placed: Placed = await requester.request(name)
    assert await placed.settled() == "valid"
    return list(await placed.chain())


async def test_revocation_is_on_the_list_before_it_is_answered(site: Site) -> None:
    """Ten at once: each is on the list that is fetched when its answer is there."""
    async with site.requester() as requester:
        chains = [await issued(requester, f"n{number}.example.test") for number in range(10)]

        async def revoke_and_look(chain: list[x509.Certificate]) -> None:
            async with twin_of(site, requester) as own:
                await revoke(own, chain[0])
            der = await asyncio.to_thread(crl_of, chain[0])
            crl = x509.load_der_x509_crl(der)
            assert crl.get_revoked_certificate_by_serial_number(chain[0].serial_number)

        await asyncio.gather(*(revoke_and_look(chain) for chain in chains))
    (self_issued, *_) = chains
    crl = x509.load_der_x509_crl(crl_of(self_issued[0]))
    assert len(crl) == 10


@contextlib.asynccontextmanager
async def twin_of(site: Site, requester: Requester) -> AsyncIterator[Requester]:
    """Give the same account over a connection of its own: nonces are spent one after another."""
    twin = Requester(requester.directory_url, site.broker.own_bundle)
    twin.key = requester.key
    async with twin:
        twin.account_url = requester.account_url
        yield twin


CUT: dict[str, tuple[tuple[str, ...], str, dict[str, str]]] = {
    "prepare": ((), "ca-issuer-prepared", {FIRST: "current", SECOND: "next"}),
    "activate": (("prepare",), "ca-issuer-activated", {FIRST: "past", SECOND: "current"}),
    "retire": (
        ("prepare", "activate"),
        "ca-key-destroyed",
        {FIRST: "retired", SECOND: "current"},
    ),
}
"""What comes before a step, the event that ends it, and the roles after it."""


@pytest.mark.parametrize("step", CUT)
def test_step_whose_process_is_killed_is_done_or_undone(tmp_path: Path, step: str) -> None:
    """At each of its first writes to the disk; the next command finds it as before or finished."""
    before, event, after = CUT[step]
    broker = Site(tmp_path).broker
    broker.prepare()
    for earlier in before:
        broker.run("ca", "rotate", earlier)
    made = Site.__new__(Site)
    made.broker = broker
    roles, events = made.roles(), made.events()
    for write in (2, 5):
        if made.roles() != roles:
            break
        trace = str(tmp_path / "trace")
        inject = f"inject=fdatasync,fsync,unlink:signal=KILL:when={write}"
        broker.prefix = ("strace", "-f", "-o", trace, "-e", "trace=fdatasync,fsync,unlink")
        done = subprocess.run(
            [*broker.prefix, "-e", inject, *broker.program(), "ca", "rotate", step,
             "--config", str(broker.config)],
            capture_output=True, cwd=tmp_path, env=broker.environment(), timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode != 0, f"not killed at {write}"
        found = made.roles()
        assert found in (roles, after), f"killed at {write}"
        assert (event in made.events()[len(events) :]) == (found == after)
        held = {one for one, role in found.items() if role != "retired"}
        assert made.keys() == {"ca-local-root-1", *held}
    if made.roles() == roles:
        broker.run("ca", "rotate", step)
    assert made.roles() == after
    assert made.events().count(event) == 1
