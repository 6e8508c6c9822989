"""Checkpoints: signed statements that the chain had come so far, under this digest.

The owner of the database can write the whole chain anew, and every digest would fit.  Not so a
checkpoint: the broker can have one signed and cannot read the key, and those that left the host are
out of reach.  One is a JWS in compact form (RFC 7515 §7.1), which any tool for these verifies.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from broker.issuance.audit_chain import canonical
from broker.issuance.audit_ports import CheckpointRecord, CheckpointStore
from broker.issuance.errors import Broken
from broker.issuance.ports import Clock, Signer
from broker.issuance.signatures import signing_for
from broker.protocol.encoding import (
    encode_base64url,
    format_timestamp,
    parse_base64url,
    parse_json_object,
    parse_timestamp,
)
from broker.protocol.jwk import Jwk, jwk_from_public_key
from broker.protocol.jws import signing_input, verify_signature
from broker.protocol.problems import Problem

__all__ = [
    "Checkpoint",
    "CheckpointKeys",
    "Checkpointing",
    "ParsedCheckpoint",
    "parse_checkpoint",
    "parse_public_keys",
    "verify_checkpoint",
]

TYPE: Final = "penstock-checkpoint+jwt"
"""Media type in the header, so that no other JWS of this key can be taken for a checkpoint
(RFC 8725 §3.11)."""

FORM: Final = 1
"""Version of a checkpoint's form."""

MAX_CHECKPOINT_CHARS: Final = 4096
"""Longest checkpoint that is read, in characters; one by an RSA-4096 key takes 1,100."""

KEPT_WHOLE: Final = timedelta(days=30)
"""How long every checkpoint is kept beside the chain; of older ones one in sixty is, which is one
an hour on a busy broker.  Those that left the host stay there."""

THINNED_EVERY: Final = 1440
"""After how many checkpoints older ones are thinned out: once a day on a busy broker."""

_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_PEM: Final = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a checkpoint states; of one that was verified, or was not asked to be."""

    seq: int
    digest: bytes
    at: datetime
    broker: str
    """The broker's external URL."""
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedCheckpoint:
    """A checkpoint that was read, with its signature not verified yet."""

    stated: Checkpoint
    algorithm: str
    signing_input: bytes
    signature: bytes


class CheckpointKeys(Protocol):
    """Knows which key signs checkpoints now."""

    async def checkpoint_key_id(self) -> str:
        """Return its id, after making it where it is not there yet.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: There is no such key and nobody of ours may make it.
        """
        ...


