"""What has to fit between the ways to enrol and the rest of the file."""

from typing import Any

from tests.unit.config.conftest import FaultsOf, Parse
from tests.unit.config.test_vouching import CLUSTER, REVIEW, RULE, agents, with_cluster

OWN: dict[str, Any] = {"rules": [{**RULE, "names": ["{service_account}.{cluster}.example"]}]}
"""Rules whose names are of their own cluster."""

PROD: dict[str, Any] = {**CLUSTER, **OWN}

CERTIFICATE: dict[str, Any] = {"names": ["*.hosts.corp.example"]}


def test_rules_for_certificates_need_anchors(parse: Parse, faults_of: FaultsOf) -> None:
    """Without a root no certificate proves anything."""
    (fault,) = faults_of(agents(client_certificates=[CERTIFICATE]))
    assert "no anchors" in fault
    given = agents(client_certificates=[CERTIFICATE], client_anchors="/etc/penstock/a.pem")
    assert parse(given).agents is not None


def test_revocation_lists_without_a_rule_are_a_fault(parse: Parse, faults_of: FaultsOf) -> None:
    """Whoever names them thinks that certificates let nodes in."""
    lists = {"client_revocation_lists": ["/etc/penstock/a.crl"]}
    (fault,) = faults_of(agents(**lists))
    assert "no client certificate lets a node enrol" in fault
    anchors = {"client_certificates": [CERTIFICATE], "client_anchors": "/etc/penstock/a.pem"}
    assert parse(agents(**lists, **anchors)).agents is not None


def test_communities_of_rules_are_known(faults_of: FaultsOf) -> None:
    """A rule for a community that is not there would let nobody in."""
    (fault,) = faults_of(with_cluster(rules=[{**RULE, "community": "defualt"}]))
    assert "'defualt'" in fault
    rules = [{**CERTIFICATE, "community": "mail"}]
    (fault,) = faults_of(agents(client_certificates=rules, client_anchors="/a.pem"))
    assert "mail" in fault


def test_tokens_of_one_issuer_are_not_shown_to_two_api_servers(
    parse: Parse, faults_of: FaultsOf
) -> None:
    """A token is a secret of its cluster; keys may be tried one after the other."""
    reviewed = {name: value for name, value in CLUSTER.items() if name != "keys"}
    reviewed["review"] = REVIEW
    (fault,) = faults_of(agents(clusters={"prod": PROD, "test": {**reviewed, **OWN}}))
    assert "would be shown to the other" in fault
    apart = {**reviewed, "issuer": "https://test.example"}
    assert parse(agents(clusters={"prod": PROD, "test": {**apart, **OWN}})).agents is not None
    assert parse(agents(clusters={"prod": PROD, "test": {**CLUSTER, **OWN}})).agents is not None
