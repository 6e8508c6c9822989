"""Upstreams of both kinds, with what contradicts itself refused."""

from datetime import timedelta

import pytest

from broker.config.solvers import Rfc2136Solver
from broker.config.upstreams import AcmeUpstream, BuiltinUpstream
from tests.unit.config.conftest import FaultsOf, Parse

ACME: dict[str, object] = {"kind": "acme", "directory": "https://ca.example/directory"}
SOLVER: dict[str, object] = {
    "challenge": "dns-01",
    "rfc2136": {"server": "10.0.0.53:53", "tsig": {"name": "key", "secret": "env:TSIG"}},
}


def test_built_in_ca_has_a_profile_to_begin_with(parse: Parse) -> None:
    """Server certificates of 47 days, 90 at most."""
    upstream = parse().upstreams["local"]
    assert isinstance(upstream, BuiltinUpstream)
    assert upstream.profiles["server"].extended_key_usages == ("serverAuth",)
    assert upstream.profiles["server"].max_lifetime == timedelta(days=90)


def test_profile_of_the_built_in_ca_says_what_its_certificates_say(parse: Parse) -> None:
    """Usages of both kinds, policies and the common name, in the words of the RFC."""
    section = {
        "usages": ["server-auth", "1.3.6.1.5.5.7.3.17"],
        "key_usages": ["digital-signature", "key-agreement"],
        "policy_oids": ["1.3.6.1.4.1.55555.1"],
        "common_name": True,
    }
    upstream = parse({"upstreams.local.profiles": {"client": section}}).upstreams["local"]
    assert isinstance(upstream, BuiltinUpstream)
    profile = upstream.profiles["client"]
    assert profile.extended_key_usages == ("serverAuth", "1.3.6.1.5.5.7.3.17")
    assert profile.rfc_key_usages == ("digitalSignature", "keyAgreement")
    assert profile.policy_oids == ("1.3.6.1.4.1.55555.1",)
    assert profile.common_name


def test_acme_upstream_takes_solvers_in_their_order(parse: Parse) -> None:
    """The first that fits a name answers for it."""
    upstream = parse({"upstreams.ca": {**ACME, "solvers": [SOLVER, {"challenge": "http-01"}]}})
    made = upstream.upstreams["ca"]
    assert isinstance(made, AcmeUpstream)
    assert [each.challenge for each in made.solvers] == ["dns-01", "http-01"]
    assert isinstance(made.solvers[0], Rfc2136Solver)
    assert made.solvers[0].self_check.enabled


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("upstreams.local.kind", "own", "expected kind 'built-in' or 'acme'"),
        ("upstreams.local.kind", None, "expected kind 'built-in' or 'acme'"),
        ("upstreams.local.crl_lifetime", "59m", "is shorter than 1h"),
        ("upstreams.local.profiles", {"a": {"key_usages": ["cert-sign"]}},
         "expected one of digital-signature"),
        ("upstreams.local.base_url", "https://pki.example", "a verifier cannot use TLS yet"),
        ("upstreams.local.base_url", "http://pki.example/", "without '/' at its end"),
        ("upstreams.local.profiles", {}, "profiles is empty"),
        ("upstreams.local.profiles", {"a": {"lifetime": "91d"}}, "lifetime is longer than"),
        ("upstreams.local.profiles", {"a": {"usages": ["sewing"]}}, "or a dotted OID"),
        ("upstreams.local.profiles", {"a": {"policy_oids": ["1.02"]}}, "expected a dotted OID"),
        ("upstreams.local.directory", "https://ca.example", "unknown key 'directory'"),
        ("upstreams.ca", {**ACME, "directory": "http://ca.example"}, "expected a URL 'https://"),
        ("upstreams.ca", {**ACME, "contacts": ["ops@corp.example"]}, "is not 'mailto:'"),
        ("upstreams.ca", {**ACME, "solvers": [{"challenge": "tls-alpn-02"}]}, "expected challenge"),
        ("upstreams.ca", {**ACME, "solvers": [{**SOLVER, "rfc2136": {}}]}, "missing key 'server'"),
        ("upstreams.ca", {**ACME, "solvers": [{**SOLVER, "names": ["w*.a.example"]}]}, "'*'"),
    ],
    ids=["kind", "no-kind", "crl-lifetime", "key-usage", "tls", "slash", "no-profile",
         "lifetime", "usage", "oid", "other-kind", "plain", "contact", "challenge", "solver",
         "pattern"],
)  # fmt: skip
def test_wrong_upstream_is_a_fault(
    faults_of: FaultsOf, path: str, value: object, words: str
) -> None:
    """Each is told with what was expected."""
    assert any(words in fault for fault in faults_of({path: value}))
