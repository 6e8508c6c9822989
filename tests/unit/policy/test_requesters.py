"""Who asks, as a value."""

from __future__ import annotations

import pytest

from broker.policy.requesters import ClientCertificate, Requester


def test_a_requester_of_whom_nothing_is_known() -> None:
    """Every part may be missing, and none is made up."""
    nobody = Requester()
    assert (nobody.account_id, nobody.thumbprint) == ("", "")
    assert nobody.eab_key_id is nobody.node is nobody.address is nobody.owner is None


def test_a_requester_does_not_change() -> None:
    """What was decided about stays what it was."""
    shown = ClientCertificate(fingerprint="ab" * 32)
    asked = Requester(client_certificate=shown)
    with pytest.raises(AttributeError):
        asked.address = "10.0.0.1"  # type: ignore[misc]
    assert shown.names == ()
