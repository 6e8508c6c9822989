"""Who may register: external account binding keys, minted or declared (RFC 8555 §7.3.4)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.ports import Clock, EabStore
from broker.issuance.records import AccountRecord, EabKeyRecord
from broker.issuance.settings import DeclaredEabKey, IssuanceSettings
from broker.policy.decisions import EabGrant
from broker.policy.names import PatternSet
from broker.protocol.encoding import encode_base64url
from broker.protocol.jws import ParsedBinding, VerifiedBinding, binding_refused, verify_binding
from broker.protocol.problems import Problem, ProblemType

__all__ = ["Enrollment"]

_KEY_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)

MAC_KEY_BYTES: Final = 32
"""Length of a minted MAC key, in bytes: as long as the HS256 digest that most clients use."""


class Enrollment:
    """Mints, lists, revokes and checks binding keys."""

    def __init__(self, store: EabStore, clock: Clock, settings: IssuanceSettings) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._declared = {(key.community, key.key_id): key for key in settings.declared_eab_keys}
        self._decoy = secrets.token_bytes(MAC_KEY_BYTES)

    async def keep_declared(self) -> None:
        """Make sure that each declared key has its row, which remembers who bound it.

        The row holds no MAC key: that stays where the configuration's reference points.
        """
        for key in self._declared.values():
            if await self._store.find_eab_key(key.community, key.key_id) is None:
                await self._store.add_eab_key(self._row(key), self._minted(key, SYSTEM))

    async def mint(
        self,
        community: str,
        *,
        label: str,
        names: tuple[str, ...],
        profiles: tuple[str, ...],
        expires_at: datetime | None,
        is_reusable: bool,
        actor: Actor,
        key_id: str | None = None,
    ) -> EabKeyRecord:
        """Make a key; the MAC key in the answer is shown once, by the command that asked.

        With *key_id* it is called so, that a policy can name it beforehand; without, at random.

        Raises:
            Problem: malformed, for an unknown community, patterns that cannot be read or a key id
                that clients could not be given.
            Conflict: The key id is taken.
        """
        if key_id is not None and _KEY_ID.fullmatch(key_id) is None:
            raise Problem(
                ProblemType.MALFORMED,
                f"key id {key_id!r} is not made of 1 to 64 letters, digits, '.', '_' and '-'",
            )
        if community not in self._settings.communities:
            raise Problem(ProblemType.MALFORMED, f"no community is called {community!r}")
        if len(names) > self._settings.max_eab_names:
            limit = self._settings.max_eab_names
            raise Problem(ProblemType.MALFORMED, f"{len(names)} name patterns, at most {limit}")
        _check_patterns(names)
        key = EabKeyRecord(
            key_id=key_id or f"eab-{secrets.token_hex(8)}",
            community=community,
            label=label,
            mac_key=_draw_mac_key(),
            names=names,
            profiles=profiles,
            is_reusable=is_reusable,
            created_at=self._clock.now(),
            expires_at=expires_at,
            revoked_at=None,
            bound_account_id=None,
        )
        await self._store.add_eab_key(key, self._minted(key, actor))
        return key

    async def list(self, community: str | None) -> Sequence[EabKeyRecord]:
        """Return the keys, revoked ones too."""
        return await self._store.list_eab_keys(community)

    async def revoke(self, community: str, key_id: str, actor: Actor) -> EabKeyRecord:
        """Revoke a key: nobody binds it again, and accounts bound by it order nothing more."""
        at = self._clock.now()
        event = Event(
            kind=EventKind.EAB_REVOKED,
            at=at,
            actor=actor,
            community=community,
            data={"key_id": key_id},
        )
        return await self._store.revoke_eab_key(community, key_id, at, event)

    async def verify(self, community: str, binding: ParsedBinding) -> VerifiedBinding:
        """Return the verified binding.

        An unknown key id, a revoked or expired key and a wrong MAC get the same words, and the
        same work is done for each: nobody learns which key ids exist.
        """
        row = await self._store.find_eab_key(community, binding.key_id)
        mac_key = self._mac_key(community, row)
        verified = verify_binding(binding, mac_key or self._decoy)
        if mac_key is None or row is None or not self._is_open(row):
            raise binding_refused()
        return verified

    async def grant(self, account: AccountRecord) -> EabGrant | None:
        """Return what the account's binding key allows; None when it has none.

        Raises:
            Problem: unauthorized, when the key has been revoked or withdrawn.
        """
        if account.eab_key_id is None:
            return None
        row = await self._store.find_eab_key(account.community, account.eab_key_id)
        if row is None or row.revoked_at is not None or self._mac_key(row.community, row) is None:
            raise Problem(
                ProblemType.UNAUTHORIZED,
                f"the external account binding key {account.eab_key_id!r} of this account "
                "has been revoked",
            )
        declared = self._declared.get((row.community, row.key_id))
        limits = declared or row
        return EabGrant(key_id=row.key_id, names=limits.names, profiles=limits.profiles)

    def _mac_key(self, community: str, row: EabKeyRecord | None) -> bytes | None:
        if row is None:
            return None
        declared = self._declared.get((community, row.key_id))
        if declared is not None:
            return declared.mac_key
        return row.mac_key or None

    def _is_open(self, row: EabKeyRecord) -> bool:
        is_expired = row.expires_at is not None and row.expires_at <= self._clock.now()
        return row.revoked_at is None and not is_expired

    def _row(self, key: DeclaredEabKey) -> EabKeyRecord:
        return EabKeyRecord(
            key_id=key.key_id,
            community=key.community,
            label="declared in the configuration",
            mac_key=b"",
            names=key.names,
            profiles=key.profiles,
            is_reusable=key.is_reusable,
            created_at=self._clock.now(),
            expires_at=None,
            revoked_at=None,
            bound_account_id=None,
        )

    def _minted(self, key: EabKeyRecord | DeclaredEabKey, actor: Actor) -> Event:
        return Event(
            kind=EventKind.EAB_MINTED,
            at=self._clock.now(),
            actor=actor,
            community=key.community,
            data={
                "key_id": key.key_id,
                "names": list(key.names),
                "profiles": list(key.profiles),
                "is_reusable": key.is_reusable,
            },
        )


def _draw_mac_key() -> bytes:
    """Return a MAC key that can be typed behind an option.

    In base64url one in 64 begins with a dash, which certbot and others take for an option.
    """
    while True:
        key = secrets.token_bytes(MAC_KEY_BYTES)
        if not encode_base64url(key).startswith("-"):
            return key


def _check_patterns(names: Sequence[str]) -> None:
    try:
        PatternSet.parse(names)
    except ValueError as fault:
        # As a limit it would let nothing through, at every order and without a word of why.
        raise Problem(ProblemType.MALFORMED, str(fault)) from fault
