"""Identifiers: the one spelling of each, and everything that is refused."""

import json
import time

import pytest

from broker.protocol.identifiers import (
    Identifier,
    IdentifierType,
    addresses_beyond,
    canonical_dns_name,
    canonical_email_address,
    canonical_ip_address,
    parse_identifier,
    parse_name_or_address,
    parse_written_identifier,
)
from broker.protocol.problems import Problem, ProblemType
from tests.unit.protocol.builders import VECTORS

NAMES = json.loads((VECTORS / "dns_names.json").read_text(encoding="utf-8"))


def by_id(entries: list[dict[str, str]]) -> pytest.MarkDecorator:
    """Return a table of vectors with their ids."""
    return pytest.mark.parametrize("entry", entries, ids=[entry["id"] for entry in entries])


@by_id(NAMES["accepted"])
def test_dns_name_gets_its_one_spelling(entry: dict[str, str]) -> None:
    """A name that may be asked for becomes lower case A-labels, and stays so."""
    canonical = canonical_dns_name(entry["text"])
    assert canonical == entry["canonical"]
    assert canonical_dns_name(canonical) == canonical
    parsed = parse_identifier({"type": "dns", "value": entry["text"]})
    assert parsed == Identifier(IdentifierType.DNS, canonical)


@by_id(NAMES["refused"])
def test_dns_name_is_refused_with_the_reason(entry: dict[str, str]) -> None:
    """A name that may not be asked for is rejectedIdentifier, and the sentence says why."""
    with pytest.raises(Problem) as caught:
        parse_identifier({"type": "dns", "value": entry["text"]})
    assert caught.value.type is ProblemType.REJECTED_IDENTIFIER
    assert entry["because"] in caught.value.detail


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a." * 50_000 + "com", id="many labels"),
        pytest.param("ä" * 100_000, id="not ASCII"),
        pytest.param("xn--" + "a" * 100_000, id="long A-label"),
        pytest.param("٠" * 252, id="253 Arabic digits"),
        pytest.param("*." * 126, id="wildcards"),
    ],
)
def test_hostile_name_costs_little(text: str) -> None:
    """Length is judged before anything else looks at the name (CVE-2024-3651)."""
    started = time.thread_time()
    with pytest.raises(Problem) as caught:
        canonical_dns_name(text)
    assert time.thread_time() - started < 0.05
    assert len(caught.value.detail) < 1000


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("192.0.2.1", id="IPv4"),
        pytest.param("2001:db8::1", id="IPv6"),
        pytest.param("2001:db8:0:1::", id="IPv6 of a network"),
        pytest.param("2001:db8:1:1:1:1:1:1", id="IPv6 without zeros"),
        pytest.param("2001:db8:0:1:1:1:1:1", id="IPv6 with one zero, which is not shortened"),
        pytest.param("::1", id="IPv6 loopback"),
    ],
)
def test_ip_address_in_its_one_spelling_is_taken(text: str) -> None:
    """RFC 5952 §4 for IPv6; whether an address is served is policy."""
    assert canonical_ip_address(text) == text
    assert parse_identifier({"type": "ip", "value": text}).value == text


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("www.corp.example", "dns"),
        ("*.corp.example", "dns"),
        ("host.example1", "dns"),
        ("192.0.2.1", "ip"),
        ("2001:db8::1", "ip"),
    ],
)
def test_what_a_person_writes_is_a_name_or_an_address(text: str, kind: str) -> None:
    """No DNS name looks like an address."""
    made = parse_name_or_address(text)
    assert (str(made.type), made.value) == (kind, text)


