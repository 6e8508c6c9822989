"""People: one name however they come, and nobody who is not named."""

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from broker.policy.roles import EVERYWHERE, Role
from broker.web.bearer import TokenTerms, TokenVerifier
from broker.web.callers import (
    CertificateMatch,
    Face,
    NotKnown,
    Person,
    Register,
)
from broker.web.issuer_keys import IssuerKeys
from tests.fakes.clock import START, FakeClock
from tests.fakes.token_issuer import AUDIENCE, ISSUER, FakeDocuments, TokenIssuer

KEY = ec.generate_private_key(ec.SECP256R1())
PROVIDER = TokenIssuer(KEY)


def certificate(
    *names: x509.GeneralName, subject: str = "CN=Jane Doe,O=Corp", days: int = 30
) -> bytes:
    """Return a client certificate in DER."""
    name = x509.Name.from_rfc4514_string(subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(0xABCD)
        .not_valid_before(START - timedelta(days=60))
        .not_valid_after(START + timedelta(days=days))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def roles(*held: Role, place: str = EVERYWHERE) -> dict[str, frozenset[Role]]:
    """Return roles in one place."""
    return {place: frozenset(held)}


JANE_BY_HASH = certificate(subject="CN=somebody")

JANE = Person(
    name="jane",
    roles=roles(Role.APPROVER, place="web"),
    users=frozenset({"jdoe"}),
    certificates=frozenset(
        {
            CertificateMatch(Face.EMAIL, "jane@corp.example"),
            CertificateMatch(Face.DNS, "jane.people.corp.example"),
            CertificateMatch(Face.URI, "spiffe://corp.example/people/jane"),
            CertificateMatch(Face.SUBJECT, "CN=Jane Doe,O=Corp"),
            CertificateMatch(Face.SHA256, hashlib.sha256(JANE_BY_HASH).hexdigest()),
        }
    ),
    subjects=frozenset({("corp", "00u-jane")}),
)
OMAR = Person(
    name="omar",
    roles=roles(Role.OPERATOR),
    certificates=frozenset({CertificateMatch(Face.EMAIL, "omar@corp.example")}),
)


def register(*people: Person, groups: Any = None, refused: Any = ()) -> Register:
    """Return who is known."""
    where = f"{ISSUER}/keys"
    keys = IssuerKeys(
        ISSUER, FakeDocuments({where: PROVIDER.key_set()}), FakeClock(), keys_url=where
    )
    terms = TokenTerms(
        name="corp",
        issuer=ISSUER,
        audience=AUDIENCE,
        algorithms=("ES256",),
        types=("at+jwt",),
        longest=timedelta(hours=1),
        groups_claim="groups",
    )
    return Register(
        people or (JANE, OMAR),
        groups={"corp": groups or {}},
        tokens=TokenVerifier([(terms, keys)], FakeClock()),
        refused=frozenset(refused),
        clock=FakeClock(),
    )


@pytest.mark.parametrize(
    "der",
    [
        certificate(x509.RFC822Name("jane@corp.example"), subject="CN=x"),
        certificate(x509.RFC822Name("jane@CORP.Example"), subject="CN=x"),
        certificate(x509.DNSName("Jane.people.corp.example"), subject="CN=x"),
        certificate(
            x509.UniformResourceIdentifier("spiffe://corp.example/people/jane"), subject="CN=x"
        ),
        certificate(),
        JANE_BY_HASH,
    ],
    ids=["email", "email-host", "dns", "uri", "subject", "fingerprint"],
)
def test_certificate_is_its_persons(der: bytes) -> None:
    """By any of what the configuration names."""
    caller = register().by_certificate(der)
    assert (caller.name, caller.is_person) == ("jane", True)
    assert caller.held("web") == {Role.APPROVER}
    assert caller.proof["certificate"] == hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize(
    "der",
    [
        certificate(subject="CN=x"),
        certificate(subject="CN=Jane Doe"),
        certificate(subject="CN=Jane Doe,O=Corp,C=DE"),
        certificate(x509.RFC822Name("Jane@corp.example"), subject="CN=x"),
        certificate(x509.RFC822Name("jane@corp.example.evil.example"), subject="CN=x"),
        certificate(x509.DNSName("jane@corp.example"), subject="CN=x"),
        certificate(subject="CN=jane@corp.example"),
        certificate(x509.DNSName("*.people.corp.example"), subject="CN=x"),
    ],
    ids=["nobody", "less", "more", "local-part", "suffix", "other-kind", "in-subject", "wildcard"],
)
def test_certificate_that_only_looks_alike_is_nobodys(der: bytes) -> None:
    """What is not the same is not the same."""
    with pytest.raises(NotKnown, match="nobody's"):
        register().by_certificate(der)


def test_certificate_that_cannot_be_read_is_nobodys() -> None:
    """And no failure of ours."""
    with pytest.raises(NotKnown, match="cannot be read"):
        register().by_certificate(b"not DER")


def test_certificate_with_a_name_of_an_odd_kind_is_known_by_the_rest() -> None:
    """An x400Address is a name of RFC 5280 §4.2.1.6, and none that is read."""
    der = certificate(x509.DNSName("www.corp.example"))
    # The dNSName [2] is made an x400Address [3]; nobody looks at the signature here.
    odd = der.replace(b"\x82\x10www.corp.example", b"\xa3\x10www.corp.example")
    assert odd != der
    assert register().by_certificate(odd).name == "jane"


def test_certificate_of_two_people_is_nobodys() -> None:
    """Which of them would be a guess, and an approval of two by one."""
    der = certificate(
        x509.RFC822Name("jane@corp.example"), x509.RFC822Name("omar@corp.example"), subject="CN=x"
    )
    with pytest.raises(NotKnown, match="jane and omar"):
        register().by_certificate(der)


def test_lost_certificate_is_refused_and_the_persons_others_are_not() -> None:
    """By its fingerprint, without waiting for its end."""
    lost = certificate()
    another = certificate(x509.RFC822Name("jane@corp.example"), subject="CN=x")
    known = register(refused=[hashlib.sha256(lost).hexdigest()])
    with pytest.raises(NotKnown, match="refuses"):
        known.by_certificate(lost)
    assert known.by_certificate(another).name == "jane"


def test_certificate_that_has_ended_since_the_connection_began_is_refused() -> None:
    """TLS has looked at it once."""
    with pytest.raises(NotKnown, match="expired"):
        register().by_certificate(certificate(days=-1))


async def test_token_is_its_persons() -> None:
    """With the same name as by certificate."""
    caller = await register().by_token(PROVIDER.token(START), None)
    assert (caller.name, caller.is_person) == ("jane", True)
    assert caller.proof == {"issuer": ISSUER, "subject": "00u-jane", "token_id": "t-1"}


async def test_token_of_a_group_has_its_roles() -> None:
    """Somebody who is not named is called after issuer and subject."""
    known = register(groups={"pki": roles(Role.VIEWER), "ra": roles(Role.APPROVER, place="web")})
    token = PROVIDER.token(START, sub="00u-kim", groups=["pki", "ra", "others"])
    caller = await known.by_token(token, None)
    assert caller.name == "corp/00u-kim"
    assert caller.held("web") == {Role.VIEWER, Role.APPROVER}
    assert caller.held("mail") == {Role.VIEWER}


async def test_token_without_a_role_is_nobodys() -> None:
    """Every employee has a token."""
    known = register(groups={"pki": roles(Role.VIEWER)})
    with pytest.raises(NotKnown, match="no role"):
        await known.by_token(PROVIDER.token(START, sub="00u-kim", groups=["staff"]), None)


@pytest.mark.parametrize(
    ("subject", "groups"),
    [("00u-kim", ["ops", "ra"]), ("00u-jane", ["ops"]), ("00u-kim", ["security", "ra"])],
    ids=["two-groups", "person-and-group", "security-and-approver"],
)
async def test_token_that_combines_what_has_to_be_apart_is_refused(
    subject: str, groups: list[str]
) -> None:
    """As a whole: which of the roles was meant would be a guess."""
    known = register(
        groups={
            "ops": roles(Role.OPERATOR),
            "ra": roles(Role.APPROVER, place="web"),
            "security": roles(Role.SECURITY),
        }
    )
    with pytest.raises(NotKnown, match="not held by one person"):
        await known.by_token(PROVIDER.token(START, sub=subject, groups=groups), None)
    one = PROVIDER.token(START, sub="00u-kim", groups=groups[:1])
    assert await known.by_token(one, None)


def test_user_is_the_person_whose_user_it_is() -> None:
    """A user that nobody has is nobody, unless they own the broker."""
    known = register()
    found = known.by_user("jdoe", is_owner=False)
    assert found is not None
    assert (found.name, found.is_owner, found.is_person) == ("jane", False, True)
    assert known.by_user("stranger", is_owner=False) is None
    root = known.by_user("root", is_owner=True)
    assert root is not None
    assert (root.name, root.is_owner, root.is_person) == ("root", True, False)


def test_owner_who_is_named_is_a_person() -> None:
    """One who works alone says so in the configuration."""
    alone = Person(name="sam", roles=roles(Role.APPROVER), users=frozenset({"root"}))
    found = register(alone).by_user("root", is_owner=True)
    assert found is not None
    assert (found.name, found.is_owner, found.is_person) == ("sam", True, True)


def test_it_is_known_whether_anybody_could_approve() -> None:
    """Among people, and among groups."""
    assert register().has_approvers
    assert not register(OMAR).has_approvers
    assert register(OMAR, groups={"ra": roles(Role.APPROVER, place="web")}).has_approvers
