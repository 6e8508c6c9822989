"""The syslog sink against a real rsyslog, whose every word about TLS is its own."""

import json
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.audit.feeding import Entry, entries_of
from broker.audit.syslog import SyslogForm
from broker.audit.syslog_tls import SyslogTls, TlsSettings
from broker.issuance.audit_chain import GENESIS, ChainedRecord, canonical
from broker.issuance.errors import Unreachable
from tests.peers import process
from tests.peers.rsyslog import Driver, Rsyslog

pytestmark = pytest.mark.peers

FORM = SyslogForm(
    hostname="broker.example", process="42", facility=13, enterprise=32473, max_bytes=8192
)
SEEN_SECONDS = 60.0
"""Longest wait for a line that rsyslog has read to stand in its file."""


def entries(first: int, count: int, size: int = 200) -> Sequence[Entry]:
    """Return so many records."""
    columns = (
        "order-created",
        1_772_366_400_250_000,
        "operator:ünal",
        None,
        None,
        None,
        None,
        None,
        canonical({"text": "x" * size}),
    )
    records = [
        ChainedRecord(seq, columns, bytes(32), GENESIS) for seq in range(first, first + count)
    ]
    return entries_of(records, [])


def settings(collector: Rsyslog, name: str = "penstock.example") -> TlsSettings:
    """Return what its clients have to know."""
    certificate, key = collector.client_files(name)
    return TlsSettings(
        host="127.0.0.1",
        port=collector.port,
        server_name="localhost",
        ca_bundle=collector.ca_bundle,
        certificate=certificate,
        key=key,
    )


@pytest.fixture(params=["gtls", "ossl"])
def collector(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rsyslog]:
    """A collector with each of its TLS libraries."""
    driver: Driver = request.param
    with Rsyslog(tmp_path, driver=driver) as made:
        yield made


def test_confirmed_lines_are_the_collectors(collector: Rsyslog) -> None:
    """All of them, in their order, and again over a new connection; nothing is cut."""
    sink = SyslogTls(settings(collector), FORM)
    sink.send(entries(1, 300))
    sink.send(entries(301, 300))
    sink.confirm()
    sink.send(entries(601, 5))
    sink.confirm()
    process.wait_until(lambda: len(collector.lines()) == 605, SEEN_SECONDS, "all are written")
    assert collector.numbers() == list(range(1, 606))
    line = collector.lines()[0]
    assert line.startswith("2026-03-01T12:00:00.250000Z broker.example penstock order-created [")
    assert 'actor="operator:ünal"' in line
    assert json.loads(line[line.index('{"digest"') :])["record"]["actor"] == "operator:ünal"


@pytest.mark.parametrize("driver", ["gtls", "ossl"])
def test_only_a_close_notify_counts_where_that_is_configured(
    tmp_path: Path, driver: Driver
) -> None:
    """What GnuTLS leaves out anybody on the way could forge."""
    with Rsyslog(tmp_path, driver=driver) as collector:
        sink = SyslogTls(replace(settings(collector), is_close_strict=True), FORM)
        sink.send(entries(1, 3))
        if driver == "ossl":
            sink.confirm()
        else:
            with pytest.raises(Unreachable, match="EOF"):
                sink.confirm()


def test_collector_that_was_killed_confirms_nothing(tmp_path: Path) -> None:
    """What it had taken into its buffers alone is sent again."""
    collector = Rsyslog(tmp_path)
    with collector:
        sink = SyslogTls(settings(collector), FORM)
        sink.send(entries(1, 10))
        collector.kill()
        with pytest.raises(Unreachable):
            sink.confirm()
        with pytest.raises(Unreachable):
            sink.send(entries(1, 10))
        collector.start()
        sink.send(entries(1, 10))
        sink.confirm()
        process.wait_until(
            lambda: sorted(set(collector.numbers())) == list(range(1, 11)), SEEN_SECONDS, "all"
        )


def test_collector_by_another_name_is_told_nothing(collector: Rsyslog) -> None:
    """Its certificate has to bear the name that is configured."""
    sink = SyslogTls(replace(settings(collector), server_name="other.example"), FORM)
    with pytest.raises(Unreachable, match="certificate is not trusted"):
        sink.send(entries(1, 1))
    assert collector.lines() == []


def test_collector_of_another_authority_is_told_nothing(collector: Rsyslog, tmp_path: Path) -> None:
    """Only the roots that are configured count."""
    from tests.peers import authority

    other = tmp_path / "other.pem"
    other.write_bytes(authority.make_root("another").certificate_pem)
    sink = SyslogTls(replace(settings(collector), ca_bundle=other), FORM)
    with pytest.raises(Unreachable, match="certificate is not trusted"):
        sink.send(entries(1, 1))


def test_client_that_is_not_let_in_is_certain_of_nothing(collector: Rsyslog) -> None:
    """Whenever the collector hangs up, what it did not read does not count.

    rsyslog 8.2302 with OpenSSL lets in at times whom it should not; what it then confirms it has.
    """
    sink = SyslogTls(settings(collector, "stranger.example"), FORM)
    confirmed = set()
    for first in range(1, 21):
        with suppress(Unreachable):
            sink.send(entries(first, 1))
            sink.confirm()
            confirmed.add(first)
    process.wait_until(lambda: confirmed <= set(collector.numbers()), SEEN_SECONDS, "all of them")
    assert len(confirmed) < 20
    if collector.driver == "gtls":
        assert confirmed == set(collector.numbers()) == set()


def test_long_record_arrives_named(collector: Rsyslog) -> None:
    """Past what the collector takes its data is left out, and the next one is whole."""
    sink = SyslogTls(settings(collector), FORM)
    sink.send([*entries(1, 1, size=20_000), *entries(2, 1)])
    sink.confirm()
    process.wait_until(lambda: len(collector.lines()) == 2, SEEN_SECONDS, "both are written")
    assert '"left_out":"record"' in collector.lines()[0]
    assert collector.numbers() == [2]


def test_call_that_blocks_is_ended(tmp_path: Path) -> None:
    """A collector that accepts and says nothing holds nobody at the end."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        port = server.getsockname()[1]
        sink = SyslogTls(replace(settings(Rsyslog(tmp_path)), port=port), FORM)
        sending = pool.submit(sink.send, entries(1, 1))
        accepted, _ = server.accept()
        with accepted:
            accepted.recv(1)  # the first octet of its greeting: it waits for an answer
            sink.abort()
            with pytest.raises(Unreachable):
                sending.result()


def test_nothing_to_confirm_is_told(tmp_path: Path) -> None:
    """A connection that was let go of in between leaves everything uncertain."""
    sink = SyslogTls(settings(Rsyslog(tmp_path)), FORM)
    with pytest.raises(Unreachable, match="let go of"):
        sink.confirm()
    assert entries(1, 1)[0].at == datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
