"""The key of our account at a CA: changed on request, and asked for when it is in doubt."""

from __future__ import annotations

from typing import Final

from broker.issuance.errors import Broken, Refused
from broker.issuance.ports import Signer
from broker.issuance.records import UpstreamAccountRecord
from broker.protocol.encoding import parse_json_object
from broker.protocol.jws import seal
from broker.protocol.key_change import key_change_input
from broker.protocol.problems import ProblemType
from broker.protocol.resources import AccountStatus
from broker.upstreams.account import read_account
from broker.upstreams.client import AcmeClient

__all__ = ["change_key", "find_account"]

_UNKNOWN: Final = frozenset(
    {
        ProblemType.ACCOUNT_DOES_NOT_EXIST,
        ProblemType.MALFORMED,
        ProblemType.UNAUTHORIZED,
        ProblemType.BAD_PUBLIC_KEY,
    }
)
"""What CAs say to a request for an account that its key does not belong to: Pebble calls a
signature that does not verify malformed, Boulder unauthorized."""


async def change_key(
    client: AcmeClient, signer: Signer, account: UpstreamAccountRecord, new_key_id: str
) -> None:
    """Ask the CA to give the account another key (RFC 8555 §7.3.5).

    Raises:
        Refused: The CA said no.
        Unreachable: No usable answer came; it may have done so all the same.
        Broken: It offers no change of keys, or one of the keys cannot sign.
    """
    directory = await client.directory()
    if directory.key_change is None:
        raise Broken(f"{client.directory_url} offers no change of keys")
    old = await client.account_key(account.key_id)
    new = await client.account_key(new_key_id)
    octets = key_change_input(
        new_key=new.jwk,
        old_key=old.jwk,
        account_url=account.account_url,
        url=directory.key_change,
    )
    inner = seal(octets, await signer.sign(new_key_id, octets))
    payload = parse_json_object(inner, what="inner JWS")
    await client.post(directory.key_change, payload, key=old.speaking_for(account.account_url))


async def find_account(
    client: AcmeClient, account: UpstreamAccountRecord, key_id: str
) -> str | None:
    """Return the URL of the account that the CA knows by this key, None for none.

    The key is asked for (RFC 8555 §7.3.1).  A CA that wants a binding before it looks is shown a
    signature in the account's name instead: it verifies or it does not.

    Raises:
        Refused: The CA says no to something else.
        Unreachable: It cannot answer now.
        Broken: It breaks its protocol, or the account has come to its end.
    """
    directory = await client.directory()
    key = await client.account_key(key_id)
    try:
        answer = await client.post(directory.new_account, {"onlyReturnExisting": True}, key=key)
    except Refused as refusal:
        if refusal.problem.type is ProblemType.ACCOUNT_DOES_NOT_EXIST:
            return None
        if refusal.problem.type is not ProblemType.EXTERNAL_ACCOUNT_REQUIRED:
            raise
        return await _try_out(client, account, key_id)
    if answer.location is None:
        raise Broken(f"{answer.url} named no account URL, expected a Location header")
    return answer.location


async def _try_out(client: AcmeClient, account: UpstreamAccountRecord, key_id: str) -> str | None:
    key = await client.account_key(key_id)
    try:
        found = await read_account(client, key.speaking_for(account.account_url))
    except Refused as refusal:
        if refusal.problem.type in _UNKNOWN:
            return None
        raise
    if found.status is not AccountStatus.VALID:
        raise Broken(f"account {account.account_url} is {found.status}")
    return account.account_url
