"""Identifiers: one spelling each, whatever is thrown at the parser."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from broker.protocol.identifiers import (
    Identifier,
    IdentifierType,
    canonical_dns_name,
    parse_identifier,
)
from broker.protocol.problems import Problem, ProblemType
from tests.property.strategies import wild_names

REFUSALS = {
    ProblemType.MALFORMED,
    ProblemType.REJECTED_IDENTIFIER,
    ProblemType.UNSUPPORTED_IDENTIFIER,
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(name=wild_names)
def test_canonical_names_stay_as_they_are(name: str) -> None:
    """Canonical is canonical, in any case, and survives being written and read."""
    assert canonical_dns_name(name) == name
    assert canonical_dns_name(name.upper()) == name
    identifier = Identifier(IdentifierType.DNS, name)
    assert parse_identifier(identifier.to_json()) == identifier
    assert parse_identifier(identifier.base.to_json()) == identifier.base
    assert not identifier.base.is_wildcard


@given(text=st.text(max_size=300) | st.text(alphabet="ab.*-_xn019é ", max_size=80))
def test_any_text_is_a_name_or_a_refusal(text: str) -> None:
    """What is accepted is visible lower-case ASCII with its star in front, and idempotent."""
    try:
        name = canonical_dns_name(text)
    except Problem as problem:
        refusal = problem.type
    else:
        refusal = None
        assert name == text.lower() == canonical_dns_name(name)
        labels = name.removeprefix("*.").split(".")
        assert len(labels) > 1
        assert all(0 < len(label) <= 63 and label.isascii() for label in labels)
        assert not {"*", "_", " ", "%", "\x00"} & set("".join(labels))
        assert not labels[-1].isdigit()
    assert refusal in {None, ProblemType.REJECTED_IDENTIFIER}


@given(address=st.ip_addresses())
def test_addresses_have_one_spelling(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """The short spelling is the identifier or is refused; every other spelling is refused."""
    found = set()
    for text in (str(address), address.exploded, address.exploded.upper()):
        try:
            found.add(parse_identifier({"type": "ip", "value": text}).value)
        except Problem:
            continue
    assert found <= {str(address)}


@given(obj=json_values | st.fixed_dictionaries({"type": st.text(), "value": json_values}))
def test_any_json_is_an_identifier_or_a_refusal(obj: object) -> None:
    """Nothing but a problem of the three types comes out."""
    try:
        identifier = parse_identifier(obj)
    except Problem as problem:
        assert problem.type in REFUSALS  # noqa: PT017 - both outcomes are right
    else:
        assert parse_identifier(identifier.to_json()) == identifier
