"""Secrets that the configuration refers to: in files, in the environment, in Vault.

Those in files and in the environment are read when the broker is put together, as they always
were.  One in Vault is read when it is needed, since Vault may be away then, and nothing but what
needs the secret has to wait for it.
"""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, Literal

import structlog
from pydantic import BaseModel

from broker.app.vault import KeptSecret, vault_settings
from broker.clock import SystemClock
from broker.config import Config, SecretRef
from broker.config.vault import AppRoleLogin
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.key_ports import ReadSecret, known_secret
from broker.issuance.ports import Clock
from broker.keys.keyfile import check_passphrase
from broker.keys.vault_kv import KvConnections, KvReader
from broker.keys.vault_session import VaultConnections
from broker.protocol.encoding import parse_base64url
from broker.protocol.problems import Problem

__all__ = [
    "Secrets",
    "is_for_one_login",
    "parse_octets",
    "parse_reference",
    "read_passphrase",
    "references",
    "split_reference",
]

log = structlog.get_logger("penstock")

FRESH_TIME: Final = timedelta(minutes=1)
"""How long a value is used before Vault is asked again: the time within which a changed one is in
use.  Short enough to change both sides by hand while somebody looks, and long enough that a burst
of orders asks once."""

RETRY_TIME: Final = timedelta(seconds=10)
"""Pause before Vault is asked again after it was away, while the last value goes on being used: a
Vault that is slow to answer must not slow every use down."""

Form = Literal["base64", "base64url"]


