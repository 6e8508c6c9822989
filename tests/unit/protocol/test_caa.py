"""CAA: what records say about an issuer."""

import pytest

from broker.protocol.caa import (
    CaaIssuer,
    CaaOutcome,
    CaaRecord,
    CaaSeen,
    CaaVerdict,
    judge_caa,
)
from broker.protocol.identifiers import Identifier, IdentifierType

ACCOUNT = "https://ca.example/acme/acct/1"
PLAIN = Identifier(IdentifierType.DNS, "www.corp.example")
WILDCARD = Identifier(IdentifierType.DNS, "*.corp.example")
ISSUER = CaaIssuer(
    identities=frozenset({"ca1.example.net"}),
    account_uri=ACCOUNT,
    methods={PLAIN: frozenset({"http-01"}), WILDCARD: frozenset({"dns-01"})},
)


def judge(*records: str, name: Identifier = PLAIN, issuer: CaaIssuer = ISSUER) -> CaaVerdict:
    """Judge records in presentation form: flags, tag, value."""
    parsed = []
    for text in records:
        flags, tag, value = text.split(" ", 2)
        parsed.append(CaaRecord(int(flags), tag, value))
    seen = CaaSeen(identifier=name, found_at="corp.example", records=tuple(parsed))
    return judge_caa(seen, issuer)


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(["0 issue ca1.example.net"], id="named"),
        pytest.param(["0 issue CA1.Example.NET"], id="in-any-case"),
        pytest.param(["0 issue  \tca1.example.net\t "], id="space-around"),
        pytest.param(["0 issue ca1.example.net;"], id="no-parameters"),
        pytest.param(["0 issue ca1.example.net; policy=ev"], id="parameter-that-means-nothing"),
        pytest.param(["0 issue ;", "0 issue ca1.example.net"], id="nobody-and-the-issuer"),
        pytest.param(["0 issue %%%%%", "0 issue ca1.example.net"], id="broken-and-the-issuer"),
        pytest.param(["0 issue ca2.example.org", "0 issue ca1.example.net"], id="one-of-two"),
        pytest.param(["128 issue ca1.example.net"], id="critical-and-understood"),
        pytest.param(["0 issue ca1.example.net", "0 tbs Unknown"], id="unknown-not-critical"),
        pytest.param(["127 tbs Unknown", "0 issue ca1.example.net"], id="other-flags"),
        pytest.param([f"0 issue ca1.example.net; accounturi={ACCOUNT}"], id="our-account"),
        pytest.param(
            ["0 issue ca1.example.net; validationmethods=dns-01,http-01"], id="our-method"
        ),
        pytest.param(
            [f"0 issue ca1.example.net ; AccountURI = {ACCOUNT} ; validationmethods=http-01"],
            id="both",
        ),
        pytest.param(["0 issue ca1.example.net", "0 issuewild ;"], id="issuewild-is-for-wildcards"),
    ],
)
def test_records_that_name_the_issuer_permit(records: list[str]) -> None:
    """RFC 8659 §4.2 and RFC 8657: authorizations add up."""
    assert judge(*records).outcome is CaaOutcome.PERMITS
    assert not judge(*records).is_against


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        pytest.param(["0 issue ;"], "it allows nobody", id="nobody"),
        pytest.param(["0 issue "], "it allows nobody", id="empty"),
        pytest.param(["0 issue %%%%%"], "does not parse", id="example-of-the-standard"),
        pytest.param(["0 issue ca2.example.org"], "it allows ca2.example.org", id="another"),
        pytest.param(["0 issue x.ca1.example.net"], "it allows x.ca1.example.net", id="below"),
        pytest.param(["0 issue ca1.example.net x"], "does not parse", id="two-words"),
        pytest.param(["0 issue ca1.example.net."], "does not parse", id="trailing-dot"),
        pytest.param(["0 issue ca1.example.net; policy"], "does not parse", id="no-value"),
        pytest.param(["0 issue ca1.example.net; a=b;"], "does not parse", id="open-end"),
        pytest.param(["0 issue ca1.example.net; a=b c"], "does not parse", id="space-in-value"),
        pytest.param(["128 tbs Unknown", "0 issue ca1.example.net"], "'tbs'", id="critical"),
        pytest.param(
            [f"0 issue ca1.example.net; accounturi={ACCOUNT}0"], "the account", id="other-account"
        ),
        pytest.param(
            [f"0 issue ca1.example.net; accounturi={ACCOUNT}; accounturi={ACCOUNT}"],
            "several accounts",
            id="two-accounts",
        ),
        pytest.param(
            ["0 issue ca1.example.net; validationmethods=dns-01"],
            "it allows validation by dns-01 alone",
            id="other-method",
        ),
        pytest.param(
            ["0 issue ca1.example.net; validationmethods="], "by no method", id="no-method"
        ),
        pytest.param(
            ["0 issue ca1.example.net; validationmethods=http-01; validationmethods=http-01"],
            "do not parse",
            id="two-lists-of-methods",
        ),
        pytest.param(
            ["0 issue ca1.example.net; validationmethods=http-01,,dns-01"],
            "do not parse",
            id="hole-in-the-list",
        ),
    ],
)
def test_other_records_forbid(records: list[str], sentence: str) -> None:
    """With the reason, and where the records stand."""
    verdict = judge(*records)
    assert verdict.outcome is CaaOutcome.FORBIDS
    assert verdict.is_against
    assert verdict.sentence.startswith("CAA at corp.example")
    assert sentence in verdict.sentence


