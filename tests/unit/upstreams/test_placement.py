"""Where a value goes: aliases followed, zones kept to."""

import pytest

from broker.issuance.errors import Broken
from broker.upstreams.placement import MAX_ALIASES, PlacedRecord, parse_name, place
from tests.fakes.zones import FakeZoneMap

NAME = "_acme-challenge.www.example.com"
ZONE = parse_name("acme.example", "zone")


async def test_value_goes_where_the_aliases_end() -> None:
    """In the zone that is ours to change."""
    zones = FakeZoneMap({NAME: "a.example", "a.example": "b.acme.example"})
    placed = await place(zones, ZONE, NAME, "value")
    assert placed == PlacedRecord("acme.example.", "b.acme.example.", "value")


async def test_without_a_zone_it_is_found_or_guessed() -> None:
    """Only the look before the CA's depends on it."""
    known = await place(FakeZoneMap(zones=("example.com",)), None, NAME, "value")
    assert known.zone == "example.com."
    unknown = await place(FakeZoneMap(), None, NAME, "value")
    assert unknown == PlacedRecord("www.example.com.", f"{NAME}.", "value")


async def test_name_outside_the_zone_is_told() -> None:
    """With what to do about it."""
    with pytest.raises(Broken, match="make it an alias of a name inside"):
        await place(FakeZoneMap(), ZONE, NAME, "value")


@pytest.mark.parametrize(
    ("aliases", "words"),
    [
        pytest.param({NAME: "a.example", "a.example": NAME}, "in a circle", id="circle"),
        pytest.param(
            {NAME: "a0.example"} | {f"a{n}.example": f"a{n + 1}.example" for n in range(20)},
            f"past the limit of {MAX_ALIASES}",
            id="long",
        ),
    ],
)
async def test_aliases_without_an_end_are_told(aliases: dict[str, str], words: str) -> None:
    """A zone file may hold anything."""
    with pytest.raises(Broken, match=words):
        await place(FakeZoneMap(aliases), None, NAME, "value")


def test_what_is_no_name_is_told() -> None:
    """With what it was meant to be."""
    with pytest.raises(Broken, match=r"zone 'a\.\.b' is no DNS name"):
        parse_name("a..b", "zone")
