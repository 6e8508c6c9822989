"""Nodes, their identities, tokens, requests and outboxes: what any store promises."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.events import SYSTEM, Event, EventKind
from broker.issuance.node_ports import (
    EnrolmentMethod,
    EnrolmentRequest,
    IssuedIdentity,
    JoinToken,
    NodeMessage,
    NodeRecord,
    NodeStatus,
    NodeStore,
    RequestStatus,
)
from broker.issuance.records import AccountRecord
from broker.protocol.resources import AccountStatus
from tests.contract.storage.conftest import OpenStore, Stores

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def event(kind: EventKind = EventKind.NODE_ENROLLED, at: datetime = NOW) -> Event:
    """Return an event to go along."""
    return Event(kind=kind, at=at, actor=SYSTEM)


def node(number: int = 1, **changes: Any) -> NodeRecord:
    """Return a node."""
    members: dict[str, Any] = {
        "node_id": f"id-{number}",
        "name": f"web-{number:02}",
        "community": "default",
        "status": NodeStatus.ACTIVE,
        "account_id": f"account-{number}",
        "method": EnrolmentMethod.TOKEN,
        "names": ("*.corp.example",),
        "profiles": ("server",),
        "owner": "web team",
        "contact": "web@corp.example",
        "spki_sha256": f"{number:064x}",
        "fingerprint": f"first-{number}",
        "identity_not_after": NOW + timedelta(days=7),
        "enrolled_at": NOW,
    }
    return NodeRecord(**{**members, **changes})


def account(number: int = 1) -> AccountRecord:
    """Return the account of a node."""
    return AccountRecord(
        account_id=f"account-{number}",
        community="default",
        status=AccountStatus.VALID,
        jwk_json="{}",
        thumbprint=f"thumbprint-{number}",
        contacts=(),
        terms_agreed=True,
        eab_key_id=None,
        created_at=NOW,
    )


def identity(fingerprint: str = "first-1") -> IssuedIdentity:
    """Return an identity."""
    return IssuedIdentity(b"pem", fingerprint.encode(), fingerprint, NOW + timedelta(days=7))


def token(**changes: Any) -> JoinToken:
    """Return a join token."""
    members: dict[str, Any] = {
        "token_id": "join-1",
        "token_sha256": "hash-1",
        "node": "web-01",
        "node_pattern": None,
        "community": "default",
        "names": (),
        "profiles": (),
        "owner": "",
        "contact": "",
        "created_at": NOW,
        "expires_at": NOW + timedelta(hours=1),
    }
    return JoinToken(**{**members, **changes})


def request(number: int = 1, **changes: Any) -> EnrolmentRequest:
    """Return a request."""
    members: dict[str, Any] = {
        "request_id": f"request-{number}",
        "spki_sha256": "key-1",
        "csr_der": b"csr",
        "node": "web-01",
        "facts": {"hostname": "web-01"},
        "created_at": NOW,
        "expires_at": NOW + timedelta(days=7),
    }
    return EnrolmentRequest(**{**members, **changes})


async def add(store: NodeStore, number: int = 1, **changes: Any) -> NodeRecord:
    """Keep a node."""
    return await store.add_node(
        node(number, **changes),
        identity(f"first-{number}"),
        event(),
        token_id=None,
        account=account(number),
    )


# ------------------------------------------------------------------------------------------- nodes


async def test_node_is_found_by_all_that_it_has(stores: Stores) -> None:
    """After a restart too: by id, name, account and identity."""
    store = await stores.open()
    kept = await add(store)
    await store.close()
    store = await stores.open()
    try:
        assert await store.find_node("id-1") == kept
        assert await store.find_node("web-01") == kept
        assert await store.find_node_by_account("account-1") == kept
        assert await store.find_node_by_identity("first-1") == kept
        assert await store.find_node_by_identity("other") is None
    finally:
        await store.close()


async def test_refused_node_leaves_nothing(store: OpenStore) -> None:
    """Neither account nor identity nor spent token: all of it happens, or nothing does."""
    await add(store)
    await store.add_join_token(token(), event())
    clash = node(2, name="web-01")
    with pytest.raises(Conflict, match="taken"):
        await store.add_node(
            clash, identity("second"), event(), token_id="join-1", account=account(2)
        )
    assert await store.find_account("account-2") is None
    assert await store.find_identity("second") is None
    kept = await store.find_join_token("hash-1")
    assert kept is not None
    assert kept.used_at is None


async def test_key_of_an_account_is_no_identity(store: OpenStore) -> None:
    """One key has one purpose, in whichever community."""
    taken = replace(account(2), thumbprint="thumbprint-1", community="lab")
    await store.create_account(taken, event(EventKind.ACCOUNT_CREATED), eab_key_id=None)
    with pytest.raises(Conflict, match="already"):
        await add(store)


@pytest.mark.parametrize(
    "changes",
    [{"used_at": NOW}, {"revoked_at": NOW}, {"expires_at": NOW}],
    ids=["spent", "revoked", "expired"],
)
async def test_token_that_is_not_good_lets_nobody_in(
    store: OpenStore, changes: dict[str, Any]
) -> None:
    """As of the moment at which the node would be kept."""
    await store.add_join_token(token(**changes), event())
    with pytest.raises(Conflict):
        await store.add_node(node(), identity(), event(), token_id="join-1", account=account())


async def test_token_is_spent_once_however_many_come_at_once(store: OpenStore) -> None:
    """And it says by whom."""
    await store.add_join_token(token(), event())
    outcomes = await asyncio.gather(
        *(
            store.add_node(
                node(number), identity(f"first-{number}"), event(), token_id="join-1",
                account=account(number),
            )
            for number in range(1, 9)
        ),
        return_exceptions=True,
    )  # fmt: skip
    (let_in,) = [one for one in outcomes if isinstance(one, NodeRecord)]
    kept = await store.find_join_token("hash-1")
    assert kept is not None
    assert (kept.used_by, kept.used_at) == (let_in.node_id, NOW)


async def test_revoked_node_loses_identities_messages_and_name(store: OpenStore) -> None:
    """What it was is remembered."""
    kept = await add(store)
    await store.queue_messages([message("a")])
    later = NOW + timedelta(hours=1)
    await store.change_node(
        replace(kept, status=NodeStatus.REVOKED),
        expected=(NodeStatus.ACTIVE,),
        events=(event(EventKind.NODE_REVOKED, later),),
    )
    assert await store.find_node_by_identity("first-1") is None
    assert await store.find_node("web-01") is None
    assert await store.identities_of("id-1") == []
    assert await store.queued_messages("id-1", 0, 10) == []
    known = await store.find_identity("first-1")
    assert known is not None
    assert known.revoked_at == later
    assert (await add(store, 2, name="web-01")).name == "web-01"


async def test_change_is_by_compare_and_set(store: OpenStore) -> None:
    """What is not as expected stays as it is."""
    kept = await add(store)
    drained = replace(kept, status=NodeStatus.DRAINED)
    with pytest.raises(Conflict, match="active"):
        await store.change_node(drained, expected=(NodeStatus.DRAINED,), events=())
    with pytest.raises(Conflict, match="unknown"):
        await store.change_node(node(2), expected=(NodeStatus.ACTIVE,), events=())
    await store.change_node(
        kept, expected=(NodeStatus.ACTIVE,), events=(), identity=identity("second")
    )
    await store.change_node(drained, expected=(NodeStatus.ACTIVE,), events=())
    for fingerprint in ("first-1", "second"):
        found = await store.find_node_by_identity(fingerprint)
        assert found is not None
        assert found.status is NodeStatus.DRAINED


async def test_what_an_agent_told_is_not_undone_by_a_change(store: OpenStore) -> None:
    """A change that was begun before keeps how far the node has come and when it was seen."""
    kept = await add(store)
    await store.queue_messages([message("a"), message("b")])
    await store.acknowledge("id-1", 2)
    seen = NOW + timedelta(minutes=5)
    await store.note_seen("id-1", seen, agent_version="1.2", wire_version="1.0")
    await store.note_seen("id-1", NOW, agent_version=None, wire_version=None)
    await store.change_node(
        replace(kept, agent_version="1.2", wire_version="1.0"),
        expected=(NodeStatus.ACTIVE,), events=(),
    )  # fmt: skip
    found = await store.find_node("id-1")
    assert found is not None
    assert (found.acknowledged, found.seen_at) == (2, seen)
    assert (found.agent_version, found.wire_version) == ("1.2", "1.0")


async def test_nodes_are_listed_and_counted(store: OpenStore) -> None:
    """By name, a page at a time, with every status counted."""
    for number in (3, 1, 2):
        await add(store, number)
    first = await store.list_nodes(status=None, after=None, limit=2)
    rest = await store.list_nodes(status=None, after=first[-1].node_id, limit=2)
    assert [one.name for one in (*first, *rest)] == ["web-01", "web-02", "web-03"]
    assert await store.list_nodes(status=NodeStatus.REVOKED, after=None, limit=2) == []
    assert await store.count_nodes() == {
        NodeStatus.ACTIVE: 3, NodeStatus.DRAINED: 0, NodeStatus.REVOKED: 0,
    }  # fmt: skip


async def test_what_ended_long_ago_is_forgotten(store: OpenStore) -> None:
    """But for the newest identity of each node, by which it is known for what it was."""
    kept = await add(store)
    second = replace(identity("second"), not_after=NOW + timedelta(days=30))
    renewed = replace(kept, fingerprint="second")
    await store.change_node(renewed, expected=(NodeStatus.ACTIVE,), events=(), identity=second)
    await store.add_join_token(token(), event())
    await store.file_request(request(), event())
    assert await store.forget_ended(NOW, 10) == 0
    assert await store.forget_ended(NOW + timedelta(days=60), 10) == 1
    assert await store.find_identity("first-1") is None
    assert await store.find_identity("second") is not None
    assert await store.list_join_tokens() == []
    assert await store.list_requests() == []


# -------------------------------------------------------------------------------- tokens, requests


async def test_tokens_are_listed_and_revoked_once(store: OpenStore) -> None:
    """Newest first."""
    await store.add_join_token(token(), event())
    younger = NOW + timedelta(minutes=1)
    await store.add_join_token(
        token(token_id="join-2", token_sha256="hash-2", created_at=younger), event()
    )
    assert [one.token_id for one in await store.list_join_tokens()] == ["join-2", "join-1"]
    revoked = await store.revoke_join_token("join-1", NOW, event(EventKind.JOIN_TOKEN_REVOKED))
    assert revoked.revoked_at == NOW
    for which in ("join-1", "join-9"):
        with pytest.raises(Conflict):
            await store.revoke_join_token(which, NOW, event(EventKind.JOIN_TOKEN_REVOKED))


async def test_one_request_is_open_for_each_key(store: OpenStore) -> None:
    """A second one is the first; once that is decided there may be another."""
    first = await store.file_request(request(), event())
    assert await store.file_request(request(2), event()) == first
    approved = replace(first, status=RequestStatus.APPROVED, community="lab", decided_at=NOW)
    await store.change_request(approved, expected=RequestStatus.WAITING, event=event())
    with pytest.raises(Conflict):
        await store.change_request(approved, expected=RequestStatus.WAITING, event=event())
    second = await store.file_request(request(2, created_at=NOW + timedelta(minutes=1)), event())
    assert await store.find_request("request-1") == approved
    assert await store.find_request("key-1") == second
    assert [one.request_id for one in await store.list_requests()] == ["request-2", "request-1"]


async def test_request_that_nobody_decided_makes_room(store: OpenStore) -> None:
    """Its key asks anew when its time has passed."""
    await store.file_request(request(), event())
    late = request(2, created_at=NOW + timedelta(days=8), expires_at=NOW + timedelta(days=15))
    assert await store.file_request(late, event()) == late
    assert await store.find_request("request-1") is None


# ------------------------------------------------------------------------------------------ outbox


def message(subject: str, kind: str = "want-csr", **body: object) -> NodeMessage:
    """Return a message for the first node."""
    return NodeMessage(node_id="id-1", kind=kind, subject=subject, body=body)


async def test_messages_wait_in_order_until_they_are_acknowledged(store: OpenStore) -> None:
    """Numbers go up, also over an outbox that was empty in between."""
    await add(store)
    await store.queue_messages([message("a", n=1), message("b", n=2)])
    waiting = await store.queued_messages("id-1", 0, 10)
    assert [(one.seq, one.body) for one in waiting] == [(1, {"n": 1}), (2, {"n": 2})]
    await store.acknowledge("id-1", 2)
    assert await store.queued_messages("id-1", 0, 10) == []
    await store.queue_messages([message("c")])
    (third,) = await store.queued_messages("id-1", 0, 10)
    assert third.seq == 3
    assert await store.count_messages() == 1


async def test_newer_message_takes_the_place_of_an_older_one(store: OpenStore) -> None:
    """Of one subject only the newest waits, with a number of its own."""
    await add(store)
    await store.queue_messages([message("a", n=1), message("b"), message("a", n=3)])
    waiting = await store.queued_messages("id-1", 0, 10)
    assert [(one.seq, one.subject) for one in waiting] == [(2, "b"), (3, "a")]
    assert await store.queued_messages("id-1", 2, 10) == waiting[1:]
    assert await store.queued_messages("id-1", 0, 1) == waiting[:1]


@pytest.mark.parametrize("before", [0, 2], ids=["nothing was queued", "two wait"])
async def test_node_that_is_ahead_of_a_restored_store_is_caught_up_with(
    store: OpenStore, before: int
) -> None:
    """What waits is not dropped, and what is queued next comes behind what the node has taken."""
    await add(store)
    await store.queue_messages([message(f"old-{n}") for n in range(before)])
    await store.acknowledge("id-1", 40)
    waiting = await store.queued_messages("id-1", 40, 10)
    assert [one.subject for one in waiting] == [f"old-{n}" for n in range(before)]
    await store.queue_messages([message("next")])
    found = await store.queued_messages("id-1", 40, 10)
    assert [one.subject for one in found] == [*(one.subject for one in waiting), "next"]
    await store.acknowledge("id-1", found[-1].seq)
    assert await store.queued_messages("id-1", 0, 10) == []


async def test_number_beyond_all_counting_breaks_nothing(store: OpenStore) -> None:
    """A node can name what it likes; it is still served."""
    await add(store)
    await store.acknowledge("id-1", 10**30)
    await store.queue_messages([message("next")])
    assert len(await store.queued_messages("id-1", 0, 10)) == 1


async def test_acknowledgement_never_goes_back(store: OpenStore) -> None:
    """An answer that comes late changes nothing."""
    await add(store)
    await store.queue_messages([message("a"), message("b")])
    await store.acknowledge("id-1", 2)
    await store.acknowledge("id-1", 1)
    found = await store.find_node("id-1")
    assert found is not None
    assert found.acknowledged == 2


async def test_identity_that_was_on_its_way_undoes_nothing(store: OpenStore) -> None:
    """The node is drained while its identity is certified, and stays so."""
    kept = await add(store)
    drained = replace(kept, status=NodeStatus.DRAINED, owner="another team")
    await store.change_node(drained, expected=(NodeStatus.ACTIVE,), events=())
    renewed = replace(kept, fingerprint="second")
    await store.change_node(
        renewed,
        expected=(NodeStatus.ACTIVE, NodeStatus.DRAINED),
        events=(),
        identity=identity("second"),
    )
    found = await store.find_node(kept.node_id)
    assert found == replace(drained, fingerprint="second")
    assert await store.find_node_by_identity("second") == found
