"""A set of policy files, read one by one and joined."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from datetime import date
from typing import Any

import pytest

from broker.policy.chains import decide_new_order
from broker.policy.policy_set import (
    PolicySet,
    join_policy_files,
    parse_policy_file,
    parse_policy_set,
)
from broker.policy.yamlfile import Faults
from tests.unit.policy.builders import new_order, policy_text
from tests.unit.policy.rule_builders import rule

CASES = """\
apiVersion: penstock.dev/v1
kind: PolicyCases
policy: default.yaml
cases:
  - name: a name of ours
    given: {names: [www.a.example], upstreams: [{name: ca, description: test}]}
    expect: {decision: allow}
    because: it is ours
"""

FACTS = """\
apiVersion: penstock.dev/v1
kind: UpstreamFacts
descriptions:
  test:
    as_of: 2026-11-22
    source: a test
    honours_not_after: true
    is_ct_logged: false
"""


def shared(*rules: dict[str, Any], communities: Any = "all") -> str:
    """Return a file of shared rules."""
    values = {
        "apiVersion": "penstock.dev/v1",
        "kind": "SharedRules",
        "communities": communities,
        "rules": list(rules),
    }
    return json.dumps(values, indent=2)


def files(**more: str) -> dict[str, str]:
    """Return the files of two communities, and what is named besides (``shared__x``: a path)."""
    return {
        "default.yaml": policy_text(),
        "communities/web.yaml": policy_text(community="web"),
        "upstreams.yaml": FACTS,
        "cases/default.yaml": CASES,
        **{f"{name.replace('__', '/')}.yaml": text for name, text in more.items()},
    }


def rules_of(made: PolicySet, community: str) -> list[str]:
    """Return the names of a community's rules."""
    return [one.name for one in made.documents[community].rules.rules]


def test_a_set_has_what_every_file_says() -> None:
    """Documents, descriptions and cases, each from its kind."""
    made = parse_policy_set(files())
    assert sorted(made.documents) == ["default", "web"]
    assert list(made.descriptions) == ["test"]
    assert list(made.cases) == ["cases/default.yaml"]
    assert sorted(made.digests) == sorted(files())


def test_shared_rules_reach_the_communities_that_they_name() -> None:
    """All of them, or those that are listed; a community names no file."""
    made = parse_policy_set(
        files(
            shared__all=shared(rule(name="for-all", cap="7d")),
            shared__web=shared(rule(name="for-web", cap="3d"), communities=["web"]),
        )
    )
    assert rules_of(made, "default") == ["for-all"]
    assert rules_of(made, "web") == ["for-all", "for-web"]
    plan = decide_new_order(made.documents["web"], new_order()).plan
    assert plan is not None
    assert plan.cap.days == 3
    assert plan.rule.source == "shared/web.yaml"


def test_what_all_share_is_indexed_once() -> None:
    """However many communities there are."""
    made = parse_policy_set(files(shared__all=shared(rule(cap="7d"))))
    first, second = (made.documents[name].rules.indexes for name in ("default", "web"))
    assert first[-1] is second[-1]


def test_the_digest_of_a_document_covers_what_it_depends_on() -> None:
    """A change of a shared file changes the communities that it is for, and no others."""
    before = parse_policy_set(files(shared__web=shared(rule(cap="7d"), communities=["web"])))
    after = parse_policy_set(files(shared__web=shared(rule(cap="6d"), communities=["web"])))
    assert before.documents["default"].sha256 == after.documents["default"].sha256
    assert before.documents["web"].sha256 != after.documents["web"].sha256
    assert before.sha256 != after.sha256
    plain = parse_policy_set(files())
    assert plain.documents["web"].sha256 == plain.digests["communities/web.yaml"]


def test_files_that_are_unchanged_are_not_read_again() -> None:
    """The very same documents stay, and only what changed is new."""
    first = parse_policy_set(files(shared__all=shared(rule(cap="7d"))))
    same = parse_policy_set(files(shared__all=shared(rule(cap="7d"))), earlier=first)
    assert all(same.files[name] is first.files[name] for name in first.files)
    assert all(same.documents[name] is first.documents[name] for name in first.documents)
    changed = {**files(shared__all=shared(rule(cap="7d"))), "default.yaml": policy_text(cap="80d")}
    other = parse_policy_set(changed, earlier=first)
    assert other.documents["web"] is first.documents["web"]
    assert other.documents["default"] is not first.documents["default"]


