"""Who signs policies, as configured."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.config.conftest import Parse

ANNA = "MCowBQYDK2VwAyEAA6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
BEN = "MCowBQYDK2VwAyEAO2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik="
ONE = {"name": "anna", "key": ANNA}
DIRECTORY: dict[str, Any] = {"policies": ["/etc/penstock/policies"]}


def test_signers_are_read(parse: Parse) -> None:
    """With how many of them there have to be."""
    signers = [ONE, {"name": "ben", "key": f"-----BEGIN PUBLIC KEY-----\n{BEN}\n-----END\n"}]
    config = parse({**DIRECTORY, "policy.bundle": {"signers": signers, "needed": 2}})
    wanted = config.policy.bundle
    assert wanted is not None
    assert [one.name for one in wanted.signers] == ["anna", "ben"]
    assert (wanted.needed, wanted.audience) == (2, "penstock")


def test_nothing_is_demanded_by_default(parse: Parse) -> None:
    """And files are looked at every second."""
    policy = parse().policy
    assert policy.bundle is None
    assert policy.look_every.total_seconds() == 1


@pytest.mark.parametrize(
    ("bundle", "words"),
    [
        ({"signers": [ONE], "needed": 2}, "2 are needed and there are 1 signers"),
        ({"signers": [ONE, {"name": "ben", "key": ANNA}]}, "two signers have one key"),
        ({"signers": [ONE, {"name": "anna", "key": BEN}]}, "two signers have one name"),
        ({"signers": [{"name": "anna", "key": "c2VjcmV0"}]}, "is no public key"),
        ({"signers": []}, "signers"),
    ],
    ids=["too few", "one key", "one name", "no key", "nobody"],
)
def test_signers_that_would_prove_nothing_are_refused(
    faults_of: Callable[..., list[str]], bundle: dict[str, Any], words: str
) -> None:
    """A person who counts twice is one person."""
    assert any(words in said for said in faults_of({**DIRECTORY, "policy.bundle": bundle}))


@pytest.mark.parametrize("policies", [None, ["/a", "/b"]], ids=["shipped", "two"])
def test_signed_policies_lie_in_one_directory(
    faults_of: Callable[..., list[str]], policies: list[str] | None
) -> None:
    """A manifest names files within one; those that came with the broker are not signed."""
    changes = {} if policies is None else {"policies": policies}
    (said,) = faults_of({**changes, "policy.bundle": {"signers": [ONE]}})
    assert "signed policies lie in one directory" in said


def test_looking_without_pause_is_refused(faults_of: Callable[..., list[str]]) -> None:
    """Each look costs a stat of every file."""
    assert "shorter than 100ms" in faults_of({"policy.look_every": "10ms"})[0]
