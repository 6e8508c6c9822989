"""Renewal through Penstock in front of Pebble: chains, windows, successors, with stock clients."""

import asyncio
import datetime
import json
import secrets
import ssl
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from broker.clock import SystemClock
from tests.deployments.cas import WEB_ZONE, broker, solvers
from tests.deployments.penstock import AcmeCa, Penstock
from tests.peers import process
from tests.peers.bind import Bind
from tests.peers.certbot import Certbot
from tests.peers.client import Obtained
from tests.peers.lego import Lego
from tests.peers.pebble import Pebble, PebbleOptions

pytestmark = pytest.mark.peers

NOW = ("--no-random-sleep", "--ari-wait-to-renew-duration", "0s")


class Scene:
    """A Pebble with three roots, and a Penstock that prefers the second of them."""

    def __init__(self, tmp: Path, stack: ExitStack, named: Bind) -> None:
        self.client_port, plain = process.free_port(), process.free_port()
        self.pebble = stack.enter_context(
            Pebble(
                tmp / "pebble",
                validation_http_port=plain,
                dns_server=named.address,
                options=PebbleOptions(alternate_roots=2),
            )
        )
        self.roots = [x509.load_pem_x509_certificate(self.pebble.root_pem(n)) for n in range(3)]
        anchors = tmp / "roots.pem"
        anchors.write_bytes(b"".join(root.public_bytes(Encoding.PEM) for root in self.roots))
        wish = self.roots[1].fingerprint(hashes.SHA256()).hex()
        ca = AcmeCa(
            name="pebble",
            directory_url=self.pebble.directory_url,
            ca_bundle=self.pebble.ca_bundle,
            description="pebble",
            anchors=anchors,
            options={"solvers": solvers(tmp, named), "preferred_chain": wish},
        )
        # The same CA, as one that issues what it issues.
        stubborn = replace(
            ca,
            name="stubborn",
            facts={"honours_not_after": False, "default_lifetime": "90d"},
        )
        retire = {"grace": "1s"}
        profiles: dict[str, object] = {
            "server": profile([{"upstream": "pebble"}]),
            "retiring": profile([{"upstream": "stubborn", "profile": "default", "retire": retire}]),
        }
        self.penstock: Penstock = stack.enter_context(
            broker(tmp, named, self.client_port, plain, [ca, stubborn], profiles=profiles)
        )

    def certbot(self, tmp: Path) -> Certbot:
        """Return a fresh certbot."""
        return Certbot(tmp, self.penstock.directory_url, self.penstock.ca_bundle)

    def lego(self, tmp: Path) -> Lego:
        """Return a fresh lego."""
        return Lego(tmp, self.penstock.directory_url, self.penstock.ca_bundle)

    def name_of(self, root: int) -> str:
        """Return the common name of a root."""
        (found,) = self.roots[root].subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return str(found.value)

    def root_of(self, obtained: Obtained) -> int:
        """Return which root the chain of *obtained* leads to, whatever it is signed by."""
        top = [obtained.leaf(), *obtained.issuers()][-1]
        for number, root in enumerate(self.roots):
            if top.issuer == root.subject:
                top.verify_directly_issued_by(root)
                return number
        raise AssertionError(f"{top.issuer} is no root of Pebble's")

    async def renewal_info(self, leaf: x509.Certificate) -> tuple[Any, aiohttp.ClientResponse]:
        """Ask Penstock, as anyone may, when *leaf* is to be renewed."""
        context = ssl.create_default_context(cafile=str(self.penstock.ca_bundle))
        async with aiohttp.ClientSession() as session:
            async with session.get(self.penstock.directory_url, ssl=context) as answer:
                base = (await answer.json())["renewalInfo"]
            async with session.get(f"{base}/{cert_id(leaf)}", ssl=context) as answer:
                return await answer.json(), answer

    async def events(self, leaf: x509.Certificate) -> list[str]:
        """Return the kinds of the events of the order that *leaf* came of."""
        fingerprint = leaf.fingerprint(hashes.SHA256()).hex()
        shown = await self.penstock.a_json("cert", "show", fingerprint)
        order = await self.penstock.a_json("order", "show", shown["order"])
        return [event["kind"] for event in order["events"]]


