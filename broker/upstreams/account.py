"""Our account at a CA: registered when a person asks for it, never by merely starting.

One account for each (CA, community), made once with a key that stays.  Registering again with the
same key finds the account again, so a lost record costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.ports import Clock
from broker.issuance.records import UpstreamAccountRecord
from broker.protocol.exchange import Answer
from broker.protocol.jws import BINDING_ALGORITHMS, seal_binding
from broker.protocol.members import ProtocolError
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import Account, AccountStatus, Directory
from broker.upstreams.client import AccountKey, AcmeClient

__all__ = ["EabCredential", "Registration", "check_account", "read_account", "register"]

_NO_ACCOUNT: Final = ProblemType.ACCOUNT_DOES_NOT_EXIST


@dataclass(frozen=True, slots=True, kw_only=True)
class EabCredential:
    """An external account binding key that the CA gave us (RFC 8555 §7.3.4)."""

    key_id: str
    mac_key: bytes = field(repr=False)
    """The octets, not the base64url in which CAs hand them out."""
    algorithm: str = "HS256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a person asks to have registered."""

    upstream: str
    community: str
    key_id: str
    contacts: tuple[str, ...] = ()
    """URLs such as ``mailto:pki@example.com``."""
    is_terms_agreed: bool = False
    """Whether a person has read and agreed to the CA's terms of service."""
    eab: EabCredential | None = None


async def register(
    registration: Registration, *, client: AcmeClient, clock: Clock
) -> UpstreamAccountRecord:
    """Find the account of this key at the CA, or have one made, and return its record.

    The key must exist already; keeping the record is the caller's affair.

    Raises:
        Refused: The CA said no, or a person has to agree to its terms first.
        Unreachable: The CA cannot answer now.  Registering again is harmless.
        Broken: The account exists and is no longer valid, or the CA breaks its protocol.
    """
    directory = await client.directory()
    key = await client.account_key(registration.key_id)
    answer = await _find(client, directory, key)
    if answer is None:
        answer = await _create(client, directory, key, registration)
    if answer.location is None:
        raise Broken(f"{answer.url} named no account URL, expected a Location header")
    account = await read_account(client, key.speaking_for(answer.location))
    if account.status is not AccountStatus.VALID:
        raise Broken(
            f"account {answer.location} is {account.status}; a new one needs a new key, "
            f"'{registration.key_id}' cannot be used again"
        )
    return UpstreamAccountRecord(
        upstream=registration.upstream,
        community=registration.community,
        directory_url=client.directory_url,
        account_url=answer.location,
        key_id=registration.key_id,
        thumbprint=key.jwk.thumbprint,
        registered_at=clock.now(),
    )


async def check_account(
    record: UpstreamAccountRecord | None, *, client: AcmeClient
) -> Sequence[str]:
    """Return a sentence for each thing that stands between us and the CA; empty means none."""
    try:
        await client.directory()
        if record is None:
            return ("no account is registered",)
        if record.directory_url != client.directory_url:
            there, here = record.directory_url, client.directory_url
            return (f"account was registered at {there}, the configuration names {here}",)
        key = await client.account_key(record.key_id)
        if key.jwk.thumbprint != record.thumbprint:
            return (f"key '{record.key_id}' is not the one that the account was registered with",)
        account = await read_account(client, key.speaking_for(record.account_url))
    except Refused as refusal:
        return (f"account {record.account_url if record else ''} is refused: {refusal.problem}",)
    except (Unreachable, Broken) as error:
        return (error.reason,)
    if account.status is not AccountStatus.VALID:
        return (f"account {record.account_url} is {account.status}",)
    return ()


async def read_account(client: AcmeClient, key: AccountKey) -> Account:
    """Return the account as the CA shows it.

    Raises:
        Refused: The CA knows no such account, or has closed it.
        Unreachable: The CA cannot answer now.
        Broken: What it answered is no account object.
    """
    if key.account_url is None:
        raise ValueError("a key without its account cannot read it")
    answer = await client.post(key.account_url, None, key=key)
    try:
        return Account.from_json(answer.json())
    except ProtocolError as error:
        raise Broken(f"{answer.url}: {error}") from error


async def _find(client: AcmeClient, directory: Directory, key: AccountKey) -> Answer | None:
    """Ask for the account that this key has already (RFC 8555 §7.3.1)."""
    try:
        return await client.post(directory.new_account, {"onlyReturnExisting": True}, key=key)
    except Refused as refusal:
        # Some CAs look for a binding before they look for the account.
        if refusal.problem.type in (_NO_ACCOUNT, ProblemType.EXTERNAL_ACCOUNT_REQUIRED):
            return None
        raise


async def _create(
    client: AcmeClient, directory: Directory, key: AccountKey, registration: Registration
) -> Answer:
    payload: dict[str, Any] = {}
    if registration.contacts:
        payload["contact"] = list(registration.contacts)
    terms = directory.meta.terms_of_service
    if registration.is_terms_agreed:
        payload["termsOfServiceAgreed"] = True
    elif terms is not None:
        raise Refused(
            Problem(
                ProblemType.USER_ACTION_REQUIRED,
                f"terms of service are not agreed to; read {terms} and agree to them explicitly",
                instance=terms,
            )
        )
    if registration.eab is not None:
        payload["externalAccountBinding"] = _bind(registration.eab, directory.new_account, key)
    elif directory.meta.external_account_required:
        raise Refused(
            Problem(
                ProblemType.EXTERNAL_ACCOUNT_REQUIRED,
                f"{directory.new_account} wants an external account binding, none is configured",
            )
        )
    return await client.post(directory.new_account, payload, key=key)


def _bind(eab: EabCredential, url: str, key: AccountKey) -> dict[str, Any]:
    if eab.algorithm not in BINDING_ALGORITHMS or not eab.mac_key:
        raise Broken(
            f"external account binding key '{eab.key_id}' is empty or of algorithm "
            f"'{eab.algorithm}', expected one of {', '.join(BINDING_ALGORITHMS)}"
        )
    return seal_binding(eab.key_id, eab.mac_key, eab.algorithm, url, key.jwk)
