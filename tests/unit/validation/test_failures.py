"""The exception that carries a failure."""

from broker.protocol.challenges import Failure
from broker.validation.failures import Unobserved


def test_carries_kind_and_text() -> None:
    """What was raised is what the observation will say."""
    error = Unobserved("tls", "TLS failed: wrong version number")
    assert error.failure == Failure("tls", "TLS failed: wrong version number")
    assert str(error) == "TLS failed: wrong version number"