@pytest.mark.parametrize("text", ["", "corp", "192.0.2", "1.2.3.4.5", "2001:db8::x", "a b"])
def test_what_is_neither_is_refused(text: str) -> None:
    """With the sentence of the kind that was meant."""
    with pytest.raises(Problem) as caught:
        parse_name_or_address(text)
    assert caught.value.type is ProblemType.REJECTED_IDENTIFIER


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("2001:DB8::A", "2001:db8::a", id="upper case"),
        pytest.param("2001:db8:0:0:0:0:0:1", "2001:db8::1", id="long"),
        pytest.param("2001:0db8::0001", "2001:db8::1", id="leading zeros"),
        pytest.param("2001:db8::1:1:1:1:1", "2001:db8:0:1:1:1:1:1", id="one zero shortened"),
        pytest.param("2001::1:0:0:0:1", "2001:0:0:1::1", id="shorter run shortened"),
        pytest.param("64:ff9b::192.0.2.1", "64:ff9b::c000:201", id="dotted tail"),
        pytest.param("::ffff:192.0.2.1", "192.0.2.1", id="IPv4-mapped"),
    ],
)
def test_other_spelling_of_an_ip_address_is_refused_with_the_right_one(
    text: str, expected: str
) -> None:
    """RFC 8738 §3: the value is in the form of RFC 5952 §4, and the client is told which."""
    with pytest.raises(Problem) as caught:
        parse_identifier({"type": "ip", "value": text})
    assert caught.value.type is ProblemType.REJECTED_IDENTIFIER
    assert f"expected '{expected}'" in caught.value.detail


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.0.2",
        "192.0.2.256",
        "192.0.2.1.",
        "192.0.2.01",
        "0x7f.0.0.1",
        "2130706433",
        "192.0.2.0/24",
        "[2001:db8::1]",
        "2001:db8::1%eth0",
        "fe80::1%25lo",
        "::ffff:192.0.2.1",
        "2001:db8::1::",
        "example.com",
        " 192.0.2.1",
        "192.0.2.1\n",
        "１９２.0.2.1",
        "1" * 100_000,
    ],
    ids=lambda text: text[:30] or "empty",
)
def test_other_ip_address_is_refused(text: str) -> None:
    """Second spellings, zones, networks and nonsense are refused."""
    with pytest.raises(Problem) as caught:
        parse_identifier({"type": "ip", "value": text})
    assert caught.value.type is ProblemType.REJECTED_IDENTIFIER


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        pytest.param("alice@example.com", "alice@example.com", id="plain"),
        pytest.param("Alice@Example.COM", "Alice@example.com", id="local part keeps its case"),
        pytest.param("a.b+c@mail.example.com", "a.b+c@mail.example.com", id="dots and plus"),
    ],
)
def test_email_address_gets_its_one_spelling(text: str, canonical: str) -> None:
    """The domain is canonical, the local part is the mail server's business."""
    assert canonical_email_address(text) == canonical
    assert parse_identifier({"type": "email", "value": text}).value == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice",
        "@example.com",
        "alice@",
        "alice@localhost",
        "alice@@example.com",
        '"a b"@example.com',
        "a b@example.com",
        "alice@[192.0.2.1]",
        "alice@*.example.com",
        ".alice@example.com",
        "a..b@example.com",
        "alice@example.com\r\nBcc: x@example.com",
        "älice@example.com",
        "a" * 65 + "@example.com",
        "a@" + "b" * 300,
        "a@b@example.com",
    ],
    ids=lambda text: text[:30] or "empty",
)
def test_other_email_address_is_refused(text: str) -> None:
    """Quoted local parts, literals, several addresses and nonsense are refused."""
    with pytest.raises(Problem) as caught:
        parse_identifier({"type": "email", "value": text})
    assert caught.value.type is ProblemType.REJECTED_IDENTIFIER


@pytest.mark.parametrize(
    ("obj", "kind"),
    [
        pytest.param(None, ProblemType.MALFORMED, id="null"),
        pytest.param("a.example", ProblemType.MALFORMED, id="string"),
        pytest.param([], ProblemType.MALFORMED, id="array"),
        pytest.param({}, ProblemType.MALFORMED, id="empty"),
        pytest.param({"type": "dns"}, ProblemType.MALFORMED, id="no value"),
        pytest.param({"value": "a.example"}, ProblemType.MALFORMED, id="no type"),
        pytest.param({"type": "dns", "value": 7}, ProblemType.MALFORMED, id="value a number"),
        pytest.param({"type": 1, "value": "a.example"}, ProblemType.MALFORMED, id="type a number"),
        pytest.param({"type": "dns", "value": ["a.b"]}, ProblemType.MALFORMED, id="value a list"),
        pytest.param(
            {"type": "DNS", "value": "a.example"}, ProblemType.UNSUPPORTED_IDENTIFIER, id="DNS"
        ),
        pytest.param(
            {"type": "permanent-identifier", "value": "1"},
            ProblemType.UNSUPPORTED_IDENTIFIER,
            id="another type",
        ),
        pytest.param({"type": "", "value": "a"}, ProblemType.UNSUPPORTED_IDENTIFIER, id="no word"),
    ],
)
def test_other_shapes_and_types_are_refused(obj: object, kind: ProblemType) -> None:
    """A wrong shape is malformed, a type we cannot read is unsupportedIdentifier."""
    with pytest.raises(Problem) as caught:
        parse_identifier(obj)
    assert caught.value.type is kind


