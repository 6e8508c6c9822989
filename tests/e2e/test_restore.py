"""A restore from a backup with certificates in use: none is lost, none is ordered twice."""

import asyncio
import contextlib
import json
import re
import sqlite3
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography import x509

from tests.deployments.restoring import (
    EAB_KEY,
    MAC_KEY,
    ZONE,
    Restoring,
    finish,
    ready_order,
    wait_for,
)
from tests.fakes.acme_client import make_csr
from tests.peers import process
from tests.peers.certbot import Certbot
from tests.peers.client import ClientFailed, ExternalAccount
from tests.peers.lego import Lego

pytestmark = [pytest.mark.peers, pytest.mark.e2e]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Restoring]:
    """A broker in front of Pebble."""
    with ExitStack() as stack:
        yield Restoring(tmp_path, stack)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Restoring]:
    """A broker that is its own CA."""
    with ExitStack() as stack:
        yield Restoring(tmp_path, stack, is_built_in=True)


@pytest.fixture
def behind_step_ca(tmp_path: Path) -> Iterator[Restoring]:
    """A broker in front of step-ca."""
    with ExitStack() as stack:
        yield Restoring(tmp_path, stack, is_step_ca=True)


async def test_restored_broker_orders_nothing_twice(place: Restoring) -> None:
    """One order in use, one ready, one on its way at the backup, two made after it."""
    names = {key: f"{key}.{ZONE}" for key in ("used", "ready", "underway", "later", "lost")}
    async with place.requester() as requester:
        used = await requester.request(names["used"])
        assert await used.settled() == "valid"
        ready = await ready_order(requester, names["ready"])
        underway = await ready_order(requester, names["underway"])

        async def is_prepared() -> bool:
            shown = [
                await place.operator.ask("order_show", order_id=order["url"].rpartition("/")[2])
                for order in (ready, underway)
            ]
            counts = (await place.operator.ask("status"))["counts"]
            return len(shown) == 2 and counts["work_opened"] == 2 and counts["jobs_prepare"] == 0

        await wait_for(is_prepared, 60, "upstream orders are open")
        place.freeze()
        try:
            going = await finish(requester, underway)
            assert going.status == "processing"
            backup = await place.back_up()
        finally:
            place.thaw()
        assert await going.settled() == "valid"
        went = await going.chain()
        csr = make_csr([names["ready"]])
        finished = await finish(requester, ready, csr)
        assert await finished.settled() == "valid"
        in_use = await finished.chain()
        later = await requester.request(names["later"])
        assert await later.settled() == "valid"
        lost = await requester.request(names["lost"])
        assert await lost.settled() == "valid"
        assert place.issued() == dict.fromkeys(names.values(), 1)

        await place.lose_machine()
        await place.restore(backup)
        requester.nonce = None  # of the broker that is gone

        # What was on its way is moved on to the certificate that the CA had issued meanwhile.
        await going.read()
        assert await going.settled() == "valid"
        assert (await going.chain())[0] == went[0]
        # What was ready is known to be finalized: the same CSR again gets the same certificate.
        again = await finish(requester, ready, csr)
        assert await again.settled() == "valid"
        assert (await again.chain())[0] == in_use[0]
        assert place.issued() == dict.fromkeys(names.values(), 1)
        # What came after the backup is unknown here, and told of by name.
        assert (await requester.post(lost.url)).status == 404
        events = await asyncio.to_thread(events_of, place)
        (reconciled,) = [data for kind, data in events if kind == "store-reconciled"]
        assert reconciled["unknown_orders"] == 2
        assert reconciled["recovered"] == 1
        # Whoever lost an order orders anew; nobody else's name was ordered a second time.
        assert await (await requester.request(names["lost"])).settled() == "valid"
        renewed = await requester.request(names["used"])
        assert await renewed.settled() == "valid"
        assert place.issued() == {
            **dict.fromkeys(names.values(), 1),
            names["lost"]: 2,
            names["used"]: 2,
        }
        assert place.pebble is not None
        for leaf in (went[0], in_use[0]):
            assert not place.pebble.status(f"{leaf.serial_number:x}").is_revoked