class Checkpointing:
    """Takes checkpoints of one chain."""

    def __init__(
        self,
        store: CheckpointStore,
        keys: CheckpointKeys,
        signer: Signer,
        *,
        broker: str,
        clock: Clock,
    ) -> None:
        """Sign by the key that *keys* names; *broker* is the URL that stands in each checkpoint."""
        self._store = store
        self._keys = keys
        self._signer = signer
        self._broker = broker
        self._clock = clock

    async def take(self) -> CheckpointRecord | None:
        """Sign how far the chain has come; None where it has come no further than the last one.

        Raises:
            Unreachable: The key cannot be reached now.
            Broken: A person has to see to it.
        """
        newest = await self._store.last_audit_record()
        before = await self._store.last_checkpoint()
        if before is not None and before.seq > (0 if newest is None else newest[0]):
            # Were it believed, nothing would be signed until the chain came so far.
            raise Broken(
                f"there is a checkpoint at record {before.seq}, and the chain ends before that: "
                "run penstock audit verify"
            )
        if newest is None or (before is not None and before.seq >= newest[0]):
            return None
        key_id = await self._keys.checkpoint_key_id()
        key = _jwk(load_der_public_key(await self._signer.public_key(key_id)))
        at = self._clock.now().replace(microsecond=0)
        stated = Checkpoint(
            seq=newest[0], digest=newest[1], at=at, broker=self._broker, key_id=key_id
        )
        header = {"alg": key.algorithms[0], "kid": key_id, "typ": TYPE}
        message = signing_input(header, _payload(stated))
        with signing_for("checkpoint", str(stated.seq), apart=True) as made:
            signature = await self._signer.sign(key_id, message)
        record = CheckpointRecord(
            number=1 if before is None else before.number + 1,
            seq=stated.seq,
            at=at,
            key_id=key_id,
            jws=f"{message.decode('ascii')}.{encode_base64url(signature)}",
            vault_request=made[-1].request if made else None,
        )
        await self._store.add_checkpoint(record)
        if record.number % THINNED_EVERY == 0:
            await self._store.thin_checkpoints(at - KEPT_WHOLE)
        return record

    async def public_key(self) -> tuple[str, str]:
        """Return the id of the key that signs now, and its public half as PEM.

        Raises:
            Unreachable: The key cannot be reached now.
            Broken: A person has to see to it.
        """
        key_id = await self._keys.checkpoint_key_id()
        key = load_der_public_key(await self._signer.public_key(key_id))
        return key_id, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def parse_checkpoint(text: str) -> ParsedCheckpoint:
    """Return the checkpoint that *text* is.

    Raises:
        Broken: It is none.
    """
    if len(text) > MAX_CHECKPOINT_CHARS or _COMPACT.fullmatch(text) is None:
        raise Broken("it is no checkpoint: expected a JWS in compact form")
    protected, payload, signature = text.split(".")
    try:
        header = parse_json_object(parse_base64url(protected), what="checkpoint's header")
        document = parse_json_object(parse_base64url(payload), what="checkpoint")
        if header.get("typ") != TYPE or document.get("form") != FORM:
            raise Broken(f"it is no checkpoint of type {TYPE}, form {FORM}")
        return ParsedCheckpoint(
            stated=Checkpoint(
                seq=_number(document["seq"]),
                digest=bytes.fromhex(document["digest"]),
                at=parse_timestamp(document["at"]),
                broker=str(document["broker"]),
                key_id=str(header["kid"]),
            ),
            algorithm=str(header["alg"]),
            signing_input=f"{protected}.{payload}".encode("ascii"),
            signature=parse_base64url(signature),
        )
    except (Problem, KeyError, ValueError, TypeError) as error:
        raise Broken("it is no checkpoint that can be read") from error


def verify_checkpoint(parsed: ParsedCheckpoint, keys: Sequence[Jwk]) -> Checkpoint:
    """Return what *parsed* states, signed by one of *keys*.

    Raises:
        Broken: None of them signed it.
    """
    for key in keys:
        try:
            verify_signature(parsed.algorithm, key, parsed.signing_input, parsed.signature)
        except Problem:
            continue
        return parsed.stated
    raise Broken(
        f"checkpoint at record {parsed.stated.seq} was signed by none of the public keys given: "
        f"it says {parsed.stated.key_id}"
    )


def parse_public_keys(pem: bytes) -> Sequence[Jwk]:
    """Return every public key in *pem*: one for each version that has signed.

    Raises:
        Broken: There is none, or one that cannot sign checkpoints.
    """
    blocks = _PEM.findall(pem)
    if not blocks:
        raise Broken("there is no public key in it: expected PEM, BEGIN PUBLIC KEY")
    try:
        return [_jwk(load_pem_public_key(block)) for block in blocks]
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Broken("a public key in it cannot be read") from error


def _jwk(public_key: object) -> Jwk:
    try:
        return jwk_from_public_key(public_key)
    except (Problem, ValueError, TypeError) as error:
        raise Broken("a key of this kind signs no checkpoints: expected EC or RSA") from error


def _payload(stated: Checkpoint) -> bytes:
    document: dict[str, Any] = {
        "at": format_timestamp(stated.at),
        "broker": stated.broker,
        "digest": stated.digest.hex(),
        "form": FORM,
        "seq": stated.seq,
    }
    return canonical(document).encode("ascii")


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("expected a number from 1")
    return value