def profile(upstreams: list[dict[str, object]]) -> dict[str, object]:
    """Return a profile of the policy, with a cap that Pebble's 90 days are past."""
    return {
        "description": "TLS servers of the tests",
        "cap": "47d",
        "usages": ["server-auth"],
        "upstreams": upstreams,
    }


def cert_id(leaf: x509.Certificate) -> str:
    """Return a certificate's CertID, worked out apart from the broker's own code."""
    extension = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    serial = leaf.serial_number
    octets = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    parts = (extension.value.key_identifier or b"", octets)
    return ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def fresh_name() -> str:
    """Return a name that no other test uses."""
    return f"r{secrets.token_hex(4)}.{WEB_ZONE}"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, name_server: Bind) -> Iterator[Scene]:
    """One deployment for all tests of this file."""
    with ExitStack() as stack:
        yield Scene(tmp_path_factory.mktemp("renewal"), stack, name_server)


@pytest.mark.parametrize(("client", "other"), [("certbot", 0), ("lego", 2)])
async def test_preferred_chain_is_served_and_the_others_can_be_chosen(
    scene: Scene, client: str, other: int, tmp_path: Path
) -> None:
    """The default is the broker's choice; a client's own ``--preferred-chain`` finds the others,
    at the broker and nowhere else."""
    stock = scene.certbot if client == "certbot" else scene.lego
    for number, wish in ((1, None), (other, other)):
        name = fresh_name()
        options = [] if wish is None else ["--preferred-chain", scene.name_of(wish)]
        one = stock(tmp_path / str(number))
        if isinstance(one, Certbot):
            obtained = await one.certonly_standalone(
                [name], http_port=scene.client_port, options=options
            )
        else:
            obtained = await one.run_http([name], http_port=scene.client_port, options=options)
        assert scene.root_of(obtained) == number
        assert obtained.names() == [name]


async def test_window_that_the_ca_moves_reaches_the_client(scene: Scene, tmp_path: Path) -> None:
    """Lego renews at once, once the CA wants it, and says what it replaces; not a moment before."""
    name = fresh_name()
    lego = scene.lego(tmp_path / "lego")
    obtained = await lego.run_http([name], http_port=scene.client_port)
    leaf = obtained.leaf()
    certificate = leaf.fingerprint(hashes.SHA256()).hex()
    await scene.penstock.a_json("cert", "renewal", certificate, "--ask")
    told, answer = await scene.renewal_info(leaf)
    assert answer.status == 200
    assert int(answer.headers["Retry-After"]) > 0
    assert "Replay-Nonce" not in answer.headers
    start = datetime.datetime.fromisoformat(told["suggestedWindow"]["start"])
    assert start > SystemClock().now()

    await lego.run(
        ["--domains", name, *lego._http(scene.client_port), "renew", "--days", "1", *NOW]
    )
    assert lego.obtained(name).leaf() == leaf, "renewed though nobody wanted it"

    past = SystemClock().now() - datetime.timedelta(days=1)
    window = {"start": past.isoformat(), "end": (past + datetime.timedelta(hours=1)).isoformat()}
    moved = {"suggestedWindow": window, "explanationURL": "https://ca.example/incident"}
    scene.pebble.set_renewal_info(leaf.public_bytes(Encoding.PEM), json.dumps(moved))
    shown = await scene.penstock.a_json("cert", "renewal", certificate, "--ask")
    assert shown["explanation"] == "https://ca.example/incident"
    told, _ = await scene.renewal_info(leaf)
    assert datetime.datetime.fromisoformat(
        told["suggestedWindow"]["end"]
    ) < past + datetime.timedelta(hours=2)
    assert "ca.example" not in json.dumps(told)

    await lego.run(
        ["--domains", name, *lego._http(scene.client_port), "renew", "--days", "1", *NOW]
    )
    renewed = lego.obtained(name).leaf()
    assert renewed != leaf, "the window that was moved has not reached lego"
    shown = await scene.penstock.a_json("cert", "renewal", certificate)
    assert shown["replaced_by_order"] is not None
    assert shown["asked_next"] is None, "a certificate that is replaced is asked about no more"
    # Pebble refuses a second successor, so its knowing of the first shows that it was told.
    assert "replaces-dropped" not in await scene.events(renewed)


