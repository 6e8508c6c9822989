"""The desk's commands about our accounts at CAs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.issuance.errors import Broken
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.records import UpstreamAccountRecord
from broker.operations import OperatorDesk
from broker.web.operator import OperationError
from tests.fakes.clock import START
from tests.unit.operations.conftest import ANNA, Office

RECORD = UpstreamAccountRecord(
    upstream="ca",
    community="default",
    directory_url="https://ca.example/directory",
    account_url="https://ca.example/acct/1",
    key_id="old",
    thumbprint="old thumb",
    registered_at=START,
)


class FakeKeys:
    """Remembers what was changed."""

    def __init__(self) -> None:
        self.changed: list[tuple[str, str, str, Actor]] = []

    async def change(
        self, upstream: str, community: str, *, kind: str, actor: Actor
    ) -> UpstreamAccountRecord:
        self.changed.append((upstream, community, kind, actor))
        return replace(RECORD, community=community, thumbprint="new thumb")


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


async def test_key_is_changed_for_each_community_or_for_one(office: Office) -> None:
    """With the kind that is configured, in the name of who asked."""
    keys = FakeKeys()
    desk = await desk_of(office, upstream_keys=keys)
    rows = await desk.upstream_change_key(actor=ANNA, upstream="ca")
    assert [row["community"] for row in rows] == ["default", "lab"]
    assert {row["thumbprint"] for row in rows} == {"new thumb"}
    await desk.upstream_change_key(actor=ANNA, upstream="ca", community="lab")
    assert keys.changed[-1] == ("ca", "lab", "ec-p256", ANNA)
    assert len(keys.changed) == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"upstream": "local"}, "no CA with accounts is called 'local'"),
        ({"upstream": "nonesuch"}, "no CA with accounts is called 'nonesuch'"),
        ({"upstream": "ca", "community": "other"}, "has no account for community 'other'"),
    ],
    ids=["built-in", "unknown", "community"],
)
async def test_account_that_is_not_there_is_told(
    office: Office, given: dict[str, str], words: str
) -> None:
    """With what there is."""
    desk = await desk_of(office, upstream_keys=FakeKeys())
    with pytest.raises(OperationError, match=words):
        await desk.upstream_change_key(actor=ANNA, **given)


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
