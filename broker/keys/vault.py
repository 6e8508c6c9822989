"""Keys in Vault's transit engine behind the ``KeyRing`` port: they never leave it.

What is signed goes in, the signature comes out, over a connection that is kept; who speaks, and
what becomes of a Vault that is away, is ``vault_session``.  A key is looked at before it first
signs, and again whenever `VaultSigner.look_again` is called: what Vault says of it then decides
whether it signs.
"""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol, TypeVar

import hvac
import structlog
from cryptography.hazmat.primitives import hashes

from broker.issuance.errors import Broken, Conflict, Unreachable
from broker.issuance.key_ports import KeyFault, KeyFaultKind
from broker.keys.transit_key import (
    TYPES,
    PinnedKey,
    TransitKey,
    check_key,
    check_origin,
    check_version,
    parse_signature,
    parse_transit_key,
    pin,
)
from broker.keys.vault_answers import VaultNotFound
from broker.keys.vault_ids import VaultKeyId, parse_vault_key_id

__all__ = ["Connections", "Session", "VaultSigner"]

T = TypeVar("T")

log = structlog.get_logger("penstock")

MAX_INPUT_BYTES: Final = 64 * 1024
"""Longest input that is sent whole, in bytes.  Of a longer one, such as a revocation list of
megabytes, the digest is sent; a request to a CA is never that long."""

MAX_GAP: Final = 100
"""Most versions that are made to reach one; more than one is only where Vault was restored to a
time before the last rotations, whose version numbers are spent."""


