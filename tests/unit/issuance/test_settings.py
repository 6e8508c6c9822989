"""Settings are values whose defaults are safe to run with."""

from dataclasses import FrozenInstanceError
from datetime import timedelta

import pytest

from broker.issuance.settings import CommunitySettings, DeclaredEabKey, IssuanceSettings


def test_defaults_are_those_of_public_cas() -> None:
    """An order lives for hours, an answer is held for seconds, a validation is tried thrice."""
    made = IssuanceSettings(communities={})
    assert timedelta(hours=1) <= made.order_lifetime <= timedelta(days=7)
    assert timedelta(0) < made.finalize_wait <= timedelta(seconds=10)
    assert list(made.validation_retries) == sorted(made.validation_retries)
    assert len(made.validation_retries) == 2
    assert made.declared_eab_keys == ()


def test_community_demands_nothing_unless_it_says_so() -> None:
    """Neither terms nor a binding."""
    made = CommunitySettings(name="default")
    assert (made.terms_of_service, made.external_account_required) == (None, False)


def test_settings_cannot_be_changed_at_work() -> None:
    """They are read once."""
    made = DeclaredEabKey(key_id="robot", community="default", mac_key=b"x" * 32)
    with pytest.raises(FrozenInstanceError):
        made.mac_key = b""  # type: ignore[misc]
