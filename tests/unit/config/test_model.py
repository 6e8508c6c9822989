"""The shape of the configuration: defaults, units, and what contradicts itself."""

from datetime import timedelta
from pathlib import Path

import pytest

from broker.config.model import LogFormat
from broker.config.values import Endpoint
from broker.policy.units import Rate
from tests.unit.config.conftest import FaultsOf, Parse


def test_smallest_configuration_has_harmless_defaults(parse: Parse) -> None:
    """What is left out is set so that nothing surprising is open."""
    config = parse()
    assert list(config.communities) == ["default"]
    assert config.listen.health.address == Endpoint("127.0.0.1", 8081)
    assert config.limits.body == 64 * 1024
    assert config.limits.finalize_wait == timedelta(seconds=5)
    assert config.operator_socket == Path("/var/lib/penstock/operator.sock")
    assert config.log.format is LogFormat.AUTO
    assert config.policies is None


def test_operator_socket_can_stand_elsewhere(parse: Parse) -> None:
    """A runtime directory is where distributions keep sockets."""
    config = parse({"listen.operator.socket": "/run/penstock/operator.sock"})
    assert config.operator_socket == Path("/run/penstock/operator.sock")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("limits.finalize_wait", 5, "limits.finalize_wait: 5 has no unit"),
        ("limits.body", 65536, "limits.body: 65536 has no unit"),
        ("limits.rates.account", 600, "limits.rates.account: expected a rate such as '600/1m'"),
        ("limits.rates.acount", "600/1m", "unknown key 'acount'"),
        ("limits.finalise_wait", "5s", "unknown key 'finalise_wait'"),
        ("apiVersion", "penstock.dev/v2", "apiVersion: expected 'penstock.dev/v1'"),
        ("kind", "Policy", "kind: expected 'Broker'"),
        ("log.level", "loud", "log.level: expected 'debug', 'info', 'warning' or 'error'"),
        ("external_url", None, ": missing key 'external_url'"),
        ("keys", None, ": missing key 'keys'"),
        ("communities", {}, "communities: "),
        ("upstreams", {}, "upstreams: "),
        ("policies", [], "policies: "),
        ("state", "var/lib/penstock", "state: expected an absolute path"),
    ],
    ids=["duration", "size", "rate", "unknown rate", "unknown", "version", "kind", "word", "url",
         "keys", "communities",
         "upstreams", "policies", "relative"],
)  # fmt: skip
def test_wrong_value_is_a_fault_at_its_key(
    faults_of: FaultsOf, path: str, value: object, words: str
) -> None:
    """Each is told in the words of whoever mends it."""
    assert any(words in fault for fault in faults_of({path: value}))


@pytest.mark.parametrize(
    "acme",
    [
        {},
        {"certificate": "/etc/tls.crt"},
        {"key": "/etc/tls.key"},
        {"certificate": "/etc/tls.crt", "key": "/etc/tls.key", "from": "local"},
    ],
    ids=["neither", "no-key", "no-certificate", "both"],
)
def test_listener_has_one_source_of_its_certificate(
    faults_of: FaultsOf, acme: dict[str, str]
) -> None:
    """Files or a built-in CA, and not a guess between them."""
    assert len(faults_of({"listen.acme": acme})) == 1


def test_listener_takes_files(parse: Parse) -> None:
    """The twin: certificate and key together are right."""
    config = parse({"listen.acme": {"certificate": "/etc/tls.crt", "key": "/etc/tls.key"}})
    assert config.listen.acme.issued_by is None


def test_further_names_go_with_a_certificate_of_the_brokers_own(
    parse: Parse, faults_of: FaultsOf
) -> None:
    """What a file certifies is up to whoever made it."""
    names = ["agents.corp.example", "192.0.2.7"]
    assert parse({"listen.acme.names": names}).listen.acme.names == tuple(names)
    files = {"certificate": "/etc/tls.crt", "key": "/etc/tls.key", "names": names}
    (fault,) = faults_of({"listen.acme": files})
    assert "names go with from" in fault


def test_rates_are_generous_and_can_be_switched_off(parse: Parse) -> None:
    """Each has a default, and ``off`` is a word."""
    rates = parse({}).limits.rates
    given = (getattr(rates, name) for name in type(rates).model_fields)
    assert all(rate is not None and rate.count >= 60 for rate in given)
    off = parse({"limits.rates": {"account": "off", "new_orders": "5/1s"}}).limits.rates
    assert off.account is None
    assert off.new_orders == Rate(5, timedelta(seconds=1))
    assert off.address == rates.address


def test_all_faults_are_told_together(faults_of: FaultsOf) -> None:
    """Nobody mends one fault to learn of the next."""
    faults = faults_of({"limits.body": 1, "log.level": "x", "external_url": "http://a.example"})
    assert len(faults) == 3
