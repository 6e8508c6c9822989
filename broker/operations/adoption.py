"""The part of the desk about what comes from elsewhere: accounts of other clients, and keys."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.issuance.adoption import Adoption, AdoptionWish, KeyFate
from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import Actor
from broker.issuance.key_moves import FILE, KeyMoves, Move, place_of
from broker.issuance.records import UpstreamAccountRecord
from broker.keys.encryption import PrivateKey
from broker.keys.importing import parse_pkcs8
from broker.keys.moving import kind_of
from broker.keys.weakness import find_weaknesses
from broker.operations import views
from broker.operations.parties import UpstreamEntry
from broker.operations.upstream_accounts import UpstreamAccountDesk
from broker.protocol.parsed_certificate import ParsedCertificate, parse_certificate
from broker.web.operator import OperationError, failure_of

__all__ = ["AdoptionDesk"]

MAX_SOURCE_CHARS: Final = 500
"""Longest word about where a key came from, in characters; it is kept with the event."""

REASONS: Final = frozenset({0, 1, 3, 4, 5, 9})
"""Reason codes that are passed up, the ones that requesters may give (RFC 5280 §5.3.1)."""

_PLACE: Final = re.compile(r"vault:[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", re.ASCII)


class AdoptionDesk(UpstreamAccountDesk):
    """Commands about accounts and keys from elsewhere."""

    async def upstream_adopt(
        self,
        *,
        actor: Actor,
        upstream: str,
        private_key: str,
        came_from: str,
        community: str | None = None,
        account_url: str | None = None,
        keep_key: bool = False,
        import_existing: bool = False,
        replace: bool = False,
    ) -> Any:
        """Take over an account by its key, base64 of plain PKCS#8, and give it a new key."""
        entry = self._acme_entry(upstream)
        key = await asyncio.to_thread(_read_key, private_key)
        is_kept, kind = keep_key or import_existing, kind_of(key.public_key())
        wanted = self._rooms.upstreams.account_key_kind(upstream)
        if import_existing and kind != wanted:
            raise OperationError(
                f"the account's key is of kind {kind}, and the configuration says {wanted}: a key "
                "in Vault keeps its kind, so that it could never be rotated",
                f"set account_key.kind to {kind} first, or leave out --import-existing",
            )
        if is_kept:
            await asyncio.to_thread(_check_strength, key)
        wish = AdoptionWish(
            upstream=upstream,
            community=self._community(entry, community),
            pkcs8_der=base64.b64decode(private_key),
            spki_der=key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            account_url=account_url,
            came_from=came_from[:MAX_SOURCE_CHARS],
            replaces=replace,
            fate=KeyFate(
                is_kept=is_kept,
                is_imported=import_existing,
                kind=wanted,
            ),
        )
        made = await self._adoption().adopt(wish, actor=actor)
        return {
            **_account_view(made.account),
            "same_key": made.is_same_key,
            "gave_way": None if made.gave_way is None else made.gave_way.account_url,
        }

    async def upstream_adopt_certificates(
        self,
        *,
        actor: Actor,
        upstream: str,
        certificates: list[str],
        community: str | None = None,
    ) -> Any:
        """Remember certificates that came with the account, each in PEM, the first of each text."""
        name = self._community(self._acme_entry(upstream), community)
        parsed = [_read_certificate(text) for text in certificates]
        kept = await self._adoption().adopt_certificates(upstream, name, parsed, actor=actor)
        return [
            {"cert_id": one.cert_id, "names": [str(each) for each in one.identifiers]}
            for one in kept
        ]

    async def upstream_revoke(
        self,
        *,
        actor: Actor,
        upstream: str,
        certificate: str,
        code: int = 0,
        community: str | None = None,
    ) -> Any:
        """Revoke a certificate that the account ordered before it became ours."""
        name = self._community(self._acme_entry(upstream), community)
        if code not in REASONS:
            raise OperationError(
                f"reason {code} is not offered", f"one of {', '.join(map(str, sorted(REASONS)))}"
            )
        parsed = _read_certificate(certificate)
        account = await self._adoption().revoke(upstream, name, parsed, reason=code, actor=actor)
        return {
            "upstream": upstream,
            "account": account.account_url,
            "fingerprint": parsed.fingerprint,
            "serial": parsed.serial,
            "revoked": True,
        }

    async def upstream_move_key(
        self,
        *,
        actor: Actor,
        upstream: str,
        to: str,
        community: str | None = None,
        import_existing: bool = False,
        destroy_old: bool = False,
    ) -> Any:
        """Take the key of our account to another place, for each community that has one there."""
        entry = self._acme_entry(upstream)
        if to != FILE and _PLACE.fullmatch(to) is None:
            raise OperationError(f"'{to[:64]}' is no place of keys", "say vault:MOUNT or file")
        moved: list[dict[str, Any]] = []
        for name in await self._to_move(entry, community, to):
            wish = Move(
                upstream=upstream,
                community=name,
                to=to,
                kind=self._rooms.upstreams.account_key_kind(upstream),
                imports_existing=import_existing,
                destroys_old=destroy_old,
            )
            try:
                made = await self._moves().move(wish, actor=actor)
            except (Refused, Unreachable, Broken, Conflict) as error:
                if not moved:
                    raise
                raise _stopped(name, [str(one["community"]) for one in moved], error) from error
            moved.append(
                {
                    **_account_view(made.account),
                    "old_key": made.old_key_id,
                    "old_key_destroyed": made.old_key_destroyed,
                    "same_key": made.is_same_key,
                }
            )
        return moved

    async def _to_move(self, entry: UpstreamEntry, community: str | None, to: str) -> Sequence[str]:
        """Return the communities whose key is to move; those whose key is there already are left
        out where another's is not, so that a command that was cut off goes on."""
        found = await self._communities(entry, community)
        records = await self._store.list_upstream_accounts()
        there = {
            one.community
            for one in records
            if one.upstream == entry.name and place_of(one.key_id) == to
        }
        return [one for one in found if one not in there] or found

    def _adoption(self) -> Adoption:
        if self._rooms.adoption is None:
            raise OperationError("this desk adopts no accounts")
        return self._rooms.adoption

    def _moves(self) -> KeyMoves:
        if self._rooms.key_moves is None:
            raise OperationError("this desk moves no keys")
        return self._rooms.key_moves

    def _community(self, entry: UpstreamEntry, community: str | None) -> str:
        """Return the community that is meant: an account is one community's alone."""
        served: Sequence[str] = entry.communities
        if community is None and len(served) == 1:
            return served[0]
        if community in served:
            return str(community)
        if community is None:
            raise OperationError(
                f"upstream '{entry.name}' serves several communities, and an account is one's "
                "alone",
                f"say --community with one of {', '.join(served)}",
            )
        raise OperationError(
            f"upstream '{entry.name}' serves {', '.join(served)}, not '{community}'"
        )


