"""How a CA stands to an account of ours: whether it knows it, by which key, and whether it is open.

CAs have the same word for different things, so two questions are asked: one in the account's name
(RFC 8555 §7.3), and one by the key alone (RFC 8555 §7.3.1).  What contradicts itself is an error
to be told, never a lost account.
"""

from __future__ import annotations

from typing import Final

from broker.issuance.account_ports import Standing
from broker.issuance.errors import Broken, Refused
from broker.issuance.records import UpstreamAccountRecord
from broker.protocol.problems import ProblemType
from broker.protocol.resources import AccountStatus
from broker.upstreams.account import read_account
from broker.upstreams.client import AccountKey, AcmeClient

__all__ = ["ask_standing"]

_ABOUT_ACCOUNT: Final = frozenset(
    {
        ProblemType.ACCOUNT_DOES_NOT_EXIST,
        ProblemType.UNAUTHORIZED,
        ProblemType.MALFORMED,
        ProblemType.BAD_PUBLIC_KEY,
    }
)
"""What CAs say to a request in the name of an account that is gone, closed or has another key:
Pebble calls a signature that does not verify malformed, step-ca unauthorized."""


async def ask_standing(client: AcmeClient, account: UpstreamAccountRecord, key_id: str) -> Standing:
    """Return what the CA says when the key *key_id* speaks for the account.

    Raises:
        Refused: The CA says no to something else, such as terms that have changed.
        Unreachable: It, or the keeper of the key, cannot answer now.
        Broken: It breaks its protocol, or the key cannot sign.
    """
    key = await client.account_key(key_id)
    try:
        found = await read_account(client, key.speaking_for(account.account_url))
    except Refused as refusal:
        if refusal.problem.type not in _ABOUT_ACCOUNT:
            raise
        return await _by_key(client, account, key, refusal)
    return Standing.VALID if found.status is AccountStatus.VALID else Standing.CLOSED


async def _by_key(
    client: AcmeClient, account: UpstreamAccountRecord, key: AccountKey, first: Refused
) -> Standing:
    """Return the standing after the account itself was refused as *first* says."""
    directory = await client.directory()
    try:
        answer = await client.post(directory.new_account, {"onlyReturnExisting": True}, key=key)
    except Refused as second:
        if second.problem.type is ProblemType.ACCOUNT_DOES_NOT_EXIST:
            return _without_key(first)
        if second.problem.type is ProblemType.EXTERNAL_ACCOUNT_REQUIRED:
            # It looks for a binding before it looks for the account, so one answer has to do.
            is_closed = first.problem.type is ProblemType.UNAUTHORIZED
            return Standing.CLOSED if is_closed else _without_key(first)
        if second.problem.type is ProblemType.UNAUTHORIZED:
            return Standing.CLOSED
        raise
    if answer.location != account.account_url:
        # The key is another account's there: that one is not ours to use unasked.
        return _without_key(first)
    shown = await _read_quietly(client, key, account)
    if shown is AccountStatus.VALID:
        raise first
    return Standing.CLOSED


async def _read_quietly(
    client: AcmeClient, key: AccountKey, account: UpstreamAccountRecord
) -> AccountStatus | None:
    """Return the account's status if the CA shows it at the second time of asking."""
    try:
        return (await read_account(client, key.speaking_for(account.account_url))).status
    except (Refused, Broken):
        return None


def _without_key(first: Refused) -> Standing:
    is_gone = first.problem.type is ProblemType.ACCOUNT_DOES_NOT_EXIST
    return Standing.ACCOUNT_UNKNOWN if is_gone else Standing.KEY_UNKNOWN
