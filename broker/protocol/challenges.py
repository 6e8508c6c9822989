"""Challenges: what the client has to show, and the verdict on what was seen.

Whoever goes and looks returns an `Observation`, facts and no judgement; the verdict
is passed here.  A verdict never repeats what was fetched: otherwise a challenge
would be a way to read through us what only we can reach.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from broker.protocol import drafts
from broker.protocol.encoding import encode_base64url, is_base64url
from broker.protocol.extensions import LIBRARY_FAULTS, without_warnings
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.members import ProtocolError
from broker.protocol.parsed_certificate import is_issued_by
from broker.protocol.problems import Problem, ProblemType, printable

MIN_TOKEN_CHARS: Final = 22
"""Shortest token, in characters: RFC 8555 §8.1 wants 128 bits of entropy."""

MAX_TOKEN_CHARS: Final = 256
"""Longest token that is used, in characters; it becomes a file name and a URL path."""

ACME_TLS_PROTOCOL: Final = "acme-tls/1"
"""The only application protocol of a tls-alpn-01 connection (RFC 8737 §4)."""

ACCOUNT_LABEL_OCTETS: Final = 10
"""Octets of the account URL's hash that a dns-account-01 label is made of: 80 bits, which base32
writes in 16 characters without padding."""

ACME_IDENTIFIER_OID: Final = "1.3.6.1.5.5.7.1.31"
"""id-pe-acmeIdentifier (RFC 8737 §3)."""

_SHA256_OCTET_STRING: Final = b"\x04\x20"
"""DER header of an OCTET STRING of 32 octets."""

_TRAILING_SPACE: Final = b" \t\r\n\v\f"


class ChallengeType(StrEnum):
    """The challenges we can offer, validate and answer."""

    HTTP_01 = "http-01"
    DNS_01 = "dns-01"
    TLS_ALPN_01 = "tls-alpn-01"
    DNS_ACCOUNT_01 = drafts.DNS_ACCOUNT_01


_FITTING: Final[Mapping[IdentifierType, frozenset[ChallengeType]]] = {
    IdentifierType.DNS: frozenset(ChallengeType),
    # RFC 8738 §7 rules dns-01 out: who holds a reverse zone need not hold the host.
    IdentifierType.IP: frozenset({ChallengeType.HTTP_01, ChallengeType.TLS_ALPN_01}),
    IdentifierType.EMAIL: frozenset(),
}
_FITTING_WILDCARDS: Final = frozenset({ChallengeType.DNS_01, ChallengeType.DNS_ACCOUNT_01})
# A host that answers for one name shows nothing about the others (RFC 8555 §8.3, RFC 8737 §3).


FailureKind = Literal["dns", "connection", "tls", "refused-address", "protocol", "timeout"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why nothing was seen.  ``text`` is our own sentence, not a peer's."""

    kind: FailureKind
    text: str


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen when somebody went and looked.

    Attributes:
        type: The challenge that was looked for.
        target: What was asked: a URL, a record name, a host name.
        addresses_tried: The addresses contacted, in order.
        answers: The body (http-01), each TXT record (dns-01, dns-account-01), or the DER of
            the leaf certificate shown (tls-alpn-01).
        failure: Why there is no answer, or None.
    """

    type: ChallengeType
    target: str
    addresses_tried: tuple[str, ...] = ()
    answers: tuple[bytes | str, ...] = ()
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether control was shown; the problem says why not."""

    problem: Problem | None = None
    valid: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "valid", self.problem is None)


def is_challenge_for(kind: ChallengeType, identifier: Identifier) -> bool:
    """Return whether a challenge of that type can show control of *identifier*."""
    if identifier.is_wildcard:
        return kind in _FITTING_WILDCARDS
    return kind in _FITTING[identifier.type]


def verify_token(token: str) -> str:
    """Return *token*, proven to be safe as a URL path, a file name and a label.

    Raises:
        ProtocolError: A CA sent something else; do not answer that challenge.
    """
    if not is_base64url(token) or not MIN_TOKEN_CHARS <= len(token) <= MAX_TOKEN_CHARS:
        raise ProtocolError(
            f"challenge.token: '{printable(token, 64)}' is not base64url of "
            f"{MIN_TOKEN_CHARS} to {MAX_TOKEN_CHARS} characters"
        )
    return token


def key_authorization(token: str, thumbprint: str) -> str:
    """Return what the holder of the account key has to show (RFC 8555 §8.1).

    Raises:
        ProtocolError: If the token is not safe to use.
    """
    return f"{verify_token(token)}.{thumbprint}"


def http01_path(token: str) -> str:
    """Return the path of the http-01 resource (RFC 8555 §8.3).

    Raises:
        ProtocolError: If the token is not safe to use.
    """
    return f"/.well-known/acme-challenge/{verify_token(token)}"


def dns01_name(identifier: Identifier) -> str:
    """Return the name of the dns-01 TXT record, for a wildcard that of its base.

    Raises:
        ValueError: If the identifier is no DNS name; that is our bug.
    """
    if identifier.type is not IdentifierType.DNS:
        raise ValueError(f"dns-01 cannot validate identifiers of type {identifier.type}")
    return f"_acme-challenge.{identifier.base.value}"


def dns_account01_name(identifier: Identifier, account_url: str) -> str:
    """Return the name of the dns-account-01 TXT record, for a wildcard that of its base.

    The label is made of the account's URL, so that several accounts can be validated for one name
    side by side (drafts.DNS_ACCOUNT_LABEL §3).

    Raises:
        ValueError: If the identifier is no DNS name; that is our bug.
    """
    digest = hashlib.sha256(account_url.encode("ascii")).digest()[:ACCOUNT_LABEL_OCTETS]
    label = base64.b32encode(digest).decode("ascii").lower()
    return f"_{label}.{dns01_name(identifier)}"


