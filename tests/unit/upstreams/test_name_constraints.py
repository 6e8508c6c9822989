"""Which constraints are written for which permitted names."""

import ipaddress

import pytest
from cryptography import x509

from broker.issuance.errors import Broken
from broker.protocol.constraints import ConstrainedNames, check_name_constraints
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.upstreams.name_constraints import (
    UNCONSTRAINED,
    PermittedNames,
    certifiable_types,
    mail_subtree,
    name_constraints_extension,
)

NETWORK = ipaddress.ip_network("10.0.0.0/8")


def is_permitted(permitted: PermittedNames, kind: str, value: str) -> bool:
    """Tell whether the written constraints let a name pass."""
    constraints = name_constraints_extension(permitted)
    assert constraints is not None
    identifier = Identifier(IdentifierType(kind), value)
    names = ConstrainedNames(frozenset({identifier}), frozenset(), x509.Name([]))
    return check_name_constraints(constraints, names) is None


def test_nothing_permitted_in_particular_means_no_constraint() -> None:
    """An unconstrained CA has no such extension."""
    assert name_constraints_extension(UNCONSTRAINED) is None


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("dns", "corp.example", True),
        ("dns", "a.b.corp.example", True),
        ("dns", "*.corp.example", True),
        ("dns", "host.internal", True),
        ("dns", "evilcorp.example", False),
        ("dns", "corp.example.evil.net", False),
        ("dns", "example", False),
        ("ip", "10.1.2.3", False),
        ("ip", "fd00::1", False),
    ],
)
def test_suffixes_permit_names_below_them_and_no_addresses(
    kind: str, value: str, expected: bool
) -> None:
    """A CA for names certifies no address."""
    permitted = PermittedNames(("Corp.Example", "internal"))
    assert is_permitted(permitted, kind, value) is expected


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("ip", "10.1.2.3", True),
        ("ip", "11.1.2.3", False),
        ("ip", "fd00::1", False),
        ("dns", "corp.example", False),
    ],
)
def test_networks_permit_their_addresses_and_no_names(
    kind: str, value: str, expected: bool
) -> None:
    """A CA for addresses certifies no name."""
    assert is_permitted(PermittedNames(networks=(NETWORK,)), kind, value) is expected


@pytest.mark.parametrize("suffix", ["", ".corp.example", "*.corp.example", "corp_example", "a..b"])
def test_suffix_that_is_no_name_is_refused(suffix: str) -> None:
    """A typing error must not become a constraint that means something else."""
    with pytest.raises(Broken, match="is no DNS name"):
        name_constraints_extension(PermittedNames((suffix,)))


@pytest.mark.parametrize(
    ("permitted", "types"),
    [
        pytest.param(PermittedNames(("corp.example",)), {"dns"}, id="names-alone"),
        pytest.param(PermittedNames(networks=(NETWORK,)), {"ip"}, id="addresses-alone"),
        pytest.param(PermittedNames(("corp.example",), (NETWORK,)), {"dns", "ip"}, id="both"),
        pytest.param(PermittedNames(mail=("corp.example",)), {"email"}, id="e-mail-alone"),
        pytest.param(
            PermittedNames(("corp.example",), mail=(".corp.example",)), {"dns", "email"}, id="mixed"
        ),
    ],
)
def test_types_that_are_excluded_altogether_are_not_offered(
    permitted: PermittedNames, types: set[str]
) -> None:
    """Policy can then pass over the CA before anything is ordered."""
    constraints = name_constraints_extension(permitted)
    assert constraints is not None
    assert certifiable_types([constraints]) == types
    assert certifiable_types([]) == {"dns", "ip", "email"}


def test_e_mail_is_certified_where_every_constraint_permits_some() -> None:
    """A root that says nothing of it did not mean an issuer to certify it."""
    names = name_constraints_extension(PermittedNames(("corp.example",)))
    mail = name_constraints_extension(PermittedNames(("corp.example",), mail=("corp.example",)))
    assert names is not None
    assert mail is not None
    assert certifiable_types([mail, mail]) == {"dns", "email"}
    assert certifiable_types([mail, names]) == {"dns"}


@pytest.mark.parametrize(
    ("pattern", "address", "expected"),
    [
        ("@corp.example", "jane@corp.example", True),
        ("@corp.example", "jane@eu.corp.example", False),
        ("@corp.example", "jane@evilcorp.example", False),
        ("@**.corp.example", "jane@eu.corp.example", True),
        ("@**.corp.example", "jane@corp.example", False),
        ("@*.corp.example", "jane@eu.corp.example", True),
        ("jane@corp.example", "jane@corp.example", True),
        ("jane@corp.example", "Jane@corp.example", False),
    ],
)
def test_patterns_of_e_mail_permit_what_they_cover(
    pattern: str, address: str, expected: bool
) -> None:
    """As RFC 5280 §4.2.1.10 writes a mailbox, a host and a domain; names are excluded then."""
    permitted = PermittedNames(mail=(mail_subtree(pattern),))
    assert is_permitted(permitted, "email", address) is expected
    assert not is_permitted(permitted, "dns", address.rpartition("@")[2])


@pytest.mark.parametrize("pattern", ["@**", "corp.example", "@", "a b@corp.example", "@10.0.0.0/8"])
def test_what_is_no_domain_of_e_mail_is_not_permitted(pattern: str) -> None:
    """To permit every address no constraint is written, and somebody has to say so."""
    with pytest.raises(Broken, match="permitted e-mail"):
        mail_subtree(pattern)
