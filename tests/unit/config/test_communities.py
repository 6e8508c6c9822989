"""Communities and declared keys."""

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