def test_unknown_members_are_ignored() -> None:
    """RFC 9444 clients send ancestorDomain, which we need not know."""
    identifier = parse_identifier(
        {"type": "dns", "value": "a.example.com", "ancestorDomain": "example.com"}
    )
    assert identifier.to_json() == {"type": "dns", "value": "a.example.com"}


def test_wildcard_is_authorized_by_its_base() -> None:
    """RFC 8555 §7.1.4: the authorization of a wildcard is for the name below the star."""
    wildcard = parse_identifier({"type": "dns", "value": "*.example.com"})
    base = parse_identifier({"type": "dns", "value": "example.com"})
    assert wildcard.is_wildcard
    assert wildcard.base == base
    assert not base.is_wildcard
    assert base.base is base
    assert wildcard != base
    assert str(wildcard) == "*.example.com"


def test_same_text_of_another_type_is_another_identifier() -> None:
    """An address as a mail domain or name is not the address."""
    assert len({Identifier(kind, "a.b@c.example") for kind in IdentifierType}) == 3


def test_identifiers_sort_by_type_and_value() -> None:
    """A stable order, for messages and for comparing."""
    values = [("ip", "::1"), ("dns", "b.example"), ("dns", "a.example")]
    ordered = sorted(Identifier(IdentifierType(kind), value) for kind, value in values)
    assert [i.value for i in ordered] == ["a.example", "b.example", "::1"]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        pytest.param(IdentifierType.DNS, "A.example", id="upper case"),
        pytest.param(IdentifierType.DNS, "a b", id="space"),
        pytest.param(IdentifierType.DNS, "ä.example", id="not ASCII"),
        pytest.param(IdentifierType.DNS, "", id="empty"),
        pytest.param(IdentifierType.DNS, "a\n", id="newline"),
        pytest.param(IdentifierType.IP, "2001:DB8::1", id="upper case address"),
        pytest.param(IdentifierType.EMAIL, "a@B.example", id="upper case mail domain"),
    ],
)
def test_a_second_spelling_cannot_be_made_into_an_identifier(
    kind: IdentifierType, value: str
) -> None:
    """Comparing identifiers as text is sound because no other spelling exists."""
    with pytest.raises(ValueError, match="not a canonical"):
        Identifier(kind, value)
    assert Identifier(IdentifierType.DNS, "localhost").value == "localhost"
    assert Identifier(IdentifierType.EMAIL, "A@b.example").value == "A@b.example"


@pytest.mark.parametrize(
    ("text", "kind", "value", "domain"),
    [
        ("*.corp.example", "dns", "*.corp.example", "corp.example"),
        ("192.0.2.1", "ip", "192.0.2.1", "192.0.2.1"),
        ("Jane@Corp.example", "email", "Jane@corp.example", "corp.example"),
        ("email:jane@corp.example", "email", "jane@corp.example", "corp.example"),
    ],
)
def test_what_a_person_writes_may_be_an_address_of_e_mail(
    text: str, kind: str, value: str, domain: str
) -> None:
    """An ``@`` stands in nothing else."""
    made = parse_written_identifier(text)
    assert (str(made.type), made.value, made.domain) == (kind, value, domain)


@pytest.mark.parametrize("text", ["@corp.example", "jane@", "a@b@corp.example", "dns:jane@a.b"])
def test_what_is_no_address_of_e_mail_is_refused(text: str) -> None:
    """Nor is it taken for a name."""
    with pytest.raises(Problem) as caught:
        parse_written_identifier(text)
    assert caught.value.type is ProblemType.REJECTED_IDENTIFIER


def test_addresses_beyond_an_order_are_told() -> None:
    """The domain in any case, the local part in its own."""
    known = (Identifier(IdentifierType.EMAIL, "Jane@corp.example"),)
    assert addresses_beyond(["Jane@CORP.example"], known) == ""
    assert addresses_beyond(["jane@corp.example", "corp.example"], known) == (
        "'jane@corp.example', 'corp.example'"
    )
