"""The desk about renewal."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.issuance.events import Actor
from broker.issuance.renewal_ports import RenewalAnswer
from broker.operations import OperatorDesk, Rooms
from broker.protocol.renewal import RenewalInfo, RenewalWindow
from broker.web.operator import OperationError
from tests.fakes.fake_policies import POLICY
from tests.fakes.world import default_facts
from tests.unit.operations.conftest import Office

NAME = "www.example.com"
DAY = timedelta(days=1)


@pytest.fixture
def desk(office: Office) -> OperatorDesk:
    """A desk that knows about windows."""
    assert isinstance(office.desk, OperatorDesk)
    rooms: Rooms = replace(office.desk._rooms, renewing=office.world.renewing)
    return OperatorDesk(rooms)


async def issued(office: Office, **how: str) -> str:
    """Return the id of a certificate that was issued just now."""
    order = await (await office.world.client()).issue(NAME, **how)
    return order.certificate_id or ""


async def test_window_is_shown_with_what_the_ca_says(office: Office, desk: OperatorDesk) -> None:
    """Asked now, if so wished; the CA's explanation is for the operator."""
    world = office.world
    certificate = await issued(office)
    shown = await desk.cert_renewal(certificate=certificate)
    assert shown["from_the_ca"] is None
    assert shown["asked"] is None
    start = world.clock.now() + 20 * DAY
    info = RenewalInfo(
        window=RenewalWindow(start, start + DAY), explanation_url="https://ca.example/why"
    )
    world.ca.renewals = lambda _: RenewalAnswer(info=info, retry_at=start)
    shown = await desk.cert_renewal_ask(actor=Actor("operator:olga"), certificate=certificate)
    assert shown["from_the_ca"] == shown["suggested"]
    assert shown["explanation"] == "https://ca.example/why"
    assert shown["asked_next"] is not None
    assert shown["replaced_by_order"] is None
    json.dumps(shown)


async def test_successor_is_shown(office: Office, desk: OperatorDesk) -> None:
    """The order, as soon as there is one."""
    client = await office.world.client()
    order = await client.issue(NAME)
    found = await office.world.store.find_certificate(order.certificate_id or "")
    assert found is not None
    successor = await client.order(NAME, replaces=found.cert_id)
    shown = await desk.cert_renewal(certificate=found.fingerprint.upper())
    assert shown["replaced_by_order"] == successor.order_id


async def test_unknown_certificate_is_told(desk: OperatorDesk) -> None:
    """With what to give."""
    with pytest.raises(OperationError, match="there is no certificate 'x'"):
        await desk.cert_renewal(certificate="x")


async def test_retirement_is_shown_as_a_date_and_never_as_a_cap(
    office: Office, desk: OperatorDesk
) -> None:
    """By the order, the certificate, their lists, the explanation and the list of its own."""
    world = office.world
    world.facts["ca"] = replace(default_facts("ca"), honours_not_after=False)
    world.ca.honours_not_after = False
    policy = POLICY.replace("cap: 90d", "cap: 47d")
    world.policies.set(policy.replace("[{upstream: ca}]", "[{upstream: ca, retire: {}}]"))
    certificate = await issued(office)
    found = await world.store.find_certificate(certificate)
    assert found is not None
    date = (found.received_at + 47 * DAY).isoformat().replace("+00:00", "Z")
    order = await desk.order_show(order_id=found.order_id)
    assert (order["lever"], order["cap"], order["retires_after"]) == ("retire", None, "47d")
    assert "cap" not in order["decision"]
    assert (await desk.order_list())[0]["cap"] is None
    assert (await desk.cert_show(certificate=certificate))["retires"] == date
    assert (await desk.cert_list())[0]["retires"] == date
    explained = await desk.policy_explain(names=[NAME])
    assert explained["cap"] is None
    assert explained["plan"]["retires_after"] == "47d"
    assert "to be retired 47d after receipt" in explained["upstreams"][0]["sentence"]
    (row,) = await desk.cert_retiring()
    assert (row["retires"], row["status"], row["if_unreplaced"]) == (date, "waiting", "keep")
    assert await desk.cert_retiring(status="overdue") == []


async def test_without_the_lever_the_cap_is_shown(office: Office, desk: OperatorDesk) -> None:
    """The twin."""
    certificate = await issued(office)
    shown = await desk.cert_show(certificate=certificate)
    assert shown["retires"] is None
    explained = await desk.policy_explain(names=[NAME])
    assert (explained["cap"], explained["plan"]["retires_after"]) == ("90d", None)
    assert await desk.cert_retiring() == []


@pytest.mark.parametrize(
    ("given", "sentence"),
    [({"status": "gone"}, "'gone' is no status"), ({"limit": 0}, "not between 1 and 1000")],
)
async def test_list_is_asked_for_in_words_that_there_are(
    desk: OperatorDesk, given: dict[str, object], sentence: str
) -> None:
    """And has a bounded length."""
    with pytest.raises(OperationError, match=sentence):
        await desk.cert_retiring(**given)  # type: ignore[arg-type]