def events_of(place: Restoring) -> list[tuple[str, dict[str, object]]]:
    """Return every event of the broker's store, read past it."""
    path = f"file:{place.penstock.database}?mode=ro"
    with contextlib.closing(sqlite3.connect(path, uri=True)) as db:
        rows = db.execute("SELECT kind, data FROM events ORDER BY seq").fetchall()
    return [(kind, json.loads(data)) for kind, data in rows]


async def test_restored_broker_is_read_only_until_its_ca_was_asked(place: Restoring) -> None:
    """The CA is away: everything can be read, nothing changed, and the way out is told."""
    farm = StockClients(place, "farm", ExternalAccount(EAB_KEY, MAC_KEY))
    async with place.requester() as requester:
        used = await requester.request(f"used.{ZONE}")
        await asyncio.gather(*farm.runs("first"))
        assert await used.settled() == "valid"
        backup = await place.back_up()
        await place.lose_machine()
        place.freeze()
        try:
            await place.restore(backup, is_ready=False)
            requester.nonce = None  # of the broker that is gone
            refused = await requester.order(f"new.{ZONE}")
            assert (refused.status, refused.problem) == (403, "serverInternal")
            assert int(refused.headers["Retry-After"]) > 0
            assert (await requester.register()).status == 200
            assert (await used.read())["status"] == "valid"
            assert len(await used.chain()) > 1
            await check_stock_clients(place, farm)
            health = f"http://127.0.0.1:{place.penstock.health_port}/readyz"
            with pytest.raises(process.PeerFailed, match="restored"):
                process.get(health)
            refusal = await asyncio.to_thread(
                place.penstock.run, "eab", "mint", "--label", "x", status=1
            )
            assert "penstock reconcile" in refusal.stderr
        finally:
            place.thaw()
        await place.until_ready()
        assert (await requester.order(f"new.{ZONE}")).status == 201


class StockClients:
    """lego and certbot, each with an account of its own."""

    def __init__(
        self, place: Restoring, folder: str, external_account: ExternalAccount | None = None
    ) -> None:
        home, penstock = place.tmp / folder, place.penstock
        where = (penstock.directory_url, penstock.ca_bundle)
        self._lego = Lego(home / "lego", *where, external_account=external_account)
        self._certbot = Certbot(home / "certbot", *where, external_account=external_account)

    def runs(self, label: str) -> list[Awaitable[object]]:
        """Return a run of each for a name that *label* makes its own."""
        lego, certbot = [f"lego-{label}.{ZONE}"], [f"certbot-{label}.{ZONE}"]
        return [
            self._lego.run_http(lego, http_port=process.free_port()),
            self._certbot.certonly_standalone(certbot, http_port=process.free_port()),
        ]


async def check_stock_clients(place: Restoring, known: StockClients) -> None:
    """See that clients show the reason, those with an account and those without, at once."""
    runs = known.runs("again") + StockClients(place, "new").runs("new")
    ended = await asyncio.gather(*runs, return_exceptions=True)
    for failed in ended:
        assert isinstance(failed, ClientFailed), failed
        assert "was restored from a backup" in " ".join(str(failed).split())
        assert "badNonce" not in str(failed)
    # One from the requester, one from each of these: nobody sends the same request again.
    assert refused(place, "new-order") == 3
    assert refused(place, "new-account") == 2


def refused(place: Restoring, operation: str) -> float:
    """Return how many requests of a kind were refused since the start; none may have failed."""
    pattern = rf'^penstock_acme_requests_total\{{code="(.)xx",operation="{operation}"\}} (\S+)$'
    found = dict(re.findall(pattern, place.penstock.metrics(), re.MULTILINE))
    assert float(found["5"]) == 0
    return float(found["4"])


