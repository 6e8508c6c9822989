"""A web service as solver, as far as nothing is sent; the rest is shown over HTTPS."""

from pathlib import Path

import pytest

from broker.issuance.errors import Broken
from broker.upstreams.webhook import WebhookSettings, WebhookZone, sign_wish
from tests.fakes.clock import FakeClock


@pytest.mark.parametrize(
    ("more", "words"),
    [
        pytest.param({"zone": "a..b"}, "is no DNS name", id="zone"),
        pytest.param({"ca_bundle": Path("/nonexistent")}, "cannot be used", id="bundle"),
    ],
)
def test_settings_that_cannot_work_are_told_at_once(more: dict[str, object], words: str) -> None:
    """Not when the first certificate is due."""
    settings = WebhookSettings(url="https://a.example", **more)  # type: ignore[arg-type]
    with pytest.raises(Broken, match=words):
        WebhookZone(settings, clock=FakeClock())


def test_signature_is_over_time_and_body() -> None:
    """The vector of docs/operations/dns.md."""
    shown = sign_wish(b"key", 1_700_000_000, b"{}")
    mac = "9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae"
    assert shown == f"t=1700000000,v1={mac}"
    assert sign_wish(b"key", 1_700_000_001, b"{}") != shown
    assert sign_wish(b"key", 1_700_000_000, b"{} ") != shown