class Secrets:
    """Reads what references point to."""

    def __init__(
        self,
        config: Config,
        connections: KvConnections | None,
        clock: Clock,
        kept: dict[SecretRef, KeptSecret] | None = None,
    ) -> None:
        """Read by *connections*, None where no Vault is configured; nothing is asked yet.

        *kept* is what was read before, and what is read is put there.
        """
        self._config = config
        self._kv = None if connections is None else KvReader(connections)
        self._clock = clock
        self._kept = {} if kept is None else kept
        self._asking: defaultdict[SecretRef, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._passphrase = asyncio.Lock()
        self._known_passphrase: bytes | None = None

    # --------------------------------------------------------------------------------- readers

    def reader(self, reference: SecretRef) -> ReadSecret:
        """Return what reads the secret; where it does not lie in Vault, it is read now.

        Raises:
            Broken: It does not lie in Vault, and cannot be read.
        """
        if reference.scheme != "vault":
            return known_secret(reference.resolve())
        return lambda: self.read(reference)

    def octets(self, reference: SecretRef, form: Form) -> ReadSecret:
        """Return what reads the octets of a secret that is written in *form*.

        Raises:
            Broken: It does not lie in Vault, and cannot be read or is written in another form.
        """
        if reference.scheme != "vault":
            return known_secret(parse_octets(reference, reference.resolve(), form))

        async def read() -> bytes:
            return parse_octets(reference, await self.read(reference), form)

        return read

    def passphrase(self) -> ReadSecret:
        """Return what reads the passphrase of the key files, once for as long as this lives.

        A broker that read another one halfway would write files that the first does not open.

        Raises:
            Broken: It does not lie in Vault, and cannot be read or is too short.
        """
        reference = self._config.keys.passphrase
        if reference.scheme != "vault":
            return known_secret(check_passphrase(reference.resolve()))

        async def read() -> bytes:
            async with self._passphrase:
                if self._known_passphrase is None:
                    self._known_passphrase = check_passphrase(await self.read(reference))
                return self._known_passphrase

        return read

    # --------------------------------------------------------------------------------- reading

    async def read(self, reference: SecretRef) -> bytes:
        """Return the secret.

        One from Vault is at most `FRESH_TIME` old, unless Vault has been away since: then it is
        the last that was read.

        Raises:
            Unreachable: It lies in Vault, which cannot answer now, and was not read before.
            Broken: It cannot be read; a person has to see to it.
        """
        if reference.scheme != "vault":
            return reference.resolve()
        kept = self._kept.get(reference)
        if kept is not None and self._is_fresh(kept):
            return kept.value
        async with self._asking[reference]:  # eight askers at once ask once
            kept = self._kept.get(reference)
            if kept is None or not self._is_fresh(kept):
                kept = await self._ask(reference, kept)
                self._kept[reference] = kept
            return kept.value

    def doubt(self, references: Sequence[SecretRef]) -> None:
        """Have these read again at their next use: what they were used for refused them."""
        for reference in references:
            kept = self._kept.get(reference)
            if kept is not None:
                self._kept[reference] = replace(kept, ask_at=self._clock.now())

    async def findings(self) -> Sequence[dict[str, Any]]:
        """Read every secret that lies in Vault anew, and return a row for each; see the port."""
        found = []
        for reference in dict.fromkeys(references(self._config)):
            if reference.scheme != "vault" or self._kv is None:
                continue
            row = {"secret": str(reference), "kind": "good", "finding": ""}
            try:
                await self._kv.read(*split_reference(self._config, reference))
            except Broken as fault:
                row |= {"kind": "broken", "finding": fault.reason}
            except Unreachable as away:
                row |= {"kind": "unreachable", "finding": away.reason}
            found.append(row)
        return sorted(found, key=lambda row: row["secret"])

    async def _ask(self, reference: SecretRef, kept: KeptSecret | None) -> KeptSecret:
        if self._kv is None:
            raise Broken(f"secret {reference} lies in Vault, and there is no 'vault' section")
        now = self._clock.now()
        try:
            value = await self._kv.read(*split_reference(self._config, reference))
        except Unreachable as away:
            if kept is None:
                raise
            if not kept.is_stale:
                log.warning(
                    "secret is used as it was last read",
                    secret=str(reference),
                    reason=away.reason,
                )
            return replace(kept, ask_at=now + RETRY_TIME, is_stale=True)
        except Broken:
            # Deleted or damaged on purpose, perhaps: the last value is not used any longer.
            self._kept.pop(reference, None)
            raise
        return KeptSecret(value, now + FRESH_TIME)

    def _is_fresh(self, kept: KeptSecret) -> bool:
        # A clock that was put back must not make a value last.
        return timedelta(0) < kept.ask_at - self._clock.now() <= FRESH_TIME


def split_reference(config: Config, reference: SecretRef) -> tuple[str, str, str]:
    """Return mount, path and field of a reference into Vault.

    The mount is the longest of ``vault.kv_mounts`` that fits, else the first part.
    """
    where, _, name = reference.target.partition("#")
    mounts = config.vault.kv_mounts if config.vault is not None else ()
    fitting = [mount for mount in mounts if where.startswith(f"{mount}/")]
    mount = max(fitting, key=len, default=where.partition("/")[0])
    return mount, where[len(mount) + 1 :], name


def parse_reference(text: str) -> SecretRef:
    """Return the reference that a person typed, to what does not lie in Vault.

    Raises:
        Broken: It is none; what was typed is not shown, for it may be the secret.
    """
    scheme, _, target = text.partition(":")
    if scheme == "file" and target.startswith("/"):
        return SecretRef("file", target)
    if scheme == "env" and target.isidentifier():
        return SecretRef("env", target)
    raise Broken("what was given is no reference such as 'file:/PATH' or 'env:NAME'")


def is_for_one_login(config: Config, reference: SecretRef) -> bool:
    """Return whether whoever reads the secret from Vault logs in with what can be had once.

    Then the broker alone may: another process would take it away from it.
    """
    if config.vault is None or reference.scheme != "vault":
        return False
    mount, _, _ = split_reference(config, reference)
    own = config.vault.mounts.get(mount)
    login = config.vault.serve if own is None else own.serve
    return isinstance(login, AppRoleLogin) and login.is_wrapped


async def read_passphrase(config: Config) -> bytes:
    """Return the passphrase of the key files, in a process that is not the broker.

    Raises:
        Unreachable: It lies in Vault, which cannot answer now.
        Broken: It cannot be read, or is too short.
    """
    clock = SystemClock()
    settings = vault_settings(config)
    vault = None if settings is None else VaultConnections(settings, clock)
    try:
        return await Secrets(config, vault, clock).passphrase()()
    finally:
        if vault is not None:
            await vault.close()


def parse_octets(reference: SecretRef, text: bytes, form: Form) -> bytes:
    """Return the octets of a secret that is written in *form*; the secret is never shown.

    Raises:
        Broken: It is written in another form.
    """
    try:
        if form == "base64":
            return base64.b64decode(text, validate=True)
        return parse_base64url(text.decode("ascii"))
    except (ValueError, Problem):
        raise Broken(f"secret {reference} is not {form}") from None


def references(config: Config) -> Iterator[SecretRef]:
    """Yield every reference to a secret, wherever it stands."""
    waiting: list[object] = [config]
    while waiting:
        value = waiting.pop()
        match value:
            case BaseModel():
                waiting += [getattr(value, name) for name in type(value).model_fields]
            case Mapping():
                waiting += value.values()
            case tuple():
                waiting += value
            case SecretRef():
                yield value
