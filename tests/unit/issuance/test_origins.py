"""Where a request came from, as a value."""

from __future__ import annotations

from broker.issuance.origins import NOWHERE, Origin


def test_what_nobody_asked_over_a_network_has_no_origin() -> None:
    """Neither an address nor a certificate is made up."""
    assert Origin() == NOWHERE
    assert NOWHERE.address is None
    assert NOWHERE.client_certificate is None
