"""A CA that is away for an hour while certificates are in use and fall due; the hour is moved."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.e2e.scene import MAC_KEY, Scene
from tests.e2e.survivor import Patient, binding
from tests.fakes.acme_client import AcmeClient, make_csr
from tests.fakes.hostile_ca import Behaviour, Fault, Script
from tests.fakes.hostile_ca.envelope import b64
from tests.peers.moved_clock import MovedClock

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

LIFETIME = timedelta(hours=3)
RENEW_AFTER = LIFETIME * 2 / 3
"""When a client renews: a third before the end, as all of them do by themselves."""

HONEST = Behaviour(authorizations_valid=True)
HOSTS = 6
STEP = timedelta(minutes=10)


class Host:
    """A host that holds a certificate, and renews it when it is due."""

    def __init__(self, client: AcmeClient, name: str, clock: MovedClock) -> None:
        self.patient = Patient(client)
        self.name = name
        self._clock = clock
        self._order: dict[str, Any] | None = None
        self._url = ""
        self.leaf: x509.Certificate | None = None
        self.gaps: list[datetime] = []
        """When it was looked at and its certificate had ended."""

    async def live(self) -> None:
        """Do what a client's timer does: look at the certificate, order or poll."""
        now = self._clock.now()
        if self.leaf is not None and now >= self.leaf.not_valid_after_utc:
            self.gaps.append(now)
        if self._order is not None:
            await self._poll()
        elif self.leaf is None or now >= self.leaf.not_valid_after_utc - LIFETIME + RENEW_AFTER:
            await self._begin(now)

    @property
    def is_waiting(self) -> bool:
        """Whether an order is under way."""
        return self._order is not None

    async def _begin(self, now: datetime) -> None:
        directory = self.patient.client.directory
        end = (now + LIFETIME).replace(microsecond=0).isoformat().replace("+00:00", "Z")
        wanted = {"identifiers": [{"type": "dns", "value": self.name}], "notAfter": end}
        answer = await self.patient.ask(directory["newOrder"], wanted)
        self._url, order = answer.headers["Location"], answer.json()
        csr = make_csr([self.name]).public_bytes(Encoding.DER)
        self._order = (await self.patient.ask(order["finalize"], {"csr": b64(csr)})).json()
        await self._poll()

    async def _poll(self) -> None:
        self._order = (await self.patient.ask(self._url)).json()
        assert self._order["status"] in ("processing", "valid"), self._order
        if self._order["status"] == "valid":
            chain = (await self.patient.ask(self._order["certificate"])).body
            self.leaf = x509.load_pem_x509_certificates(chain)[0]
            self._order = None


@pytest.fixture
def clock(tmp_path: Path) -> MovedClock:
    """The clock of the broker and of its CA."""
    return MovedClock(tmp_path)


@pytest.fixture
def scene(tmp_path_factory: pytest.TempPathFactory, clock: MovedClock) -> Iterator[Scene]:
    """A broker and a CA that follow the moved clock."""
    # Not below the test's own folder: its long name would make the operator socket's path too long.
    home = tmp_path_factory.mktemp("outage")
    limits = {"finalize_wait": "200ms"}
    script = Script(standing=HONEST)
    with Scene(home, script, limits=limits, environment=clock.environment()) as made:
        yield made


async def all_live(hosts: list[Host]) -> None:
    """Have every host's timer fire once."""
    for host in hosts:
        await host.live()


async def test_an_hour_without_the_ca_costs_no_certificate(scene: Scene, clock: MovedClock) -> None:
    """Certificates fall due while it is away; afterwards each is renewed, once, in time."""
    assert scene.ca is not None
    async with AcmeClient(scene.broker.directory_url, scene.broker.ca_bundle) as client:
        bound = {"externalAccountBinding": binding(client, "farm", MAC_KEY)}
        assert (await client.register(**bound)).status == 201
        hosts = [Host(client, name, clock) for name in scene.names(HOSTS)]
        # A third of them ten minutes apart, so that they fall due one after the other.
        for number in range(0, HOSTS, 2):
            await until_done(hosts[number : number + 2])
            clock.move(STEP)
        begun = [host.leaf for host in hosts]
        assert all(leaf is not None for leaf in begun)
        clock.move(RENEW_AFTER - 4 * STEP)
        await all_live(hosts)
        assert not any(host.is_waiting for host in hosts)

        scene.ca.set_script(Script(standing=HONEST, faults=[Fault.outage()]))
        away_since = clock.now()
        while clock.now() - away_since < timedelta(hours=1):
            clock.move(STEP)
            await all_live(hosts)
        assert all(host.is_waiting for host in hosts), "all fell due while it was away"
        assert len(scene.ca.ledger().certificates) == HOSTS
        scene.ca.set_script(Script(standing=HONEST))
        await until_done(hosts)

    ledger = scene.ca.ledger()
    per_name = Counter(name for one in ledger.certificates for name in one.names)
    assert per_name == {host.name: 2 for host in hosts}
    assert len(ledger.finalizes) == 2 * HOSTS
    assert not any(host.gaps for host in hosts)
    for host, before in zip(hosts, begun, strict=True):
        assert host.leaf is not None
        assert before is not None
        assert before.not_valid_after_utc > clock.now(), "the old one was good to the end"
        assert host.leaf.not_valid_after_utc > before.not_valid_after_utc
    assert not ledger.revocations


async def until_done(hosts: list[Host]) -> None:
    """Have the hosts live until none of them waits; the broker meets a CA within 15 s.

    Under a moved clock each look at the time reads a file under a lock of all threads, which on a
    busy machine makes everything ten times slower now and then.
    """
    async with asyncio.timeout(200):
        await all_live(hosts)
        while any(host.is_waiting for host in hosts):
            await asyncio.sleep(0.2)
            await all_live(hosts)
