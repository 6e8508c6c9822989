"""Whatever a record may hold comes back as it was."""

import typing
from collections.abc import AsyncIterator, Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.issuance.events import Actor, Event
from broker.issuance.ports import Attached
from broker.issuance.records import (
    AccountRecord,
    AuthorizationRecord,
    CaCertificateRecord,
    CaMember,
    CertificateRecord,
    ChallengeRecord,
    EabKeyRecord,
    Job,
    OrderRecord,
    Suspension,
    UpstreamAccountRecord,
    WorkRecord,
)
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.resources import OrderStatus
from tests.contract.storage import given as records
from tests.contract.storage.conftest import OpenStore, SqliteStores, Stores

R = TypeVar("R")

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
"""Any text but NUL, which PostgreSQL cannot keep."""

TIMES = st.datetimes(
    datetime(1970, 1, 1),  # noqa: DTZ001 - the strategy wants its bounds without a zone
    datetime(9999, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=20),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)
IDENTIFIERS = st.builds(
    Identifier,
    st.sampled_from([IdentifierType.DNS, IdentifierType.IP]),
    st.text("abcxyz019-.:*_", min_size=1),
)

PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    bytes: st.binary(max_size=20),
    int: st.integers(0, 2**62),
    bool: st.booleans(),
    datetime: TIMES,
    Identifier: IDENTIFIERS,
    tuple[Identifier, ...]: st.lists(IDENTIFIERS, max_size=3).map(tuple),
    tuple[str, ...]: st.lists(TEXT, max_size=3).map(tuple),
    Mapping[str, object]: st.dictionaries(st.text(max_size=9), JSON, max_size=3),
}


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for what a field of type *hint* may hold."""
    if hint in PLAIN:
        return PLAIN[hint]
    if get_origin(hint) is None and issubclass(hint, StrEnum):
        return st.sampled_from(list(hint))
    return st.one_of(
        *(st.none() if one is type(None) else values_of(one) for one in get_args(hint))
    )


def records_of(record: type[R], **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[R]:
    """Return a strategy for records of a type, each field by its own type."""
    hints = typing.get_type_hints(record)
    members = {
        one.name: fixed[one.name] if one.name in fixed else values_of(hints[one.name])
        for one in fields(record)  # type: ignore[arg-type]
    }
    return st.builds(record, **members)


NONE = st.none()


def named(record: R, *ids: str) -> R:
    """Return *record* with new ids: all examples of a test share one store."""
    return replace(record, **{one: records.name(one) for one in ids})  # type: ignore[type-var]


many = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(params=[SqliteStores], ids=["sqlite"])
async def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OpenStore]:
    """A store that all examples of one test write into."""
    folder: Path = tmp_path_factory.mktemp("round-trip")
    stores: Stores = request.param(folder)
    opened = await stores.open()
    yield opened
    await opened.close()


@many
@given(records_of(AccountRecord))
async def test_account(shared: OpenStore, made: AccountRecord) -> None:
    """An account comes back equal."""
    made = named(made, "account_id", "thumbprint")
    await shared.create_account(made, records.event(), eab_key_id=None)
    assert await shared.find_account(made.account_id) == made


@many
@given(records_of(EabKeyRecord, bound_account_id=NONE))
async def test_eab_key(shared: OpenStore, made: EabKeyRecord) -> None:
    """An external account binding key comes back equal."""
    made = named(made, "key_id")
    await shared.add_eab_key(made, records.event())
    assert await shared.find_eab_key(made.community, made.key_id) == made


@many
@given(
    records_of(OrderRecord, certificate_id=NONE),
    st.lists(
        records_of(
            AuthorizationRecord,
            rests_on=NONE,
            challenges=st.lists(records_of(ChallengeRecord), max_size=3).map(tuple),
        ),
        max_size=2,
    ),
)
async def test_order_with_authorizations(
    shared: OpenStore, order: OrderRecord, parts: list[AuthorizationRecord]
) -> None:
    """An order, its authorizations and their challenges come back equal."""
    owner = await records.has_account(shared)
    order = replace(named(order, "order_id"), account_id=owner.account_id)
    parts = [
        replace(
            named(one, "authorization_id"),
            order_id=order.order_id,
            account_id=owner.account_id,
            challenges=tuple(named(each, "challenge_id") for each in one.challenges),
        )
        for one in parts
    ]
    await shared.create_order(order, parts, Attached())
    assert await shared.load_order(order.order_id) == order
    for part in parts:
        assert await shared.load_authorization(part.authorization_id) == part


@many
@given(records_of(WorkRecord, taken_by=NONE))
async def test_work(shared: OpenStore, made: WorkRecord) -> None:
    """Upstream work comes back equal."""
    made = named(
        made, "work_id", "work_key", *(["order_url"] if made.order_url is not None else [])
    )
    await records.has_order(shared, attached=Attached(work=made))
    assert await shared.load_work(made.work_id) == made


@many
@given(records_of(CertificateRecord))
async def test_certificate(shared: OpenStore, made: CertificateRecord) -> None:
    """A certificate comes back equal, released or not."""
    order, _ = await records.has_claimed(shared)
    made = named(made, "certificate_id", "fingerprint")
    made = replace(made, order_id=order.order_id, account_id=order.account_id)
    await shared.close_order(records.closing(order, certificate=made))
    assert await shared.find_certificate(made.certificate_id) == made


@many
@given(records_of(Suspension))
async def test_suspension(shared: OpenStore, made: Suspension) -> None:
    """A suspension comes back equal."""
    order, _ = await records.has_claimed(shared)
    made = replace(named(made, "upstream"), order_id=order.order_id)
    await shared.close_order(
        records.closing(order, status=OrderStatus.INVALID, certificate=None, suspension=made)
    )
    assert made in await shared.suspensions()


@many
@given(records_of(Job))
async def test_job(shared: OpenStore, made: Job) -> None:
    """A job comes back equal."""
    made = named(made, "subject")
    await records.has_order(shared, attached=Attached(jobs=(made,)))
    assert made in await shared.due_jobs(made.due_at, 100)
    await shared.finish_job(made)


@many
@given(records_of(UpstreamAccountRecord))
async def test_upstream_account(shared: OpenStore, made: UpstreamAccountRecord) -> None:
    """Our account at an upstream comes back equal."""
    await shared.save_upstream_account(made, records.event())
    assert await shared.find_upstream_account(made.upstream, made.community) == made


@many
@given(records_of(CaCertificateRecord))
async def test_ca_certificate(shared: OpenStore, made: CaCertificateRecord) -> None:
    """A certificate of the built-in CA comes back equal."""
    made = named(made, "order_ref", "serial")
    await shared.record_ca_certificate(made)
    assert await shared.find_ca_certificate(made.ca, made.order_ref) == made


@many
@given(records_of(Event, actor=st.builds(Actor, TEXT, NONE | TEXT)))
async def test_event(shared: OpenStore, made: Event) -> None:
    """An event comes back equal, with whatever JSON it carries."""
    made = named(made, "order_id")
    await shared.append(made, durable=False)
    ((_, found),) = await shared.read_events(after=0, limit=9, order_id=made.order_id)
    assert found == made


@many
@given(st.lists(records_of(CaMember, ca=st.just("ca")), max_size=3))
async def test_ca_members(shared: OpenStore, made: list[CaMember]) -> None:
    """What a built-in CA consists of comes back equal."""
    unique = {one.role: named(one, "key_id") for one in made}
    await shared.replace_ca_members("ca", list(unique.values()), records.event())
    assert list(await shared.ca_members("ca")) == list(unique.values())
