"""The command about workloads: what it asks for, what it prints."""

from typing import Any

import pytest

from tests.unit.commands.conftest import FakeOperations, Run

ALLOWED: dict[str, Any] = {
    "allowed": True,
    "cluster": "prod",
    "namespace": "shop",
    "service_account": "web",
    "community": "default",
    "node": "*.shop.prod",
    "names": ["web.shop.svc"],
    "profile": "server",
    "upstreams": ["public", "local"],
    "upstream": "local",
    "reasons": [],
    "budget": [
        {
            "upstream": "public",
            "quota": "ca public names web.shop.svc",
            "limit": "5/7d",
            "used": 5,
            "would_exceed": True,
            "detail": "none is left",
        }
    ],
}
REASON = {"check": "rule", "detail": "not yet", "rule": "rule 'x'", "file": "a.yaml", "line": 7}
REFUSED: dict[str, Any] = {
    **ALLOWED,
    "allowed": False,
    "node": None,
    "names": [],
    "upstream": None,
    "reasons": [REASON, {**REASON, "rule": None}],
    "budget": [],
}


@pytest.mark.parametrize(
    ("options", "given"),
    [
        pytest.param([], {"services": [], "names": [], "pod": ""}, id="nothing more"),
        pytest.param(
            ["--service", "a", "--service", "b", "--name", "x.example", "--pod", "web-0",
             "--profile", "server"],
            {"services": ["a", "b"], "names": ["x.example"], "pod": "web-0", "profile": "server"},
            id="all",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_command_asks_for_what_its_line_says(
    run: Run,
    operations: FakeOperations,
    options: list[str],
    given: dict[str, Any],
    form: list[str],
) -> None:
    """And prints what it was answered."""
    operations.answers |= {"workload_review": ALLOWED}
    status, out, err = run("workload", "review", "prod", "shop/web", *options, *form)
    assert (status, err) == (0, "")
    ((asked, arguments),) = operations.asked
    arguments.pop("actor", None)
    kept = {name: value for name, value in arguments.items() if value is not None}
    who = {"cluster": "prod", "namespace": "shop", "service_account": "web"}
    assert (asked, kept) == ("workload_review", {**who, **given})
    for word in ("web.shop.svc", "*.shop.prod", "5/7d", "none is left"):
        assert word in out


def test_refusal_is_told_with_the_rule_and_its_place(run: Run, operations: FakeOperations) -> None:
    """Exit status 0: the question was answered."""
    operations.answers |= {"workload_review": REFUSED}
    status, out, _ = run("workload", "review", "prod", "shop/web")
    assert status == 0
    assert out.splitlines() == [
        "no name: refused for prod/shop/web",
        "profile: server",
        "upstreams: public, local",
        "  no  rule: not yet",
        "      by rule 'x' (a.yaml:7)",
        "  no  rule: not yet",
    ]


@pytest.mark.parametrize("odd", ["web", "shop/", "/web"])
def test_service_account_has_a_namespace(run: Run, operations: FakeOperations, odd: str) -> None:
    """It is no name without it."""
    status, _, err = run("workload", "review", "prod", odd)
    assert (status, operations.asked) == (2, [])
    assert "NAMESPACE/SERVICE_ACCOUNT" in err
