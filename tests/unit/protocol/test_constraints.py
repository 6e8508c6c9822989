"""Name constraints, by kind of name."""

import ipaddress

import pytest
from cryptography import x509

from broker.protocol.constraints import ConstrainedNames, check_name_constraints
from broker.protocol.identifiers import Identifier, IdentifierType
from tests.unit.protocol.builders import name

DNS = x509.DNSName
MAIL = x509.RFC822Name


def net(text: str) -> x509.IPAddress:
    """Return an address constraint."""
    return x509.IPAddress(ipaddress.ip_network(text))


def names(
    *texts: str, kind: str = "dns", others: tuple[str, ...] = (), subject: x509.Name | None = None
) -> ConstrainedNames:
    """Return the names of a certificate."""
    return ConstrainedNames(
        identifiers=frozenset(Identifier(IdentifierType(kind), text) for text in texts),
        other_kinds=frozenset(others),
        subject=subject or x509.Name([]),
    )


def check(
    what: ConstrainedNames,
    permitted: list[x509.GeneralName] | None = None,
    excluded: list[x509.GeneralName] | None = None,
) -> str | None:
    """Return the finding on names under constraints."""
    return check_name_constraints(x509.NameConstraints(permitted, excluded), what)


@pytest.mark.parametrize(
    ("constraint", "text", "is_within"),
    [
        ("example.com", "example.com", True),
        ("example.com", "www.example.com", True),
        ("example.com", "a.b.example.com", True),
        ("example.com", "*.example.com", True),
        ("Example.COM", "www.example.com", True),
        ("example.com", "evil-example.com", False),
        ("example.com", "example.com.evil.net", False),
        ("example.com", "com", False),
        ("example.com", "example.org", False),
        ("www.example.com", "*.example.com", False),
        ("www.example.com", "example.com", False),
        (".example.com", "www.example.com", True),
        (".example.com", "example.com", False),
        (".example.com", "evilexample.com", False),
        ("", "anything.example", True),
    ],
)
def test_permitted_names(constraint: str, text: str, is_within: bool) -> None:
    """Labels are compared, not characters."""
    assert (check(names(text), [DNS(constraint)]) is None) == is_within


@pytest.mark.parametrize(
    ("constraint", "text", "is_touched"),
    [
        ("example.com", "example.com", True),
        ("example.com", "www.example.com", True),
        ("example.com", "evil-example.com", False),
        ("www.example.com", "*.example.com", True),
        ("www.example.com", "*.www.example.com", True),
        ("a.www.example.com", "*.example.com", False),
        (".example.com", "example.com", False),
    ],
)
def test_excluded_names(constraint: str, text: str, is_touched: bool) -> None:
    """A wildcard that stands for an excluded name is excluded too."""
    finding = check(names(text), None, [DNS(constraint)])
    assert (finding is not None) == is_touched


@pytest.mark.parametrize(
    ("network", "address", "is_within"),
    [
        ("192.0.2.0/24", "192.0.2.1", True),
        ("192.0.2.0/24", "192.0.3.1", False),
        ("2001:db8::/32", "2001:db8::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("192.0.2.0/24", "2001:db8::1", False),
    ],
)
def test_addresses(network: str, address: str, is_within: bool) -> None:
    """An address lies in the network or not; families do not mix."""
    what = names(address, kind="ip")
    assert (check(what, [net(network)]) is None) == is_within
    assert (check(what, None, [net(network)]) is None) != is_within


@pytest.mark.parametrize(
    ("constraint", "address", "is_within"),
    [
        ("example.com", "a@example.com", True),
        ("example.com", "a@mail.example.com", False),
        (".example.com", "a@mail.example.com", True),
        (".example.com", "a@example.com", False),
        ("a@Example.com", "a@example.com", True),
        ("a@example.com", "b@example.com", False),
    ],
)
def test_mail_addresses(constraint: str, address: str, is_within: bool) -> None:
    """RFC 5280 §4.2.1.10: a mailbox, a host, or everything below a host."""
    what = names(address, kind="email")
    assert (check(what, [MAIL(constraint)]) is None) == is_within


def test_constraints_of_one_kind_leave_the_other_kinds_alone() -> None:
    """Permitted DNS names say nothing of addresses."""
    assert check(names("192.0.2.1", kind="ip"), [DNS("example.com")]) is None
    assert check(names("a@b.example", kind="email"), [DNS("example.com")]) is None


def test_every_name_has_to_be_within() -> None:
    """One bad name among good ones is the finding."""
    finding = check(names("a.example.com", "b.example.org"), [DNS("example.com")])
    assert finding == "'b.example.org' is outside the permitted names"


def test_excluded_wins_over_permitted() -> None:
    """A name within both is refused."""
    finding = check(names("a.example.com"), [DNS("example.com")], [DNS("a.example.com")])
    assert finding == "'a.example.com' is among the excluded names"


@pytest.mark.parametrize(
    ("subject", "is_within"),
    [
        pytest.param(name(organization_name="Example"), True, id="the same"),
        pytest.param(name("x", organization_name="EXAMPLE"), True, id="below, another case"),
        pytest.param(name(organization_name="Other"), False, id="another"),
        pytest.param(name("x"), False, id="without it"),
        pytest.param(x509.Name([]), True, id="empty"),
    ],
)
def test_directory_names(subject: x509.Name, is_within: bool) -> None:
    """The subject begins with the permitted name, or is empty."""
    root = x509.DirectoryName(name(organization_name="Example"))
    what = names("a.example", subject=subject)
    assert (check(what, [root]) is None) == is_within
    if subject.rdns:
        assert (check(what, None, [root]) is None) != is_within


def test_names_that_cannot_be_judged_are_a_finding() -> None:
    """A URI under a URI constraint is refused: unsure means no."""
    constraint = x509.UniformResourceIdentifier("example.com")
    finding = check(names("a.example", others=("uri",)), [constraint])
    assert finding == "names of kind uri are constrained and cannot be judged"
    assert check(names("a.example", others=("otherName",)), [constraint]) is None