async def test_longer_certificate_is_retired_once_its_successor_is_in_use(
    scene: Scene, tmp_path: Path
) -> None:
    """Accepted with its 90 days, told to be renewed within 47, and revoked after the grace time;
    everywhere as a date and nowhere as a cap."""
    name = fresh_name()
    lego = scene.lego(tmp_path / "lego")
    options = ["--profile", "retiring"]
    obtained = await lego.run_http([name], http_port=scene.client_port, options=options)
    leaf = obtained.leaf()
    assert leaf.not_valid_after_utc - SystemClock().now() > datetime.timedelta(days=80)
    fingerprint = leaf.fingerprint(hashes.SHA256()).hex()
    shown = await scene.penstock.a_json("cert", "show", fingerprint)
    retires = datetime.datetime.fromisoformat(shown["retires"])
    order = await scene.penstock.a_json("order", "show", shown["order"])
    assert (order["lever"], order["cap"], order["retires_after"]) == ("retire", None, "47d")
    told, _ = await scene.renewal_info(leaf)
    assert datetime.datetime.fromisoformat(told["suggestedWindow"]["end"]) < retires
    (row,) = await scene.penstock.a_json("cert", "retiring")
    assert (row["names"], row["status"]) == ([name], "waiting")
    assert 'penstock_certificates_retiring{status="waiting"} 1.0' in scene.penstock.metrics()

    renew = ["renew", "--days", "100000", *NOW, "--profile", "retiring"]
    await lego.run(["--domains", name, *lego._http(scene.client_port), *renew])
    renewed = lego.obtained(name).leaf()
    assert renewed != leaf
    async with asyncio.timeout(90):
        # Another process does it, and tells nobody.
        while not scene.pebble.status(f"{leaf.serial_number:x}").is_revoked:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    assert scene.pebble.status(f"{leaf.serial_number:x}").reason == 4
    assert not scene.pebble.status(f"{renewed.serial_number:x}").is_revoked
    # The CA knows of it before the broker has put the end of the retirement on record.
    listing = ("cert", "retiring", "--status", "retired")
    await asyncio.to_thread(
        process.wait_until,
        lambda: scene.penstock.json(*listing) != [],
        90,
        "the retirement has ended",
    )
    rows = await scene.penstock.a_json(*listing)
    assert [row["certificate"] for row in rows] == [shown["certificate"]]
    told, _ = await scene.renewal_info(leaf)
    assert datetime.datetime.fromisoformat(told["suggestedWindow"]["end"]) <= SystemClock().now()


async def test_second_successor_is_refused_and_the_client_goes_on_without(
    scene: Scene, tmp_path: Path
) -> None:
    """Lego says what it replaces, hears alreadyReplaced, and has its certificate all the same."""
    name = fresh_name()
    lego = scene.lego(tmp_path / "lego")
    first = (await lego.run_http([name], http_port=scene.client_port)).leaf()
    kept = {path: path.read_bytes() for path in lego.directory.rglob(f"{name}.*")}
    renew = ["--domains", name, *lego._http(scene.client_port)]
    await lego.run([*renew, "renew", "--days", "100000", *NOW])
    second = lego.obtained(name).leaf()
    assert second != first
    for path, content in kept.items():
        path.write_bytes(content)
    await lego.run([*renew, "renew", "--days", "100000", *NOW])
    third = lego.obtained(name).leaf()
    assert third not in (first, second)
    shown = await scene.penstock.a_json("cert", "renewal", first.fingerprint(hashes.SHA256()).hex())
    order = await scene.penstock.a_json("order", "show", shown["replaced_by_order"])
    of_second = await scene.penstock.a_json(
        "cert", "show", second.fingerprint(hashes.SHA256()).hex()
    )
    assert order["order"] == of_second["order"]
