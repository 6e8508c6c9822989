"""Rules asked one by one: about whom they speak, and when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from broker.policy.decisions import Requester
from broker.policy.rules import Grade
from tests.unit.policy.builders import names
from tests.unit.policy.rule_builders import compiled, shown

THUMBPRINT = "A" * 43


@pytest.mark.parametrize(
    ("who", "requester", "speaks"),
    [
        pytest.param({"accounts": [THUMBPRINT]}, {"thumbprint": THUMBPRINT}, True, id="account"),
        pytest.param({"accounts": [THUMBPRINT]}, {"thumbprint": "B" * 43}, False, id="other"),
        pytest.param({"eab": ["math"]}, {"eab_key_id": "math"}, True, id="eab"),
        pytest.param({"eab": ["math"]}, {"eab_key_id": "arts"}, False, id="other-eab"),
        pytest.param({"eab": ["math"]}, {}, False, id="no-eab"),
        pytest.param({"nodes": ["*.web.corp"]}, {"node": "a.web.corp"}, True, id="node"),
        pytest.param({"nodes": ["web-01"]}, {"node": "web-01"}, True, id="node-of-one-label"),
        pytest.param({"nodes": ["*.web.corp"]}, {"node": "a.db.corp"}, False, id="other-node"),
        pytest.param({"nodes": ["**"]}, {}, False, id="no-node"),
        pytest.param({"namespaces": ["shop"]}, {"namespace": "shop"}, True, id="namespace"),
        pytest.param({"namespaces": ["shop"]}, {"namespace": "mail"}, False, id="other-namespace"),
        pytest.param(
            {"service_accounts": ["shop/api"]},
            {"namespace": "shop", "service_account": "api"},
            True,
            id="service-account",
        ),
        pytest.param(
            {"service_accounts": ["shop/api"]},
            {"namespace": "mail", "service_account": "api"},
            False,
            id="service-account-elsewhere",
        ),
        pytest.param({"networks": ["10.0.0.0/8"]}, {"address": "10.1.2.3"}, True, id="network"),
        pytest.param({"networks": ["10.0.0.0/8"]}, {"address": "11.1.2.3"}, False, id="outside"),
        pytest.param({"networks": ["2001:db8::/32"]}, {"address": "2001:db8::7"}, True, id="ipv6"),
        pytest.param({"networks": ["10.0.0.0/8"]}, {}, True, id="unseen-may-be-there"),
        pytest.param({"networks": ["10.0.0.0/8"]}, {"node": "web-01"}, False, id="node-is-nowhere"),
        pytest.param(
            {"client_certificates": ["sha256:" + "ab" * 32]},
            {"client_certificate": shown()},
            True,
            id="fingerprint",
        ),
        pytest.param(
            {"client_certificates": ["spiffe://corp.example/web"]},
            {"client_certificate": shown("spiffe://corp.example/web")},
            True,
            id="uri",
        ),
        pytest.param(
            {"client_certificates": ["sha256:" + "cd" * 32]},
            {"client_certificate": shown()},
            False,
            id="other-certificate",
        ),
        pytest.param({"client_names": ["**.corp.example"]}, {}, False, id="no-certificate"),
        pytest.param(
            {"client_names": ["**.corp.example"]},
            {"client_certificate": shown("a.corp.example")},
            True,
            id="certificate-name",
        ),
        pytest.param(
            {"client_names": ["**"]},
            {"client_certificate": shown("spiffe://corp.example/web")},
            False,
            id="uri-is-no-name",
        ),
        pytest.param(
            {"eab": ["math"], "networks": ["10.0.0.0/8"]},
            {"eab_key_id": "math", "address": "192.0.2.1"},
            False,
            id="each-kind-has-to-fit",
        ),
        pytest.param(
            {"any": [{"eab": ["math"]}, {"nodes": ["**"]}]}, {"node": "web-01"}, True, id="any"
        ),
        pytest.param({"any": [{"eab": ["math"]}, {"nodes": ["**"]}]}, {}, False, id="none-of-any"),
        pytest.param(
            {"networks": ["10.0.0.0/8"], "any": [{"eab": ["math"]}]},
            {"eab_key_id": "math", "address": "11.0.0.1"},
            False,
            id="any-beside-others",
        ),
    ],
)
def test_who_a_rule_speaks_of(who: Any, requester: Any, speaks: bool) -> None:
    """Every key of it has to fit; of each key one entry."""
    made = compiled(who=who, refuse="no")
    assert made.is_about_requester(Requester(**requester)) is speaks


@pytest.mark.parametrize(
    ("requester", "speaks"),
    [
        pytest.param({"address": "10.1.2.3"}, False, id="inside"),
        pytest.param({"address": "192.0.2.1"}, True, id="outside"),
        pytest.param({}, True, id="unseen"),
        pytest.param({"address": "not an address"}, True, id="unreadable"),
    ],
)
def test_whom_a_rule_leaves_out(requester: Any, speaks: bool) -> None:
    """Who was not seen is not known to be inside, so the rule holds for them."""
    made = compiled(not_who={"networks": ["10.0.0.0/8"]}, refuse="no")
    assert made.is_about_requester(Requester(**requester)) is speaks


@pytest.mark.parametrize(
    ("day", "holds"),
    [
        pytest.param(datetime(2027, 3, 14, 23, 59, tzinfo=UTC), False, id="before"),
        pytest.param(datetime(2027, 3, 15, tzinfo=UTC), True, id="first-day"),
        pytest.param(datetime(2027, 4, 1, 23, 59, tzinfo=UTC), True, id="last-day"),
        pytest.param(datetime(2027, 4, 2, tzinfo=UTC), False, id="after"),
    ],
)
def test_a_rule_holds_on_its_days(day: datetime, holds: bool) -> None:
    """Both the first and the last day are days of the rule, in UTC."""
    made = compiled(from_="2027-03-15", until="2027-04-01", refuse="no")
    assert made.is_in_force(day) is holds


def test_a_rule_speaks_of_the_names_that_it_touches() -> None:
    """A wildcard is touched by a rule about one of its names."""
    made = compiled(names=["pay.a.example", "**.b.example"], refuse="no")
    found = made.touched(names("www.a.example", "*.a.example", "x.b.example"))
    assert [one.value for one in found] == ["*.a.example", "x.b.example"]


@pytest.mark.parametrize(
    ("mode", "renewals", "first", "renewal"),
    [
        pytest.param(None, None, Grade.ENFORCE, Grade.ENFORCE, id="enforced"),
        pytest.param("warn", None, Grade.WARN, Grade.WARN, id="warned"),
        pytest.param(None, "warn", Grade.ENFORCE, Grade.WARN, id="renewals-warned"),
        pytest.param(None, "exempt", Grade.ENFORCE, Grade.EXEMPT, id="renewals-exempt"),
        pytest.param("warn", "exempt", Grade.WARN, Grade.EXEMPT, id="both"),
    ],
)
def test_renewals_are_graded_apart(mode: Any, renewals: Any, first: Grade, renewal: Grade) -> None:
    """Without a word about them, renewals are graded as everything else."""
    made = compiled(mode=mode, renewals=renewals, refuse="no")
    assert made.grade_for(is_unchanged_renewal=False) is first
    assert made.grade_for(is_unchanged_renewal=True) is renewal


def test_a_rule_says_what_it_is_called_and_where_it_stands() -> None:
    """Sentences and findings name it so."""
    made = compiled(name="no-pay", refuse="no")
    assert str(made).startswith("rule 'no-pay' (policy.yaml:")
    assert made.ref.path == "rule 'no-pay'"
