"""The certificate that the broker itself serves, looked at by TLS clients."""

import asyncio
import os
import re
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.deployments.penstock import AcmeCa, Penstock
from tests.peers import authority, process
from tests.peers.moved_clock import MovedClock
from tests.peers.pebble import Pebble, PebbleOptions

pytestmark = [pytest.mark.peers, pytest.mark.e2e]

HOST = "broker.web.example.test"

LOOK_SECONDS = 90.0
"""By when a replaced certificate is served: the broker looks every 5 s."""


class Named(Penstock):
    """A broker that is reached by a name, with TLS from where the test says."""

    def __init__(self, tmp: Path, acme: Mapping[str, Any], **options: Any) -> None:
        super().__init__(tmp, validation_http_port=process.free_port(), **options)
        self.external_url = f"https://{HOST}:{self.port}"
        self._acme = acme

    def config_document(self) -> dict[str, Any]:
        """Return the configuration with another source of TLS."""
        document = super().config_document()
        address = document["listen"]["acme"]["address"]
        document["listen"]["acme"] = {"address": address, **self._acme}
        return document

    def prepare(self) -> None:
        """Register at every upstream; nothing here comes from the built-in CA."""
        self.write()
        for upstream in self._upstreams:
            self.run("upstream", "register", upstream.name, "--agree-to-terms")
        self.is_prepared = True

    def lives(self) -> bool:
        """Ask whether it runs, ready or not."""
        return process.is_answering(f"http://127.0.0.1:{self.health_port}/livez")

    def readiness(self) -> str:
        """Return what the probe says, whatever its status."""
        import urllib.error
        import urllib.request

        try:
            url = f"http://127.0.0.1:{self.health_port}/readyz"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()


def served(port: int, root: Path) -> x509.Certificate:
    """Return the leaf that a client is shown who trusts *root* alone and asks for HOST."""
    context = ssl.create_default_context(cafile=str(root))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname=HOST) as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


@contextmanager
def pebble_of(tmp: Path) -> Iterator[tuple[Pebble, AcmeCa, int]]:
    """Start a Pebble that believes every challenge."""
    plain = process.free_port()
    options = PebbleOptions(always_valid=True, nonce_reject_percent=15)
    dns = f"127.0.0.1:{process.free_port()}"
    made = Pebble(tmp / "pebble", validation_http_port=plain, dns_server=dns, options=options)
    with made as pebble:
        root = tmp / "root.pem"
        root.write_bytes(pebble.root_pem())
        ca = AcmeCa(
            name="pebble",
            directory_url=pebble.directory_url,
            ca_bundle=pebble.ca_bundle,
            description="pebble",
            anchors=root,
            options={"poll_interval": "100ms"},
        )
        yield pebble, ca, plain


def test_certificate_comes_from_an_acme_upstream_and_is_kept(tmp_path: Path) -> None:
    """Ordered once, like any other; a restart orders no second one."""
    with pebble_of(tmp_path) as (pebble, ca, plain):
        broker = Named(tmp_path / "penstock", {"from": "pebble"}, plain_port=plain, upstreams=[ca])
        with broker:
            first = served(broker.port, tmp_path / "root.pem")
            names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.DNSName) == [HOST]
            assert b"ENCRYPTED" in (broker.state / "tls" / "tls.key").read_bytes()
            assert not (broker.state / "tls" / "next-tls.key").exists()
            (certificate,) = broker.json("cert", "list")
            assert certificate["names"] == [HOST]
            assert "penstock_own_certificate_expiry_timestamp_seconds" in broker.metrics()
        with broker:
            assert served(broker.port, tmp_path / "root.pem") == first
            assert (broker.state / "operator.sock").exists()
        assert not (broker.state / "operator.sock").exists()
        assert len(pebble.issued()) == 1


def test_ca_that_is_away_at_the_first_start_is_waited_for(tmp_path: Path) -> None:
    """The broker lives, says what it waits for, and listens once the certificate is there."""
    with pebble_of(tmp_path) as (pebble, ca, plain):
        broker = Named(tmp_path / "penstock", {"from": "pebble"}, plain_port=plain, upstreams=[ca])
        broker.prepare()
        ready = broker.is_ready
        broker.is_ready = broker.lives  # type: ignore[method-assign]
        os.kill(pebble.pid, signal.SIGSTOP)
        try:
            broker.start()
            try:
                assert "tls no certificate yet" in broker.readiness()
                assert not process.is_listening(broker.port)
                os.kill(pebble.pid, signal.SIGCONT)
                process.wait_until(ready, 60, "the broker is ready")
                served(broker.port, tmp_path / "root.pem")
            finally:
                broker.stop()
        finally:
            os.kill(pebble.pid, signal.SIGCONT)
        assert len(pebble.issued()) == 1


LIFETIME = timedelta(minutes=30)
"""What the cap has Pebble issue; a third of it before the end it is renewed."""

PROFILES = {
    "server": {
        "description": "servers of the tests",
        "cap": "30m",
        "usages": ["server-auth"],
        "upstreams": [{"upstream": "pebble"}],
    }
}


