"""The desk's commands about the keys of our accounts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.key_rotation import AccountKeyView, RotatedKey
from broker.issuance.records import UpstreamAccountRecord
from broker.issuance.upstream_key_ports import KeyRotationFailure
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
FAILURE = KeyRotationFailure(
    upstream="ca",
    community="lab",
    key_id="vault:transit/penstock.lab.ca#1",
    failures=2,
    failed_at=START + timedelta(hours=1),
    reason="this CA changes no keys",
)


class FakeRotation:
    """Remembers what was rotated, and fails for those communities that it is told to."""

    def __init__(self) -> None:
        self.rotated: list[tuple[str, str, Actor]] = []
        self.failures: dict[str, Exception] = {}
        self.not_retired: str | None = None

    async def rotate(self, upstream: str, community: str, *, actor: Actor) -> RotatedKey:
        if community in self.failures:
            raise self.failures[community]
        self.rotated.append((upstream, community, actor))
        record = replace(RECORD, community=community, key_id="new", thumbprint="new thumb")
        return RotatedKey(record=record, not_retired=self.not_retired)

    async def overview(self) -> list[AccountKeyView]:
        return [
            AccountKeyView(
                upstream="ca",
                community="lab",
                key_id=FAILURE.key_id,
                since=START,
                due_at=START + timedelta(days=90),
                failure=FAILURE,
                not_retired="Vault is sealed",
            )
        ]


async def desk_of(office: Office, rotation: FakeRotation | None) -> OperatorDesk:
    """Return the desk with an account for each community at the CA."""
    for community in ("default", "lab"):
        await office.world.store.save_upstream_account(
            replace(RECORD, community=community, account_url=f"https://ca.example/{community}"),
            Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=START),
        )
    made: Any = office.desk
    return OperatorDesk(replace(made._rooms, key_rotation=rotation))


async def test_key_is_rotated_for_each_community_or_for_one(office: Office) -> None:
    """In the name of who asked; the answer names the new keys."""
    rotation = FakeRotation()
    desk = await desk_of(office, rotation)
    rows = await desk.upstream_rotate_key(actor=ANNA, upstream="ca")
    assert [row["community"] for row in rows] == ["default", "lab"]
    assert {(row["thumbprint"], row["key"]) for row in rows} == {("new thumb", "new")}
    assert {row["not_retired"] for row in rows} == {None}
    await desk.upstream_rotate_key(actor=ANNA, upstream="ca", community="lab")
    assert rotation.rotated[-1] == ("ca", "lab", ANNA)
    assert len(rotation.rotated) == 3


async def test_versions_that_may_still_sign_are_told(office: Office) -> None:
    """The key was rotated all the same."""
    rotation = FakeRotation()
    rotation.not_retired = "Vault is sealed"
    desk = await desk_of(office, rotation)
    (row,) = await desk.upstream_rotate_key(actor=ANNA, upstream="ca", community="lab")
    assert row["not_retired"] == "Vault is sealed"


async def test_first_failure_is_told_as_it_is(office: Office) -> None:
    """Nothing was done."""
    rotation = FakeRotation()
    rotation.failures["default"] = Unreachable("Vault is sealed")
    desk = await desk_of(office, rotation)
    with pytest.raises(Unreachable, match="Vault is sealed"):
        await desk.upstream_rotate_key(actor=ANNA, upstream="ca")
    assert rotation.rotated == []


async def test_failure_after_others_tells_which_were_done(office: Office) -> None:
    """Whoever asks again asks for the rest."""
    rotation = FakeRotation()
    rotation.failures["lab"] = Broken("the CA offers no change of keys")
    desk = await desk_of(office, rotation)
    with pytest.raises(OperationError) as caught:
        await desk.upstream_rotate_key(actor=ANNA, upstream="ca")
    assert caught.value.message == (
        "the account of community 'lab' keeps its key: the CA offers no change of keys"
    )
    assert caught.value.hint == "those of default have a new one; ask again with --community lab"


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
    desk = await desk_of(office, FakeRotation())
    with pytest.raises(OperationError, match=words):
        await desk.upstream_rotate_key(actor=ANNA, **given)


async def test_key_of_each_account_is_shown(office: Office) -> None:
    """Its age, when it is rotated next, and what went wrong."""
    desk = await desk_of(office, FakeRotation())
    shown = await desk.upstream_show(upstream="ca")
    keys = {each["community"]: each["key"] for each in shown["accounts"]}
    assert keys == {
        "default": None,
        "lab": {
            "id": "vault:transit/penstock.lab.ca#1",
            "since": "2026-03-01T12:00:00Z",
            "rotates": "2026-05-30T12:00:00Z",
            "failures": 2,
            "failed": "2026-03-01T13:00:00Z",
            "reason": "this CA changes no keys",
            "not_retired": "Vault is sealed",
        },
    }
    assert shown in await desk.upstream_list()
    with pytest.raises(OperationError, match="no upstream is called 'nonesuch'"):
        await desk.upstream_show(upstream="nonesuch")


async def test_desk_without_rotation_says_so(office: Office) -> None:
    """And lists accounts without their keys."""
    desk = await desk_of(office, None)
    with pytest.raises(OperationError, match="this desk changes no keys"):
        await desk.upstream_rotate_key(actor=ANNA, upstream="ca")
    shown = await desk.upstream_show(upstream="ca")
    assert [each["key"] for each in shown["accounts"]] == [None, None]