@pytest.mark.parametrize(
    ("records", "plain", "wildcard"),
    [
        pytest.param(["0 issue ca1.example.net"], True, True, id="issue-covers-both"),
        pytest.param(
            ["0 issue ca1.example.net", "0 issuewild ca2.example.org"], True, False, id="wild-other"
        ),
        pytest.param(
            ["0 issue ca2.example.org", "0 issuewild ca1.example.net"], False, True, id="wild-ours"
        ),
        pytest.param(["0 issuewild ca1.example.net"], True, True, id="wild-alone"),
        pytest.param(["0 issuewild ;"], True, False, id="no-wildcards"),
        pytest.param(
            ["0 issue ca1.example.net; validationmethods=dns-01"], False, True, id="by-its-method"
        ),
    ],
)
def test_wildcards_go_by_issuewild_where_there_is_any(
    records: list[str], plain: bool, wildcard: bool
) -> None:
    """RFC 8659 §4.3: it is ignored for other names, and replaces issue for wildcards."""
    assert judge(*records).is_against is not plain
    assert judge(*records, name=WILDCARD).is_against is not wildcard


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(["0 iodef mailto:pki@corp.example"], id="iodef-alone"),
        pytest.param(["128 iodef mailto:pki@corp.example"], id="critical-iodef"),
        pytest.param(["0 issuemail ;"], id="for-mail-alone"),
        pytest.param(["0 tbs Unknown"], id="unknown-alone"),
    ],
)
def test_records_that_restrict_nothing_are_as_good_as_none(records: list[str]) -> None:
    """RFC 8659 §3, last paragraph."""
    assert judge(*records).outcome is CaaOutcome.ABSENT


def test_without_records_anyone_may_issue() -> None:
    """The tree was climbed and nothing found."""
    verdict = judge_caa(CaaSeen(identifier=PLAIN), ISSUER)
    assert (verdict.outcome, verdict.is_against) == (CaaOutcome.ABSENT, False)


def test_failed_lookup_is_no_permission() -> None:
    """RFC 8659 §3: a set that cannot be had may forbid."""
    seen = CaaSeen(identifier=PLAIN, failure="no resolver answers: SERVFAIL")
    verdict = judge_caa(seen, ISSUER)
    assert (verdict.outcome, verdict.is_against) == (CaaOutcome.FAILED, True)
    assert "SERVFAIL" in verdict.sentence


def test_issuer_without_identities_is_named_by_no_record() -> None:
    """A CA that tells nobody its name is allowed only where nothing restricts."""
    nobody = CaaIssuer(identities=frozenset())
    assert judge("0 issue ca1.example.net", issuer=nobody).is_against
    assert judge("0 issue ;", issuer=nobody).is_against
    assert not judge("0 iodef mailto:a@b.example", issuer=nobody).is_against


def test_long_records_are_cut() -> None:
    """A sentence stays one."""
    verdict = judge(f"0 issue {'a' * 5000}.example")
    assert len(verdict.sentence) < 300


@pytest.mark.parametrize(
    ("records", "outcome"),
    [
        pytest.param(["0 issuemail ca1.example.net"], CaaOutcome.PERMITS, id="named"),
        pytest.param(["0 issuemail ;", "0 issue ca1.example.net"], CaaOutcome.FORBIDS, id="nobody"),
        pytest.param(["0 issuemail ca9.example.net"], CaaOutcome.FORBIDS, id="another"),
        pytest.param(["0 issue ;", "0 issuewild ;"], CaaOutcome.ABSENT, id="for-servers-alone"),
        pytest.param(["128 tbs Unknown"], CaaOutcome.FORBIDS, id="critical-unknown"),
    ],
)
def test_e_mail_goes_by_issuemail_alone(records: list[str], outcome: CaaOutcome) -> None:
    """RFC 9495 §4: other properties say nothing of it."""
    address = Identifier(IdentifierType.EMAIL, "jane@www.corp.example")
    assert judge(*records, name=address).outcome is outcome
