"""The form of a policy file."""

from __future__ import annotations

import pytest

from broker.policy.form import KeyKind, check_references
from broker.protocol.extensions import key_kind
from tests.unit.protocol.builders import private_key


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        pytest.param("ES256", KeyKind.EC_P256, id="p256"),
        pytest.param("ES384", KeyKind.EC_P384, id="p384"),
        pytest.param("rsa-2048", KeyKind.RSA_2048, id="rsa"),
    ],
)
def test_kinds_of_key_are_those_of_the_protocol(kind: str, word: KeyKind) -> None:
    """The policy's words are compared with what a CSR is laid open to."""
    assert key_kind(private_key(kind).public_key()) == word


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(None, id="nothing"),
        pytest.param([], id="list"),
        pytest.param({"profiles": ["server"], "default_profile": 1}, id="shapes"),
        pytest.param({"trusted": {"a": {"profiles": {"b": {}}}}}, id="mappings-for-lists"),
    ],
)
def test_references_in_odd_shapes_are_no_fault_here(values: object) -> None:
    """The form says what is wrong with a shape; this looks at names only."""
    assert list(check_references(values)) == []


def test_references_that_lead_somewhere_are_no_fault() -> None:
    """And one that does not is, with the nearest name."""
    values = {"profiles": {"server": {}}, "default_profile": "server"}
    assert list(check_references(values)) == []
    values["default_profile"] = "sever"
    assert list(check_references(values)) == [
        (("default_profile",), "there is no profile 'sever'", "did you mean 'server'?")
    ]