async def test_loss_is_accepted_by_name(place: Restoring) -> None:
    """The CA has forgotten our account: a person says so, and the broker goes on."""
    async with place.requester() as requester:
        assert await (await requester.request(f"used.{ZONE}")).settled() == "valid"
        backup = await place.back_up()
        await place.lose_machine()
        assert place.pebble is not None
        await asyncio.to_thread(place.pebble.stop)
        await asyncio.to_thread(place.pebble.start)  # with nothing of what it knew
        await place.restore(backup, is_ready=False)
        requester.nonce = None  # of the broker that is gone
        told = await asyncio.to_thread(place.penstock.run, "reconcile", status=3)
        assert "--accept-loss pebble" in told.stderr
        assert "account" in told.stdout
        assert (await requester.order(f"new.{ZONE}")).status == 403
        await asyncio.to_thread(
            place.penstock.run, "reconcile", "--accept-loss", "pebble", "--reason", "CA was reset"
        )
        recovered = await place.operator.ask(
            "upstream_recover", upstream="pebble", agree_to_terms=True
        )
        assert [row["cause"] for row in recovered] == ["account-unknown"]
        requester.nonce = None
        assert (await requester.order(f"new.{ZONE}")).status == 201


async def test_list_of_step_ca_tells_of_nothing_that_was_issued(behind_step_ca: Restoring) -> None:
    """It is never asked for it, since it takes harm; that is told, and a person accepts it."""
    place = behind_step_ca
    async with place.requester() as requester:
        used = await requester.request(f"used.{ZONE}")
        assert await used.settled() == "valid"
        backup = await place.back_up()
        lost = await requester.request(f"lost.{ZONE}")
        assert await lost.settled() == "valid"
        await place.lose_machine()
        await place.restore(backup, is_ready=False)
        requester.nonce = None  # of the broker that is gone
        told = await asyncio.to_thread(place.penstock.run, "reconcile", status=3)
        assert "offers no list of orders" in told.stdout
        assert "known; what our records know has been looked at" in told.stdout
        assert (await used.read())["status"] == "valid"
        assert (await requester.order(f"lost.{ZONE}")).status == 403
        accepted = ("--accept-loss", "step-ca", "--reason", "nobody lost a certificate")
        await asyncio.to_thread(place.penstock.run, "reconcile", *accepted)
        assert await (await requester.request(f"lost.{ZONE}")).settled() == "valid"


async def test_built_in_ca_goes_on_without_a_number_twice(own: Restoring) -> None:
    """Ledger and CRL numbers end at the backup; certificates in use stay, numbers leave a gap."""
    async with own.requester() as requester:
        used = await requester.request(f"used.{ZONE}")
        assert await used.settled() == "valid"
        revoked = await requester.request(f"revoked.{ZONE}")
        assert await revoked.settled() == "valid"
        backup = await own.back_up()
        later = await requester.request(f"later.{ZONE}")
        assert await later.settled() == "valid"
        leaf = (await revoked.chain())[0]
        before = set(own.penstock.ca_serials())
        await asyncio.to_thread(
            own.penstock.run, "cert", "revoke", revoked.order["certificate"].rpartition("/")[2]
        )
        number = await asyncio.to_thread(crl_number, leaf)
        await own.lose_machine()
        await own.restore(backup)
        requester.nonce = None  # of the broker that is gone
        assert (await used.read())["status"] == "valid"
        again = await requester.request(f"later.{ZONE}")
        assert await again.settled() == "valid"
        new = set(own.penstock.ca_serials()) - before
        assert len(new) == 1
        assert await asyncio.to_thread(crl_number, leaf) > number


def crl_number(leaf: x509.Certificate) -> int:
    """Return the number of the CRL that a certificate points to."""
    points = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    url = (points[0].full_name or [])[0].value
    crl = x509.load_der_x509_crl(process.get(url))
    number: int = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    return number
