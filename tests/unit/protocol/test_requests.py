"""Request payloads of our clients."""

from datetime import UTC, datetime
from typing import Any

import pytest

from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import (
    MAX_CONTACTS,
    MAX_IDENTIFIERS,
    AccountUpdate,
    NewAccount,
    NewOrder,
    Revocation,
    parse_account_update,
    parse_finalize,
    parse_json_object,
    parse_new_account,
    parse_new_order,
    parse_revocation,
)

NAME = {"type": "dns", "value": "a.example"}
A = Identifier(IdentifierType.DNS, "a.example")
MALFORMED = ProblemType.MALFORMED
INVALID = ProblemType.INVALID_CONTACT
UNSUPPORTED = ProblemType.UNSUPPORTED_CONTACT


def refused(parse: Any, payload: dict[str, Any]) -> Problem:
    """Return the problem that a payload is refused with."""
    with pytest.raises(Problem) as caught:
        parse(payload)
    return caught.value


# == Accounts ==================================================================================


def test_new_account_with_everything() -> None:
    """Every member is read; what we do not know is ignored."""
    payload = {
        "contact": ["mailto:Admin@Example.com"],
        "termsOfServiceAgreed": True,
        "onlyReturnExisting": True,
        "externalAccountBinding": {"protected": "x"},
        "status": "revoked",
        "orders": "https://evil.example",
    }
    assert parse_new_account(payload) == NewAccount(
        contacts=("mailto:Admin@example.com",),
        terms_agreed=True,
        only_return_existing=True,
        eab={"protected": "x"},
    )


@pytest.mark.parametrize("payload", [{}, {"contact": None}, {"contact": []}], ids=repr)
def test_new_account_with_nothing(payload: dict[str, Any]) -> None:
    """No member is required."""
    assert parse_new_account(payload) == NewAccount()


@pytest.mark.parametrize(
    ("contact", "kind"),
    [
        pytest.param("mailto:a@b.example", MALFORMED, id="string instead of list"),
        pytest.param({"mailto": "a@b.example"}, MALFORMED, id="object"),
        pytest.param([7], MALFORMED, id="number"),
        pytest.param([None], MALFORMED, id="null"),
        pytest.param(["mailto:a@b.example"] * (MAX_CONTACTS + 1), MALFORMED, id="eleven"),
        pytest.param(["mailto:a@b.example"] * 10_000, MALFORMED, id="ten thousand"),
        pytest.param(["a@b.example"], INVALID, id="no scheme"),
        pytest.param([""], INVALID, id="empty"),
        pytest.param(["mailto:"], INVALID, id="no address"),
        pytest.param(["tel:+41-44-000"], UNSUPPORTED, id="tel"),
        pytest.param(["https://a.example"], UNSUPPORTED, id="https"),
        pytest.param(["mailto:a@b.example?subject=x"], INVALID, id="header fields"),
        pytest.param(["mailto:a@b.example?bcc=c@d.example"], INVALID, id="bcc"),
        pytest.param(["mailto:a@b.example,c@d.example"], INVALID, id="two addresses"),
        pytest.param(["mailto:a@b.example%0d%0aBcc:x@y.example"], INVALID, id="percent"),
        pytest.param(["mailto:a@b.example\r\nBcc: x@y.example"], INVALID, id="CRLF"),
        pytest.param(["mailto:a@b.example\n"], INVALID, id="newline"),
        pytest.param(["mailto:Alice <a@b.example>"], INVALID, id="display name"),
        pytest.param(["mailto:a@localhost"], INVALID, id="single label"),
        pytest.param(["mailto:a@192.0.2.1"], INVALID, id="address"),
        pytest.param(["mailto:ä@b.example"], INVALID, id="not ASCII"),
        pytest.param(["mailto://a@b.example"], INVALID, id="slashes"),
        pytest.param(["mailto:" + "a" * 10_000 + "@b.example"], INVALID, id="10 kB"),
        pytest.param(["mailto:a@b.example", "tel:1"], UNSUPPORTED, id="second one"),
    ],
)
@pytest.mark.parametrize("parse", [parse_new_account, parse_account_update])
def test_other_contacts_are_refused(parse: Any, contact: object, kind: ProblemType) -> None:
    """One mailto with one address each, ten at most; a good one passes."""
    problem = refused(parse, {"contact": contact})
    assert problem.type is kind
    assert problem.status == 400
    assert "\n" not in problem.detail
    assert parse({"contact": ["MAILTO:a@b.example"]}).contacts == ("mailto:a@b.example",)


@pytest.mark.parametrize(
    "payload",
    [
        {"termsOfServiceAgreed": "true"},
        {"termsOfServiceAgreed": 1},
        {"termsOfServiceAgreed": None},
        {"onlyReturnExisting": "yes"},
        {"onlyReturnExisting": []},
        {"externalAccountBinding": "x"},
        {"externalAccountBinding": []},
    ],
    ids=repr,
)
def test_members_of_another_type_are_malformed(payload: dict[str, Any]) -> None:
    """What is no boolean agrees to nothing."""
    assert refused(parse_new_account, payload).type is MALFORMED


