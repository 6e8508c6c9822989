"""Who answers for a request: those who may not approve it.

Two names are taken for one person where they could be: an actor ``operator:anna`` is not told
apart from the contact ``anna@corp.example``, nor is ``operator:corp/anna``, whom a token of the
issuer ``corp`` names.  Unsure means no, and somebody else approves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from broker.issuance.approval_ports import AnswerWord, ApprovalAnswer, ApprovalRecord
from broker.issuance.events import SYSTEM
from broker.issuance.node_ports import NodeRecord
from broker.issuance.records import AccountRecord, EabKeyRecord

__all__ = ["People", "PeopleStore", "is_any_of"]

OPERATOR: Final = "operator:"

APPROVAL: Final = "approval:"
"""Beginning of the actor that an approval is, where it mints a key."""

_ADDRESS: Final = re.compile(r"[^\s<>,;:\"'()]+@[^\s<>,;:\"'()]+")
_BETWEEN: Final = re.compile(r"[,;]")


class PeopleStore(Protocol):
    """What is known about who answers for an account."""

    async def find_account(self, account_id: str) -> AccountRecord | None: ...
    async def find_node_by_account(self, account_id: str) -> NodeRecord | None: ...
    async def find_eab_key(self, community: str, key_id: str) -> EabKeyRecord | None: ...
    async def key_minted_by(self, community: str, key_id: str) -> str | None: ...
    async def find_approval(self, approval_id: str) -> ApprovalRecord | None: ...
    async def answers_of(self, approval_id: str) -> Sequence[ApprovalAnswer]: ...


class People:
    """Looks up who answers for a request, at the time of the ask and of each answer."""

    def __init__(self, store: PeopleStore) -> None:
        self._store = store

    async def of_account(self, account: AccountRecord) -> tuple[str, ...]:
        """Return owners and contacts of it, of its node and of its key, and who minted that."""
        found = [account.owner, account.contact, *account.contacts]
        node = await self._store.find_node_by_account(account.account_id)
        if node is not None:
            found += [node.owner, node.contact]
        if account.eab_key_id is not None:
            key = await self._store.find_eab_key(account.community, account.eab_key_id)
            if key is not None:
                found += [key.owner, key.contact]
            minted_by = await self._store.key_minted_by(account.community, account.eab_key_id)
            found += [minted_by or "", *await self._shown_key(account, minted_by or "")]
        return tuple(dict.fromkeys(one for one in found if one and one != SYSTEM.name))

    async def _shown_key(self, account: AccountRecord, minted_by: str) -> Sequence[str]:
        """Return who was shown the MAC key that an approval minted, where *account* needed it: its
        key is not the one that was approved, and theirs may be."""
        approval = await self._store.find_approval(minted_by.removeprefix(APPROVAL))
        if approval is None or approval.holder == account.thumbprint:
            return ()
        answers = await self._store.answers_of(approval.approval_id)
        return [one.person for one in answers if one.word is AnswerWord.APPROVE][-1:]

    async def of(self, approval: ApprovalRecord) -> tuple[str, ...]:
        """Return those who were known at the ask, and those who answer for it now."""
        kept = approval.asked_by.get("people")
        then = [str(one) for one in kept] if isinstance(kept, list) else []
        account = await self._store.find_account(approval.holder)
        now = () if account is None else await self.of_account(account)
        return tuple(dict.fromkeys((*then, *now)))


def is_any_of(actor: str, people: Iterable[str]) -> bool:
    """Return whether *actor* could be one of *people*."""
    mine = _spellings(actor)
    return any(mine & _spellings(one) for one in people)


def _spellings(text: str) -> frozenset[str]:
    """Return the ways in which whoever *text* names may be named: all of it, what stands between
    commas, each mail address in it, what stands before its ``@``, and each without its issuer."""
    plain = text.strip().casefold().removeprefix(OPERATOR).removeprefix("mailto:")
    addresses = _ADDRESS.findall(plain)
    names = [plain, *_BETWEEN.split(plain), *addresses]
    names += [one.partition("@")[0] for one in addresses]
    names += [one.partition("/")[2] for one in names]
    return frozenset(one.strip() for one in names if one.strip())
