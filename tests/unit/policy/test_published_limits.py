"""What CAs publish about how much they issue."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from broker.policy.published_limits import Exemption, LimitPer, PublishedLimit, limits_on
from broker.policy.units import Rate
from broker.policy.upstream_facts import facts_for, parse_upstream_facts
from broker.policy.yamlfile import Faults

WEEK = timedelta(days=7)
SHIPPED = Path("policies/upstreams.yaml")

FACTS = """\
apiVersion: penstock.dev/v1
kind: UpstreamFacts
descriptions:
  some-ca:
    as_of: 2026-11-22
    source: here
    honours_not_after: true
    is_ct_logged: false
    limits:
      - { per: domain, rate: 50/7d, exempt: [same-names], source: there }
      - { per: domain, rate: 20/7d, from: 2027-03-01, source: there }
      - { per: account, rate: "off", source: there }
"""


def limits(text: str = FACTS, name: str = "some-ca") -> tuple[PublishedLimit, ...]:
    """Return the limits of a CA that is described like that."""
    return facts_for("ca", name, None, parse_upstream_facts(text, source="facts.yaml")).limits


@pytest.mark.parametrize(
    ("day", "count"),
    [
        pytest.param(date(2027, 2, 28), 50, id="before"),
        pytest.param(date(2027, 3, 1), 20, id="from that day on"),
    ],
)
def test_limit_holds_from_its_day_on(day: date, count: int) -> None:
    """One of a kind at a time; what counts nothing is no limit."""
    at = datetime(day.year, day.month, day.day, tzinfo=UTC)
    (found,) = limits_on(limits(), at)
    assert (found.per, found.rate) == (LimitPer.DOMAIN, Rate(count, WEEK))


def test_source_is_demanded() -> None:
    """A limit that nobody can look up again is no fact."""
    with pytest.raises(Faults, match="source"):
        limits(FACTS.replace("exempt: [same-names], source: there", "exempt: [same-names]"))


def test_operator_knows_better() -> None:
    """Of the rate; what the CA does not count stays as it publishes."""
    granted = limits()[0].granted(Rate(1000, WEEK), 0.5)
    assert (granted.rate, granted.floor) == (Rate(1000, WEEK), 500)
    assert granted.exempt == {Exemption.SAME_NAMES}
    assert granted.source == "configuration"


def test_shipped_facts_have_the_limits_of_lets_encrypt() -> None:
    """As its documentation of 12 June 2025 tells them."""
    found = {one.per: one for one in limits(SHIPPED.read_text("utf-8"), "lets-encrypt")}
    assert found[LimitPer.ACCOUNT].rate == Rate(300, timedelta(hours=3))
    assert found[LimitPer.DOMAIN].rate == Rate(50, WEEK)
    assert found[LimitPer.NAMES].rate == Rate(5, WEEK)
    assert found[LimitPer.NAMES].exempt == {Exemption.REPLACEMENTS}
    assert all("12 June 2025" in one.source for one in found.values())
