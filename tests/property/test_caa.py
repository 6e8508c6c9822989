"""CAA verdicts on whatever a zone may hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.protocol.caa import CaaIssuer, CaaOutcome, CaaRecord, CaaSeen, judge_caa
from broker.protocol.identifiers import Identifier, IdentifierType

OURS = "ca.example.net"
ISSUER = CaaIssuer(identities=frozenset({OURS}), account_uri="https://ca.example.net/1")

Value = st.one_of(
    st.text(alphabet=st.characters(max_codepoint=255), max_size=40),
    st.from_regex(r"[a-z.; =\t]{0,30}", fullmatch=True),
    st.sampled_from([OURS, ";", f"{OURS};", f"{OURS}; a=b", "other.example.org", f" {OURS}\t"]),
)
Record = st.builds(
    CaaRecord,
    flags=st.integers(0, 255),
    tag=st.sampled_from(["issue", "issuewild", "iodef", "issuemail", "tbs", ""]),
    value=Value,
)
Name = st.sampled_from(
    [Identifier(IdentifierType.DNS, "a.example"), Identifier(IdentifierType.DNS, "*.a.example")]
)


def outcome(records: list[CaaRecord], name: Identifier) -> CaaOutcome:
    """Judge *records* for *name*."""
    seen = CaaSeen(identifier=name, found_at="example", records=tuple(records))
    return judge_caa(seen, ISSUER).outcome


@given(st.lists(Record, max_size=5), Name)
def test_every_set_has_a_verdict(records: list[CaaRecord], name: Identifier) -> None:
    """Nothing that a zone holds raises, and the order of its records does not matter."""
    assert outcome(records, name) is outcome(records[::-1], name)


@given(st.lists(Record, max_size=5), Name)
def test_only_a_record_that_names_the_issuer_permits(
    records: list[CaaRecord], name: Identifier
) -> None:
    """Without our identity in any value, the answer is no, or that nothing restricts."""
    others = [record for record in records if OURS not in record.value.lower()]
    assert outcome(others, name) is not CaaOutcome.PERMITS


@given(st.lists(Record, max_size=5), Name)
def test_authorizations_add_up(records: list[CaaRecord], name: Identifier) -> None:
    """One more property that names the issuer never takes a permission away."""
    more = [*records, CaaRecord(0, "issue", OURS), CaaRecord(0, "issuewild", OURS)]
    has_unknown = any(one.is_critical and one.tag in ("tbs", "") for one in records)
    expected = CaaOutcome.FORBIDS if has_unknown else CaaOutcome.PERMITS
    assert outcome(more, name) is expected