@pytest.mark.parametrize(
    ("payload", "update"),
    [
        pytest.param({}, AccountUpdate(), id="nothing"),
        pytest.param({"contact": []}, AccountUpdate(contacts=()), id="contacts removed"),
        pytest.param({"status": "deactivated"}, AccountUpdate(deactivate=True), id="deactivate"),
        pytest.param({"status": "revoked"}, AccountUpdate(), id="another status is ignored"),
        pytest.param({"status": "valid"}, AccountUpdate(), id="cannot be undone"),
        pytest.param({"status": ["deactivated"]}, AccountUpdate(), id="status a list"),
        pytest.param({"orders": "x", "termsOfServiceAgreed": 7}, AccountUpdate(), id="ignored"),
    ],
)
def test_account_update_reads_contact_and_deactivation(
    payload: dict[str, Any], update: AccountUpdate
) -> None:
    """RFC 8555 §7.3.2: everything else is ignored."""
    assert parse_account_update(payload) == update


# == Orders ====================================================================================


def test_new_order_with_everything() -> None:
    """Every member is read."""
    payload = {
        "identifiers": [NAME, {"type": "dns", "value": "*.B.Example"}],
        "notBefore": "2026-11-22T12:00:00Z",
        "notAfter": "2026-12-22T12:00:00Z",
        "profile": "hisp-server",
        "replaces": "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE",
    }
    assert parse_new_order(payload) == NewOrder(
        identifiers=(A, Identifier(IdentifierType.DNS, "*.b.example")),
        not_before=datetime(2026, 11, 22, 12, tzinfo=UTC),
        not_after=datetime(2026, 12, 22, 12, tzinfo=UTC),
        profile="hisp-server",
        replaces="aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE",
    )


def test_new_order_with_names_only() -> None:
    """Only the identifiers are required; null is absent."""
    absent = {"notBefore": None, "notAfter": None, "profile": None, "replaces": None}
    assert parse_new_order({"identifiers": [NAME], **absent}) == NewOrder((A,))


@pytest.mark.parametrize(
    "identifiers",
    [
        pytest.param(None, id="missing"),
        pytest.param([], id="empty"),
        pytest.param(NAME, id="object instead of list"),
        pytest.param("a.example", id="string"),
        pytest.param([NAME, None], id="null inside"),
        pytest.param([{"type": "dns"}], id="without value"),
        pytest.param(
            [{"type": "dns", "value": f"n{n}.example"} for n in range(MAX_IDENTIFIERS + 1)],
            id="101",
        ),
        pytest.param([NAME, NAME], id="twice"),
        pytest.param([NAME, {"type": "dns", "value": "A.EXAMPLE"}], id="twice in another case"),
    ],
)
def test_other_lists_of_identifiers_are_malformed(identifiers: object) -> None:
    """Shape, number and repetition are malformed; a list of a hundred passes."""
    assert refused(parse_new_order, {"identifiers": identifiers}).type is MALFORMED
    hundred = [{"type": "dns", "value": f"n{n}.example"} for n in range(MAX_IDENTIFIERS)]
    assert len(parse_new_order({"identifiers": hundred}).identifiers) == 100


def test_one_bad_identifier_alone_is_its_own_problem() -> None:
    """No subproblem is needed when there is nothing to tell apart."""
    problem = refused(parse_new_order, {"identifiers": [{"type": "dns", "value": "localhost"}]})
    assert problem.type is ProblemType.REJECTED_IDENTIFIER
    assert problem.subproblems == ()


def test_several_identifiers_give_one_subproblem_for_each_bad_one() -> None:
    """RFC 8555 §6.7.1: the client learns which ones to leave out."""
    bad = [{"type": "dns", "value": "localhost"}, {"type": "dns", "value": "a_b.example"}]
    problem = refused(parse_new_order, {"identifiers": [NAME, *bad]})
    assert problem.type is ProblemType.REJECTED_IDENTIFIER
    subproblems = problem.to_json()["subproblems"]
    assert isinstance(subproblems, list)
    assert [sub["identifier"] for sub in subproblems] == bad


def test_identifiers_wrong_in_different_ways_are_compound() -> None:
    """The problem of the whole does not pretend to one reason."""
    bad = [{"type": "dns", "value": "localhost"}, {"type": "hardware", "value": "1"}]
    problem = refused(parse_new_order, {"identifiers": bad})
    assert problem.type is ProblemType.COMPOUND
    assert [sub.type for sub in problem.subproblems] == [
        ProblemType.REJECTED_IDENTIFIER,
        ProblemType.UNSUPPORTED_IDENTIFIER,
    ]


