"""What taking over keys and accounts asks of the world: keys from elsewhere, CAs, and the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from broker.issuance.events import Event
from broker.issuance.records import UpstreamAccountRecord
from broker.issuance.upstream_key_ports import UpstreamKeyChange
from broker.protocol.identifiers import Identifier

__all__ = ["AccountsElsewhere", "AdoptedCertificate", "AdoptionStore", "ForeignKeys"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedCertificate:
    """A certificate that another client ordered with an account that is ours now."""

    cert_id: str
    upstream: str
    community: str
    account_url: str
    identifiers: tuple[Identifier, ...]
    not_after: datetime


class ForeignKeys(Protocol):
    """Takes in keys that were not made here."""

    async def take_in(self, key_id: str, pkcs8_der: bytes) -> None:
        """Keep a key that was made elsewhere in an encrypted file; done twice it does nothing.

        Raises:
            Conflict: There is another key of that name.
            Broken: It is no key that can be kept.
        """
        ...

    async def taken_in(self) -> Sequence[str]:
        """Return the ids of all keys that were taken in and still lie in files."""
        ...

    def place(self, upstream: str, community: str) -> str:
        """Return where the configuration keeps keys of our account: ``file``, ``vault:MOUNT``."""
        ...

    async def destination(self, key_id: str, upstream: str, community: str) -> str:
        """Return the id that the key of a file is to have in Vault, where nothing may be yet.

        Where an earlier attempt got through, it is the version that this very key is.

        Raises:
            Unreachable: Vault cannot answer now.
            Broken: Another key has the name already.
        """
        ...

    async def bring(self, key_id: str, new_key_id: str) -> None:
        """Bring the key of a file into Vault, wrapped; return once Vault has signed with it and
        the signature was verified under the public key of the file.

        Done again after it was cut off, it goes on.

        Raises:
            Unreachable: Vault cannot answer now; it may have been brought.
            Broken: Vault does not take it, or signs with another key.
        """
        ...


class AccountsElsewhere(Protocol):
    """Accounts at our CAs that somebody else registered."""

    async def look_up(
        self, upstream: str, community: str, key_id: str, account_url: str | None
    ) -> UpstreamAccountRecord:
        """Return the account that the CA knows by this key, as a record that is not kept.

        *account_url* is what it is expected to be, None where nobody knows.

        Raises:
            Refused: The CA says no to the question.
            Unreachable: It cannot answer now.
            Broken: It knows no such account, another one, or one that has come to its end.
        """
        ...

    def welcome(self, upstream: str, community: str) -> None:
        """Let orders go to the account that was adopted there."""
        ...


class AdoptionStore(Protocol):
    """What is kept of adoptions and moves beside the journal of changes of keys."""

    async def undo_adoption(self, account: UpstreamAccountRecord, event: Event) -> None:
        """Forget an account that was adopted; raises Conflict when it is not the one on record."""
        ...

    async def keys_on_record(self) -> Sequence[str]:
        """Return the ids of the keys that accounts have, had before they were replaced, or had
        before a change that happened or may yet have happened."""
        ...

    async def change_that_led_to(self, key_id: str) -> UpstreamKeyChange | None:
        """Return the change by which an account got this key, None where it was made with it."""
        ...

    async def keep_adopted_certificates(
        self, certificates: Sequence[AdoptedCertificate], event: Event
    ) -> None:
        """Keep what came with an account, in place of what was kept of the same certificates."""
        ...

    async def adopted_certificates(
        self, community: str, cert_id: str
    ) -> Sequence[AdoptedCertificate]:
        """Return those of this CertID, at whichever upstream."""
        ...
