"""The broker's own TLS certificate, looked at the way a client sees it."""

import asyncio
import ipaddress
import os
import ssl
import stat
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.app.identity import Identity
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.key_ports import known_secret
from broker.issuance.own_certificate import OwnCertificates
from broker.upstreams.authority import IssuerSet, PermittedNames
from tests.fakes.builtin_ca import PROFILES, CaWorld, make_ca, make_world, request, spki
from tests.unit.config.conftest import parsed

HOST = "acme.corp.example"
PASSPHRASE = b"a passphrase for tests"


class Place:
    """A state directory, a built-in CA, and the identities that processes make of them."""

    def __init__(self, directory: Path, world: CaWorld) -> None:
        self.directory = directory
        self.world = world
        self.tls = directory / "tls"

    def identity(self, **changes: Any) -> Identity:
        """Return the identity of a process that starts now."""
        changes = {f"listen.{key}" if key == "acme" else key: v for key, v in changes.items()}
        config = parsed({"state": str(self.directory), **changes})
        found = {"local": self.world.ca}
        return Identity(
            config,
            passphrase=known_secret(PASSPHRASE),
            find_authority=found.get,
            clock=self.world.clock,
        )

    def files(self) -> tuple[bytes, bytes]:
        """Return certificate and key as they lie there."""
        return (self.tls / "tls.crt").read_bytes(), (self.tls / "tls.key").read_bytes()


@pytest.fixture
async def place(tmp_path: Path) -> Place:
    """Nothing is issued yet."""
    return Place(tmp_path, await make_world())


