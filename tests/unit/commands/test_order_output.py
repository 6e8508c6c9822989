"""An order as people read it."""

from typing import Any

import pytest

from broker.commands.order_output import print_order

DECISION: dict[str, Any] = {
    "at": "2026-03-01T12:00:07+00:00",
    "cap": "7d",
    "checks": ["profile-offered", "identifiers-present", "name-allowed"],
    "policy_sha256": "ab12",
}

ORDER: dict[str, Any] = {
    "order": "o1",
    "account": "a1",
    "names": ["www.example.com"],
    "csr_sha256": "23ab",
    "certificate": "c1",
    "decision": DECISION,
    "upstream_order": {"work": "w1", "url": f"builtin:local:r1:{'A' * 400}"},
    "events": [
        {
            "number": 3,
            "at": "2026-03-01T12:00:00Z",
            "kind": "order-created",
            "actor": "account:a1",
            "reason": None,
            "data": {
                "decision": {**DECISION, "at": "2026-03-01T12:00:00+00:00", "cap": "90d"},
                "identifiers": ["www.example.com"],
            },
        },
        {
            "number": 8,
            "at": "2026-03-01T12:00:07Z",
            "kind": "order-finalized",
            "actor": "account:a1",
            "reason": None,
            "data": {"csr": "23ab", "decision": DECISION, "identifiers": ["www.example.com"]},
        },
        {
            "number": 9,
            "at": "2026-03-01T12:00:08Z",
            "kind": "order-hurried",
            "actor": "operator:anna",
            "reason": "ticket \x1b[31m7",
            "data": {},
        },
    ],
}


def test_decision_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Without the name of every check that found nothing."""
    print_order(ORDER)
    out = capsys.readouterr().out
    assert out.count("ab12") == 1
    assert "checks:        3 passed, --json names them\n" in out
    assert max(map(len, out.splitlines())) < 100


def test_event_is_a_line_with_what_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """What the order tells already is left away; what was decided otherwise then is not."""
    print_order(ORDER)
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "events:",
        "  2026-03-01T12:00:00Z  order-created    account        decided cap: 90d",
        "  2026-03-01T12:00:07Z  order-finalized  account",
        "  2026-03-01T12:00:08Z  order-hurried    operator:anna  reason: ticket \\u001b[31m7",
    ]


def test_url_of_the_builtin_ca_is_left_away(capsys: pytest.CaptureFixture[str]) -> None:
    """It leads nowhere; that of a CA elsewhere is told."""
    print_order(ORDER)
    assert "builtin:" not in capsys.readouterr().out
    print_order({**ORDER, "upstream_order": {"work": "w1", "url": "https://ca.example/order/1"}})
    assert "https://ca.example/order/1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "order", [{"order": "o1"}, {"order": "o1", "decision": {}, "events": []}], ids=["old", "bare"]
)
def test_order_with_less_is_shown_too(
    order: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """As a broker of another version may answer."""
    print_order(order)
    assert "o1" in capsys.readouterr().out
