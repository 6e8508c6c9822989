"""What is remembered of the ledger, and for how long."""

from broker.issuance.records import CaCertificateRecord
from broker.upstreams.recent_orders import RECENT_ORDERS, RecentOrders
from tests.fakes.clock import START


def record(reference: str) -> CaCertificateRecord:
    """Return a certificate of the ledger."""
    return CaCertificateRecord(
        ca="local",
        order_ref=reference,
        serial="1",
        certificate_der=b"",
        issuer_key_id="issuing-1",
        not_after=START,
        issued_at=START,
    )


def test_answer_is_kept_until_it_is_forgotten() -> None:
    """A certificate, or that there was none."""
    recent = RecentOrders()
    assert "one" not in recent
    recent.keep("one", None)
    assert "one" in recent
    assert recent.find("one") is None
    recent.keep("one", record("one"))
    assert recent.find("one") == record("one")
    recent.forget("one")
    recent.forget("other")
    assert "one" not in recent


def test_oldest_answer_goes_first() -> None:
    """What is kept has an end."""
    recent = RecentOrders()
    for number in range(RECENT_ORDERS + 1):
        recent.keep(str(number), None)
    assert "0" not in recent
    assert "1" in recent
