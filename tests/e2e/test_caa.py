"""CAA in whole brokers: BIND has the records, Pebble is the CA, the built-in CA is another."""

import asyncio
import hashlib
import secrets
from base64 import b32encode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from broker.protocol.challenges import dns01_value
from tests.deployments.penstock import AcmeCa, BuiltInCa, Penstock
from tests.fakes.acme_client import AcmeClient
from tests.fakes.hostile_ca.envelope import b64, thumbprint
from tests.fakes.world import make_csr
from tests.peers import process
from tests.peers.bind import Bind
from tests.peers.client import ClientFailed
from tests.peers.lego import Lego
from tests.peers.pebble import Pebble, PebbleOptions

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

IDENTITY = "ca.example.net"
SECONDS = 60.0
"""Longest wait for a report, in seconds; it is there within one."""


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bind]:
    """A zone whose names lead to loopback, below three that say who may issue."""
    with Bind(tmp_path_factory.mktemp("named"), zones=["example.test"]) as server:
        for below, value in (
            ("ours", f"{IDENTITY}"),
            ("others", "other.example.org"),
            ("bound", f"{IDENTITY}; validationmethods=dns-01"),
        ):
            server.add(f"{below}.example.test", "CAA", f'0 issue "{value}"')
            server.add_a(f"*.{below}.example.test")
        yield server


class Place:
    """A broker with one rule about CAA."""

    def __init__(self, tmp: Path, stack: ExitStack, named: Bind, caa: str | None) -> None:
        self.http_port, plain = process.free_port(), process.free_port()
        options = PebbleOptions(nonce_reject_percent=0)
        self.pebble = stack.enter_context(
            Pebble(
                tmp / "pebble",
                validation_http_port=plain,
                dns_server=named.address,
                options=options,
            )
        )
        ca = AcmeCa(
            name="pebble",
            directory_url=self.pebble.directory_url,
            ca_bundle=self.pebble.ca_bundle,
            description="pebble",
            options={"caa_identities": [IDENTITY]},
        )
        rules: dict[str, Any] = {} if caa is None else {"caa": caa}
        self.penstock = stack.enter_context(
            Penstock(
                tmp / "penstock",
                validation_http_port=self.http_port,
                resolver=named.address,
                plain_port=plain,
                upstreams=[ca],
                policy=rules,
            )
        )

    async def order(self, folder: Path, below: str) -> str:
        """Have lego order a fresh name, and return the name."""
        name = f"h{secrets.token_hex(4)}.{below}.example.test"
        lego = Lego(folder, self.penstock.directory_url, self.penstock.ca_bundle)
        await lego.run_http([name], http_port=self.http_port)
        return name

    async def told(self, name: str) -> list[dict[str, Any]]:
        """Return what ``penstock order show`` tells of CAA, of the newest order."""
        orders = await self.penstock.a_json("order", "list")
        assert orders[0]["names"] == [name]
        shown = await self.penstock.a_json("order", "show", orders[0]["order"])
        return [
            one
            for event in shown["events"]
            if event["kind"] == "caa-looked-at"
            for one in event["data"]["names"]
        ]


@pytest.fixture(scope="module")
def reporting(tmp_path_factory: pytest.TempPathFactory, named: Bind) -> Iterator[Place]:
    """A broker whose policy says nothing about CAA."""
    with ExitStack() as stack:
        yield Place(tmp_path_factory.mktemp("report"), stack, named, None)


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory, named: Bind) -> Iterator[Place]:
    """A broker whose policy refuses what CAA forbids."""
    with ExitStack() as stack:
        yield Place(tmp_path_factory.mktemp("refuse"), stack, named, "refuse")


async def test_by_default_it_is_reported_and_refuses_nothing(
    reporting: Place, tmp_path: Path
) -> None:
    """Lego has its certificate; the operator sees what a CA that heeds CAA would have said."""
    name = await reporting.order(tmp_path / "lego", "others")
    async with asyncio.timeout(SECONDS):
        while not (told := await reporting.told(name)):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)
    assert [(one["outcome"], one["found_at"]) for one in told] == [
        ("forbids", "others.example.test")
    ]
    # Figures follow what was committed.
    figure = 'penstock_caa_names_total{outcome="forbids"} 1.0'
    await asyncio.to_thread(
        process.wait_until, lambda: figure in reporting.penstock.metrics(), SECONDS, figure
    )


@pytest.mark.parametrize(
    ("below", "sentence"),
    [("others", "it allows other.example.org"), ("bound", "validation by dns-01 alone")],
)
async def test_where_policy_says_so_it_refuses(
    refusing: Place, tmp_path: Path, below: str, sentence: str
) -> None:
    """With the problem that RFC 8555 has for it, and nothing is issued."""
    before = len(refusing.pebble.issued())
    with pytest.raises(ClientFailed) as caught:
        await refusing.order(tmp_path / "lego", below)
    assert "urn:ietf:params:acme:error:caa" in caught.value.output
    assert sentence in caught.value.output
    assert len(refusing.pebble.issued()) == before


async def test_where_records_name_the_ca_it_issues(refusing: Place, tmp_path: Path) -> None:
    """The twin: the records were looked at before, and the order shows it."""
    name = await refusing.order(tmp_path / "lego", "ours")
    assert [one["outcome"] for one in await refusing.told(name)] == ["permits"]


async def test_account_proves_by_a_record_of_its_own_and_is_the_one_that_caa_names(
    tmp_path: Path, named: Bind
) -> None:
    """dns-account-01 with the built-in CA, whose accounts are the requesters' (RFC 8657)."""
    name = f"h{secrets.token_hex(4)}.example.test"
    with Penstock(
        tmp_path / "penstock",
        validation_http_port=process.free_port(),
        resolver=named.address,
        built_in=BuiltInCa(options={"caa_identities": [IDENTITY]}),
        policy={"challenges": ["dns-account-01"], "caa": "refuse"},
    ) as penstock:
        for is_named in (True, False):
            async with AcmeClient(penstock.directory_url, penstock.ca_bundle) as client:
                await client.register()
                if is_named:
                    bound = f"accounturi={client.account_url}; validationmethods=dns-account-01"
                    named.add(name, "CAA", f'0 issue "{IDENTITY}; {bound}"')
                order = await prove_by_own_record(client, named, name)
                answer = await client.post(order["finalize"], {"csr": b64(make_csr(name))})
                expected = 200 if is_named else 403
                assert answer.status == expected, answer.body
                if not is_named:
                    assert answer.problem == "caa"


async def prove_by_own_record(client: AcmeClient, named: Bind, name: str) -> dict[str, Any]:
    """Order *name* and prove control of it at the account's own record; return the ready order."""
    made = await client.order(name)
    order = dict(made.json())
    url = made.headers["Location"]
    (authorization,) = order["authorizations"]
    (challenge,) = (await client.post(authorization)).json()["challenges"]
    assert challenge["type"] == "dns-account-01"
    digest = hashlib.sha256(str(client.account_url).encode()).digest()[:10]
    label = b32encode(digest).decode().lower()
    value = dns01_value(f"{challenge['token']}.{thumbprint(client.jwk)}")
    named.add(f"_{label}._acme-challenge.{name}", "TXT", f'"{value}"')
    await client.post(challenge["url"], {})
    async with asyncio.timeout(SECONDS):
        while order["status"] == "pending":
            order = dict((await client.post(url)).json())
            await asyncio.sleep(0.1)
    assert order["status"] == "ready", order
    return order
