"""Finding an account at a CA that another client registered, by the key that speaks for it."""

from __future__ import annotations

from typing import Final

from broker.issuance.errors import Broken, Refused
from broker.issuance.ports import Clock
from broker.issuance.records import UpstreamAccountRecord
from broker.protocol.problems import ProblemType
from broker.protocol.resources import AccountStatus
from broker.upstreams.account import read_account
from broker.upstreams.client import AccountKey, AcmeClient

__all__ = ["look_up"]

_CLOSED: Final = (ProblemType.UNAUTHORIZED, ProblemType.ACCOUNT_DOES_NOT_EXIST)


async def look_up(
    account_url: str | None,
    *,
    upstream: str,
    community: str,
    key_id: str,
    client: AcmeClient,
    clock: Clock,
) -> UpstreamAccountRecord:
    """Return the account that the CA knows by this key, as a record that is not kept.

    *account_url* is what it is expected to be; None: whatever the CA says (RFC 8555 §7.3.1).

    Raises:
        Refused: The CA says no to the question.
        Unreachable: It cannot answer now.
        Broken: It knows no such account, another one, or one that is no longer valid.
    """
    if account_url is not None:
        client.verify_own(account_url, "account URL")
    key = await client.account_key(key_id)
    found = await _ask(client, key, account_url)
    if account_url is not None and found != account_url:
        raise Broken(f"the key speaks for account {found}, and {account_url} was named")
    await _verify_valid(client, key.speaking_for(found))
    return UpstreamAccountRecord(
        upstream=upstream,
        community=community,
        directory_url=client.directory_url,
        account_url=found,
        key_id=key_id,
        thumbprint=key.jwk.thumbprint,
        registered_at=clock.now(),
    )


async def _ask(client: AcmeClient, key: AccountKey, account_url: str | None) -> str:
    directory = await client.directory()
    try:
        answer = await client.post(directory.new_account, {"onlyReturnExisting": True}, key=key)
    except Refused as refusal:
        match refusal.problem.type:
            case ProblemType.ACCOUNT_DOES_NOT_EXIST:
                raise Broken(
                    f"{client.directory_url} knows no account by this key; is it one of another "
                    "CA, such as a staging one, or was its key changed since?"
                ) from refusal
            case ProblemType.EXTERNAL_ACCOUNT_REQUIRED if account_url is not None:
                return account_url  # this CA looks for a binding first: the account shows itself
            case ProblemType.EXTERNAL_ACCOUNT_REQUIRED:
                raise Broken(
                    f"{client.directory_url} does not tell which account a key has; name it with "
                    "--account-url"
                ) from refusal
            case ProblemType.UNAUTHORIZED:
                raise Broken(f"the account of this key cannot be used: {refusal.problem}") from None
        raise
    if answer.location is None:
        raise Broken(f"{answer.url} named no account URL, expected a Location header")
    return answer.location


async def _verify_valid(client: AcmeClient, key: AccountKey) -> None:
    try:
        account = await read_account(client, key)
    except Refused as refusal:
        if refusal.problem.type in _CLOSED:
            raise Broken(
                f"account {key.account_url} cannot be used: {refusal.problem}"
            ) from refusal
        raise
    if account.status is not AccountStatus.VALID:
        raise Broken(f"account {key.account_url} is {account.status}, and stays so")
