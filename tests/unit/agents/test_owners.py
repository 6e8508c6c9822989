"""Users and groups by name or number."""

import os

import pytest

from agents.owners import KEEP, OwnerFault, Ownership, find_ownership


def test_nobody_named_is_nobody_given() -> None:
    """What is not configured stays with whoever writes."""
    assert find_ownership(None, None) == Ownership(KEEP, KEEP)
    assert find_ownership(None, None).is_own


def test_names_and_numbers() -> None:
    """A number needs no entry in the host's lists."""
    assert find_ownership("root", "0") == Ownership(0, 0)
    assert find_ownership("1234567", None) == Ownership(1234567, KEEP)


@pytest.mark.parametrize("name", ["no-such-user-here", "4294967295", "", "-1"])
def test_what_is_not_known(name: str) -> None:
    """It is refused by name."""
    with pytest.raises(OwnerFault):
        find_ownership(name, None)
    with pytest.raises(OwnerFault):
        find_ownership(None, name)


def test_what_is_open_is_taken_from_what_was_there() -> None:
    """Only what the configuration leaves open."""
    assert Ownership(7, KEEP).or_as(1, 2) == Ownership(7, 2)
    assert Ownership().or_as(1, 2) == Ownership(1, 2)


def test_our_own_needs_no_giving() -> None:
    """To whom we are nothing has to be given."""
    assert Ownership(os.geteuid(), os.getegid()).is_own
    assert not Ownership(os.geteuid() + 1, KEEP).is_own
