"""A program as solver, as far as none is run; the rest is shown with real programs."""

import pytest

from broker.issuance.errors import Broken
from broker.upstreams.hook import HookSettings, HookZone
from broker.upstreams.placement import ZoneLocks


def test_zone_that_is_no_name_is_told_at_once() -> None:
    """Not when the first certificate is due."""
    with pytest.raises(Broken, match="is no DNS name"):
        HookZone(HookSettings(command=("/bin/true",), zone="a..b"), ZoneLocks())


def test_no_secret_is_shown() -> None:
    """Its environment may hold some."""
    assert "hush" not in repr(HookSettings(command=("/bin/true",), environment={"TOKEN": "hush"}))
