"""CSRs: names come out as they went in, and no changed byte goes unnoticed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.protocol.csr import parse_csr, verify_csr_names
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import Problem, ProblemType
from tests.property.strategies import wild_names
from tests.unit.protocol.builders import make_csr, name

GOOD = make_csr(["a.example", "*.b.example"], subject=name("a.example", organization_name="X"))


def identifiers(names: list[str] | set[str]) -> frozenset[Identifier]:
    """Return DNS identifiers."""
    return frozenset(Identifier(IdentifierType.DNS, text) for text in names)


@given(names=st.lists(wild_names, min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_names_come_out_as_a_set(names: list[str]) -> None:
    """Order, repetition and case do not matter; the DER is kept."""
    for variant in (names, list(reversed(names)), [text.upper() for text in names]):
        data = make_csr(variant)
        csr = parse_csr(data)
        assert csr.identifiers == identifiers(names)
        assert csr.der == data
        assert verify_csr_names(csr, identifiers(names)) is csr


@given(
    asked=st.sets(wild_names, min_size=1, max_size=4),
    ordered=st.sets(wild_names, min_size=1, max_size=4),
)
@settings(max_examples=50, deadline=None)
def test_only_equal_sets_pass(asked: set[str], ordered: set[str]) -> None:
    """A CSR passes for an order exactly when the sets are equal."""
    csr = parse_csr(make_csr(sorted(asked)))
    if asked == ordered:
        assert verify_csr_names(csr, identifiers(ordered)) is csr
        return
    with pytest.raises(Problem) as caught:
        verify_csr_names(csr, identifiers(ordered))
    assert caught.value.type is ProblemType.BAD_CSR


def test_every_flipped_bit_is_refused() -> None:
    """Each bit of one CSR in turn: badCSR and no other exception."""
    assert parse_csr(GOOD).der == GOOD
    for index in range(len(GOOD) * 8):
        data = bytearray(GOOD)
        data[index // 8] ^= 1 << index % 8
        with pytest.raises(Problem) as caught:
            parse_csr(bytes(data))
        assert caught.value.type is ProblemType.BAD_CSR


@given(data=st.binary(max_size=200) | st.binary(max_size=50).map(lambda b: GOOD[:40] + b))
def test_any_bytes_are_refused_as_a_problem(data: bytes) -> None:
    """Noise gives badCSR and nothing else."""
    with pytest.raises(Problem) as caught:
        parse_csr(data)
    assert caught.value.type is ProblemType.BAD_CSR
