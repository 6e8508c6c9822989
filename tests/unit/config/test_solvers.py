"""Solvers of every kind, with what contradicts itself refused."""

from typing import Any

import pytest

from broker.config.solvers import (
    ExecSolver,
    HttpSolver,
    ProviderSolver,
    Rfc2136Solver,
    TlsAlpnSolver,
    WebhookSolver,
)
from broker.config.upstreams import AcmeUpstream
from tests.unit.config.conftest import FaultsOf, Parse

ACME: dict[str, Any] = {"kind": "acme", "directory": "https://ca.example/directory"}
RFC2136 = {"server": "10.0.0.53:53", "tsig": {"name": "key", "secret": "env:TSIG"}}
PROVIDER: dict[str, Any] = {
    "name": "powerdns",
    "zone": "acme.example",
    "options": {"pdns_server": "http://10.0.0.53:8081"},
    "secrets": {"auth_token": "env:PDNS"},
}
WEBHOOK: dict[str, Any] = {"url": "https://hook.example/", "bearer": "env:HOOK"}
EXEC: dict[str, Any] = {"command": ["/usr/local/bin/hook", "--zone"]}
SOLVERS: list[dict[str, Any]] = [
    {"challenge": "dns-01", "rfc2136": RFC2136},
    {"challenge": "dns-01", "provider": PROVIDER},
    {"challenge": "dns-01", "webhook": WEBHOOK},
    {"challenge": "dns-01", "exec": EXEC},
    {"challenge": "http-01"},
    {"challenge": "tls-alpn-01"},
]


def changed(solver: dict[str, Any]) -> dict[str, object]:
    """Return a configuration with this solver."""
    return {"upstreams.ca": {**ACME, "solvers": [solver]}, "listen.tls_alpn": {}}


def test_each_kind_is_known_by_its_challenge_and_its_way(parse: Parse) -> None:
    """In the order in which they are tried."""
    read = parse({"upstreams.ca": {**ACME, "solvers": SOLVERS}, "listen.tls_alpn": {}})
    made = read.upstreams["ca"]
    assert isinstance(made, AcmeUpstream)
    kinds = [Rfc2136Solver, ProviderSolver, WebhookSolver, ExecSolver, HttpSolver, TlsAlpnSolver]
    assert [type(one) for one in made.solvers] == kinds


@pytest.mark.parametrize(
    ("solver", "words"),
    [
        ({"challenge": "dns-01"}, "with one of rfc2136, provider, webhook and exec"),
        ({"challenge": "http-02"}, "expected challenge 'http-01' or 'tls-alpn-01'"),
        ({**SOLVERS[0], "exec": EXEC}, "unknown key 'exec'"),
        ({"challenge": "dns-01", "provider": {**PROVIDER, "zone": "a..b"}}, "name of a zone"),
        ({"challenge": "dns-01", "provider": {**PROVIDER, "options": {"auth_token": "x"}}},
         "option 'auth_token' is a secret, give a reference in secrets"),
        ({"challenge": "dns-01", "provider": {**PROVIDER, "secrets": {"auth_token": "hush"}}},
         "what stands here is not shown"),
        ({"challenge": "dns-01", "webhook": {"url": "https://hook.example/"}}, "at least one"),
        ({"challenge": "dns-01", "webhook": {**WEBHOOK, "url": "http://hook.example/"}},
         "https://"),
        ({"challenge": "dns-01", "exec": {"command": ["hook"]}}, "no absolute path"),
        ({"challenge": "dns-01", "exec": {"command": []}}, "at least 1"),
        ({"challenge": "dns-01", "exec": {**EXEC, "environment": {"A": "1"},
                                          "secrets": {"A": "env:A"}}}, "in secrets"),
    ],
    ids=["way", "challenge", "two-ways", "zone", "plain-secret", "secret", "proof", "plain-hook",
         "path", "no-command", "twice"],
)  # fmt: skip
def test_wrong_solver_is_a_fault(faults_of: FaultsOf, solver: dict[str, Any], words: str) -> None:
    """Each is told with what was expected, and no secret is repeated."""
    faults = faults_of(changed(solver))
    assert any(words in fault for fault in faults), faults
    assert not any("hush" in fault for fault in faults)
