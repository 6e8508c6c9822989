"""Who asks for an order, put together for policy and kept beside the order.

What is kept lets the order be judged again later as it was asked for: at release, when another CA
takes it over, and by ``penstock policy diff``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from broker.issuance.origins import NOWHERE, Origin
from broker.issuance.ports import Clock, Policies
from broker.issuance.records import AccountRecord
from broker.policy.decisions import ClientCertificate, EabGrant, Requester
from broker.protocol.identifiers import Identifier

__all__ = [
    "RENEWED_AFTER",
    "EarlierCertificates",
    "Predecessors",
    "decided_origin",
    "decided_requester",
    "is_decided_renewal",
    "owner_of",
    "requester_facts",
    "requester_of",
]

RENEWED_AFTER: Final = timedelta(days=30)
"""How long after its end a certificate still makes the next one a renewal of unchanged names: a
host that was away for some weeks comes back as what it was."""


class EarlierCertificates(Protocol):
    """What tells whether an order renews."""

    async def has_certificate_of(
        self,
        account_id: str,
        identifiers: frozenset[Identifier],
        profile: str,
        *,
        alive_after: datetime,
    ) -> bool:
        """Return whether the account was given a certificate of exactly these names under
        *profile* that ends after *alive_after* and was not revoked."""
        ...

    async def approvals_behind(
        self,
        account_id: str,
        identifiers: frozenset[Identifier],
        profile: str,
        *,
        alive_after: datetime,
    ) -> Sequence[str]:
        """Return the approvals that the newest such certificate rests on or goes back to."""
        ...


class Predecessors:
    """Looks up what an order renews."""

    def __init__(
        self, earlier: EarlierCertificates | None, policies: Policies, clock: Clock
    ) -> None:
        """Look in *earlier*; without it nothing is a renewal."""
        self._earlier = earlier
        self._policies = policies
        self._clock = clock

    async def is_renewal(
        self, account: AccountRecord, identifiers: Sequence[Identifier], profile: str | None
    ) -> bool:
        """Return whether the account has a certificate of these names under this profile."""
        chosen = self._policies.current(account.community).profile(profile)
        if self._earlier is None or chosen is None:
            return False
        return await self._earlier.has_certificate_of(
            account.account_id,
            frozenset(identifiers),
            chosen.name,
            alive_after=self._clock.now() - RENEWED_AFTER,
        )

    async def approvals(
        self, account: AccountRecord, identifiers: Sequence[Identifier], profile: str | None
    ) -> Sequence[str]:
        """Return the approvals that it rests on or goes back to."""
        chosen = self._policies.current(account.community).profile(profile)
        if self._earlier is None or chosen is None:
            return ()
        return await self._earlier.approvals_behind(
            account.account_id,
            frozenset(identifiers),
            chosen.name,
            alive_after=self._clock.now() - RENEWED_AFTER,
        )


def owner_of(account: AccountRecord, grant: EabGrant | None) -> str | None:
    """Return who answers for an account: its own owner, else that of its key or node."""
    return account.owner or (grant.owner if grant is not None else None) or None


def requester_of(
    account: AccountRecord, grant: EabGrant | None, origin: Origin, owner: str | None = None
) -> Requester:
    """Return who asks: the account, whose it is, and where the request came from."""
    node = None if grant is None else grant.node
    return Requester(
        account_id=account.account_id,
        thumbprint=account.thumbprint,
        eab_key_id=account.eab_key_id,
        node=node,
        cluster=None if grant is None else grant.cluster,
        namespace=None if grant is None else grant.namespace,
        service_account=None if grant is None else grant.service_account,
        attestation=None if grant is None else grant.attestation,
        address=origin.address,
        client_certificate=origin.client_certificate,
        owner=owner,
    )


def requester_facts(requester: Requester) -> dict[str, object]:
    """Return *requester* as an order's decision keeps it; what there is none of is left out."""
    told: dict[str, object] = {
        "account_id": requester.account_id or None,
        "thumbprint": requester.thumbprint or None,
        "eab_key_id": requester.eab_key_id,
        "node": requester.node,
        "cluster": requester.cluster,
        "namespace": requester.namespace,
        "service_account": requester.service_account,
        "attestation": requester.attestation,
        "address": requester.address,
        "owner": requester.owner,
    }
    shown = requester.client_certificate
    if shown is not None:
        told["client_certificate"] = {
            "fingerprint": shown.fingerprint,
            "names": list(shown.names),
        }
    return {name: value for name, value in told.items() if value is not None}


def decided_requester(decision: Mapping[str, object]) -> Requester:
    """Return who asked, from the facts of a decision; nobody, for orders from before."""
    kept = decision.get("requester")
    if not isinstance(kept, Mapping):
        return Requester()
    return Requester(
        account_id=_text(kept, "account_id") or "",
        thumbprint=_text(kept, "thumbprint") or "",
        eab_key_id=_text(kept, "eab_key_id"),
        node=_text(kept, "node"),
        cluster=_text(kept, "cluster"),
        namespace=_text(kept, "namespace"),
        service_account=_text(kept, "service_account"),
        attestation=_text(kept, "attestation"),
        address=_text(kept, "address"),
        client_certificate=_certificate(kept.get("client_certificate")),
        owner=_text(kept, "owner"),
    )


def decided_origin(decision: Mapping[str, object]) -> Origin:
    """Return where the request for an order came from, for asking policy again about it."""
    requester = decided_requester(decision)
    if requester.address is None and requester.client_certificate is None:
        return NOWHERE
    return Origin(address=requester.address, client_certificate=requester.client_certificate)


def is_decided_renewal(decision: Mapping[str, object]) -> bool:
    """Return whether an order was made as the renewal of unchanged names."""
    return decision.get("is_unchanged_renewal") is True


def _text(kept: Mapping[str, object], name: str) -> str | None:
    value = kept.get(name)
    return value if isinstance(value, str) else None


def _certificate(kept: object) -> ClientCertificate | None:
    if not isinstance(kept, Mapping):
        return None
    names = kept.get("names")
    return ClientCertificate(
        fingerprint=str(kept.get("fingerprint", "")),
        names=tuple(str(name) for name in names) if isinstance(names, list) else (),
    )