def served(context: ssl.SSLContext, host: str = HOST) -> x509.Certificate:
    """Return the leaf that a client is shown, by a handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    client = trusting.wrap_bio(to_client, to_server, server_hostname=host)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server) * 3:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    der = client.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


def names_of(leaf: x509.Certificate) -> list[str]:
    """Return what a certificate is for, as text."""
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(one.value) for one in names]


async def test_first_start_gets_a_certificate(place: Place) -> None:
    """For the host of external_url, from the built-in CA, its key for nobody else to read."""
    leaf = served(await place.identity().context())
    assert names_of(leaf) == [HOST]
    leaf.verify_directly_issued_by(place.world.issuing.certificate)
    assert stat.S_IMODE((place.tls / "tls.key").stat().st_mode) == 0o600


async def test_next_start_keeps_it(place: Place) -> None:
    """Clients that pin it, and the ledger, see one certificate and not one a start."""
    first = served(await place.identity().context())
    assert served(await place.identity().context()) == first
    assert len(place.world.store.records) == 1


async def test_address_is_certified_as_one(tmp_path: Path) -> None:
    """A broker that is reached by address has an iPAddress name (RFC 5280 §4.2.1.6)."""
    networks = (ipaddress.ip_network("2001:db8::/32"),)
    place = Place(tmp_path, await make_world(permitted=PermittedNames(networks=networks)))
    url = "https://[2001:db8::1]:8443"
    first = served(await place.identity(external_url=url).context())
    assert names_of(first) == ["2001:db8::1"]
    assert served(await place.identity(external_url=url).context()) == first


OWN = ("agents.corp.example", "operators.corp.example", "2001:db8::7")


async def test_further_names_are_in_its_certificate(tmp_path: Path) -> None:
    """Those of its other listeners, and addresses as such; the one of clients is the first."""
    networks = (ipaddress.ip_network("2001:db8::/32"),)
    permitted = PermittedNames(dns_suffixes=("corp.example",), networks=networks)
    place = Place(tmp_path, await make_world(permitted=permitted))
    names = {"listen.acme.names": list(OWN)}
    first = served(await place.identity(**names).context())
    assert set(names_of(first)) == {HOST, *OWN}
    assert served(await place.identity(**names).context()) == first


async def test_name_that_came_later_is_certified_at_the_next_start(place: Place) -> None:
    """One that went is not missed: a certificate that has more names serves as well."""
    first = served(await place.identity().context())
    second = served(await place.identity(**{"listen.acme.names": [OWN[0]]}).context())
    assert second != first
    assert set(names_of(second)) == {HOST, OWN[0]}
    assert served(await place.identity().context()) == second


@pytest.mark.parametrize(
    ("passed", "is_new"), [(timedelta(days=19), False), (timedelta(days=21), True)],
    ids=["fresh", "due"],
)  # fmt: skip
async def test_it_is_renewed_a_third_before_its_end(
    place: Place, passed: timedelta, is_new: bool
) -> None:
    """In the same context, so that the next connection gets it. It lives 30 days."""
    identity = place.identity()
    context = await identity.context()
    first = served(context)
    place.world.clock.advance(passed)
    await identity.refresh()
    assert (served(context) != first) is is_new


async def test_no_handshake_fails_while_it_is_replaced(place: Place) -> None:
    """The passphrase is stretched for a while, and clients come meanwhile."""
    identity = place.identity()
    context = await identity.context()
    first = served(context)
    place.world.clock.advance(timedelta(days=21))
    renewal = asyncio.create_task(identity.refresh())
    seen = []
    while not renewal.done():
        seen.append(served(context))
        await asyncio.sleep(0)
    await renewal
    assert set(seen) <= {first, served(context)}
    assert seen.count(first) > 1
    assert served(context) != first


async def test_failed_renewal_keeps_the_old_one_and_says_so(place: Place) -> None:
    """Each reason once to the log, and to probes for as long as it lasts; then it is over."""
    identity = place.identity()
    context = await identity.context()
    first = served(context)
    place.world.clock.advance(timedelta(days=21))
    place.world.signer.is_away = True
    with pytest.raises(Unreachable):
        await identity.refresh()
    await identity.refresh()
    assert served(context) == first
    assert identity.fault() is None
    assert "its renewal fails" in (identity.warning() or "")
    assert identity.failures == 2
    place.world.clock.advance(timedelta(days=10))
    assert "ended" in (identity.fault() or "")
    place.world.signer.is_away = False
    await identity.refresh()
    assert served(context) != first
    assert (identity.fault(), identity.warning()) == (None, None)


async def test_start_while_the_ca_key_is_away_serves_what_there_is(place: Place) -> None:
    """A certificate that is due is shown on, and probes tell; without any it is waited for."""
    first = served(await place.identity().context())
    place.world.clock.advance(timedelta(days=21))
    place.world.signer.is_away = True
    second = place.identity()
    assert served(await second.context()) == first
    assert "its renewal fails" in (second.warning() or "")
    (place.tls / "tls.crt").unlink()
    third = place.identity()
    await third.context()
    assert not third.is_usable
    assert "no certificate yet" in (third.fault() or "")
    place.world.signer.is_away = False
    await third.refresh()
    assert third.is_usable


@pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "of-an-upstream"])
async def test_start_without_the_passphrase_listens_once_it_is_there(
    place: Place, *, is_ours: bool
) -> None:
    """It lies in a Vault that is sealed; the certificate that there is can be served thereafter."""
    first = served(await place.identity().context())
    sealed = [True]

    async def passphrase() -> bytes:
        if sealed:
            raise Unreachable("Vault is sealed")
        return PASSPHRASE

    found = {"local": place.world.ca}
    second = Identity(
        parsed({"state": str(place.directory)}),
        passphrase=passphrase,
        find_authority=found.get,
        clock=place.world.clock,
        own=None if is_ours else _NothingOrdered(),
    )
    context = await second.context()
    assert not second.is_usable
    with suppress(Unreachable):  # told once, by whichever look is the first
        await second.refresh()
    assert second.fault() == "no certificate yet: Vault is sealed"
    sealed.clear()
    await second.refresh()
    assert second.fault() is None
    assert served(context) == first


class _NothingOrdered(OwnCertificates):
    """An ACME upstream that nothing was ordered from, and that nothing is needed from."""

    def __init__(self) -> None:
        """Know nobody."""

    async def latest(self) -> None:
        """Return no order."""


async def test_restored_broker_renews_nothing(place: Place) -> None:
    """Not before it is reconciled; what it has goes on serving."""
    first = served(await place.identity().context())
    place.world.clock.advance(timedelta(days=21))
    found = {"local": place.world.ca}
    held = Identity(
        parsed({"state": str(place.directory)}),
        passphrase=known_secret(PASSPHRASE),
        find_authority=found.get,
        clock=place.world.clock,
        is_held=lambda: True,
    )
    assert served(await held.context()) == first


async def test_new_host_gets_a_new_certificate(place: Place) -> None:
    """The name moved; the old certificate helps no client."""
    await place.identity().context()
    moved = place.identity(external_url="https://pki.corp.example:8443")
    assert names_of(served(await moved.context(), "pki.corp.example")) == ["pki.corp.example"]


async def test_key_without_its_certificate_is_made_anew(place: Place) -> None:
    """The process ended between writing the one and the other."""
    first = served(await place.identity().context())
    other = ec.generate_private_key(ec.SECP256R1())
    (place.tls / "tls.key").write_bytes(pem_of(other))
    second = served(await place.identity().context())
    assert second.public_key() not in (first.public_key(), other.public_key())


@pytest.mark.parametrize("content", [None, b"", b"no PEM"], ids=["gone", "empty", "nonsense"])
@pytest.mark.parametrize("name", ["tls.crt", "tls.key"])
async def test_damaged_file_is_made_anew(place: Place, name: str, content: bytes | None) -> None:
    """It is ours, and nobody has another copy of what it should be."""
    await place.identity().context()
    (place.tls / name).unlink()
    if content is not None:
        (place.tls / name).write_bytes(content)
    assert names_of(served(await place.identity().context())) == [HOST]


async def test_profile_for_servers_is_taken(place: Place) -> None:
    """The CA's first profile may be for something else."""
    profiles = {"client": PROFILES["client"], "server": PROFILES["server"]}
    world = place.world
    issuers = IssuerSet(world.issuing)
    world.ca = make_ca(world.signer, world.clock, world.store, issuers, profiles)
    sections = {"client": {"usages": ["client-auth"]}, "server": {"usages": ["server-auth"]}}
    leaf = served(await place.identity(**{"upstreams.local.profiles": sections}).context())
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert ExtendedKeyUsageOID.SERVER_AUTH in usages