class Session(Protocol):
    """Somebody who is logged in to Vault; raises Unreachable and Broken alone."""

    async def post(self, path: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask for what may be done twice, and return the ``data`` of the answer."""
        ...

    async def get(self, path: str) -> Mapping[str, Any]:
        """Read, and return the ``data`` of the answer; raises VaultNotFound where nothing is."""
        ...

    async def run(self, call: Callable[[hvac.Client], T]) -> T:
        """Return what *call* does with hvac's client; what changes a key is done here."""
        ...


class Connections(Protocol):
    """Who the broker is at a mount."""

    def serving(self, mount: str) -> Session:
        """Return the identity that signs and reads."""
        ...

    def rotating(self, mount: str) -> AbstractAsyncContextManager[Session]:
        """Log in as the identity that makes keys, for as long as the block lasts."""
        ...


class VaultSigner:
    """Implements ``key_ports.KeyStores`` over transit engines; ids are those of ``vault_ids``."""

    def __init__(self, connections: Connections) -> None:
        """Sign as *connections* says; nothing is asked before the first call."""
        self._connections = connections
        self._pinned: dict[VaultKeyId, PinnedKey] = {}
        self._faults: dict[VaultKeyId, Sequence[KeyFault]] = {}
        self._looking: defaultdict[VaultKeyId, asyncio.Lock] = defaultdict(asyncio.Lock)

    # ------------------------------------------------------------------------------ as a signer

    async def sign(self, key_id: str, data: bytes) -> bytes:
        """Return the JWS signature octets over *data* (EC: r‖s; RSA: PKCS#1 v1.5).

        The version is always named, and the answer is read strictly: a signature by another
        version would be refused by every CA.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: The key cannot sign, must not until somebody put it right, or what came back is
                no signature of its own.
        """
        wanted = parse_vault_key_id(key_id)
        pinned = await self._usable(wanted)
        document: dict[str, Any] = {
            "input": base64.b64encode(data).decode("ascii"),
            "key_version": wanted.version,
            "marshaling_algorithm": "jws",
        }
        if len(data) > MAX_INPUT_BYTES:
            document |= {"input": _digest(pinned.hash, data), "prehashed": True}
        if pinned.is_rsa:
            document["signature_algorithm"] = "pkcs1v15"
        path = f"{wanted.mount}/sign/{wanted.name}/{pinned.hash_name}"
        try:
            answer = await self._connections.serving(wanted.mount).post(path, document)
        except Broken as error:
            # Vault knows why, and says it of the key rather than of the request.
            await self._inspect(wanted)
            self._refuse_barred(wanted)
            raise Broken(f"key {wanted} does not sign: {error.reason}") from error
        except Unreachable:
            # It may be the key all the same: to a version that is not there Vault answers 500.
            self._faults.pop(wanted, None)
            raise
        return pinned.verify_signature(parse_signature(wanted, answer), data)

    async def public_key(self, key_id: str) -> bytes:
        """Return the SPKI DER.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: There is no such key, or it is archived.
        """
        wanted = parse_vault_key_id(key_id)
        if wanted not in self._pinned:
            self._keep(wanted, await self._read(wanted))
        return self._pin_of(wanted).spki_der

    async def create_key(self, key_id: str, kind: str) -> bytes:
        """Make the version, and the key with it where there is none; return its SPKI DER.

        It can neither be exported nor backed up in the clear nor deleted, and does not rotate by
        itself.  Where versions before it are missing they are made as well, and sign nothing.

        Raises:
            Conflict: There is this version already, or somebody else made one meanwhile.
            Unreachable: Vault cannot answer now; it may have been made.
            Broken: The kind is unknown, or no identity that makes keys is configured.
        """
        wanted = parse_vault_key_id(key_id)
        if kind not in TYPES:
            raise Broken(f"key kind '{kind}' is unknown, expected one of {', '.join(TYPES)}")
        before = await self._find(wanted)
        latest = 0 if before is None else before.latest_version
        if wanted.version <= latest:
            raise Conflict(f"there is a key {wanted} already; it is left alone")
        # It is not there: what was seen of it was another, before Vault was emptied or restored.
        self.forget(key_id)
        if before is not None:
            _verify_successor(before, wanted, kind)
        if wanted.version - latest > MAX_GAP:
            raise Broken(f"key {wanted} is {wanted.version - latest} versions past the latest")
        await self._make(wanted, TYPES[kind] if before is None else None, latest)
        made = await self._read(wanted)
        if made.latest_version != wanted.version:
            raise Conflict(
                f"key {wanted.key} has version {made.latest_version} by now, expected "
                f"{wanted.version}: somebody else rotates it"
            )
        self._keep(wanted, made)
        return self._pin_of(wanted).spki_der

    # ---------------------------------------------------------------------------- as a key ring

    async def has_key(self, key_id: str) -> bool:
        """Return whether there is this version, archived or not; raises Unreachable."""
        wanted = parse_vault_key_id(key_id)
        found = await self._find(wanted)
        return found is not None and found.has_version(wanted.version)

    async def destroy_key(self, key_id: str) -> None:
        """Have the version sign no more, where nothing but it would go.

        Nothing of ours may delete a key.  A version goes by raising the minimum past it, and every
        earlier one goes with it: so it has to be the oldest that signs, and not the latest.  Any
        other stays, unused.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: No identity that may do so is configured.
        """
        wanted = parse_vault_key_id(key_id)
        found = await self._find(wanted)
        if found is None or not found.has_version(wanted.version):
            return
        if found.oldest_signing == wanted.version < found.latest_version:
            await self._raise_minimum(wanted, found, wanted.version + 1)
            self._faults.pop(wanted, None)
        elif found.oldest_signing <= wanted.version:
            log.info("key stays in Vault unused, nothing of ours may delete it", key_id=key_id)

    # -------------------------------------------------------------------------- as a key store

    async def retire_before(self, key_id: str) -> None:
        """See that no earlier version of this key signs any more; done twice it does nothing.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: There is no such version, or no identity that may do so is configured.
        """
        wanted = parse_vault_key_id(key_id)
        found = await self._read(wanted)
        if not found.has_version(wanted.version):
            raise Broken(check_version(found, wanted)[0].reason)
        await self._raise_minimum(wanted, found, wanted.version)

    async def inspect(self, key_id: str) -> Sequence[KeyFault]:
        """Return what must not be so about this key, as Vault says now.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: We cannot log in to it, or what it says is not what transit says of a key.
        """
        wanted = parse_vault_key_id(key_id)
        async with self._looking[wanted]:
            return await self._inspect(wanted)

    def forget(self, key_id: str) -> None:
        """Forget what was seen of this key, so that it is looked at as for the first time."""
        wanted = parse_vault_key_id(key_id)
        self._pinned.pop(wanted, None)
        self._faults.pop(wanted, None)

    async def public_key_now(self, key_id: str) -> bytes:
        """Return the SPKI DER of what lies under this id now, whatever it was when it was pinned.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: There is no such key, or it is archived.
        """
        wanted = parse_vault_key_id(key_id)
        return pin(await self._read(wanted), wanted).spki_der

    async def latest_version(self, mount: str, name: str) -> int:
        """Return the latest version of a key, 0 where there is none; raises Unreachable."""
        found = await self._find(VaultKeyId(mount, name, 1))
        return 0 if found is None else found.latest_version

    # -------------------------------------------------------------------------------- inwardly

    async def _usable(self, wanted: VaultKeyId) -> PinnedKey:
        """Return the pinned key once nothing bars it."""
        if self._is_doubtful(wanted):
            async with self._looking[wanted]:  # thirty-two orders at once look once
                if self._is_doubtful(wanted):
                    await self._inspect(wanted)
            self._refuse_barred(wanted)
        return self._pin_of(wanted)

    def _is_doubtful(self, wanted: VaultKeyId) -> bool:
        """Return whether Vault has to be asked: it was not yet, or something barred the key."""
        faults = self._faults.get(wanted)
        return faults is None or any(fault.kind is KeyFaultKind.BARRING for fault in faults)

    def _refuse_barred(self, wanted: VaultKeyId) -> None:
        for fault in self._faults.get(wanted, ()):
            if fault.kind is KeyFaultKind.BARRING:
                raise Broken(fault.reason)

    async def _inspect(self, wanted: VaultKeyId) -> Sequence[KeyFault]:
        key = await self._find(wanted)
        faults: Sequence[KeyFault]
        if key is None:
            reason = f"there is no key {wanted.key} in Vault"
            faults = (KeyFault(key_id=str(wanted), reason=reason),)
        else:
            found = check_version(key, wanted) or self._check_pin(wanted, key)
            faults = [*found, *check_key(key, wanted), *check_origin(key, wanted)]
        self._faults[wanted] = faults
        return faults

    def _check_pin(self, wanted: VaultKeyId, key: TransitKey) -> Sequence[KeyFault]:
        """Pin the version's public key, or find that it is not the one that was pinned."""
        try:
            self._keep(wanted, key)
        except Broken as error:
            return (KeyFault(key_id=str(wanted), reason=error.reason),)
        return ()

    def _keep(self, wanted: VaultKeyId, key: TransitKey) -> None:
        pinned = pin(key, wanted)
        before = self._pinned.setdefault(wanted, pinned)
        if before.spki_der != pinned.spki_der:
            raise Broken(
                f"key {wanted} is another one than when it was first used here: Vault was emptied "
                "or restored, or the key was deleted and made anew"
            )

    def _pin_of(self, wanted: VaultKeyId) -> PinnedKey:
        return self._pinned[wanted]

    async def _find(self, wanted: VaultKeyId) -> TransitKey | None:
        path = f"{wanted.mount}/keys/{wanted.name}"
        try:
            data = await self._connections.serving(wanted.mount).get(path)
        except VaultNotFound:
            return None
        return parse_transit_key(wanted.key, data)

    async def _read(self, wanted: VaultKeyId) -> TransitKey:
        found = await self._find(wanted)
        if found is None:
            raise Broken(f"there is no key {wanted.key} in Vault")
        return found

    async def _make(self, wanted: VaultKeyId, new_type: str | None, latest: int) -> None:
        """Make the key where it is to have a *new_type*, and versions up to the wanted one."""
        path = f"{wanted.mount}/keys/{wanted.name}"
        by_hand = f"vault write -f {path}{'/rotate' if new_type is None else f' type={new_type}'}"
        place = {"name": wanted.name, "mount_point": wanted.mount}

        def create(client: hvac.Client) -> None:
            transit: Any = client.secrets.transit  # hvac has no types
            transit.create_key(
                **place, key_type=new_type, exportable=False, allow_plaintext_backup=False
            )

        def rotate(client: hvac.Client) -> None:
            transit: Any = client.secrets.transit
            transit.rotate_key(**place)

        try:
            async with self._connections.rotating(wanted.mount) as session:
                if new_type is not None:
                    await session.run(create)
                    latest = 1
                for _ in range(wanted.version - latest):
                    await session.run(rotate)
        except Broken as error:
            raise Broken(
                f"key {wanted} is not there and cannot be made: {error.reason}; where others make "
                f"the keys, have them do it: {by_hand}"
            ) from error

    async def _raise_minimum(self, wanted: VaultKeyId, found: TransitKey, version: int) -> None:
        """Have no version before *version* sign or be had; a minimum is never lowered."""
        wish = {"min_decryption_version": version, "min_encryption_version": version}
        now = {
            "min_decryption_version": found.min_decryption_version,
            "min_encryption_version": found.min_encryption_version,
        }
        missing = {name: version for name in wish if now[name] < version}
        if not missing:
            return

        def configure(client: hvac.Client) -> None:
            # hvac's own call refuses the two minimums to be equal, which Vault wants them to be.
            client.write_data(f"{wanted.mount}/keys/{wanted.name}/config", data=missing)

        async with self._connections.rotating(wanted.mount) as session:
            await session.run(configure)


def _verify_successor(before: TransitKey, wanted: VaultKeyId, kind: str) -> None:
    """See that the next version of this key will be one to use.

    Raises:
        Broken: It would be of another type, or share what must not be so.
    """
    if before.type != TYPES[kind]:
        raise Broken(
            f"key {wanted.key} is of type {before.type}, and so is every version of it; "
            f"expected {TYPES[kind]}: name that kind, or have the key made at another mount"
        )
    inherited = check_key(before, wanted)
    if inherited:
        raise Broken(inherited[0].reason)


def _digest(hash_: hashes.HashAlgorithm, data: bytes) -> str:
    digest = hashes.Hash(hash_)
    digest.update(data)
    return base64.b64encode(digest.finalize()).decode("ascii")
