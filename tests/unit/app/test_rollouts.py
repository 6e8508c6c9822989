"""Rollout groups as the configuration names them."""

import json
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from broker.app.rollouts import RolloutMetrics, make_rollouts, rollout_plan
from broker.config.agents import Agents
from tests.fakes.clock import FakeClock
from tests.fakes.fake_rollouts import FakeRolloutStore

SECTION = {
    "identity": {"upstream": "nodes"},
    "groups": {
        "web": {
            "nodes": ["web-01", "*.web.corp.example"],
            "canaries": ["web-01"],
            "at_once": 3,
            "apart": [["web-01", "db-01"]],
            "windows": ["Mon-Fri 01:00-05:00"],
            "answer_within": "5m",
        },
        "rest": {"nodes": ["**"]},
    },
}


def test_groups_are_read_in_their_order() -> None:
    """The first that has a node is its own."""
    plan = rollout_plan(Agents.model_validate_json(json.dumps(SECTION)))
    web, rest = plan.groups
    assert (web.name, web.at_once, web.answer_within) == ("web", 3, timedelta(minutes=5))
    assert rest.canaries is None
    assert plan.group_of("web-01") is web
    assert plan.group_of("other") is rest
    assert plan.kept_apart("db-01", {"web-01"}) == "web-01"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"windows": ["whenever"]}, "not a window"),
        ({"canaries": ["db-01"]}, "canary 'db-01' is none of its nodes"),
        ({"nodes": ["10.0.0.0/8"]}, "is a network"),
        ({"answer_within": 5}, "has no unit"),
    ],
    ids=["window", "canary", "pattern", "duration"],
)
def test_group_that_makes_no_sense_is_refused(change: dict[str, object], why: str) -> None:
    """With a sentence for whoever wrote it."""
    web = {**SECTION["groups"]["web"], **change}  # type: ignore[index]
    with pytest.raises(ValidationError, match=why):
        Agents.model_validate_json(json.dumps({**SECTION, "groups": {"web": web}}))


def test_metrics_show_every_group() -> None:
    """Also one in which nothing happens."""
    registry = CollectorRegistry()
    metrics = RolloutMetrics(registry)
    section = Agents.model_validate_json(json.dumps(SECTION))
    gate = make_rollouts(section, FakeRolloutStore(), FakeClock(), lambda _node: True)
    metrics.show(gate.known_views())
    assert registry.get_sample_value("penstock_rollout_halted", {"group": "web"}) == 0
    assert registry.get_sample_value("penstock_rollout_deliveries_waiting", {"group": "rest"}) == 0