@pytest.mark.parametrize("spelling", ["profile", "Profile", "PROFILE"])
def test_profile_is_read_in_any_case(spelling: str) -> None:
    """eggsampler/acme writes a capital P."""
    assert parse_new_order({"identifiers": [NAME], spelling: "p"}).profile == "p"


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"profile": ""}, id="profile empty"),
        pytest.param({"profile": 7}, id="profile a number"),
        pytest.param({"profile": "a" * 65}, id="profile of 65 characters"),
        pytest.param({"profile": "a", "Profile": "b"}, id="profile twice"),
        pytest.param({"notAfter": ""}, id="notAfter empty"),
        pytest.param({"notAfter": 7}, id="notAfter a number"),
        pytest.param({"notAfter": "tomorrow"}, id="notAfter a word"),
        pytest.param({"notAfter": "2026-12-22"}, id="notAfter a date"),
        pytest.param({"notBefore": "2026-12-22T00:00:00"}, id="notBefore without zone"),
        pytest.param({"replaces": 7}, id="replaces a number"),
        pytest.param({"replaces": "abc"}, id="replaces without dot"),
        pytest.param({"replaces": "abc.def.ghi"}, id="replaces with two dots"),
        pytest.param({"replaces": "a+b.cd"}, id="replaces not base64url"),
        pytest.param({"replaces": "a." + "b" * 300}, id="replaces of 302 characters"),
        pytest.param({"replaces": "../x.y"}, id="replaces a path"),
    ],
)
def test_other_members_of_an_order_are_malformed(members: dict[str, Any]) -> None:
    """The problem names the member; without it the order passes."""
    problem = refused(parse_new_order, {"identifiers": [NAME], **members})
    assert problem.type is MALFORMED
    assert next(iter(members)).lower() in problem.detail.lower()
    assert parse_new_order({"identifiers": [NAME]})


# == Finalize and revocation ===================================================================

NOT_OCTETS = [
    pytest.param({}, id="missing"),
    pytest.param({"x": ""}, id="empty"),
    pytest.param({"x": None}, id="null"),
    pytest.param({"x": 7}, id="number"),
    pytest.param({"x": ["AAAA"]}, id="list"),
    pytest.param({"x": "AAA="}, id="padded"),
    pytest.param({"x": "+/+/"}, id="the other alphabet"),
    pytest.param({"x": "AAAA\n"}, id="newline"),
    pytest.param({"x": "-----BEGIN CERTIFICATE REQUEST-----"}, id="PEM"),
]


@pytest.mark.parametrize("payload", NOT_OCTETS)
@pytest.mark.parametrize(
    ("parse", "member"), [(parse_finalize, "csr"), (parse_revocation, "certificate")]
)
def test_what_is_no_base64url_is_malformed(
    parse: Any, member: str, payload: dict[str, Any]
) -> None:
    """DER comes as unpadded base64url and nothing else."""
    payload = {member: payload["x"]} if payload else {}
    problem = refused(parse, payload)
    assert problem.type is MALFORMED
    assert member in problem.detail


def test_finalize_gives_the_octets() -> None:
    """The CSR comes out as it was signed; unknown members are ignored."""
    assert parse_finalize({"csr": "AAEC", "resource": "order"}) == b"\x00\x01\x02"


@pytest.mark.parametrize("reason", [0, 1, 2, 3, 4, 5, 6, 8, 9, 10])
def test_revocation_takes_the_reasons_of_the_standard(reason: int) -> None:
    """Every CRLReason of RFC 5280 §5.3.1 can be asked for; policy may narrow it."""
    payload = {"certificate": "AAEC", "reason": reason}
    assert parse_revocation(payload) == Revocation(b"\x00\x01\x02", reason)


def test_revocation_without_reason_is_unspecified() -> None:
    """Reason 0 is what no reason means."""
    assert parse_revocation({"certificate": "AAEC"}).reason == 0


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        pytest.param(7, ProblemType.BAD_REVOCATION_REASON, id="7"),
        pytest.param(11, ProblemType.BAD_REVOCATION_REASON, id="11"),
        pytest.param(-1, ProblemType.BAD_REVOCATION_REASON, id="-1"),
        pytest.param(10**20, ProblemType.BAD_REVOCATION_REASON, id="huge"),
        pytest.param("1", MALFORMED, id="string"),
        pytest.param(1.0, MALFORMED, id="decimal"),
        pytest.param(True, MALFORMED, id="boolean"),
        pytest.param(None, MALFORMED, id="null"),
    ],
)
def test_other_reasons_are_refused(reason: object, kind: ProblemType) -> None:
    """A number that is no reason is badRevocationReason, anything else malformed."""
    assert refused(parse_revocation, {"certificate": "AAEC", "reason": reason}).type is kind


def test_strict_json_is_within_reach() -> None:
    """Payloads are read by the one strict reader."""
    assert parse_json_object(b'{"identifiers":[]}') == {"identifiers": []}
    with pytest.raises(Problem):
        parse_json_object(b'{"a":1,"a":2}')
