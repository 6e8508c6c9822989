"""Rollout rules: who goes first, how many at once, who keeps apart, what halts a wave."""

from datetime import UTC, datetime, timedelta

import pytest

from broker.policy.node_names import node_patterns
from broker.policy.rollout import (
    PROOF_AGE,
    Group,
    GroupFacts,
    Hindrance,
    Outcome,
    RolloutPlan,
    Wave,
    after_outcome,
    judge_delivery,
)
from broker.policy.windows import parse_window

NOW = datetime(2026, 3, 2, 3, tzinfo=UTC)


def group(**how: object) -> Group:
    """Return a group of web hosts whose canary is web-01."""
    told = {
        "name": "web",
        "nodes": node_patterns(["**"]),
        "canaries": node_patterns(["web-01"]),
        "at_once": 2,
        "halt_after": 2,
    }
    return Group(**(told | how))  # type: ignore[arg-type]


def facts(
    *taking_part: str, under_way: tuple[str, ...] = (), wave: Wave | None = None
) -> GroupFacts:
    """Return facts of a wave whose canaries are web-01 and web-09."""
    return GroupFacts(
        wave=wave or Wave(begun_at=NOW),
        under_way=frozenset(under_way),
        taking_part=frozenset(taking_part),
        canaries={"web-01", "web-09"} & {*taking_part, *under_way},
    )


PROVEN = Wave(begun_at=NOW, served=frozenset({"web-01"}), served_at=NOW)


def hindrance(node: str, made: Group, seen: GroupFacts, **how: object) -> Hindrance | None:
    """Return what keeps *node* waiting."""
    return judge_delivery(node, made, seen, now=NOW, **how).hindrance  # type: ignore[arg-type]


def test_canary_goes_first_and_the_others_wait() -> None:
    """Also while it is only asked for its CSR."""
    seen = facts("web-01", "web-02")
    assert hindrance("web-01", group(), seen) is None
    assert hindrance("web-02", group(), seen) is Hindrance.CANARIES


def test_canary_under_way_keeps_the_others_waiting() -> None:
    """Until it was seen."""
    assert hindrance("web-02", group(), facts(under_way=("web-01",))) is Hindrance.CANARIES
    assert hindrance("web-02", group(), facts(wave=PROVEN)) is None


def test_every_canary_that_takes_part_has_to_be_seen() -> None:
    """One of two is not enough."""
    made = group(canaries=node_patterns(["web-01", "web-09"]))
    assert hindrance("web-02", made, facts("web-09", wave=PROVEN)) is Hindrance.CANARIES
    assert hindrance("web-02", made, facts("web-03", wave=PROVEN)) is None


@pytest.mark.parametrize("canaries", [None, ["web-01"]], ids=["none-named", "none-takes-part"])
def test_without_a_canary_the_first_by_name_stands_in_alone(canaries: list[str] | None) -> None:
    """However many may go at once."""
    made = group(canaries=None if canaries is None else node_patterns(canaries), at_once=9)
    seen = facts("web-02", "web-03")
    assert hindrance("web-02", made, seen) is None
    assert hindrance("web-03", made, seen) is Hindrance.CANARIES
    beside = facts("web-02", under_way=("web-03",))
    assert hindrance("web-02", made, beside) is Hindrance.CANARIES


def test_no_more_than_at_once_are_under_way() -> None:
    """Nodes are counted, not certificates."""
    seen = facts(under_way=("web-02", "web-03"), wave=PROVEN)
    assert hindrance("web-04", group(), seen) is Hindrance.FULL
    assert hindrance("web-03", group(), seen) is None


def test_closed_window_says_when_it_opens() -> None:
    """So that nobody asks before."""
    made = group(windows=(parse_window("Mon 22:00-23:00"),))
    found = judge_delivery("web-01", made, facts(), now=NOW)
    assert found.hindrance is Hindrance.WINDOW
    assert found.opens_at == NOW.replace(hour=22)


def test_halted_group_pushes_nothing() -> None:
    """Not even to its canaries."""
    wave = Wave(begun_at=NOW, halted_at=NOW, halted_why="canary 'web-01' failed")
    found = judge_delivery("web-01", group(), facts(wave=wave), now=NOW)
    assert found.hindrance is Hindrance.HALTED
    assert found.why == "rollout group 'web' is halted: canary 'web-01' failed"


def test_sets_apart_hold_whatever_the_groups() -> None:
    """And only for those in them."""
    plan = RolloutPlan(
        groups=(
            group(nodes=node_patterns(["web-01"])),
            group(name="b", nodes=node_patterns(["**"])),
        ),
        apart=(node_patterns(["web-01", "db-01"]),),
    )
    assert plan.kept_apart("web-01", {"db-01", "x"}) == "db-01"
    assert plan.kept_apart("web-01", {"x", "web-01"}) is None
    assert plan.kept_apart("x", {"db-01", "web-01"}) is None
    found = plan.group_of("web-01")
    assert found is not None
    assert found.name == "web"
    assert hindrance("web-01", group(), facts(), apart_from="db-01") is Hindrance.APART


def test_node_in_no_group_has_no_rules() -> None:
    """Unless it has to keep apart."""
    plan = RolloutPlan(
        groups=(group(nodes=node_patterns(["web-01"])),), apart=(node_patterns(["db-01", "db-02"]),)
    )
    assert not plan.has_rules_for("x")
    assert plan.has_rules_for("web-01")
    assert plan.has_rules_for("db-01")


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.SILENT])
def test_canary_that_fails_halts_whatever_halt_after_says(outcome: Outcome) -> None:
    """The wave touches nobody else."""
    wave = after_outcome("web-01", group(halt_after=9), Wave(begun_at=NOW), outcome, now=NOW)
    assert wave.is_halted
    assert "canary 'web-01'" in (wave.halted_why or "")


def test_stand_in_that_fails_halts_too() -> None:
    """It was the canary of its wave."""
    made = group(canaries=None, halt_after=9)
    assert after_outcome("web-07", made, Wave(begun_at=NOW), Outcome.FAILED, now=NOW).is_halted


def test_proven_wave_halts_after_so_many_failures() -> None:
    """And stays as it was halted."""
    once = after_outcome("web-02", group(), PROVEN, Outcome.FAILED, now=NOW)
    assert (once.failures, once.is_halted) == (1, False)
    twice = after_outcome("web-03", group(), once, Outcome.SILENT, now=NOW)
    assert twice.is_halted
    assert (
        twice.halted_why
        == "2 failures, the last: 'web-03' did not say what became of its certificate"
    )
    assert after_outcome("web-04", group(), twice, Outcome.FAILED, now=NOW) == twice


def test_what_was_dropped_says_nothing() -> None:
    """A delivery that was superseded neither proves nor fails."""
    wave = Wave(begun_at=NOW)
    assert after_outcome("web-01", group(), wave, Outcome.DROPPED, now=NOW) == wave


def test_proof_is_good_for_a_day() -> None:
    """What comes after it has to be proven anew."""
    seen = after_outcome("web-01", group(), Wave(begun_at=NOW), Outcome.SERVED, now=NOW)
    assert seen.proofs(NOW) == {"web-01"}
    late = NOW + PROOF_AGE
    assert not seen.proofs(late)
    again = facts("web-02", "web-03", wave=seen)
    assert judge_delivery("web-03", group(), again, now=late).hindrance is Hindrance.CANARIES
    assert judge_delivery("web-03", group(), again, now=late - timedelta(seconds=1)).is_clear