def tls_alpn01_server_name(identifier: Identifier) -> str:
    """Return what SNI carries: the name, or the reverse name of an address (RFC 8738 §6).

    Raises:
        ValueError: If the identifier is neither; that is our bug.
    """
    if identifier.type is IdentifierType.IP:
        return ipaddress.ip_address(identifier.value).reverse_pointer
    if identifier.type is not IdentifierType.DNS:
        raise ValueError(f"tls-alpn-01 cannot validate identifiers of type {identifier.type}")
    return identifier.value


def dns01_value(key_authorization: str) -> str:
    """Return the content of the dns-01 TXT record (RFC 8555 §8.4)."""
    return encode_base64url(hashlib.sha256(key_authorization.encode("ascii")).digest())


def judge_challenge(
    type: ChallengeType,  # noqa: A002 - the member's name on the wire
    *,
    token: str,
    thumbprint: str,
    observation: Observation,
) -> Verdict:
    """Return the verdict on what was seen.

    Raises:
        ValueError: If the observation belongs to another type of challenge; our bug.
    """
    if observation.type is not type:
        raise ValueError(f"an observation of {observation.type} says nothing about {type}")
    if observation.failure is not None:
        return Verdict(_problem_of_failure(observation, observation.failure))
    expected = key_authorization(token, thumbprint)
    if type is ChallengeType.HTTP_01:
        return _judge_http01(expected, observation)
    if type in _FITTING_WILDCARDS:
        return _judge_dns01(expected, observation)
    return _judge_tls_alpn01(expected, observation)


def _problem_of_failure(observation: Observation, failure: Failure) -> Problem:
    by_kind = {
        "dns": ProblemType.DNS,
        "connection": ProblemType.CONNECTION,
        "tls": ProblemType.TLS,
        "refused-address": ProblemType.UNAUTHORIZED,
        "protocol": ProblemType.INCORRECT_RESPONSE,
        "timeout": ProblemType.CONNECTION,
    }
    kind = by_kind[failure.kind]
    if failure.kind == "timeout" and observation.type in _FITTING_WILDCARDS:
        kind = ProblemType.DNS
    tried = observation.addresses_tried
    where = f" (tried {', '.join(tried)})" if tried else ""
    return Problem(kind, f"{observation.target}: {failure.text}{where}")


def _judge_http01(expected: str, observation: Observation) -> Verdict:
    # RFC 8555 §8.3 asks the server to ignore white space at the end of the body.
    bodies = [_octets(answer).rstrip(_TRAILING_SPACE) for answer in observation.answers]
    if bodies == [expected.encode("ascii")]:
        return Verdict()
    return _incorrect(observation, "the body is not the key authorization of this token and key")


def _judge_dns01(expected: str, observation: Observation) -> Verdict:
    if not observation.answers:
        return _incorrect(observation, "no TXT record found")
    wanted = dns01_value(expected)
    if wanted.encode("ascii") in [_octets(answer) for answer in observation.answers]:
        return Verdict()
    return _incorrect(
        observation,
        f"none of the {len(observation.answers)} TXT records found is '{wanted}'",
    )


def _judge_tls_alpn01(expected: str, observation: Observation) -> Verdict:
    if len(observation.answers) != 1:
        return _incorrect(observation, "no certificate was shown")
    digest = hashlib.sha256(expected.encode("ascii")).digest()
    try:
        with without_warnings():
            certificate = x509.load_der_x509_certificate(_octets(observation.answers[0]))
            shown = certificate.extensions
            is_self_signed = is_issued_by(certificate, certificate)
        names = shown.get_extension_for_class(x509.SubjectAlternativeName).value
        proof = shown.get_extension_for_oid(x509.ObjectIdentifier(ACME_IDENTIFIER_OID))
    except x509.ExtensionNotFound as error:
        missing = "names" if error.oid == ExtensionOID.SUBJECT_ALTERNATIVE_NAME else "proof"
        return _incorrect(observation, f"the certificate has no extension with the {missing}")
    except LIBRARY_FAULTS:
        return _incorrect(observation, "the certificate does not parse")
    if not _is_sole_name(list(names), observation.target):
        return _incorrect(observation, "the certificate is for other names than this one alone")
    if not is_self_signed:
        # RFC 8737 §3 has the client make it so.  One that a CA signed was made for other ends.
        return _incorrect(observation, "the certificate is not self-signed")
    octets = proof.value.value if isinstance(proof.value, x509.UnrecognizedExtension) else b""
    if not proof.critical or octets != _SHA256_OCTET_STRING + digest:
        return _incorrect(
            observation, "the certificate's acmeIdentifier is not critical or not the expected hash"
        )
    return Verdict()


def _is_sole_name(names: list[x509.GeneralName], target: str) -> bool:
    """Return whether *target* is the only name (RFC 8737 §3; RFC 8738 §6)."""
    if len(names) != 1:
        return False
    name = names[0]
    try:
        address = ipaddress.ip_address(target)
    except ValueError:
        return isinstance(name, x509.DNSName) and name.value.lower() == target
    # The digits of an address as a dNSName are no address.
    return isinstance(name, x509.IPAddress) and name.value == address


def _octets(answer: bytes | str) -> bytes:
    return answer.encode("utf-8", "surrogateescape") if isinstance(answer, str) else answer


def _incorrect(observation: Observation, sentence: str) -> Verdict:
    return Verdict(Problem(ProblemType.INCORRECT_RESPONSE, f"{observation.target}: {sentence}"))
