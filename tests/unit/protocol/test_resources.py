"""ACME's resources: what we write, and what we accept from a CA."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import (
    Account,
    AccountStatus,
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeStatus,
    Directory,
    DirectoryMeta,
    Order,
    OrderStatus,
    ProtocolError,
)

BASE = "https://acme.example/acme"
THEN = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
NAME = Identifier(IdentifierType.DNS, "a.example")
ADDRESS = Identifier(IdentifierType.IP, "192.0.2.1")
PROBLEM = Problem(ProblemType.DNS, "no record")

FULL_DIRECTORY = Directory(
    new_nonce=f"{BASE}/new-nonce",
    new_account=f"{BASE}/new-account",
    new_order=f"{BASE}/new-order",
    revoke_cert=f"{BASE}/revoke",
    key_change=f"{BASE}/key-change",
    renewal_info=f"{BASE}/renewal",
    new_authz=f"{BASE}/new-authz",
    meta=DirectoryMeta(
        terms_of_service="https://acme.example/terms",
        website="https://acme.example",
        caa_identities=("acme.example",),
        external_account_required=True,
        profiles={"hisp-server": "90 days at most"},
    ),
)
FULL_ACCOUNT = Account(
    status=AccountStatus.VALID,
    contacts=("mailto:a@example.com",),
    terms_agreed=True,
    external_account_binding={"protected": "a", "payload": "b", "signature": "c"},
    orders=f"{BASE}/orders/1",
)
FULL_ORDER = Order(
    status=OrderStatus.INVALID,
    identifiers=(NAME, ADDRESS),
    authorizations=(f"{BASE}/authz/1", f"{BASE}/authz/2"),
    finalize=f"{BASE}/finalize/1",
    expires=THEN,
    not_before=THEN,
    not_after=THEN,
    error=PROBLEM,
    certificate=f"{BASE}/cert/1",
    profile="hisp-server",
    replaces="aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE",
)
FULL_CHALLENGE = Challenge(
    type="http-01",
    url=f"{BASE}/chall/1",
    status=ChallengeStatus.INVALID,
    token="evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ",
    validated=THEN,
    error=PROBLEM,
)
FULL_AUTHORIZATION = Authorization(
    identifier=NAME,
    status=AuthorizationStatus.VALID,
    challenges=(FULL_CHALLENGE,),
    expires=THEN,
    wildcard=True,
)
BARE_ORDER = Order(OrderStatus.PENDING, (NAME,), (), f"{BASE}/finalize/1")
BARE = [
    Directory(f"{BASE}/n", f"{BASE}/a", f"{BASE}/o"),
    Account(AccountStatus.DEACTIVATED),
    BARE_ORDER,
    Challenge("x-01", f"{BASE}/chall/1", ChallengeStatus.PENDING),
    Authorization(NAME, AuthorizationStatus.PENDING),
]
FULL = [FULL_DIRECTORY, FULL_ACCOUNT, FULL_ORDER, FULL_CHALLENGE, FULL_AUTHORIZATION]


def kind_of(value: object) -> str:
    """Return the name of a value's class, for an id."""
    return type(value).__name__


@pytest.mark.parametrize("value", [*FULL, *BARE], ids=kind_of)
def test_written_and_read_again_it_is_the_same(value: Any) -> None:
    """Serialising loses nothing, with every member and with the required ones only."""
    assert type(value).from_json(json.loads(json.dumps(value.to_json()))) == value


@pytest.mark.parametrize(
    ("value", "names"),
    [
        pytest.param(
            FULL_DIRECTORY,
            "newNonce newAccount newOrder newAuthz revokeCert keyChange renewalInfo meta",
            id="directory",
        ),
        pytest.param(
            FULL_ACCOUNT,
            "status contact termsOfServiceAgreed externalAccountBinding orders",
            id="account",
        ),
        pytest.param(
            FULL_ORDER,
            "status expires identifiers notBefore notAfter error authorizations finalize "
            "certificate profile replaces",
            id="order",
        ),
        pytest.param(FULL_CHALLENGE, "type url status token validated error", id="challenge"),
        pytest.param(
            FULL_AUTHORIZATION, "identifier status expires challenges wildcard", id="authorization"
        ),
    ],
)
def test_members_have_a_stable_order(value: Any, names: str) -> None:
    """acme.sh reads with regular expressions, and the first status wins."""
    assert list(value.to_json()) == names.split()


@pytest.mark.parametrize(
    ("value", "names"),
    [
        pytest.param(BARE[0], "newNonce newAccount newOrder", id="directory"),
        pytest.param(BARE[1], "status", id="account"),
        pytest.param(BARE[2], "status identifiers authorizations finalize", id="order"),
        pytest.param(BARE[3], "type url status", id="challenge"),
        pytest.param(BARE[4], "identifier status challenges", id="authorization"),
    ],
)
def test_absent_members_are_left_out(value: Any, names: str) -> None:
    """No null and no empty string: strict clients fail on both."""
    assert list(value.to_json()) == names.split()
    assert None not in value.to_json().values()


