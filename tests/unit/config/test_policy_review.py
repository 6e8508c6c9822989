"""Policy directories, as a reviewer looks at them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from broker.config import load_config
from broker.config.policy_review import (
    facts_by_community,
    foreseen_by,
    load_directory,
    run_directories,
    world_of,
)
from broker.issuance.errors import Broken
from broker.policy.forecast import ForeseenKind
from broker.policy.yamlfile import Faults

EXAMPLES = Path(__file__).parents[3] / "policies" / "examples"
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())


def test_there_are_three_examples() -> None:
    """A company, a university and a hospital."""
    assert NAMES == ["company", "hospital", "university"]


@pytest.mark.parametrize("example", NAMES)
def test_example_does_what_its_cases_say_and_every_rule_has_one(example: str) -> None:
    """Whoever copies it copies its purpose as well."""
    run = run_directories([EXAMPLES / example / "policies"])
    assert [str(one) for one in run.results if not one.has_passed] == []
    assert run.without_cases == ()
    assert run.untried_rules == ()


@pytest.mark.parametrize("example", NAMES)
def test_example_fits_its_configuration(example: str) -> None:
    """Every upstream that a policy names is there, and every community has its policy."""
    config = load_config(EXAMPLES / example / "penstock.yaml")
    loaded = load_directory(config, EXAMPLES / example / "policies")
    assert set(loaded.documents) == set(config.communities)
    assert loaded.unused == ()


def test_end_of_client_auth_is_foreseen_for_the_company() -> None:
    """The shipped facts and the shipped example together."""
    config = load_config(EXAMPLES / "company" / "penstock.yaml")
    loaded = load_directory(config, EXAMPLES / "company" / "policies")
    found = foreseen_by(config, loaded, after=date(2026, 11, 23), until=date(2027, 5, 1))
    told = [(one.on, one.kind) for one in found if one.kind.is_warned_of]
    assert told == [(date(2027, 3, 15), ForeseenKind.LOSES)]


def test_upstreams_serve_their_communities_ready_or_not() -> None:
    """Policies are compared, and not what is registered today."""
    config = load_config(EXAMPLES / "hospital" / "penstock.yaml")
    loaded = load_directory(config, EXAMPLES / "hospital" / "policies")
    facts = facts_by_community(config, loaded.facts)
    assert {name: [one.name for one in listed] for name, listed in facts.items()} == {
        "default": ["house"],
        "partners": ["house"],
        "portal": ["lets-encrypt"],
    }
    [house] = facts["default"]
    assert house.max_lifetime == timedelta(days=398)
    world = world_of(config, loaded, datetime(2026, 11, 23, tzinfo=UTC))
    assert world.upstreams == facts


def test_signatures_are_not_demanded_of_what_is_reviewed(tmp_path: Path) -> None:
    """It is signed once it has been reviewed."""
    path = tmp_path / "penstock.yaml"
    key = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="
    text = (EXAMPLES / "university" / "penstock.yaml").read_text("utf-8")
    path.write_text(
        f"{text}policy: {{ bundle: {{ signers: [{{ name: anna, key: '{key}' }}] }} }}\n"
    )
    loaded = load_directory(load_config(path), EXAMPLES / "university" / "policies")
    assert set(loaded.documents) == {"default"}


@pytest.mark.parametrize(
    ("octets", "fault"),
    [
        pytest.param(b"\xff", "is not UTF-8", id="encoding"),
        pytest.param(b"kind: Policy\n", "missing key 'community'", id="form"),
    ],
)
def test_broken_file_is_told(tmp_path: Path, octets: bytes, fault: str) -> None:
    """Whatever is wrong with it, by its name."""
    (tmp_path / "default.yaml").write_bytes(octets)
    with pytest.raises(Faults, match=fault):
        run_directories([tmp_path])


def test_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    """By its path."""
    with pytest.raises(Broken, match="is not there"):
        run_directories([tmp_path / "nowhere"])
