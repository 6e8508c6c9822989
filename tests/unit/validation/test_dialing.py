"""Dialling, as far as it opens nothing; the rest is in tests/contract/validation."""

import errno

import pytest

from broker.validation.dialing import Dialer, os_reason
from broker.validation.targets import Proxy


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(ConnectionRefusedError(errno.ECONNREFUSED, "x"), "connection refused", id="1"),
        pytest.param(OSError(errno.ENETUNREACH, "10.0.0.1"), "network is unreachable", id="2"),
        pytest.param(OSError("to ('10.0.0.1', 80)"), "connection failed", id="3"),
        pytest.param(OSError(-2, "name or service not known"), "connection failed", id="4"),
    ],
)
def test_reason_has_no_address_in_it(error: OSError, reason: str) -> None:
    """The words are the system's for the number, never a library's."""
    assert os_reason(error) == reason


@pytest.mark.parametrize(
    ("proxy", "is_forwarding"),
    [
        pytest.param(None, False, id="none"),
        pytest.param(Proxy(address=("p", 1)), False, id="tunnel"),
        pytest.param(Proxy(address=("p", 1), is_forwarding=True), True, id="forward"),
    ],
)
def test_plain_http_is_handed_over_only_where_chosen(
    proxy: Proxy | None, is_forwarding: bool
) -> None:
    """A proxy that looks names up again is a choice."""
    assert (Dialer(proxy).forwarder is not None) is is_forwarding
