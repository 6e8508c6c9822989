"""Tokens of Kubernetes service accounts: read strictly, and verified with keys that are given.

A projected token is a JWT (RFC 7519) in compact form, signed by its cluster's issuer.  It is read
here and nowhere else; fetching keys and asking an API server is somebody else's, and so is what a
service account may have.  Read as RFC 8725 asks: the algorithm is one of two and tied to the kind
of the key, the key is found by its id among those that are given, and nothing in the token can
bring one along.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from broker.protocol.encoding import parse_base64url, parse_json_object
from broker.protocol.jwk import Jwk, parse_jwk
from broker.protocol.jws import verify_signature
from broker.protocol.problems import Problem, printable

__all__ = [
    "MAX_KEY_SET_BYTES",
    "ParsedToken",
    "ServiceAccount",
    "TokenRejected",
    "TokenTerms",
    "parse_key_set",
    "parse_review",
    "parse_token",
    "verify_token",
]

ALGORITHMS: Final = ("RS256", "ES256")
"""What Kubernetes issuers sign with; everything else is refused, `none` and MACs among it."""

MAX_TOKEN_CHARS: Final = 8 * 1024
"""Longest token that is read, in characters; projected ones have about 1,200."""

MAX_KEY_SET_BYTES: Final = 256 * 1024
"""Largest key set that is read, in bytes; a key of RSA-4096 takes under 1 KiB."""

MAX_KEYS: Final = 64
"""Most keys of an issuer; a cluster has one or two, more while they are being changed."""

MAX_KEY_ID_CHARS: Final = 256
"""Longest id of a key, in characters; Kubernetes' have 43."""

LEEWAY: Final = timedelta(seconds=30)
"""How far the issuer's clock may be ahead of ours; an API server and a broker keep time."""

_HEADERS: Final = frozenset({"alg", "kid", "typ"})
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_SUBJECT: Final = "system:serviceaccount:"
_POD_NAME: Final = "authentication.kubernetes.io/pod-name"
_POD_UID: Final = "authentication.kubernetes.io/pod-uid"
_NODE_NAME: Final = "authentication.kubernetes.io/node-name"

MAX_NAME_CHARS: Final = 253
"""Longest name of an object in Kubernetes, in characters (RFC 1123 subdomain)."""


MAX_LABEL_CHARS: Final = 63
"""Longest name of a namespace, in characters (RFC 1123 label)."""


MAX_UID_CHARS: Final = 253
"""Longest uid of an object, or other word of a review, in characters; uids have 36."""


class TokenRejected(ValueError):
    """A token that proves nothing; the text is for the operator, not for who showed it."""


