"""Requests that an agent has signed with the key of its identity (RFC 9421), where a load balancer
ends TLS: read, verified, and good once.

One algorithm and one list of covered components is accepted, so that nothing is left to choose.
A signature is good for five minutes, once, and only in the process that it was first shown to:
what was signed before this one started is stale, since what it had remembered is gone.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from agents import wire
from broker.channel.door import STALE_SIGNATURE
from broker.protocol.problems import Problem, ProblemType

__all__ = ["Nonces", "RequestSignature", "parse_signature", "refused", "stale", "verify_signature"]

MAX_NONCES: Final = 4096
"""Most signatures of one node that are remembered: it may sign seven a second for as long as each
is good."""

SIGNATURE_BYTES: Final = 64
"""Length of an ECDSA signature over P-256 as r || s, in bytes (RFC 9421 §3.3.4)."""

TOLERANCE: Final = timedelta(seconds=wire.CLOCK_TOLERANCE_SECONDS)
"""How far a signature's time may lie from ours, as both sides have agreed."""

_INPUT: Final = re.compile(
    r'penstock=(?P<parameters>\("@method" "@path" "@query" "content-digest"\)'
    r';created=(?P<created>[0-9]{1,12});nonce="(?P<nonce>[A-Za-z0-9_-]{16,64})"'
    r';keyid="(?P<keyid>[0-9a-f]{64})";alg="ecdsa-p256-sha256")',
    re.ASCII,
)
_SIGNATURE: Final = re.compile(r"penstock=:([A-Za-z0-9+/]{86}==):", re.ASCII)


@dataclass(frozen=True, slots=True)
class RequestSignature:
    """What a request says of its signature; nothing of it is verified."""

    key_id: str
    created: int
    nonce: str
    octets: bytes
    parameters: str


def refused() -> Problem:
    """Return the one refusal there is of a signature or certificate."""
    return Problem(ProblemType.UNAUTHORIZED, "this request shows no identity that is believed here")


def stale() -> Problem:
    """Return the refusal after which an honest agent signs anew."""
    return Problem(
        None,
        "signature is too old, too new or from before this broker started, sign anew",
        raw_type=STALE_SIGNATURE,
        status=401,
    )


def parse_signature(given: str | None, signature: str | None) -> RequestSignature | None:
    """Return what the headers ``Signature-Input`` and ``Signature`` say, None without either.

    Raises:
        Problem: They say something else than what is signed here.
    """
    if given is None and signature is None:
        return None
    said = _INPUT.fullmatch((given or "").strip())
    shown = _SIGNATURE.fullmatch((signature or "").strip())
    if said is None or shown is None:
        raise Problem(
            ProblemType.MALFORMED,
            "signature is not labelled penstock over @method, @path, @query and content-digest",
        )
    try:
        octets = base64.b64decode(shown[1], validate=True)
    except (binascii.Error, ValueError):
        raise Problem(ProblemType.MALFORMED, "signature is no base64") from None
    return RequestSignature(
        said["keyid"], int(said["created"]), said["nonce"], octets, said["parameters"]
    )


def verify_signature(
    signature: RequestSignature,
    certificate_der: bytes,
    *,
    method: str,
    target: str,
    body: bytes,
    digest: str | None,
) -> None:
    """See that the key of *certificate_der* has signed this very request (RFC 9421 §3.2).

    Raises:
        Problem: It has not.
    """
    expected = wire.content_digest(body)
    if digest is None or not hmac.compare_digest(digest.strip().encode(), expected.encode()):
        raise refused()
    path, _, query = target.partition("?")
    base = wire.signature_base(
        method=method, path=path, query=f"?{query}", digest=expected,
        parameters=signature.parameters,
    )  # fmt: skip
    key = x509.load_der_x509_certificate(certificate_der).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or len(signature.octets) != SIGNATURE_BYTES:
        raise refused()
    half = SIGNATURE_BYTES // 2
    r, s = (int.from_bytes(part, "big") for part in (signature.octets[:half],
                                                     signature.octets[half:]))  # fmt: skip
    try:
        key.verify(utils.encode_dss_signature(r, s), base, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise refused() from None


class Nonces:
    """Remembers which signatures were shown, for as long as each is good."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        """Believe nothing that was signed before this moment."""
        self._now = now
        self._since = now()
        self._seen: dict[str, dict[str, int]] = {}

    def check_time(self, created: int) -> None:
        """See that *created* is neither too far from now nor before this process.

        Raises:
            Problem: It is; an honest agent signs anew.
        """
        now = self._now().timestamp()
        limit = TOLERANCE.total_seconds()
        if abs(now - created) > limit or created <= int(self._since.timestamp()):
            raise stale()

    def spend(self, signature: RequestSignature) -> None:
        """Remember a signature that was verified.

        Raises:
            Problem: It was shown before, or the node signs more than anybody needs to.
        """
        seen = self._seen.setdefault(signature.key_id, {})
        if signature.nonce in seen:
            raise refused()
        if len(seen) >= MAX_NONCES:
            self._forget(seen)
        if len(seen) >= MAX_NONCES:
            raise Problem(
                ProblemType.RATE_LIMITED,
                f"more than {MAX_NONCES} requests within {TOLERANCE}",
                retry_after=TOLERANCE / 10,
            )
        seen[signature.nonce] = signature.created

    def forget_old(self) -> None:
        """Forget what would be refused by its time anyway."""
        for key_id in tuple(self._seen):
            self._forget(self._seen[key_id])
            if not self._seen[key_id]:
                del self._seen[key_id]

    def _forget(self, seen: dict[str, int]) -> None:
        oldest = self._now().timestamp() - TOLERANCE.total_seconds() - 1
        for nonce in [nonce for nonce, created in seen.items() if created < oldest]:
            del seen[nonce]
