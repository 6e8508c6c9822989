"""The section about people: names, faces and tokens are read strictly, each of one person."""

import copy
from typing import Any

import pytest

from broker.policy.roles import Role
from tests.unit.config.conftest import FaultsOf, Parse

ANCHORS = "/etc/penstock/people.pem"


def people(**sections: Any) -> dict[str, Any]:
    """Return the section with these people."""
    return {"operators": {"people": sections, "anchors": ANCHORS}}


def test_person_is_read(parse: Parse) -> None:
    """With everything that they are known by, in the form it is compared in."""
    config = parse(
        people(
            jane={
                "users": ["jdoe"],
                "certificates": [
                    "email:Jane@CORP.example",
                    "dns:JANE.example",
                    "sha256:" + "AB" * 32,
                ],
                "roles": {"*": ["viewer"], "default": ["approver"]},
            }
        )
    )
    assert config.operators is not None
    jane = config.operators.people["jane"]
    assert jane.certificates == (
        "email:Jane@corp.example",
        "dns:jane.example",
        "sha256:" + "ab" * 32,
    )
    assert jane.roles == {"*": (Role.VIEWER,), "default": (Role.APPROVER,)}


def test_without_the_section_there_is_nobody(parse: Parse) -> None:
    """And no listener."""
    config = parse()
    assert config.operators is None
    assert config.listen.operators is None


@pytest.mark.parametrize(
    ("person", "words"),
    [
        ({}, "roles"),
        ({"roles": {"*": ["boss"]}}, "boss"),
        ({"roles": {"Web": ["viewer"]}}, "expected the name of a community"),
        ({"roles": {}, "certificates": ["jane@corp.example"]}, "expected one of 'email:…'"),
        ({"roles": {}, "certificates": ["email:jane"]}, "expected an address"),
        ({"roles": {}, "certificates": ["sha256:abc"]}, "SHA-256"),
        ({"roles": {}, "certificates": ["cn:jane"]}, "expected one of"),
        ({"roles": {}, "tokens": ["00u-jane"]}, "expected name of the issuer"),
    ],
    ids=["no-roles", "role", "community", "face", "email", "fingerprint", "kind", "token"],
)
def test_person_who_is_not_well_described_is_a_fault(
    faults_of: FaultsOf, person: dict[str, Any], words: str
) -> None:
    """Nobody comes in by a misprint."""
    assert any(words in one for one in faults_of(people(jane=person)))


@pytest.mark.parametrize("name", ["jane/doe", "", "jane doe", "x" * 65])
def test_name_that_events_could_not_tell_apart_is_a_fault(faults_of: FaultsOf, name: str) -> None:
    """A slash is what people of tokens have."""
    assert faults_of(people(**{name: {"roles": {}}}))


@pytest.mark.parametrize(
    "shared",
    [{"users": ["jdoe"]}, {"certificates": ["email:j@corp.example"]}],
    ids=["user", "certificate"],
)
def test_two_people_with_one_face_are_a_fault(faults_of: FaultsOf, shared: dict[str, Any]) -> None:
    """One of them could approve as both."""
    both = people(jane={"roles": {}, **shared}, omar={"roles": {}, **copy.deepcopy(shared)})
    assert any("both 'jane' and 'omar'" in one for one in faults_of(both))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issuer": "http://login.example"}, "https"),
        ({"algorithms": ["none"]}, "algorithms"),
        ({"algorithms": ["HS256"]}, "algorithms"),
        ({"algorithms": []}, "algorithms"),
        ({"audience": ""}, "audience"),
        ({"types": ["secevent+jwt"]}, "types"),
        ({"longest": 3600}, "longest"),
    ],
    ids=["http", "none", "mac", "no-algorithm", "audience", "type", "bare-number"],
)
def test_issuer_that_proves_nothing_is_a_fault(
    faults_of: FaultsOf, changes: dict[str, Any], words: str
) -> None:
    """Symmetric algorithms are none that could be chosen."""
    issuer = {"issuer": "https://login.corp.example", "audience": "penstock", **changes}
    assert any(words in one for one in faults_of({"operators": {"issuers": {"corp": issuer}}}))


API_SERVER: dict[str, Any] = {
    "issuer": "https://kubernetes.default.svc",
    "audience": "penstock-operators",
    "types": ["none"],
    "keys_url": "https://kubernetes.default.svc/openid/v1/jwks",
    "keys_token": "file:/var/run/secrets/kubernetes.io/serviceaccount/token",
}


def test_cluster_is_an_issuer_whose_keys_are_guarded(parse: Parse) -> None:
    """Its service accounts are people by subject; their role is the narrowest there is."""
    person = {
        "tokens": ["prod:system:serviceaccount:penstock:penstock-admission"],
        "roles": {"*": ["admission"]},
    }
    section = parse(
        {"operators": {"people": {"admission": person}, "issuers": {"prod": API_SERVER}}}
    ).operators
    assert section is not None
    issuer = section.issuers["prod"]
    assert (issuer.types, issuer.keys_token is not None) == (("none",), True)
    apart = {**API_SERVER, "keys": "/etc/penstock/prod.jwks"}
    for name in ("keys_url", "keys_token"):
        del apart[name]
    assert parse({"operators": {"issuers": {"prod": apart}}}).operators is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"keys": "/etc/penstock/prod.jwks"}, "expected either keys or keys_url"),
        ({"keys_url": None}, "keys_token is for keys_url"),
        ({"keys_token": "vault:kv/penstock/token#value"}, "'file:' or 'env:'"),
        ({"types": ["nothing"]}, "expected"),
    ],
    ids=["two ways", "token for nothing", "Vault", "type"],
)
def test_issuer_whose_keys_could_not_be_had(
    faults_of: FaultsOf, changes: dict[str, Any], words: str
) -> None:
    """Our own token is shown where we were told to, and nowhere else."""
    made = {name: one for name, one in (API_SERVER | changes).items() if one is not None}
    faults = faults_of({"operators": {"issuers": {"prod": made}}})
    assert any(words in one for one in faults), faults
