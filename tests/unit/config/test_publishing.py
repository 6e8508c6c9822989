"""What is published, and what cannot be."""

from typing import Any

import pytest

from tests.unit.config.conftest import FaultsOf, Parse

TRUST: dict[str, Any] = {
    "server": "https://kubernetes.default.svc",
    "token": "file:/var/run/secrets/kubernetes.io/serviceaccount/token",
    "namespace": "penstock",
}


def with_trust(**changes: Any) -> dict[str, Any]:
    """Return a change of the smallest configuration."""
    return {"publishing": {"trust": {**TRUST, **changes}}}


def test_nothing_is_published_unless_it_is_told_to(parse: Parse) -> None:
    """And then under names that say what it is."""
    assert parse().publishing is None
    section = parse(with_trust()).publishing
    assert section is not None
    assert (section.trust.name, section.trust.key) == ("penstock-trust", "ca.crt")
    assert (section.trust.communities, section.trust.also) == ((), ())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"namespace": "Pen stock"}, "is no name in Kubernetes"),
        ({"name": "../x"}, "is no name in Kubernetes"),
        ({"key": "a/b"}, "is no key of a ConfigMap"),
        ({"token": "vault:kv/penstock/token#value"}, "expected a 'file:' or 'env:' reference"),
        ({"server": "http://kubernetes.default.svc"}, "expected a URL"),
        ({"communities": ["defualt"]}, "community 'defualt' is not defined"),
    ],
    ids=["namespace", "name", "key", "token", "plain", "community"],
)
def test_what_could_not_work_is_a_fault(
    faults_of: FaultsOf, parse: Parse, changes: dict[str, Any], words: str
) -> None:
    """Each with what is wrong."""
    (fault,) = faults_of(with_trust(**changes))
    assert words in fault
    assert parse(with_trust(communities=["default"])).publishing is not None
