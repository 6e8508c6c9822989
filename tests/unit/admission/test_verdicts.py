"""What the broker says about a workload, and the sentences made of it."""

from typing import Any

import pytest

from broker.admission.verdicts import Budget, Reason, Verdict, parse_verdict, why_not
from broker.issuance.errors import Broken

ALLOWED: dict[str, Any] = {
    "allowed": True,
    "cluster": "prod",
    "names": ["web.shop.svc"],
    "profile": None,
    "upstreams": ["local"],
    "reasons": [],
    "budget": [],
}


def test_an_answer_is_read() -> None:
    """Members that are not known are passed over, so a newer broker may add some."""
    found = parse_verdict({**ALLOWED, "mood": "good"})
    assert found == Verdict(is_allowed=True, names=("web.shop.svc",), upstreams=("local",))


def test_a_refusal_is_read_with_its_reasons_and_figures() -> None:
    """Each with where it stands."""
    found = parse_verdict(
        {
            "allowed": False,
            "reasons": [
                {"check": "names", "detail": "'x.test' is not covered", "rule": "shop", "file":
                 "web.yaml", "line": 12},
                {"check": "profile", "detail": None, "rule": None, "file": None, "line": None},
            ],
            "budget": [
                {"upstream": "letsencrypt", "quota": "per workload", "limit": 5, "used": 5.0,
                 "would_exceed": True, "detail": None},
                {"quota": "per community", "limit": "50/7d", "used": 3, "would_exceed": False},
            ],
        }
    )  # fmt: skip
    assert why_not(found) == (
        "'x.test' is not covered (rule shop, web.yaml:12); profile; "
        "per workload at letsencrypt is 5 and 5 are used"
    )


@pytest.mark.parametrize(
    "document",
    [
        {},
        {**ALLOWED, "allowed": "yes"},
        {**ALLOWED, "names": []},
        {**ALLOWED, "names": "web.shop.svc"},
        {**ALLOWED, "names": [5]},
        {**ALLOWED, "upstreams": {}},
        {**ALLOWED, "profile": 5},
        {**ALLOWED, "reasons": ["no"]},
        {**ALLOWED, "budget": {}},
        {**ALLOWED, "budget": [{"quota": 5}]},
    ],
)
def test_what_is_no_verdict_lets_nobody_through(document: dict[str, Any]) -> None:
    """Unsure means no."""
    with pytest.raises(Broken):
        parse_verdict(document)


def test_a_figure_that_speaks_for_itself_is_quoted() -> None:
    """And not told twice."""
    budget = Budget(quota="q", limit="5", used="5", would_exceed=True, detail="5 of 5 are used")
    reason = Reason(check="quota", detail="5 of 5 are used")
    assert why_not(Verdict(is_allowed=False, names=(), budget=(budget,))) == "5 of 5 are used"
    both = Verdict(is_allowed=False, names=(), reasons=(reason,), budget=(budget,))
    assert why_not(both) == "5 of 5 are used"


def test_many_reasons_are_counted() -> None:
    """Who mends the first sees the next; a refusal without any is one all the same."""
    reasons = tuple(Reason(check="names", detail=f"n{n}") for n in range(5))
    told = why_not(Verdict(is_allowed=False, names=(), reasons=reasons))
    assert told == "n0; n1; n2; and 2 more"
    assert why_not(Verdict(is_allowed=False, names=())) == "policy does not allow it"


def test_figures_that_are_none_are_shown_as_such() -> None:
    """Half a thing is not shown as a number."""
    (one,) = parse_verdict({**ALLOWED, "budget": [{"limit": 2.5, "used": None}]}).budget
    assert str(one) == "a limit is 2.5 and ? are used"
