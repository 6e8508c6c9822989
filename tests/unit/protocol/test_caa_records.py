"""CAA records to publish, and what is missing from those that are there."""

import pytest

from broker.protocol.caa import CaaIssuer, CaaRecord, CaaSeen, judge_caa
from broker.protocol.caa_records import check_guarded, guarding_records, zone_line
from broker.protocol.identifiers import Identifier, IdentifierType

ACCOUNT = "https://ca.example/acct/1"
NAME = Identifier(IdentifierType.DNS, "corp.example")
WILDCARD = Identifier(IdentifierType.DNS, "*.corp.example")
METHODS = frozenset({"http-01", "dns-01"})
ISSUER = CaaIssuer(
    identities=frozenset({"ca.example"}),
    account_uri=ACCOUNT,
    methods={NAME: METHODS, WILDCARD: frozenset({"dns-01"})},
)
OURS = guarding_records(
    identities=["ca.example"],
    account_uri=ACCOUNT,
    methods=["http-01", "dns-01"],
    wildcard_methods=["dns-01"],
    iodef="mailto:pki@corp.example",
)


def seen(records: tuple[CaaRecord, ...], identifier: Identifier = NAME) -> CaaSeen:
    """Return *records* as found at the name."""
    return CaaSeen(
        identifier=identifier, found_at="corp.example" if records else None, records=records
    )


def test_records_say_who_how_and_where_to_complain() -> None:
    """One for names, one for wildcards, which only DNS proves."""
    who = "ca.example; accounturi=https://ca.example/acct/1"
    assert [zone_line("corp.example.", one).split(None, 1)[1] for one in OURS] == [
        f'IN CAA 0 issue "{who}; validationmethods=dns-01,http-01"',
        f'IN CAA 0 issuewild "{who}; validationmethods=dns-01"',
        'IN CAA 0 iodef "mailto:pki@corp.example"',
    ]


def test_without_a_way_to_prove_wildcards_nobody_may_issue_them() -> None:
    """An issue property alone would allow them, too (RFC 8659 §4.3)."""
    made = guarding_records(
        identities=["ca.example"], account_uri=ACCOUNT, methods=["http-01"], wildcard_methods=[]
    )
    assert made[-1] == CaaRecord(0, "issuewild", ";")


def test_each_identity_of_a_ca_has_its_record() -> None:
    """Some go by several names."""
    made = guarding_records(
        identities=["a.example", "b.example"],
        account_uri=None,
        methods=["dns-01"],
        wildcard_methods=["dns-01"],
    )
    assert [one.value for one in made] == [
        "a.example; validationmethods=dns-01",
        "b.example; validationmethods=dns-01",
    ]


@pytest.mark.parametrize("identifier", [NAME, WILDCARD], ids=str)
def test_what_is_printed_is_what_is_wanted(identifier: Identifier) -> None:
    """Nothing is missing from it, and our own CA may issue under it."""
    assert check_guarded(seen(OURS, identifier), ISSUER) == ()
    assert not judge_caa(seen(OURS, identifier), ISSUER).is_against


@pytest.mark.parametrize(
    ("records", "words"),
    [
        pytest.param([], ["there are no CAA records, so every CA may issue"], id="none"),
        pytest.param(["0 issue other.example"], ["so our own CA may not issue"], id="other"),
        pytest.param(
            ["0 issue ca.example"], ["has no accounturi", "has no validationmethods"], id="bare"
        ),
        pytest.param(
            [f"0 issue ca.example; accounturi={ACCOUNT}"], ["no validationmethods"], id="methods"
        ),
        pytest.param(
            ["0 issue ca.example; validationmethods=dns-01"], ["no accounturi"], id="account"
        ),
        pytest.param(
            ["0 issue ca.example; accounturi=https://ca.example/acct/2"],
            ["so our own CA may not issue"],
            id="another-account",
        ),
        pytest.param(["0 iodef mailto:a@b.example"], ["so every CA may issue"], id="iodef"),
    ],
)
def test_what_lets_others_in_is_told(records: list[str], words: list[str]) -> None:
    """One sentence for each way in."""
    parsed = []
    for text in records:
        flags, tag, value = text.split(" ", 2)
        parsed.append(CaaRecord(int(flags), tag, value))
    found = check_guarded(seen(tuple(parsed)), ISSUER)
    assert len(found) == len(words)
    assert all(word in sentence for word, sentence in zip(words, found, strict=True)), found


def test_value_is_quoted_for_a_zone_file() -> None:
    """A quote inside does not end it."""
    line = zone_line("a.example.", CaaRecord(0, "issue", 'x"y'))
    assert line.endswith('"x\\"y"')
