"""Which CAA records to publish, and where they are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from broker.issuance.caa_guard import CaaGuard
from broker.issuance.errors import Broken
from broker.protocol.caa import CaaIssuer, CaaRecord, CaaSeen
from broker.protocol.identifiers import Identifier, IdentifierType
from tests.fakes.clock import START, FakeClock

ACCOUNT = "https://ca.example/acct/1"
GOOD = f"ca.example; accounturi={ACCOUNT}; validationmethods=dns-01"


class Desk:
    """A CA, a resolver, a policy and certificates, all of them in tables."""

    def __init__(self) -> None:
        self.identities = frozenset({"ca.example"})
        self.records: dict[str, tuple[CaaRecord, ...]] = {}
        self.bases: tuple[str, ...] = ("corp.example",)
        self.wildcards = True
        self.certificates: list[Any] = []
        self.solved = "corp.example"
        self.asked: list[str] = []

    def guard(self) -> CaaGuard:
        """Return what is under test."""
        desk: Any = self
        return CaaGuard(
            issuers=desk, looker=desk, policies=desk, certificates=desk, clock=FakeClock()
        )

    async def caa_issuer(
        self, upstream: str, community: str, identifiers: Sequence[Identifier]
    ) -> CaaIssuer:
        methods: Mapping[Identifier, frozenset[str]] = {
            one: frozenset({"dns-01"} if one.value.endswith(f".{self.solved}") else ())
            for one in identifiers
        }
        return CaaIssuer(identities=self.identities, account_uri=ACCOUNT, methods=methods)

    def is_identified(self, upstream: str, community: str) -> bool:
        return bool(self.identities)

    async def look(self, community: str, identifiers: Sequence[Identifier]) -> Sequence[CaaSeen]:
        self.asked += [one.value for one in identifiers]
        return [
            CaaSeen(
                identifier=one,
                found_at=one.value if one.value in self.records else None,
                records=self.records.get(one.value, ()),
            )
            for one in identifiers
        ]

    def current(self, community: str) -> Any:
        return SimpleNamespace(allow=SimpleNamespace(bases=self.bases), wildcards=self.wildcards)

    async def list_certificates(self, **_more: object) -> Sequence[Any]:
        return self.certificates

    def certify(self, name: str, **more: Any) -> None:
        """Have a certificate for *name*."""
        members = {
            "upstream": "ca",
            "is_released": True,
            "revoked_at": None,
            "not_after": START.replace(year=START.year + 1),
            "identifiers": (Identifier(IdentifierType.DNS, name),),
        }
        self.certificates.append(SimpleNamespace(**members | more))


@pytest.fixture
def desk() -> Desk:
    """One CA, one name."""
    return Desk()


async def test_records_are_for_the_names_that_policy_allows(desk: Desk) -> None:
    """With the methods that are answered below the name."""
    ((guarded),) = await desk.guard().records("ca", "default", names=(), iodef=None)
    assert guarded.name == "corp.example"
    assert [(one.tag, one.value) for one in guarded.records] == [("issue", GOOD)]


async def test_without_wildcards_nobody_may_issue_them(desk: Desk) -> None:
    """Policy says so, and CAA then does."""
    desk.wildcards = False
    (guarded,) = await desk.guard().records("ca", "default", names=(), iodef=None)
    assert CaaRecord(0, "issuewild", ";") in guarded.records


async def test_where_policy_allows_every_name_one_has_to_be_said(desk: Desk) -> None:
    """There is no record at the root."""
    desk.bases = ("",)
    with pytest.raises(Broken, match="say which: --name"):
        await desk.guard().records("ca", "default", names=(), iodef=None)
    (guarded,) = await desk.guard().records("ca", "default", names=["corp.example"], iodef=None)
    assert guarded.name == "corp.example"


async def test_ca_without_a_name_cannot_be_named(desk: Desk) -> None:
    """It tells no identity, and none is configured."""
    desk.identities = frozenset()
    with pytest.raises(Broken, match="names no caaIdentities"):
        await desk.guard().records("ca", "default", names=(), iodef=None)
    with pytest.raises(Broken, match="names no caaIdentities"):
        await desk.guard().gaps("ca", "default")


async def test_gaps_are_told_until_the_records_are_there(desk: Desk) -> None:
    """What is printed closes them."""
    (gap,) = await desk.guard().gaps("ca", "default")
    assert (gap.name, gap.sentence) == (
        "corp.example",
        "there are no CAA records, so every CA may issue",
    )
    (guarded,) = await desk.guard().records("ca", "default", names=(), iodef=None)
    desk.records["corp.example"] = guarded.records
    assert await desk.guard().gaps("ca", "default") == []


async def test_names_of_live_certificates_are_looked_at(desk: Desk) -> None:
    """Not of those that are revoked, over, withheld, or from another CA."""
    desk.bases = ("",)
    desk.certify("www.corp.example")
    desk.certify("*.apps.corp.example")
    desk.certify("revoked.corp.example", revoked_at=START)
    desk.certify("over.corp.example", not_after=START)
    desk.certify("withheld.corp.example", is_released=False)
    desk.certify("other.corp.example", upstream="other")
    desk.certify("192.0.2.1", identifiers=(Identifier(IdentifierType.IP, "192.0.2.1"),))
    await desk.guard().gaps("ca", "default")
    assert desk.asked == ["www.corp.example", "apps.corp.example"]


async def test_without_a_name_nothing_is_asked(desk: Desk) -> None:
    """Neither the CA nor the DNS."""
    desk.bases, desk.identities = ("",), frozenset()
    assert await desk.guard().gaps("ca", "default") == ()
    assert desk.asked == []