def test_times_are_written_as_clients_want_them() -> None:
    """RFC 3339 in UTC, a Z, whole seconds."""
    document = FULL_ORDER.to_json()
    assert document["expires"] == document["notAfter"] == "2026-11-22T12:00:00Z"
    assert FULL_CHALLENGE.to_json()["validated"] == "2026-11-22T12:00:00Z"


def test_wildcard_is_written_only_when_true() -> None:
    """RFC 8555 §7.1.4: the member is absent otherwise."""
    plain = Authorization(NAME, AuthorizationStatus.PENDING)
    assert "wildcard" not in plain.to_json()
    assert FULL_AUTHORIZATION.to_json()["wildcard"] is True


def test_embedded_error_has_no_identifier_at_its_top() -> None:
    """An error inside an order obeys the same rule as an answer."""
    error = Problem(ProblemType.REJECTED_IDENTIFIER, "no", identifier=NAME)
    order = Order(OrderStatus.INVALID, (NAME,), (), f"{BASE}/f", error=error)
    assert "identifier" not in order.to_json()["error"]  # type: ignore[operator]


@pytest.mark.parametrize("value", FULL, ids=kind_of)
def test_unknown_members_of_a_ca_are_ignored(value: Any) -> None:
    """A CA may add members; RFC 8555 §7.1.1 tells clients to ignore them."""
    document = {**value.to_json(), "unknown": {"a": [1]}, "status2": None}
    assert type(value).from_json(document) == value


@pytest.mark.parametrize("value", BARE, ids=kind_of)
def test_each_required_member_is_required(value: Any) -> None:
    """Taking one away is a breach that names it; null counts as taking away."""
    for name in value.to_json():
        if name == "challenges":
            continue
        document = {k: v for k, v in value.to_json().items() if k != name}
        for broken in (document, {**document, name: None}):
            with pytest.raises(ProtocolError, match=rf"\.{name}: is missing"):
                type(value).from_json(broken)


@pytest.mark.parametrize("value", FULL, ids=kind_of)
@pytest.mark.parametrize("wrong", [{"a": 1}, [1], 7, "\x00"], ids=repr)
def test_a_member_of_another_type_is_a_breach(value: Any, wrong: object) -> None:
    """Every member is tried with four wrong values; error and token never fail, texts may fit."""
    lenient = {
        "error",  # reading a problem is total
        "token",  # judged when it is used
        "type",  # any text may be a challenge type
        "profile",
        "replaces",
        "externalAccountBinding",
    }
    for name in value.to_json():
        if name in lenient or (name == "meta" and wrong == {"a": 1}):
            continue
        with pytest.raises(ProtocolError):
            type(value).from_json({**value.to_json(), name: wrong})


def test_challenge_of_an_unknown_type_is_kept() -> None:
    """A CA may offer challenges we cannot answer; they must not spoil the others."""
    authorization = Authorization.from_json(
        {
            "identifier": {"type": "dns", "value": "a.example"},
            "status": "pending",
            "challenges": [
                {"type": "dns-persist-01", "url": f"{BASE}/c/1", "status": "pending"},
                {"type": "x-01", "url": f"{BASE}/c/2", "status": "pending", "token": 7},
                {"type": "http-01", "url": f"{BASE}/c/3", "status": "pending", "token": "../.."},
            ],
        }
    )
    assert [(c.type, c.token) for c in authorization.challenges] == [
        ("dns-persist-01", None),
        ("x-01", None),
        ("http-01", "../.."),
    ]


@pytest.mark.parametrize("spelling", ["A.EXAMPLE", "a.example.", "a.example"])
def test_a_ca_may_spell_names_its_way(spelling: str) -> None:
    """Upper case and a trailing dot are forgiven in what a CA sends back."""
    document = {**BARE_ORDER.to_json(), "identifiers": [{"type": "dns", "value": spelling}]}
    assert Order.from_json(document).identifiers == (NAME,)


@pytest.mark.parametrize(
    "identifier",
    [
        None,
        "a.example",
        {"type": "dns"},
        {"type": "dns", "value": 7},
        {"type": "dns", "value": "a b"},
        {"type": "dns", "value": "ä.example"},
        {"type": "pop", "value": ""},
    ],
    ids=repr,
)
def test_an_identifier_that_cannot_be_read_is_a_breach(identifier: object) -> None:
    """What cannot be compared is not accepted."""
    document = {**BARE_ORDER.to_json(), "identifiers": [identifier]}
    with pytest.raises(ProtocolError, match=r"order\.identifiers"):
        Order.from_json(document)


def test_fractions_of_seconds_from_a_ca_are_cut() -> None:
    """Servers written in Go send nanoseconds."""
    document = {**BARE_ORDER.to_json(), "expires": "2026-11-22T13:00:00.123456789+01:00"}
    assert Order.from_json(document).expires == THEN


def test_directory_needs_only_what_every_client_needs() -> None:
    """CAs leave out revokeCert and keyChange; whoever needs them has to look."""
    directory = Directory.from_json(
        {"newNonce": f"{BASE}/n", "newAccount": f"{BASE}/a", "newOrder": f"{BASE}/o", "meta": {}}
    )
    assert directory.revoke_cert is directory.key_change is directory.renewal_info is None
    assert directory.meta == DirectoryMeta()
    assert "meta" not in directory.to_json()
