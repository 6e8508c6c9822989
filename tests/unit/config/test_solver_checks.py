"""What no section of a solver can see alone."""

from typing import Any

import pytest

from broker.config import dns_providers
from tests.unit.config.conftest import FaultsOf, Parse
from tests.unit.config.test_solvers import PROVIDER, changed


def with_provider(**more: Any) -> dict[str, object]:
    """Return a configuration with a provider that was changed so."""
    return changed({"challenge": "dns-01", "provider": {**PROVIDER, **more}})


def test_known_provider_with_its_options_is_taken(parse: Parse) -> None:
    """Spelled with a hyphen, too, as the library's command line has it."""
    parse(with_provider())
    parse(with_provider(options={"pdns-server": "http://10.0.0.53:8081"}))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        pytest.param({"name": "powerdsn"}, "no DNS provider is called 'powerdsn'", id="name"),
        pytest.param(
            {"options": {"pdns_sever": "x"}},
            "solvers[0].provider.options.pdns_sever: DNS provider 'powerdns' has no option",
            id="option",
        ),
        pytest.param({"secrets": {"token": "env:PDNS"}}, "has no option 'token'", id="secret"),
    ],
)
def test_unknown_word_is_a_fault(faults_of: FaultsOf, more: dict[str, Any], words: str) -> None:
    """With its place."""
    assert any(words in fault for fault in faults_of(with_provider(**more)))


def test_nearest_name_is_offered(parse: Parse) -> None:
    """Whoever mistyped it sees what was meant."""
    with pytest.raises(Exception, match=r"did you mean 'powerdns'\?"):
        parse(with_provider(name="powerdsn"))


def test_missing_library_is_told(faults_of: FaultsOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    monkeypatch.setattr(dns_providers, "names", lambda: ())
    assert any("is not installed" in fault for fault in faults_of(with_provider()))


def test_missing_package_of_a_provider_is_told(
    faults_of: FaultsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few providers need more than the library."""
    monkeypatch.setattr(dns_providers, "missing_packages", lambda _name: ("boto3",))
    assert any("needs packages" in fault for fault in faults_of(with_provider()))


def test_tls_alpn_needs_its_listener(faults_of: FaultsOf) -> None:
    """As http-01 needs the plain one."""
    changes = changed({"challenge": "tls-alpn-01"})
    del changes["listen.tls_alpn"]
    assert any("at the listener tls_alpn, which is missing" in one for one in faults_of(changes))
