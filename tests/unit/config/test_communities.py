"""Communities and declared keys."""

from datetime import timedelta

import pytest

from broker.config.values import Endpoint, SecretRef
from tests.unit.config.conftest import FaultsOf, Parse


def test_community_says_how_it_validates(parse: Parse) -> None:
    """Resolvers, ports and networks are each community's own."""
    validation = {
        "resolvers": ["10.0.0.53:5353"],
        "hosts": {"a.corp.example": ["10.1.2.3"]},
        "http_port": 5002,
        "networks": {"allow": ["10.0.0.0/8"]},
    }
    config = parse({"communities": {"default": {"validation": validation}}})
    made = config.communities["default"].validation
    assert made.resolvers == (Endpoint("10.0.0.53", 5353),)
    assert [str(each) for each in made.networks.allow] == ["10.0.0.0/8"]
    assert [str(each) for each in made.hosts["a.corp.example"]] == ["10.1.2.3"]
    assert (made.http_port, made.https_port) == (5002, 443)


def test_community_validates_through_its_own_proxy(parse: Parse) -> None:
    """An address, credentials by reference; without the section connections go straight."""
    proxy = {"address": "proxy.corp.example:3128", "credentials": "env:PROXY"}
    config = parse({"communities": {"default": {"validation": {"proxy": proxy}}}})
    made = config.communities["default"].validation.proxy
    assert made is not None
    assert made.address == Endpoint("proxy.corp.example", 3128)
    assert made.credentials == SecretRef("env", "PROXY")
    assert not made.forward_http
    assert parse({}).communities["default"].validation.proxy is None


def test_contact_of_a_community_needs_an_owner(faults_of: FaultsOf, parse: Parse) -> None:
    """A number beside no name is nobody's."""
    contact = {"contact": "pki@corp.example"}
    (fault,) = faults_of({"communities": {"default": contact}})
    assert "a contact needs an owner" in str(fault)
    made = parse({"communities": {"default": {**contact, "owner": "team-pki"}}})
    assert made.communities["default"].owner == "team-pki"


def test_version_of_terms_needs_terms(faults_of: FaultsOf, parse: Parse) -> None:
    """Nobody agrees to the second version of nothing."""
    terms = {"terms_version": "2", "terms_instructions": "https://pki.corp.example/how"}
    (fault,) = faults_of({"communities": {"default": terms}})
    assert "need terms_of_service" in fault
    terms["terms_of_service"] = "https://pki.corp.example/terms"
    assert parse({"communities": {"default": terms}}).communities["default"].terms_version == "2"


def test_pre_authorization_is_off_unless_it_has_a_length(parse: Parse) -> None:
    """And then it is as long as that."""
    assert parse({}).communities["default"].pre_authorization is None
    config = parse({"communities": {"default": {"pre_authorization": "7d"}}})
    assert config.communities["default"].pre_authorization == timedelta(days=7)


def test_proxy_is_no_url(faults_of: FaultsOf) -> None:
    """The fault names the key."""
    proxy = {"address": "http://proxy.corp.example:3128"}
    (fault,) = faults_of({"communities": {"default": {"validation": {"proxy": proxy}}}})
    assert fault.startswith("communities.default.validation.proxy.address: ")


@pytest.mark.parametrize("port", [0, -1, 65_536, "80"])
def test_port_is_a_port(faults_of: FaultsOf, port: object) -> None:
    """Nothing listens at any other number."""
    (fault,) = faults_of({"communities": {"default": {"validation": {"http_port": port}}}})
    assert fault.startswith("communities.default.validation.http_port: ")


def test_declared_key_is_a_reference(parse: Parse) -> None:
    """The MAC key itself stands elsewhere."""
    declared = {"key_id": "farm", "mac_key": "env:FARM_KEY", "names": ["*.build.corp.example"]}
    (key,) = parse({"external_account_bindings": [declared]}).external_account_bindings
    assert key.mac_key == SecretRef("env", "FARM_KEY")
    assert (key.community, key.is_reusable) == ("default", True)


def test_pattern_of_a_declared_key_is_one(faults_of: FaultsOf) -> None:
    """A limit that nobody can read limits nothing."""
    declared = {"key_id": "farm", "mac_key": "env:FARM_KEY", "names": ["build*.corp.example"]}
    (fault,) = faults_of({"external_account_bindings": [declared]})
    assert fault.startswith("external_account_bindings[0].names[0]: ")
    assert "whole leftmost label" in fault