@dataclass(frozen=True, slots=True)
class ParsedToken:
    """A token that is well formed; its signature is NOT verified yet."""

    text: str = field(repr=False)
    """The token as it came, for whoever reviews it."""
    alg: str
    key_id: str
    claims: Mapping[str, Any] = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenTerms:
    """What a token has to say so that it is meant for us."""

    issuer: str
    audience: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """Whom a token was proven to be of."""

    namespace: str
    name: str
    pod: str | None
    """The pod that the token is bound to; None: to none."""
    node: str | None
    """The cluster's node that the pod runs on, where the cluster says so."""
    pod_uid: str | None = None
    """What tells the pod from one of its name that was before or comes after."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse_token(text: str) -> ParsedToken:
    """Return the parts of a token, checked for form and algorithm.

    Raises:
        TokenRejected: It is no token that an issuer of ours would make.
    """
    if len(text) > MAX_TOKEN_CHARS:
        raise TokenRejected(f"token is longer than {MAX_TOKEN_CHARS} characters")
    parts = text.split(".")
    if len(parts) != 3:
        raise TokenRejected("token does not have three parts")
    try:
        header_octets, claims_octets, signature = (parse_base64url(part) for part in parts)
        header = parse_json_object(header_octets, what="token header")
        claims = parse_json_object(claims_octets, what="token claims")
    except Problem as problem:
        raise TokenRejected(problem.detail) from None
    except ValueError as error:
        raise TokenRejected(f"token {error}") from None
    alg, key_id = _read_header(header)
    signed = f"{parts[0]}.{parts[1]}".encode("ascii")
    return ParsedToken(text, alg, key_id, claims, signed, signature)


def _read_header(header: Mapping[str, Any]) -> tuple[str, str]:
    for name in header:
        if name not in _HEADERS:
            # A key or a place to fetch one from, or something that must be understood.
            raise TokenRejected(f"token header has the member '{printable(name, 64)}'")
    alg, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise TokenRejected(
            f"token has alg '{printable(str(alg), 32)}', expected {' or '.join(ALGORITHMS)}"
        )
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID_CHARS:
        raise TokenRejected("token does not say which key signed it")
    if not isinstance(kind, str) or kind.upper() != "JWT":
        raise TokenRejected("token is of another type than JWT")
    return alg, key_id


def parse_key_set(data: bytes) -> Mapping[str, Jwk]:
    """Return the keys of a JWK set (RFC 7517 §5) by their ids.

    Keys of other kinds, for other uses or without an id are passed over: a set may hold them.

    Raises:
        ValueError: It is no key set, holds a private key, an id twice, or none that can be used.
    """
    if len(data) > MAX_KEY_SET_BYTES:
        raise ValueError(f"key set is larger than {MAX_KEY_SET_BYTES} bytes")
    try:
        listed = parse_json_object(data, what="key set").get("keys")
    except Problem as problem:
        raise ValueError(problem.detail) from None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError(f"key set has no list of at most {MAX_KEYS} keys")
    found: dict[str, Jwk] = {}
    for one in listed:
        if not isinstance(one, Mapping):
            raise ValueError("key set has an entry that is no object")
        if any(name in one for name in ("d", "k", "p", "q")):
            raise ValueError("key set holds a private key, expected public ones")
        key_id, key = one.get("kid"), _usable_key(one)
        if key is None or not isinstance(key_id, str):
            continue
        if key_id in found:
            raise ValueError(f"key set has the id '{printable(key_id, 64)}' twice")
        found[key_id] = key
    if not found:
        raise ValueError(f"key set has no key for {' or '.join(ALGORITHMS)}")
    return found


def _usable_key(entry: Mapping[str, Any]) -> Jwk | None:
    if entry.get("use", "sig") != "sig":
        return None
    try:
        key = parse_jwk(entry)
    except Problem:
        return None
    return key if any(alg in ALGORITHMS for alg in key.algorithms) else None


def verify_token(
    parsed: ParsedToken, keys: Mapping[str, Jwk], terms: TokenTerms, at: datetime
) -> ServiceAccount:
    """Return whose token it is, proven to be signed by one of *keys* and good at a moment.

    Raises:
        TokenRejected: It was signed by another key, for others, or for another time.
    """
    key = keys.get(parsed.key_id)
    if key is None:
        raise TokenRejected(f"token was signed by the unknown key '{printable(parsed.key_id, 64)}'")
    try:
        verify_signature(parsed.alg, key, parsed.signing_input, parsed.signature)
    except Problem as problem:
        raise TokenRejected(f"token: {problem.detail}") from None
    claims = parsed.claims
    if claims.get("iss") != terms.issuer:
        raise TokenRejected(
            f"token is of issuer '{printable(str(claims.get('iss')), 200)}', "
            f"expected '{terms.issuer}'"
        )
    _check_audience(claims.get("aud"), terms.audience)
    _check_times(claims, at)
    return _read_account(claims)


def _check_audience(value: object, wanted: str) -> None:
    audiences = [value] if isinstance(value, str) else value
    if not isinstance(audiences, list) or wanted not in audiences:
        raise TokenRejected(f"token is not meant for the audience '{wanted}'")


def _check_times(claims: Mapping[str, Any], at: datetime) -> None:
    ends = _moment(claims, "exp")
    if ends is None:
        raise TokenRejected("token never ends, expected one that is projected into a pod")
    if at >= ends:
        raise TokenRejected(f"token ended at {ends.isoformat()}")
    for name in ("nbf", "iat"):
        begins = _moment(claims, name)
        if begins is not None and at + LEEWAY < begins:
            raise TokenRejected(f"token is not good before {begins.isoformat()}")


def _moment(claims: Mapping[str, Any], name: str) -> datetime | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRejected(f"token has no number in {name}")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise TokenRejected(f"token has no time in {name}") from None


def _read_account(claims: Mapping[str, Any]) -> ServiceAccount:
    told = claims.get("kubernetes.io")
    if not isinstance(told, Mapping):
        raise TokenRejected("token has no claim 'kubernetes.io'")
    namespace = _namespace(told.get("namespace"))
    account = _name(_member(told, "serviceaccount"), "service account")
    if claims.get("sub") != f"{_SUBJECT}{namespace}:{account}":
        raise TokenRejected("token has a subject that is not its service account")
    pod, node = _member(told, "pod"), _member(told, "node")
    return ServiceAccount(
        namespace=namespace,
        name=account,
        pod=None if pod is None else _name(pod, "pod"),
        node=None if node is None else _name(node, "node"),
        pod_uid=None if pod is None else _uid(told["pod"].get("uid"), "pod"),
    )


def _uid(value: object, what: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_UID_CHARS:
        raise TokenRejected(f"token has no name of a {what}")
    return value


def _member(told: Mapping[str, Any], name: str) -> object:
    value = told.get(name)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TokenRejected(f"token has something else than an object in {name}")
    return value.get("name", "")


def _name(value: object, what: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_NAME_CHARS or not _SUBDOMAIN.fullmatch(value):
        raise TokenRejected(f"token has no name of a {what}")
    return value


def _namespace(value: object) -> str:
    name = _name(value, "namespace")
    if "." in name or len(name) > MAX_LABEL_CHARS:
        raise TokenRejected("token has a namespace that is no single label")
    return name


def parse_review(data: bytes, audience: str) -> ServiceAccount:
    """Return whose token an API server found it to be, by its TokenReview.

    Raises:
        TokenRejected: It found that the token is good for nothing, or not for *audience*.
        ValueError: It is no TokenReview.
    """
    try:
        status = parse_json_object(data, what="TokenReview").get("status")
    except Problem as problem:
        raise ValueError(problem.detail) from None
    if not isinstance(status, Mapping):
        raise ValueError("TokenReview has no status")
    if status.get("authenticated") is not True:
        raise TokenRejected("the API server does not know the token")
    _check_audience(status.get("audiences"), audience)
    user = status.get("user")
    if not isinstance(user, Mapping):
        raise ValueError("TokenReview has no user")
    name = user.get("username")
    if not isinstance(name, str) or not name.startswith(_SUBJECT):
        raise TokenRejected("token is of no service account")
    namespace, _, account = name.removeprefix(_SUBJECT).partition(":")
    extra = user.get("extra")
    told = extra if isinstance(extra, Mapping) else {}
    return ServiceAccount(
        namespace=_namespace(namespace),
        name=_name(account, "service account"),
        pod=_first(told, _POD_NAME, "pod"),
        node=_first(told, _NODE_NAME, "node"),
        pod_uid=_only(told, _POD_UID, "pod"),
    )


def _first(extra: Mapping[str, Any], name: str, what: str) -> str | None:
    value = _only(extra, name, what)
    return None if value is None else _name(value, what)


def _only(extra: Mapping[str, Any], name: str, what: str) -> str | None:
    values = extra.get(name)
    if values is None:
        return None
    if not isinstance(values, list) or len(values) != 1:
        raise TokenRejected(f"token is bound to no single {what}")
    return _uid(values[0], what)
