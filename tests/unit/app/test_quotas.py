"""Limits put together: published ones, and what the configuration knows better."""

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from broker.app.quotas import known_limits
from broker.config import Config
from broker.policy.published_limits import Exemption, LimitPer, PublishedLimit
from broker.policy.units import Rate
from tests.fakes.world import default_facts
from tests.unit.config.conftest import parsed

WEEK = timedelta(days=7)
PUBLISHED = (
    PublishedLimit(
        per=LimitPer.ACCOUNT,
        rate=Rate(300, timedelta(hours=3)),
        kept_for_renewals=0.25,
        exempt=frozenset({Exemption.SAME_NAMES}),
        source="there",
    ),
    PublishedLimit(per=LimitPer.NAMES, rate=Rate(5, WEEK), source="there"),
)


def made(**options: Any) -> Config:
    """Return a configuration with a CA that has these options."""
    ca = {"kind": "acme", "directory": "https://ca.example/directory", **options}
    local = {"kind": "built-in", "base_url": "http://pki.corp.example"}
    return parsed({"upstreams": {"ca": ca, "local": local}})


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        pytest.param({}, {"account": Rate(300, timedelta(hours=3)), "names": Rate(5, WEEK)},
                     id="published"),
        pytest.param({"orders": {"rate": "1000/3h"}},
                     {"account": Rate(1000, timedelta(hours=3)), "names": Rate(5, WEEK)},
                     id="granted more"),
        pytest.param({"orders": {"rate": "off"}}, {"account": None, "names": Rate(5, WEEK)},
                     id="granted all"),
        pytest.param({"certificates": {"below_domain": {"rate": "10/7d"}}},
                     {"account": Rate(300, timedelta(hours=3)), "names": Rate(5, WEEK),
                      "domain": Rate(10, WEEK)},
                     id="not published"),
    ],
)  # fmt: skip
def test_configuration_knows_better(options: dict[str, Any], rates: dict[str, Rate | None]) -> None:
    """Of the kinds that it names; the others stay as the CA publishes them."""
    facts = {"ca": dataclasses.replace(default_facts("ca"), limits=PUBLISHED)}
    limits = known_limits(made(**options), facts)("ca")
    assert {str(one.per): one.rate for one in limits} == rates


def test_what_the_ca_does_not_count_stays_uncounted() -> None:
    """Though the operator was granted another rate."""
    facts = {"ca": dataclasses.replace(default_facts("ca"), limits=PUBLISHED)}
    (limit, _) = sorted(
        known_limits(made(orders={"rate": "9/1h", "kept_for_renewals": 0.75}), facts)("ca"),
        key=lambda one: one.per,
    )
    assert limit.exempt == {Exemption.SAME_NAMES}
    assert limit.kept_for_renewals == 0.75


def test_unknown_upstream_has_no_limits() -> None:
    """Nor has the built-in CA."""
    limits = known_limits(made(), {})
    assert limits("ca") == ()
    assert limits("other") == ()
