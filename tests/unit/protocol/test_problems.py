"""Problem documents: the table, what is written, what is read from a peer."""

import json
import re
from datetime import timedelta

import pytest

from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import (
    MAX_DETAIL_CHARS,
    URN_PREFIX,
    Problem,
    ProblemType,
    ReportedIdentifier,
    printable,
)

EXPECTED_STATUS = {
    "malformed": 400,
    "badNonce": 400,
    "badCSR": 400,
    "badPublicKey": 400,
    "badSignatureAlgorithm": 400,
    "badRevocationReason": 400,
    "alreadyRevoked": 400,
    "accountDoesNotExist": 400,
    "caa": 403,
    "compound": 400,
    "connection": 400,
    "dns": 400,
    "tls": 400,
    "externalAccountRequired": 403,
    "incorrectResponse": 400,
    "invalidContact": 400,
    "unsupportedContact": 400,
    "orderNotReady": 403,
    "rateLimited": 429,
    "rejectedIdentifier": 400,
    "serverInternal": 500,
    "unauthorized": 403,
    "unsupportedIdentifier": 400,
    "userActionRequired": 403,
    "alreadyReplaced": 409,
    "invalidProfile": 400,
}

every_type = pytest.mark.parametrize("kind", ProblemType, ids=lambda kind: kind.token)


def test_the_table_holds_the_registered_types_and_their_status() -> None:
    """Token and status of every type, written down a second time from the registry."""
    assert {kind.token: kind.http_status for kind in ProblemType} == EXPECTED_STATUS


@every_type
def test_type_round_trips_name_and_status(kind: ProblemType) -> None:
    """A problem that is written and read again has its type, status and detail."""
    problem = Problem(kind, "something is wrong")
    read = Problem.from_json(json.loads(json.dumps(problem.to_json())))
    assert read == problem
    assert (read.type, read.status, read.detail) == (kind, kind.http_status, "something is wrong")
    assert read.raw_type == f"urn:ietf:params:acme:error:{kind.token}"


@every_type
def test_type_has_a_source_and_a_sentence(kind: ProblemType) -> None:
    """The table cites document and section and says what the type means."""
    assert re.fullmatch(r"(RFC \d{4}|draft-[a-z-]+-\d\d) §\d+(\.\d+)*", kind.source)
    assert kind.sentence
    assert not kind.sentence.endswith(".")
    assert kind.sentence[0].islower() or kind.sentence.startswith(("CAA", "DNS", "TLS"))


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        pytest.param(ProblemType.MALFORMED, 404, id="not found"),
        pytest.param(ProblemType.MALFORMED, 405, id="method not allowed"),
        pytest.param(ProblemType.MALFORMED, 413, id="too large"),
        pytest.param(ProblemType.MALFORMED, 415, id="media type"),
        pytest.param(ProblemType.UNAUTHORIZED, 401, id="deactivated account"),
    ],
)
def test_status_of_one_problem_overrides_the_table(kind: ProblemType, status: int) -> None:
    """The same type goes with other statuses where RFC 8555 says so."""
    problem = Problem(kind, "no", status=status)
    assert problem.status == problem.to_json()["status"] == status
    assert Problem(kind, "no").status == kind.http_status


def test_document_leaves_out_what_is_absent() -> None:
    """Empty subproblems and absent members do not appear."""
    assert Problem(ProblemType.MALFORMED, "no").to_json() == {
        "type": URN_PREFIX + "malformed",
        "detail": "no",
        "status": 400,
    }


def test_document_has_every_member_it_was_given() -> None:
    """Instance and algorithms are members; retry, links and location are headers."""
    problem = Problem(
        ProblemType.BAD_SIGNATURE_ALGORITHM,
        "no",
        instance="https://acme.example/terms",
        algorithms=("ES256", "RS256"),
        retry_after=timedelta(seconds=5),
        links=(("help", "https://acme.example/help"),),
        location="https://acme.example/acct/1",
    )
    assert list(problem.to_json()) == ["type", "detail", "status", "instance", "algorithms"]
    assert problem.to_json()["algorithms"] == ["ES256", "RS256"]


def test_identifier_appears_in_subproblems_only() -> None:
    """RFC 8555 §6.7.1 forbids the member identifier at the top level."""
    identifier = Identifier(IdentifierType.DNS, "a.example")
    refused = Problem(ProblemType.REJECTED_IDENTIFIER, "no", identifier=identifier)
    both = Problem(ProblemType.COMPOUND, "no", identifier=identifier, subproblems=[refused])
    assert "identifier" not in refused.to_json()
    document = both.to_json()
    assert "identifier" not in document
    assert document["subproblems"] == [
        {
            "type": URN_PREFIX + "rejectedIdentifier",
            "detail": "no",
            "status": 400,
            "identifier": {"type": "dns", "value": "a.example"},
        }
    ]
    assert Problem.from_json(document).subproblems == (refused,)


