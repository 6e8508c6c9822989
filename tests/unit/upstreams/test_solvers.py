"""Answers published and withdrawn, whichever way."""

import pytest

from broker.policy.names import PatternSet
from broker.protocol.challenges import ChallengeType, dns01_value, http01_path
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.upstreams.http01 import Http01Answers
from broker.upstreams.placement import PlacedRecord
from broker.upstreams.solvers import ChallengeAnswer, Dns01Solver, Http01Solver

TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
NAME = Identifier(IdentifierType.DNS, "www.example.com")
WILDCARD = Identifier(IdentifierType.DNS, "*.example.com")
ADDRESS = Identifier(IdentifierType.IP, "192.0.2.1")
MAIL = Identifier(IdentifierType.EMAIL, "a@example.com")
ANSWER = ChallengeAnswer(NAME, TOKEN, f"{TOKEN}.thumbprint")


class FakeZone:
    """Keeps TXT values in a list, at a place of its own."""

    def __init__(self) -> None:
        self.records: list[PlacedRecord] = []

    async def publish(self, name: str, value: str) -> PlacedRecord:
        """Add a value."""
        placed = PlacedRecord("acme.example.", f"alias-of.{name}", value)
        self.records.append(placed)
        return placed

    async def remove(self, placed: PlacedRecord) -> None:
        """Remove exactly that value."""
        self.records.remove(placed)


class FakeCheck:
    """Remembers what it was asked to look for."""

    def __init__(self, finding: str | None) -> None:
        self.finding = finding
        self.looks: list[tuple[str, str, str]] = []

    async def look(self, *, zone: str, name: str, value: str) -> str | None:
        """Return what it was made with."""
        self.looks.append((zone, name, value))
        return self.finding


async def test_http_answers_are_served_until_they_are_withdrawn() -> None:
    """The table holds the key authorization in between, and there is nothing to wait for."""
    answers = Http01Answers()
    publication = await Http01Solver(answers).present(ANSWER)
    assert answers.answer(NAME.value, http01_path(TOKEN)) == ANSWER.key_authorization.encode()
    assert await publication.look() is None
    await publication.withdraw()
    assert answers.answer(NAME.value, http01_path(TOKEN)) is None


async def test_dns_answers_are_removed_where_they_were_placed() -> None:
    """An alias may have changed meanwhile: the place is the one that publishing told."""
    zone, check = FakeZone(), FakeCheck("not there yet")
    publication = await Dns01Solver(zone, check).present(ANSWER)
    value = dns01_value(ANSWER.key_authorization)
    place = ("acme.example.", "alias-of._acme-challenge.www.example.com", value)
    assert zone.records == [PlacedRecord(*place)]
    assert await publication.look() == "not there yet"
    assert check.looks == [place]
    await publication.withdraw()
    assert zone.records == []


async def test_without_a_check_nothing_is_looked_for() -> None:
    """The look is optional."""
    publication = await Dns01Solver(FakeZone()).present(ANSWER)
    assert await publication.look() is None


@pytest.mark.parametrize(
    ("identifier", "http", "dns"),
    [
        pytest.param(NAME, True, True, id="name"),
        pytest.param(ADDRESS, True, False, id="address"),
        pytest.param(MAIL, False, False, id="e-mail"),
    ],
)
def test_each_solver_serves_the_kinds_it_can(identifier: Identifier, http: bool, dns: bool) -> None:
    """RFC 8738 §7: an address is not proven by DNS."""
    assert Http01Solver(Http01Answers()).is_for(identifier) is http
    assert Dns01Solver(FakeZone()).is_for(identifier) is dns


@pytest.mark.parametrize(
    ("pattern", "identifier", "expected"),
    [
        pytest.param("www.example.com", NAME, True, id="exact"),
        pytest.param("*.example.com", NAME, True, id="below"),
        pytest.param("*.example.com", WILDCARD, True, id="wildcard"),
        pytest.param("www.example.com", WILDCARD, False, id="wildcard-of-others"),
        pytest.param("example.net", NAME, False, id="elsewhere"),
    ],
)
def test_a_solver_serves_the_names_it_is_told(
    pattern: str, identifier: Identifier, expected: bool
) -> None:
    """Names are told in the policy's pattern language."""
    names = PatternSet.parse([pattern])
    assert Dns01Solver(FakeZone(), names=names).is_for(identifier) is expected


def test_each_solver_names_its_challenge() -> None:
    """The type is what CAs offer by."""
    assert Http01Solver(Http01Answers()).type is ChallengeType.HTTP_01
    assert Dns01Solver(FakeZone()).type is ChallengeType.DNS_01
