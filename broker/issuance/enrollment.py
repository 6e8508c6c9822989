"""Who may register: external account binding keys, minted or declared (RFC 8555 §7.3.4)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from broker.issuance.errors import Unreachable
from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.key_ports import Sealed, Sealer
from broker.issuance.node_ports import NodeStatus, NodeStore
from broker.issuance.ports import Clock, EabStore
from broker.issuance.records import AccountRecord, EabKeyRecord
from broker.issuance.sealing import context_of
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


DECOY: Final = "no external account binding key"
"""Context of what is unsealed where there is nothing to unseal."""


class Enrollment:
    """Mints, lists, revokes and checks binding keys."""

    def __init__(
        self,
        store: EabStore,
        clock: Clock,
        settings: IssuanceSettings,
        *,
        sealer: Sealer,
        nodes: NodeStore | None = None,
    ) -> None:
        """Check keys; *nodes* knows whose account is a node's, None where there are none."""
        self._nodes = nodes
        self._store = store
        self._sealer = sealer
        self._clock = clock
        self._settings = settings
        self._declared = {(key.community, key.key_id): key for key in settings.declared_eab_keys}
        self._decoy: Sealed | None = None

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
        owner: str = "",
        contact: str = "",
    ) -> EabKeyRecord:
        """Make a key; the MAC key in the answer is shown once, by the command that asked.

        With *key_id* it is called so, that a policy can name it beforehand; without, at random.

        Raises:
            Problem: malformed, for an unknown community, patterns that cannot be read or a key id
                that clients could not be given.
            Conflict: The key id is taken.
            Unreachable: The MAC key cannot be sealed now; no key was made.
            Broken: It cannot be sealed.
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
            owner=owner,
            contact=contact,
        )
        sealed = await self._sealer.seal(key.mac_key, context_of(community, key.key_id))
        kept = replace(key, mac_key=sealed.octets, sealed_by=sealed.by)
        await self._store.add_eab_key(kept, self._minted(key, actor))
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
        same work is done for each: nobody learns which key ids exist.  So something is unsealed
        for whatever key id, and while that cannot be done nobody is told anything.

        Raises:
            Problem: unauthorized, for a binding that is not accepted.
            Unreachable: Whoever seals cannot be reached now, or Vault, where a declared MAC key
                lies.  Nothing was judged.
        """
        row = await self._store.find_eab_key(community, binding.key_id)
        declared = None if row is None else self._declared.get((community, row.key_id))
        away: Unreachable | None = None
        # With what a MAC is compared where there is no key; whatever comes of it is refused.
        nobodys_key = secrets.token_bytes(MAC_KEY_BYTES)
        mac_key: bytes | None = None
        try:
            opened = await self._unsealed(row)
            mac_key = opened if row is not None and row.mac_key else None
        except Unreachable as fault:
            away = fault
        if declared is not None:
            mac_key = await declared.mac_key()
        try:
            verified = verify_binding(binding, mac_key or nobodys_key)
        except Problem as refused:
            raise away or refused from None
        if mac_key is None or row is None or not self._is_open(row):
            raise away or binding_refused()
        return verified

    async def grant(self, account: AccountRecord) -> EabGrant | None:
        """Return what the account's binding key or its node allows; None when it has neither.

        Raises:
            Problem: unauthorized, when the key or the node has been revoked.
        """
        if account.eab_key_id is None:
            return await self._grant_of_node(account)
        row = await self._store.find_eab_key(account.community, account.eab_key_id)
        if row is None or row.revoked_at is not None or not self._has_mac_key(row):
            raise Problem(
                ProblemType.UNAUTHORIZED,
                f"the external account binding key {account.eab_key_id!r} of this account "
                "has been revoked",
            )
        declared = self._declared.get((row.community, row.key_id))
        limits = declared or row
        return EabGrant(
            key_id=row.key_id,
            names=limits.names,
            profiles=limits.profiles,
            owner=limits.owner or row.owner or None,
        )

    async def _grant_of_node(self, account: AccountRecord) -> EabGrant | None:
        if self._nodes is None:
            return None
        node = await self._nodes.find_node_by_account(account.account_id)
        if node is None:
            return None
        if node.status is NodeStatus.REVOKED:
            raise Problem(ProblemType.UNAUTHORIZED, f"node {node.name!r} has been revoked")
        return EabGrant(
            key_id="",
            names=node.names,
            profiles=node.profiles,
            node=node.name,
            cluster=node.cluster,
            namespace=node.namespace,
            service_account=node.service_account,
            attestation=node.method,
            upstreams=node.upstreams,
            owner=node.owner or None,
        )

    async def _unsealed(self, row: EabKeyRecord | None) -> bytes:
        """Return the MAC key in the row, or unseal another in its stead.

        None is kept: a client registers once, and what is not in memory cannot be read from it.
        """
        if row is not None and row.sealed_by is not None:
            sealed = Sealed(row.sealed_by, row.mac_key)
            return await self._sealer.unseal(sealed, context_of(row.community, row.key_id))
        if self._decoy is None:
            self._decoy = await self._sealer.seal(secrets.token_bytes(MAC_KEY_BYTES), DECOY)
        decoy = await self._sealer.unseal(self._decoy, DECOY)
        return decoy if row is None or not row.mac_key else row.mac_key

    def _has_mac_key(self, row: EabKeyRecord) -> bool:
        """Return whether there is a MAC key for the row: of a declared one it holds none."""
        return (row.community, row.key_id) in self._declared or bool(row.mac_key)

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
            owner=key.owner,
            contact=key.contact,
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
                **({"owner": key.owner, "contact": key.contact} if key.owner else {}),
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