def test_unknown_type_of_a_peer_keeps_its_name() -> None:
    """What only the CA knows is told as it told it."""
    urn = "urn:example:quotaExceeded"
    problem = Problem.from_json({"type": urn, "detail": "too many"}, 403)
    assert problem.type is None
    assert (problem.raw_type, problem.token, problem.status) == (urn, urn, 403)
    assert problem.to_json()["type"] == urn
    assert Problem.from_json(problem.to_json()) == problem


def test_status_of_the_answer_wins_over_the_member() -> None:
    """The member is advice, the answer's own status is what happened."""
    document = {"type": URN_PREFIX + "malformed", "detail": "no", "status": 500}
    assert Problem.from_json(document, 404).status == 404
    assert Problem.from_json(document).status == 500


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        [],
        "<html>502</html>",
        7,
        True,
        {},
        {"type": 7},
        {"type": None, "detail": []},
        {"type": "", "detail": ""},
        {"type": URN_PREFIX + "dns", "detail": {"a": 1}, "status": "400"},
        {"type": URN_PREFIX + "dns", "status": True},
        {"type": URN_PREFIX + "dns", "status": 10**30},
        {"subproblems": {"a": 1}},
        {"subproblems": [1, None, [], {"identifier": 3}, {"identifier": {"type": 1}}]},
        {"subproblems": [{"subproblems": [{"subproblems": []}]}]},
        {"algorithms": [1, None, "ES256"]},
        {"algorithms": "ES256"},
        {"detail": "\ud800 lone", "type": "\x00"},
    ],
    ids=repr,
)
def test_nonsense_of_a_peer_becomes_a_problem(nonsense: object) -> None:
    """Reading a peer's problem never fails, and what was read can be written."""
    problem = Problem.from_json(nonsense, 502)
    assert problem.status == 502
    assert problem.detail
    json.dumps(problem.to_json()).encode()
    str(problem).encode("utf-8")
    assert Problem.from_json(nonsense).status >= 400


def test_a_peer_cannot_nest_or_multiply_subproblems() -> None:
    """One level and a hundred entries are read."""
    deep = {"type": "a", "subproblems": [{"type": "b", "subproblems": [{"type": "c"}]}] * 500}
    problem = Problem.from_json(deep)
    assert len(problem.subproblems) == 100
    assert problem.subproblems[0].subproblems == ()


def test_subproblem_of_a_peer_keeps_the_identifier_as_reported() -> None:
    """An identifier in an error is for people: it is shown, not canonicalised."""
    problem = Problem.from_json(
        {"subproblems": [{"type": "x", "identifier": {"type": "dns", "value": "A.example."}}]}
    )
    assert problem.subproblems[0].identifier == ReportedIdentifier("dns", "A.example.")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("plain text, 40 % – ä", "plain text, 40 % – ä", id="printable stays"),
        pytest.param("a\nb", "a\\u000ab", id="newline"),
        pytest.param("a\x1b[31mb", "a\\u001b[31mb", id="terminal escape"),
        pytest.param("a\x00b", "a\\u0000b", id="NUL"),
        pytest.param("a\u202eb", "a\\u202eb", id="right-to-left override"),
        pytest.param("a\u2028b", "a\\u2028b", id="line separator"),
        pytest.param("a\ud800b", "a\\ud800b", id="lone surrogate"),
        pytest.param("a\x7fb", "a\\u007fb", id="DEL"),
        pytest.param("a\x9bb", "a\\u009bb", id="C1"),
    ],
)
def test_unprintable_characters_are_escaped(text: str, shown: str) -> None:
    """A peer's text cannot steer a terminal, forge a line or break an encoder."""
    assert printable(text) == shown
    assert Problem(ProblemType.MALFORMED, text).detail == shown


def test_detail_is_cut_at_its_limit() -> None:
    """A text of any length costs a bounded one; the longest allowed is kept whole."""
    assert len(Problem(ProblemType.MALFORMED, "a" * 10**6).detail) == MAX_DETAIL_CHARS
    assert len(Problem(ProblemType.MALFORMED, "\x00" * 10**6).detail) == MAX_DETAIL_CHARS
    assert Problem(ProblemType.MALFORMED, "a" * MAX_DETAIL_CHARS).detail == "a" * MAX_DETAIL_CHARS


def test_problems_compare_by_what_they_tell() -> None:
    """Equal problems are equal values; each member counts."""
    base = Problem(ProblemType.DNS, "no")
    assert base == Problem(ProblemType.DNS, "no")
    assert hash(base) == hash(Problem(ProblemType.DNS, "no"))
    assert base != Problem(ProblemType.DNS, "yes")
    assert base != Problem(ProblemType.TLS, "no")
    assert base != Problem(ProblemType.DNS, "no", status=403)
    assert base != Problem(ProblemType.DNS, "no", retry_after=timedelta(seconds=1))
    assert base != "no"


def test_a_problem_without_any_type_is_a_bug() -> None:
    """An unregistered problem needs the type it had."""
    with pytest.raises(ValueError, match="raw type"):
        Problem(None, "no")
    assert Problem(None, "no", raw_type="urn:x").status == 500