async def test_ca_that_was_never_made_is_a_reason_to_stop(place: Place) -> None:
    """The sentence says what to do first."""
    config = parsed({"state": str(place.directory)})
    identity = Identity(
        config,
        passphrase=known_secret(PASSPHRASE),
        find_authority=lambda _: None,
        clock=place.world.clock,
    )
    with pytest.raises(Broken, match="has not been made; run penstock ca init first"):
        await identity.context()


async def test_name_that_the_ca_may_not_certify_is_a_reason_to_stop(place: Place) -> None:
    """With the CA's own sentence."""
    with pytest.raises(Broken, match=r"'local' refuses the broker's own certificate: .+"):
        await place.identity(external_url="https://acme.elsewhere.example").context()


async def test_ca_that_cannot_sign_now_is_no_refusal(place: Place) -> None:
    """Once it can, so does the next attempt."""
    place.world.signer.is_away = True
    identity = place.identity()
    await identity.context()
    assert not identity.is_usable
    place.world.signer.is_away = False
    assert names_of(served(await identity.context())) == [HOST]


# ------------------------------------------------------------------------------- from files


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a key as an operator keeps it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Files:
    """A certificate and key that somebody else puts in place."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.certificate = place.directory / "own.crt"
        self.key = place.directory / "own.key"
        self.writes = 0

    def identity(self) -> Identity:
        """Return the identity of a broker that is configured to use them."""
        return self.place.identity(
            acme={"certificate": str(self.certificate), "key": str(self.key)}
        )

    async def put(self, *, only_certificate: bool = False) -> x509.Certificate:
        """Put a new pair in place, or its first half, and return its leaf."""
        self.writes += 1
        key = ec.generate_private_key(ec.SECP256R1())
        asked = request(HOST, reference=f"files-{self.writes}")
        chain = await self.place.world.ca.certify(asked, spki(key))
        self.certificate.write_bytes(chain)
        if not only_certificate:
            self.key.write_bytes(pem_of(key))
        # Two writes within one tick of a file system's clock would look like one.
        for path in (self.certificate, self.key):
            os.utime(path, ns=(self.writes, self.writes))
        return x509.load_pem_x509_certificate(chain)


@pytest.fixture
async def files(place: Place) -> Files:
    """One pair is in place."""
    made = Files(place)
    await made.put()
    return made


async def test_files_are_served_as_they_are(files: Files) -> None:
    """And nothing is issued beside them."""
    leaf = await files.put()
    assert served(await files.identity().context()) == leaf
    assert not files.place.tls.exists()


async def test_files_that_changed_are_loaded_anew(files: Files) -> None:
    """Whoever renews them need not restart the broker."""
    identity = files.identity()
    context = await identity.context()
    second = await files.put()
    await identity.refresh()
    assert served(context) == second


async def test_half_a_change_leaves_the_old_pair_in_use(files: Files) -> None:
    """Clients are served all the while, and get the new one once it is whole."""
    first = await files.put()
    identity = files.identity()
    context = await identity.context()
    await files.put(only_certificate=True)
    with pytest.raises(Broken, match=r"own\.crt with key .*own\.key cannot be used"):
        await identity.refresh()
    assert served(context) == first
    third = await files.put()
    await identity.refresh()
    assert served(context) == third


@pytest.mark.parametrize("name", ["certificate", "key"])
async def test_file_that_is_not_there_is_a_reason_to_stop(files: Files, name: str) -> None:
    """A broker without its certificate serves nobody, so it does not start."""
    getattr(files, name).unlink()
    with pytest.raises(Broken, match="cannot be used: no such file"):
        await files.identity().context()
