"""How admission is doing, as metrics."""

from datetime import UTC, datetime

from broker.admission.metrics import AdmissionMetrics
from broker.admission.reviews import Outcome


def test_every_series_is_there_from_the_beginning() -> None:
    """A counter that appears at 1 hides its first increase."""
    text = AdmissionMetrics("1.0").render().decode()
    for line in (
        'penstock_admission_requests_total{outcome="refused",webhook="mutate"} 0.0',
        'penstock_admission_requests_total{outcome="malformed",webhook="validate"} 0.0',
        'penstock_admission_seconds_count{webhook="mutate"} 0.0',
        'penstock_admission_roots_writes_total{result="failed",what="ca-bundle"} 0.0',
        "penstock_admission_certificate_not_after_timestamp_seconds 0.0",
    ):
        assert line in text.splitlines()


def test_what_happens_is_counted() -> None:
    """And how things are is shown as it is at that moment."""
    metrics = AdmissionMetrics("1.0")
    metrics.answered("mutate", Outcome.INJECTED, 0.02)
    metrics.wrote("copy", "written")
    end = datetime(2026, 3, 1, tzinfo=UTC)
    metrics.show(end=end, following={"services": True, "copies": False}, due=2)
    lines = metrics.render().decode().splitlines()
    for line in (
        'penstock_admission_requests_total{outcome="injected",webhook="mutate"} 1.0',
        'penstock_admission_seconds_bucket{le="0.025",webhook="mutate"} 1.0',
        'penstock_admission_seconds_bucket{le="0.01",webhook="mutate"} 0.0',
        'penstock_admission_roots_writes_total{result="written",what="copy"} 1.0',
        f"penstock_admission_certificate_not_after_timestamp_seconds {end.timestamp():.7g}",
        'penstock_admission_following{what="services"} 1.0',
        'penstock_admission_following{what="copies"} 0.0',
        "penstock_admission_copies_due 2.0",
    ):
        name, _, value = line.rpartition(" ")
        (found,) = [one for one in lines if one.startswith(name + " ")]
        assert float(found.rpartition(" ")[2]) == float(value) or "not_after" in name
