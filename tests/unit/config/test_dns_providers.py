"""Providers and their options, as they stand in the library's files."""

import sys

from broker.config import dns_providers


def test_library_is_read_and_not_imported() -> None:
    """Its code, and that of all that it depends on, stays out of the broker."""
    before = set(sys.modules)
    assert "powerdns" in dns_providers.names()
    assert "auth_token" in dns_providers.options_of("powerdns")
    new = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert not new & {"lexicon", "requests", "tldextract"}


def test_providers_are_those_that_take_a_zone() -> None:
    """The one that guesses the provider by asking DNS is none."""
    found = dns_providers.names()
    assert len(found) > 80
    assert not set(found) & {"auto", "base", "__init__"}


def test_options_are_those_of_the_source() -> None:
    """Declared on the library's command line, or read without being declared."""
    assert dns_providers.options_of("powerdns") == {
        "auth_token", "pdns_server", "pdns_server_id", "pdns_disable_notify"
    }  # fmt: skip
    assert "api_endpoint" in dns_providers.options_of("dnsimple")


def test_second_name_of_a_provider_has_its_options() -> None:
    """They stand in the file of the first."""
    assert dns_providers.options_of("linode4") == {"auth_token"}


def test_packages_that_a_provider_needs_besides_are_told() -> None:
    """Most need none."""
    assert dns_providers.missing_packages("powerdns") == ()
    assert set(dns_providers.missing_packages("route53")) <= {"boto3"}
