"""CEL in rules: typed, bounded, and a failure is never a yes."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.policy import expressions
from broker.policy.chains import decide_new_order
from broker.policy.checks import CheckName
from broker.policy.expressions import VARIABLES, Expression, ExpressionError
from broker.policy.rulings import subject_of, variables_of
from broker.policy.yamlfile import Faults
from tests.unit.policy.builders import new_order
from tests.unit.policy.rule_builders import asked_by, rule, ruled

NOTHING: dict[str, Any] = {
    "names": ["www.a.example", "b.a.example"],
    "profile": "server",
    "account": "",
    "eab": "math",
    "node": "",
    "kube_namespace": "",
    "kube_service_account": "",
    "attestation": "",
    "address": "10.0.0.1",
    "owner": "",
    "client_fingerprint": "",
    "client_names": ["spiffe://corp.example/web"],
    "is_renewal": False,
    "at": datetime(2026, 11, 22, 12, tzinfo=UTC),
}


@pytest.mark.parametrize(
    ("text", "is_true"),
    [
        pytest.param("eab == 'math'", True, id="equal"),
        pytest.param("eab == 'arts' || profile == 'server'", True, id="or"),
        pytest.param(
            "eab == 'team-b' || eab.endsWith('-r') || eab == 'math'",
            True,
            id="ends-like-a-raw-text",
        ),
        pytest.param("names.all(n, n.endsWith('.a.example'))", True, id="all"),
        pytest.param("names.exists(n, n.startsWith('*.'))", False, id="exists"),
        pytest.param("names.exists(n, client_names.exists(c, c == n))", False, id="two-loops"),
        pytest.param("size(names) > 1", True, id="size"),
        pytest.param("at >= timestamp('2026-11-22T00:00:00Z')", True, id="time"),
        pytest.param("at.getDayOfWeek('Europe/Berlin') in [0, 6]", True, id="weekend"),
        pytest.param("names.all(n, n.matches('^[a-z]{1,3}[.]a[.]example$'))", True, id="matches"),
        pytest.param("is_renewal", False, id="bool"),
        pytest.param("address.startsWith('10.') && eab != ''", True, id="address"),
    ],
)
def test_expressions_about_an_order(text: str, is_true: bool) -> None:
    """What they say of one."""
    made = Expression.parse(text)
    assert not made.is_about_one_name
    assert made.is_true(NOTHING) is is_true


def test_an_expression_about_one_name_is_told_apart() -> None:
    """A member or a text that is called so does not make it one."""
    assert Expression.parse("name.startsWith('pay-')").is_about_one_name
    assert not Expression.parse("profile == 'name'").is_about_one_name
    assert Expression.parse("name == 'a'").is_true({**NOTHING, "name": "a"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("profil == 'x'", "did you mean 'profile'?", id="unknown-variable"),
        pytest.param("moon == 'x'", "known are name, names", id="nothing-near"),
        pytest.param("profile == 1", "no matching overload", id="types"),
        pytest.param("profile", "of type string, expected one that is true or false", id="no-bool"),
        pytest.param("profile ==", "column 11", id="syntax"),
        pytest.param("(" * 200 + "true" + ")" * 200, "recursion limit", id="deep"),
        pytest.param("names.map(n, n).size() == 1", "undeclared", id="map"),
        pytest.param("names.filter(n, n == '').size() == 1", "undeclared", id="filter"),
        pytest.param("profile + profile == ''", "no matching overload", id="growing-text"),
        pytest.param("names + names == names", "no matching overload", id="growing-list"),
        pytest.param("dyn(profile) == 1", "undeclared", id="untyped"),
        pytest.param(
            "names.all(a, names.all(b, names.all(c, a == c)))", "1000000 turns", id="three-loops"
        ),
        pytest.param(
            "name == '' || names.all(a, names.all(b, a == b))", "1000000 turns", id="name-and-two"
        ),
        pytest.param("names.all(a, names.all(b, a.matches('x')))", "regular", id="matches-in-two"),
        pytest.param("profile.matches(eab)", "written out", id="matches-what-a-client-says"),
        pytest.param("matches(profile, 'x')", "written out", id="matches-as-function"),
        pytest.param("profile.matches('(')", "missing )", id="no-regular-expression"),
        pytest.param(
            "profile.matches('(a+)\\\\1')", "invalid escape sequence", id="back-reference"
        ),
        pytest.param("profile.matches('a(?=b)')", "perl operator", id="look-ahead"),
        pytest.param("profile.matches('(?<=a)c')", "perl operator", id="look-behind"),
        pytest.param("profile.matches('x{1,500}y')", "too costly", id="many-repeats"),
        pytest.param("profile.matches('(x{9}){9}')", "too costly", id="repeats-of-repeats"),
        pytest.param("profile.matches('" + "a" * 300 + "')", "too costly", id="long-pattern"),
        pytest.param(
            " && ".join(["profile.matches('a')"] * 6), "6 regular expressions", id="many-patterns"
        ),
        pytest.param(f"[{', '.join(['names'] * 11)}] == []", "lists 11 times", id="many-lists"),
        pytest.param("profile == r'a\\'", "plain quotes", id="raw-text"),
        pytest.param("eab == 'a' || eab == b'a'", "plain quotes", id="bytes"),
        pytest.param("profile == '''a'''", "plain quotes", id="triple-quotes"),
        pytest.param("true // yes", "a comment", id="comment"),
        pytest.param("profile == 'a' // '", "a comment", id="comment-with-a-quote"),
    ],
)
def test_what_is_refused_when_the_file_is_read(text: str, words: str) -> None:
    """With where and what was meant; nothing that could take long is ever evaluated."""
    with pytest.raises(ValueError, match=r"expression|written out") as caught:
        Expression.parse(text)
    assert words in str(caught.value)


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|aa)+$", "^(a*)*b$", "^(.*a){64}$"])
def test_a_pattern_that_would_backtrack_is_worked_through_once(pattern: str) -> None:
    """What takes an engine that tries each way more steps than there is time for comes to an
    answer, for every name of the largest order; what only such an engine could do is refused."""
    made = Expression.parse(f"names.exists(one, one.matches('{pattern}'))")
    longest = "a" * 252 + "!"
    assert made.is_true({**NOTHING, "names": [longest] * 100}) is False


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("names[7] == ''", "index=7", id="index"),
        pytest.param("1 / (size(names) - 2) == 1", "divide by zero", id="division"),
        pytest.param("{'a': 1}[eab] == 1", "Key not found", id="key"),
        pytest.param("at == timestamp(profile)", "imestamp", id="conversion"),
    ],
)
def test_a_failure_is_no_answer(text: str, words: str) -> None:
    """Neither true nor false: whoever asked refuses."""
    with pytest.raises(ExpressionError, match=words):
        Expression.parse(text).is_true(NOTHING)


def test_a_missing_variable_is_a_failure() -> None:
    """Nothing stands for what is not told."""
    with pytest.raises(ExpressionError):
        Expression.parse("eab == ''").is_true({"profile": "x"})


def test_a_rule_whose_expression_fails_refuses() -> None:
    """Whatever the rule would have demanded."""
    document = ruled(rule(name="odd", when="names[7] == ''", cap="7d"))
    (found,) = decide_new_order(document, new_order()).findings
    assert found.check == CheckName.RULE_UNSURE
    assert "rule 'odd' (policy.yaml:" in found.sentence
    warned = decide_new_order(
        ruled(rule(mode="warn", when="names[7] == ''", cap="7d")), new_order()
    )
    assert not warned.is_refused
    assert [one.check for one in warned.warnings] == [CheckName.RULE_UNSURE]


def test_a_rule_speaks_of_the_names_that_its_expression_is_true_of() -> None:
    """Asked about each name apart, it is about those alone."""
    document = ruled(rule(when="name.startsWith('pay-')", refuse="no"))
    decision = decide_new_order(document, new_order("www.a.example", "pay-1.a.example"))
    assert [one.identifier.value for one in decision.findings if one.identifier] == [
        "pay-1.a.example"
    ]
    assert not decide_new_order(document, new_order("www.a.example")).is_refused


def test_a_file_with_a_wrong_expression_is_refused_with_its_line() -> None:
    """As any other fault of a policy."""
    with pytest.raises(Faults, match=r"policy.yaml:[0-9]+: rules\[0\].when: .*'profile'"):
        ruled(rule(when="profil == 'x'", refuse="no"))


def test_every_variable_is_told() -> None:
    """An expression can look at all that is promised."""
    facts = asked_by(eab_key_id="math", address="10.0.0.1", owner="web team")
    told = variables_of(subject_of(facts, profile="server", eab=None))
    assert set(told) == set(VARIABLES)
    for variable, kind in VARIABLES.items():
        probe = {"string": f"{variable} == ''", "bool": variable, "timestamp": f"{variable} > at"}
        text = probe.get(kind, f"size({variable}) == 99")
        assert Expression.parse(text).is_true(told) is False or told[variable] == ""


def test_the_largest_order_is_within_the_bound() -> None:
    """Two loops over a hundred names come to an answer."""
    names = [f"{number}.a.example" for number in range(99)]
    made = Expression.parse("names.exists(a, names.exists(b, a == b && a == ''))")
    assert made.is_true({**NOTHING, "names": names}) is False


def test_without_the_engine_a_rule_with_an_expression_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With what is to be installed; nothing passes because nobody could look."""
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    expressions._engine.cache_clear()
    expressions._environment.cache_clear()
    with pytest.raises(ValueError, match=r"penstock\[cel\]"):
        Expression.parse("profile == 'not compiled before'")
    expressions._engine.cache_clear()
