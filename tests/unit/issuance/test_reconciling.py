"""What a reconciliation compares and reports."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from broker.issuance.ports import UpstreamOrder
from broker.issuance.reconciling import Report, UpstreamReport, is_answer_to, key_of_csr
from broker.protocol.csr import parse_csr
from broker.protocol.resources import OrderStatus
from tests.contract.storage.given import work
from tests.fakes.world import make_csr

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_order_answers_what_it_shows_exactly() -> None:
    """Names, profile and end, the end in whole seconds as it travels."""
    asked = replace(
        work(), upstream_profile="short", not_after=AT + timedelta(days=1, microseconds=7)
    )
    shown = UpstreamOrder(
        url="https://ca.example/order/1",
        status=OrderStatus.VALID,
        identifiers=tuple(reversed(asked.identifiers)),
        profile="short",
        not_after=AT + timedelta(days=1),
    )
    assert is_answer_to(shown, asked)
    assert not is_answer_to(replace(shown, profile=None), asked)
    assert not is_answer_to(replace(shown, not_after=None), asked)
    assert not is_answer_to(replace(shown, identifiers=()), asked)


def test_key_of_a_csr_is_that_of_its_subject() -> None:
    """And an order without a CSR has none."""
    csr = make_csr("www.example.com")
    assert key_of_csr(csr) == parse_csr(csr).spki_sha256
    assert key_of_csr(None) is None


def test_loss_stands_in_the_way_until_its_upstream_is_named() -> None:
    """Another upstream's name does not do."""
    found = UpstreamReport(upstream="ca", community="default")
    found.lose("offers no list")
    report = Report(at=AT, upstreams=(found,), notes=(), accepted=frozenset({"other"}))
    assert [loss.upstream for loss in report.in_the_way] == ["ca"]
    assert report.to_json()["reconciled"] is False
    accepted = replace(report, accepted=frozenset({"ca"}))
    assert accepted.in_the_way == ()
    assert len(accepted.losses) == 1
    assert accepted.to_json()["reconciled"] is True


def test_long_lists_are_counted_and_not_printed() -> None:
    """A report is read by a person."""
    found = UpstreamReport(upstream="ca", community="default")
    found.unknown = [{"order_url": str(number)} for number in range(500)]
    told = found.to_json()
    assert told["unknown_count"] == 500
    assert isinstance(told["unknown"], list)
    assert len(told["unknown"]) == 100
