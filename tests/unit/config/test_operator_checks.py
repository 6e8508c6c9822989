"""People and the rest of the file: communities and issuers exist, and some roles stay apart."""

from typing import Any

import pytest

from tests.unit.config.conftest import FaultsOf, Parse

ANCHORS = "/etc/penstock/people.pem"
ISSUER = {"issuer": "https://login.corp.example", "audience": "penstock"}


def test_listener_with_people_is_no_fault(parse: Parse) -> None:
    """Either way in is enough."""
    for way in ({"anchors": ANCHORS}, {"issuers": {"corp": ISSUER}}):
        config = parse({"operators": way, "listen.operators": {}})
        assert config.listen.operators is not None
        assert str(config.listen.operators.address) == "127.0.0.1:8446"


@pytest.mark.parametrize("section", [None, {}, {"people": {}}], ids=["none", "empty", "people"])
def test_listener_that_lets_nobody_in_is_a_fault(
    faults_of: FaultsOf, section: dict[str, Any] | None
) -> None:
    """It would be open to be attacked and for nothing else."""
    changes: dict[str, Any] = {"listen.operators": {}}
    if section is not None:
        changes["operators"] = section
    assert any("would let nobody in" in one for one in faults_of(changes))


def person(roles: dict[str, list[str]], **more: Any) -> dict[str, Any]:
    """Return a section with one person."""
    return {"operators": {"people": {"jane": {"roles": roles, **more}}}}


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        ({"default": ["security", "approver"]}, "approver and security"),
        ({"default": ["operator", "approver"]}, "approver and operator"),
        ({"default": ["operator", "security"]}, "operator and security"),
        ({"*": ["security"], "default": ["approver"]}, "in community 'default'"),
        ({"defualt": ["viewer"]}, "community 'defualt' is not defined"),
    ],
    ids=["security-approver", "operator-approver", "operator-security", "across", "misprint"],
)
def test_roles_that_do_not_go_are_a_fault(
    faults_of: FaultsOf, roles: dict[str, list[str]], words: str
) -> None:
    """Of the file, before anybody has them."""
    assert any(words in one for one in faults_of(person(roles)))
    assert any(
        words in one
        for one in faults_of(
            {"operators": {"issuers": {"corp": {**ISSUER, "groups": {"g": roles}}}}}
        )
    )


def test_roles_that_go_together_are_no_fault(parse: Parse) -> None:
    """The twin."""
    assert parse(person({"*": ["viewer", "auditor"], "default": ["approver"]}))


def test_certificates_without_anchors_are_a_fault(faults_of: FaultsOf) -> None:
    """They could be of anybody."""
    found = faults_of(person({}, certificates=["email:jane@corp.example"]))
    assert any("have no anchors" in one for one in found)


def test_token_of_an_unknown_issuer_is_a_fault(faults_of: FaultsOf) -> None:
    """It would never be believed."""
    assert any(
        "no issuer is called 'corp'" in one for one in faults_of(person({}, tokens=["corp:x"]))
    )


def test_issuer_that_stands_twice_is_a_fault(faults_of: FaultsOf) -> None:
    """Which of them a token is of would be a guess."""
    found = faults_of({"operators": {"issuers": {"one": ISSUER, "two": dict(ISSUER)}}})
    assert any("stands here twice" in one for one in found)