async def test_it_is_renewed_in_time_and_kept_while_its_ca_is_away(tmp_path: Path) -> None:
    """New connections get the new one, an open one stays; a failure is told, and passes.

    Pebble keeps the real time and ends a certificate when it is asked to: by the moved clock.
    """
    clock, root = MovedClock(tmp_path), tmp_path / "root.pem"
    with pebble_of(tmp_path) as (pebble, ca, plain):
        broker = Named(
            tmp_path / "penstock",
            {"from": "pebble"},
            plain_port=plain,
            upstreams=[ca],
            profiles=PROFILES,
            environment=clock.environment(),
        )
        async with broker, connected(broker, root) as still_answers:
            first = await asyncio.to_thread(served, broker.port, root)
            clock.move(LIFETIME * 2 / 3 + timedelta(minutes=1))
            second = await replaced(broker, root, first)
            assert abs(second.not_valid_after_utc - clock.now() - LIFETIME) < timedelta(minutes=1)
            os.kill(pebble.pid, signal.SIGSTOP)
            try:
                # Not before the second one's own third: Pebble had it begin in the real past.
                lifetime = second.not_valid_after_utc - second.not_valid_before_utc
                due = second.not_valid_after_utc - lifetime / 3
                clock.move(due - clock.now() + timedelta(seconds=10))
                await told(broker, "its renewal fails")
                await check_failure(broker, second)
                assert await asyncio.to_thread(served, broker.port, root) == second
            finally:
                os.kill(pebble.pid, signal.SIGCONT)
            await replaced(broker, root, second)
            await asyncio.to_thread(
                process.wait_until,
                lambda: "own-certificate" not in broker.readiness(),
                LOOK_SECONDS,
                "the probe is content again",
            )
            await still_answers()
        assert len(pebble.issued()) == 3


async def check_failure(broker: Named, leaf: x509.Certificate) -> None:
    """See that a failing renewal of *leaf* is told everywhere, while clients are served."""
    assert await asyncio.to_thread(broker.is_ready)
    end = leaf.not_valid_after_utc
    assert f"ends {end:%Y-%m-%dT%H:%M:%SZ}" in await asyncio.to_thread(broker.readiness)
    name = "penstock_own_certificate"
    found = re.findall(
        rf"^{name}_(expiry_timestamp_seconds|failures_total) (\S+)$",
        await asyncio.to_thread(broker.metrics),
        re.MULTILINE,
    )
    values = {series: float(value) for series, value in found}
    assert values["expiry_timestamp_seconds"] == end.timestamp()
    assert values["failures_total"] >= 1
    lines = [line for line in broker.log_text().splitlines() if "scheduled job failed" in line]
    assert [line for line in lines if "own-certificate" in line]


async def replaced(broker: Named, root: Path, leaf: x509.Certificate) -> x509.Certificate:
    """Wait until new connections get another certificate than *leaf*, and return it."""

    def is_another() -> bool:
        return served(broker.port, root) != leaf

    await asyncio.to_thread(process.wait_until, is_another, LOOK_SECONDS, "another is served")
    return await asyncio.to_thread(served, broker.port, root)


async def told(broker: Named, text: str) -> None:
    """Wait until the probe says *text* of the broker's own certificate."""
    await asyncio.to_thread(
        process.wait_until,
        lambda: re.search(rf"\[!\] own-certificate .*{text}", broker.readiness()) is not None,
        LOOK_SECONDS,
        f"the probe tells: {text}",
    )


@asynccontextmanager
async def connected(broker: Named, root: Path) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Hold a connection open, and yield what sees that it is answered still."""
    context = ssl.create_default_context(cafile=str(root))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", broker.port, ssl=context, server_hostname=HOST
    )

    async def still_answers() -> None:
        writer.write(b"GET /acme/directory HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")

    try:
        yield still_answers
    finally:
        writer.close()


def put_pair(home: Path, name: str, issuer: authority.Signer) -> x509.Certificate:
    """Put a pair in place as Kubernetes does: a directory of its own, a link that is swapped."""
    server = authority.make_server(issuer, [HOST])
    folder = home / name
    folder.mkdir()
    (folder / "tls.crt").write_bytes(server.certificate_pem)
    (folder / "tls.key").write_bytes(server.key_pem())
    swapped = home / ".swap"
    swapped.symlink_to(name)
    swapped.replace(home / "data")
    return x509.load_pem_x509_certificate(server.certificate_pem)


async def test_files_are_served_when_they_change_and_kept_when_they_break(tmp_path: Path) -> None:
    """A swapped link is seen, an open connection stays, and half a pair changes nothing."""
    issuer = authority.make_root("root of the tests")
    root = tmp_path / "root.pem"
    root.write_bytes(issuer.certificate_pem)
    first = put_pair(tmp_path, "one", issuer)
    pair = {"certificate": str(tmp_path / "data/tls.crt"), "key": str(tmp_path / "data/tls.key")}
    broker = Named(tmp_path / "penstock", pair)
    async with broker, connected(broker, root) as still_answers:
        assert await asyncio.to_thread(served, broker.port, root) == first
        second = put_pair(tmp_path, "two", issuer)
        assert await replaced(broker, root, first) == second
        (tmp_path / "data/tls.key").write_bytes(pem_of(ec.generate_private_key(ec.SECP256R1())))
        await told(broker, "cannot be used")
        assert broker.is_ready()
        assert await asyncio.to_thread(served, broker.port, root) == second
        await still_answers()


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a key as an operator keeps it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
