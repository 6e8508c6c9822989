"""Addresses as identifiers, and tls-alpn-01: whole brokers and lego, against two CAs."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.deployments.penstock import AcmeCa, Penstock
from tests.fakes.acme_client import AcmeClient
from tests.peers import process
from tests.peers.bind import Bind
from tests.peers.client import ClientFailed
from tests.peers.lego import Lego
from tests.peers.pebble import Pebble, PebbleOptions

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

NAME = "www.example.test"
POLICY: dict[str, Any] = {
    "names": {"allow": ["**.example.test", "127.0.0.0/24", "::1"], "deny": ["127.0.0.66"]},
    "challenges": ["http-01", "dns-01", "tls-alpn-01", "dns-account-01"],
}


@dataclass
class Place:
    """A broker, the name server that it asks, and the ports at which it looks."""

    penstock: Penstock
    named: Bind
    http_port: int
    tls_port: int

    def lego(self, folder: Path) -> Lego:
        """Return a lego of its own."""
        return Lego(folder, self.penstock.directory_url, self.penstock.ca_bundle)


@pytest.fixture(scope="module", params=["built-in", "pebble"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """A broker whose policy gives loopback addresses, in front of one CA."""
    tmp = tmp_path_factory.mktemp(request.param)
    http_port, tls_port, plain = (process.free_port() for _ in range(3))
    with ExitStack() as stack:
        named = stack.enter_context(Bind(tmp / "named", zones=["example.test"]))
        named.add_a(NAME)
        upstreams = []
        if request.param == "pebble":
            options = PebbleOptions(nonce_reject_percent=5)
            pebble = stack.enter_context(
                Pebble(
                    tmp / "pebble",
                    validation_http_port=plain,
                    dns_server=named.address,
                    options=options,
                )
            )
            upstreams.append(
                AcmeCa(
                    name="pebble",
                    directory_url=pebble.directory_url,
                    ca_bundle=pebble.ca_bundle,
                    description="pebble",
                )
            )
        penstock = stack.enter_context(
            Penstock(
                tmp / "penstock",
                validation_http_port=http_port,
                validation={
                    "tls_alpn_port": tls_port,
                    "networks": {"allow": ["127.0.0.0/8", "::1/128"]},
                },
                resolver=named.address,
                plain_port=plain,
                upstreams=upstreams,
                policy=POLICY,
            )
        )
        yield Place(penstock, named, http_port, tls_port)


def names_of(leaf: x509.Certificate) -> list[str]:
    """Return every subject alternative name, each with its kind."""
    extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return sorted(f"{type(name).__name__}:{name.value}" for name in extension.value)


async def proven_by(place: Place) -> list[tuple[str, str]]:
    """Return (name, challenge) of each authorization of the newest order."""
    orders = await place.penstock.a_json("order", "list")
    shown = await place.penstock.a_json("order", "show", orders[0]["order"])
    return sorted(
        (authorization["name"], challenge["type"])
        for authorization in shown["authorizations"]
        for challenge in authorization["challenges"]
        if challenge["status"] == "valid"
    )


async def test_lego_obtains_a_certificate_by_tls_alpn(place: Place, tmp_path: Path) -> None:
    """For a name, through the whole broker; the CA is shown http-01 by the broker itself."""
    lego = place.lego(tmp_path / "lego")
    await lego.run(["--domains", NAME, "--tls", "--tls.port", f"127.0.0.1:{place.tls_port}", "run"])
    assert names_of(lego.obtained(NAME).leaf()) == [f"DNSName:{NAME}"]
    assert await proven_by(place) == [(NAME, "tls-alpn-01")]


async def test_lego_obtains_a_certificate_for_an_address_by_http(
    place: Place, tmp_path: Path
) -> None:
    """Beside a name in the same certificate."""
    lego = place.lego(tmp_path / "lego")
    solver = ["--http", "--http.port", f"127.0.0.1:{place.http_port}"]
    await lego.run(["--domains", "127.0.0.1", "--domains", NAME, *solver, "run"])
    leaf = lego.obtained("127.0.0.1").leaf()
    assert names_of(leaf) == [f"DNSName:{NAME}", "IPAddress:127.0.0.1"]
    assert await proven_by(place) == [("127.0.0.1", "http-01"), (NAME, "http-01")]


@pytest.mark.parametrize("place", ["built-in"], indirect=True)
async def test_lego_obtains_a_certificate_for_an_ipv6_address(place: Place, tmp_path: Path) -> None:
    """By http-01, in brackets all the way; the plain listener that Pebble would ask is IPv4."""
    lego = place.lego(tmp_path / "lego")
    solver = ["--http", "--http.port", f"[::1]:{place.http_port}"]
    await lego.run(["--domains", "::1", *solver, "run"])
    assert names_of(lego.obtained("::1").leaf()) == ["IPAddress:::1"]
    assert await proven_by(place) == [("::1", "http-01")]


async def test_lego_obtains_a_certificate_for_an_address_by_tls_alpn(
    place: Place, tmp_path: Path
) -> None:
    """Lego is asked for the reverse name, and shows a certificate for the address."""
    lego = place.lego(tmp_path / "lego")
    solver = ["--tls", "--tls.port", f"127.0.0.1:{place.tls_port}"]
    await lego.run(["--domains", "127.0.0.1", *solver, "run"])
    assert names_of(lego.obtained("127.0.0.1").leaf()) == ["IPAddress:127.0.0.1"]
    assert await proven_by(place) == [("127.0.0.1", "tls-alpn-01")]


@pytest.mark.parametrize("address", ["127.0.0.66", "10.0.0.1"], ids=["denied", "not-allowed"])
async def test_address_that_policy_does_not_give_is_refused(
    place: Place, tmp_path: Path, address: str
) -> None:
    """At newOrder, with the reason; the tests above are the twin."""
    lego = place.lego(tmp_path / "lego")
    solver = ["--http", "--http.port", f"127.0.0.1:{place.http_port}"]
    with pytest.raises(ClientFailed, match=rf"'{address}' is (denied|allowed by no rule)"):
        await lego.run(["--domains", address, *solver, "run"])


async def test_each_refused_identifier_has_its_subproblem(place: Place) -> None:
    """Spelling and policy, names and addresses; one that is well is not among them."""
    penstock = place.penstock
    wanted = ["127.0.0.1", "::0001", "127.0.0.1.", "10.0.0.0/8"]
    async with AcmeClient(penstock.directory_url, penstock.ca_bundle) as client:
        await client.register()
        identifiers = [{"type": "ip", "value": value} for value in wanted]
        answer = await client.post(client.directory["newOrder"], {"identifiers": identifiers})
        assert answer.status == 400
        told = {one["identifier"]["value"]: one["detail"] for one in answer.json()["subproblems"]}
        assert set(told) == set(wanted[1:])
        assert "expected '::1'" in told["::0001"]
        order = await client.post(client.directory["newOrder"], {"identifiers": identifiers[:1]})
        assert order.status == 201
        (url,) = order.json()["authorizations"]
        offered = (await client.post(url)).json()
        assert {one["type"] for one in offered["challenges"]} == {"http-01", "tls-alpn-01"}
        assert offered["identifier"] == identifiers[0]