def test_the_order_of_files_does_not_matter() -> None:
    """Digest and documents are the same."""
    named = files(
        shared__a=shared(rule(name="a", cap="7d")), shared__b=shared(rule(name="b", cap="6d"))
    )
    backwards = dict(reversed(named.items()))
    one, other = parse_policy_set(named), parse_policy_set(backwards)
    assert one.sha256 == other.sha256
    assert rules_of(one, "default") == rules_of(other, "default")


def test_a_file_that_was_read_can_be_handed_to_another_process() -> None:
    """Reading happens elsewhere, joining here."""
    named = files(
        shared__all=shared(rule(when="eab == 'math'", refuse="no"), rule(name="b", cap="7d"))
    )
    read = {name: parse_policy_file(name, text) for name, text in named.items()}
    again = pickle.loads(pickle.dumps(read))
    made = join_policy_files(again)
    assert made.sha256 == parse_policy_set(named).sha256
    assert decide_new_order(made.documents["web"], new_order()).plan is not None


@pytest.mark.parametrize(
    ("more", "words"),
    [
        pytest.param(
            {"communities__again": policy_text(community="web")},
            "community 'web' has a policy already: communities/again.yaml",
            id="two-policies",
        ),
        pytest.param(
            {"shared__x": shared(rule(cap="7d"), communities=["webb"])},
            "there is no policy of a community 'webb'",
            id="unknown-community",
        ),
        pytest.param(
            {"shared__x": shared(rule(cap="7d")), "shared__y": shared(rule(cap="6d"))},
            "a rule is called 'one' already: rule 'one' (shared/x.yaml:",
            id="two-of-a-name",
        ),
        pytest.param(
            {
                "shared__x": shared(rule(name="x", keys=["ec-p256"])),
                "shared__y": shared(rule(name="y", keys=["rsa-2048"])),
            },
            "contradicts rule 'x'",
            id="contradiction",
        ),
        pytest.param(
            {"shared__x": shared(rule(until="2026-01-01", cap="7d"))},
            "ends on 2026-01-01, which is in the past",
            id="date-in-the-past",
        ),
        pytest.param(
            {"shared__x": shared(rule(profiles=["serverr"], cap="7d"))},
            "none of its communities has a profile 'serverr' (did you mean 'server'?)",
            id="unknown-profile",
        ),
        pytest.param(
            {"shared__x": shared(rule(upstreams=["moon"]), communities=["web"])},
            "none of its communities has an upstream 'moon'",
            id="unknown-upstream",
        ),
        pytest.param(
            {"shared__x": "# a comment\nkind: SharedRulez\n"},
            "shared/x.yaml:2: kind: expected Policy, SharedRules, UpstreamFacts, PolicyCases, "
            "found 'SharedRulez' (did you mean 'SharedRules'?)",
            id="unknown-kind",
        ),
        pytest.param({"shared__x": ""}, "empty", id="empty"),
        pytest.param({"shared__x": "a: &a [*a, *a]\nkind: SharedRules\n"}, "anchor", id="bomb"),
        pytest.param(
            {"shared__x": shared(rule(cap="7d")).replace('"rules"', '"include": [], "rules"')},
            "unknown key 'include'",
            id="include",
        ),
        pytest.param(
            {"shared__x": shared(rule(cap="7d")).replace('"because"', '"cap": "9d", "because"')},
            "key 'cap' stands here twice",
            id="duplicate-key",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_file(more: Mapping[str, str], words: str) -> None:
    """And nothing of the set is taken."""
    with pytest.raises(Faults) as caught:
        parse_policy_set(files(**more), today=date(2026, 11, 22))
    assert words in str(caught.value)


def test_every_fault_of_every_file_is_told_at_once() -> None:
    """Whoever mends one sees the others."""
    with pytest.raises(Faults) as caught:
        parse_policy_set(files(shared__x="kind: SharedRules\n", shared__y="kind: UpstreamFacts\n"))
    assert {fault.source for fault in caught.value.faults} == {"shared/x.yaml", "shared/y.yaml"}


def test_a_rule_that_has_ended_stays_good() -> None:
    """It was written for a time; a file that still has it is no fault on the day after."""
    named = files(shared__x=shared(rule(until="2026-11-21", cap="7d")))
    before = parse_policy_set(named, today=date(2026, 11, 20))
    changed = {**named, "default.yaml": policy_text(cap="80d")}
    after = parse_policy_set(changed, earlier=before, today=date(2026, 11, 22))
    assert rules_of(after, "default") == ["one"]
    assert parse_policy_set(named).documents
