"""The section about the audit trail."""

from datetime import timedelta
from typing import Any

import pytest

from broker.config.audit import AuditFile, AuditStdout, AuditSyslog
from tests.unit.config.conftest import FaultsOf, Parse

SYSLOG: dict[str, Any] = {
    "kind": "syslog",
    "address": "logs.corp.example:6514",
    "ca_bundle": "/etc/penstock/logs-root.pem",
}


def test_chain_is_signed_without_being_asked(parse: Parse) -> None:
    """Every minute by a key file, and goes nowhere."""
    audit = parse({}).audit
    assert audit.checkpoints.every == timedelta(minutes=1)
    assert (audit.checkpoints.records, audit.checkpoints.key_store) == (1000, "file")
    assert not audit.sinks


def test_each_kind_of_sink_is_known(parse: Parse) -> None:
    """Syslog over TLS, a file, standard output."""
    sinks = {
        "a": SYSLOG,
        "b": {"kind": "file", "path": "/var/log/penstock/audit.jsonl"},
        "c": {"kind": "stdout"},
    }
    a, b, c = parse({"audit": {"sinks": sinks}}).audit.sinks.values()
    assert isinstance(a, AuditSyslog)
    assert (a.facility, a.message, a.server_name) == (13, 8192, None)
    assert isinstance(b, AuditFile)
    assert isinstance(c, AuditStdout)


@pytest.mark.parametrize(
    ("sinks", "said"),
    [
        pytest.param({"a": {"kind": "splunk"}}, "expected kind 'syslog'", id="another kind"),
        pytest.param({"a": {**SYSLOG, "ca_bundle": None}}, "ca_bundle", id="without roots"),
        pytest.param(
            {"a": {**SYSLOG, "certificate": "/c"}}, "go together", id="certificate without key"
        ),
        pytest.param({"a": {**SYSLOG, "facility": 24}}, "facility", id="facility"),
        pytest.param({"a": {"kind": "file", "path": "audit"}}, "absolute", id="relative path"),
        pytest.param(
            {"a": {"kind": "stdout"}, "b": {"kind": "stdout"}}, "at most one", id="stdout twice"
        ),
    ],
)
def test_sink_that_cannot_work_is_refused(
    faults_of: FaultsOf, sinks: dict[str, Any], said: str
) -> None:
    """With the place."""
    found = " ".join(faults_of({"audit": {"sinks": sinks}}))
    assert said in found
    assert "audit" in found


def test_key_in_vault_wants_a_vault(faults_of: FaultsOf) -> None:
    """No key file takes its place unsaid."""
    found = " ".join(faults_of({"audit.checkpoints.key_store": "vault:transit"}))
    assert "no Vault is configured" in found


def test_file_in_the_state_directory_is_refused(faults_of: FaultsOf) -> None:
    """Each backup would take it along."""
    sinks = {"a": {"kind": "file", "path": "/var/lib/penstock/audit.jsonl"}}
    (found,) = faults_of({"audit": {"sinks": sinks}})
    assert found.startswith("audit.sinks.a.path: audit file")