def _stopped(community: str, done: Sequence[str], error: Exception) -> OperationError:
    failure = failure_of(error) or {}
    return OperationError(
        f"the key of the account of community '{community}' has not moved: {failure.get('error')}",
        f"those of {', '.join(done)} have; ask again for the rest",
    )


def _account_view(account: UpstreamAccountRecord) -> dict[str, Any]:
    return {**views.upstream_account_view(account), "key": account.key_id}


def _read_key(text: str) -> PrivateKey:
    try:
        return parse_pkcs8(base64.b64decode(text, validate=True))
    except binascii.Error:
        raise OperationError("the account's key is no base64") from None
    except ValueError as error:
        raise OperationError(f"what was handed over as the account's key {error}") from None


def _check_strength(key: PrivateKey) -> None:
    """Refuse to keep a key that others can find; to be rid of it is another matter."""
    public = key.public_key()
    found = find_weaknesses(public) if isinstance(public, rsa.RSAPublicKey) else ()
    if found:
        raise OperationError(
            f"the account's key must not be kept: {found[0]}",
            "adopt it without --keep-key and --import-existing, which gives the account a new key",
        )


def _read_certificate(pem: str) -> ParsedCertificate:
    try:
        leaf = x509.load_pem_x509_certificate(pem.encode("ascii"))
        return parse_certificate(leaf.public_bytes(Encoding.DER))
    except ValueError as error:
        raise OperationError("a certificate that was handed over cannot be read") from error
