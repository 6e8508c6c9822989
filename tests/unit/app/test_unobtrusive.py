"""Large things made beside the event loop."""

import gc
import sys

import pytest

from broker.app.unobtrusive import TURN_SECONDS, set_apart, unobtrusive


def _fail_within(found: list[object]) -> None:
    with unobtrusive():
        found += [gc.isenabled(), sys.getswitchinterval()]
        raise ValueError("broken")


def test_settings_are_as_they_were_afterwards() -> None:
    """Also when what was made could not be made."""
    turn = sys.getswitchinterval()
    found: list[object] = []
    with pytest.raises(ValueError, match="broken"):
        _fail_within(found)
    assert found == [False, pytest.approx(TURN_SECONDS)]
    assert gc.isenabled()
    assert sys.getswitchinterval() == pytest.approx(turn)


def test_what_is_set_apart_is_not_collected() -> None:
    """Until it is let go."""
    before = gc.get_freeze_count()
    set_apart()
    try:
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()
