"""The desk's commands about our accounts at CAs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from broker.issuance.errors import Broken
from broker.issuance.events import Event, EventKind
from broker.issuance.records import UpstreamAccountRecord
from broker.operations import OperatorDesk
from tests.fakes.clock import START
from tests.unit.operations.conftest import Office

RECORD = UpstreamAccountRecord(
    upstream="ca",
    community="default",
    directory_url="https://ca.example/directory",
    account_url="https://ca.example/acct/1",
    key_id="old",
    thumbprint="old thumb",
    registered_at=START,
)


class FakeGuard:
    """Fails for one community."""

    async def gaps(self, upstream: str, community: str) -> Any:
        if community == "lab":
            raise Broken("the CA names no caaIdentities")
        return []


async def desk_of(office: Office, **rooms: Any) -> OperatorDesk:
    """Return the desk with these rooms, and an account for each community at the CA."""
    for community in ("default", "lab"):
        await office.world.store.save_upstream_account(
            replace(RECORD, community=community, account_url=f"https://ca.example/{community}"),
            Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=START),
        )
    made: Any = office.desk
    return OperatorDesk(replace(made._rooms, **rooms))


async def test_what_cannot_be_looked_at_is_a_finding(office: Office) -> None:
    """One CA that tells nothing does not hide what is missing elsewhere."""
    desk = await desk_of(office, caa=FakeGuard())
    assert await desk.caa_check() == [
        {
            "upstream": "ca",
            "community": "lab",
            "name": None,
            "finding": "the CA names no caaIdentities",
        }
    ]
