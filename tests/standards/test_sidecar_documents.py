"""What docs/operations/sidecars.md says of annotations, metrics and lines is what the code has."""

import pytest

from agents import ready, waits
from broker.admission.annotations import ASKED, TOLD
from broker.admission.metrics import AdmissionMetrics
from broker.config.admission import AdmissionConfig
from tests.standards.sources import read, table_rows

PAGE = "docs/operations/sidecars.md"


def test_every_annotation_has_its_row() -> None:
    """And no row is about one that is not there."""
    rows = [row[0].strip("`") for row in table_rows(PAGE, "Annotation")]
    assert sorted(rows) == sorted(ASKED)
    assert all(f"`{one}`" in read(PAGE) for one in TOLD)


def test_every_metric_that_is_named_is_there() -> None:
    """By the name that Prometheus shows."""
    text = AdmissionMetrics("x").render().decode()
    for name, _ in table_rows(PAGE, "Metric"):
        assert name.strip("`").partition("{")[0].removesuffix("_seconds") in text


@pytest.mark.parametrize("line", [ready.ASKED, ready.CONNECTED])
def test_lines_of_a_pod_that_waits_are_those_that_are_told(line: str) -> None:
    """To the letter, so that they can be looked up."""
    assert f"| `{line}` |" in read(PAGE)
    assert waits.NOT_YET not in read(PAGE)


def test_ports_are_those_of_the_configuration() -> None:
    """As the chart has them."""
    listen = AdmissionConfig.model_fields["listen"].get_default(call_default_factory=True)
    assert (listen.webhook.port, listen.metrics.port) == (9443, 9402)
    assert "9443" in read(PAGE)
    assert "9402" in read(PAGE)
