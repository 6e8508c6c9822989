"""The part of the desk about those whom we ask: upstreams, and the CA that we are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.records import UpstreamAccountRecord
from broker.operations import views
from broker.operations.parties import UpstreamEntry
from broker.operations.rooms import Desk
from broker.web.operator import OperationError

__all__ = ["AuthorityDesk"]


class AuthorityDesk(Desk):
    """Commands about upstreams."""

    # ------------------------------------------------------------------------------- upstreams

    async def upstream_list(self) -> Any:
        """Return the upstreams with our accounts there and what is suspended."""
        accounts = await self._store.list_upstream_accounts()
        suspensions = await self._store.suspensions()
        keys = await self._account_keys()
        return [
            {
                "upstream": entry.name,
                "kind": entry.kind,
                "url": entry.where,
                "communities": list(entry.communities),
                "accounts": [
                    {
                        **views.upstream_account_view(each),
                        "key": keys.get((each.upstream, each.community)),
                        "lost": self._lost(each),
                    }
                    for each in accounts
                    if each.upstream == entry.name
                ],
                "suspensions": [
                    views.suspension_view(each)
                    for each in suspensions
                    if each.upstream == entry.name
                ],
            }
            for entry in self._rooms.upstreams.entries()
        ]

    def _lost(self, account: UpstreamAccountRecord) -> views.View | None:
        """Return what is the matter with our account, None where nothing is known to be."""
        health = self._rooms.account_health
        loss = None if health is None else health.loss(account.upstream, account.community)
        if loss is None:
            return None
        return {
            "cause": str(loss.cause),
            "why": loss.sentence,
            "since": views.time_view(loss.since),
        }

    async def upstream_register(
        self,
        *,
        actor: Actor,
        upstream: str,
        community: str | None = None,
        agree_to_terms: bool = False,
    ) -> Any:
        """Find or make our account for each community that the upstream serves, or for one."""
        entry = self._entry(upstream)
        if entry.kind != "acme":
            raise OperationError(f"upstream '{upstream}' is built in and knows no accounts")
        if community is not None and community not in entry.communities:
            served = ", ".join(entry.communities)
            raise OperationError(f"upstream '{upstream}' serves {served}, not '{community}'")
        made = []
        for name in [community] if community is not None else entry.communities:
            record = await self._rooms.upstreams.register(
                upstream, name, agree_to_terms=agree_to_terms
            )
            await self._check_reconciled(record)
            event = self._event(
                EventKind.UPSTREAM_ACCOUNT_REGISTERED,
                actor,
                upstream,
                community=name,
                account_url=record.account_url,
                thumbprint=record.thumbprint,
            )
            await self._store.save_upstream_account(record, event)
            if self._rooms.account_health is not None:
                await self._rooms.account_health.found(record)
            made.append(views.upstream_account_view(record))
        return made

    async def _check_reconciled(self, record: UpstreamAccountRecord) -> None:
        """See that no account gives way on a restored broker: orders that begin anew with another
        may have been finalized since the backup."""
        recovery = self._rooms.recovery
        if recovery is None or recovery.standstill.restoration is None:
            return
        before = await self._store.find_upstream_account(record.upstream, record.community)
        if before is not None and before.account_url != record.account_url:
            raise OperationError(
                f"account {before.account_url} would give way to another, and this broker is "
                "restored and not reconciled",
                f"penstock reconcile --accept-loss {record.upstream} first, then register again",
            )

    async def upstream_check(self, *, upstream: str | None = None) -> Any:
        """Ask each upstream, or one, whether we could order there now."""
        entries = (
            [self._entry(upstream)] if upstream is not None else self._rooms.upstreams.entries()
        )
        return [
            {
                "upstream": entry.name,
                "community": community,
                "faults": await self._faults(entry.name, community),
            }
            for entry in entries
            for community in entry.communities
        ]

    async def _faults(self, upstream: str, community: str) -> list[str]:
        """Return what stands between us and the CA; where the account is lost, that alone."""
        health = self._rooms.account_health
        if health is not None:
            try:
                loss = await health.look(upstream, community)
            except (Unreachable, Refused, Broken):
                loss = health.loss(upstream, community)
            if loss is not None:
                return [loss.reason()]
        return list(await self._rooms.upstreams.check(upstream, community))

    async def upstream_resume(
        self, *, actor: Actor, upstream: str, profile: str | None = None
    ) -> Any:
        """Lift a suspension."""
        event = self._event(EventKind.UPSTREAM_RESUMED, actor, upstream, profile=profile)
        await self._store.resume(upstream, profile, event)
        return {"upstream": upstream, "profile": profile, "suspended": False}

    async def _account_keys(self) -> Mapping[tuple[str, str], views.View]:
        """Return how the key of each account is, by upstream and community."""
        if self._rooms.key_rotation is None:
            return {}
        found = await self._rooms.key_rotation.overview()
        return {(one.upstream, one.community): views.account_key_view(one) for one in found}

    def _entry(self, upstream: str | None, kind: str | None = None) -> UpstreamEntry:
        """Return an upstream by its name, or the only one of *kind* where none is named."""
        entries = [each for each in self._rooms.upstreams.entries() if kind in (None, each.kind)]
        if upstream is None and len(entries) == 1:
            return entries[0]
        for entry in entries:
            if entry.name == upstream:
                return entry
        known = ", ".join(each.name for each in entries) or "none"
        what = f"{kind} upstream" if kind is not None else "upstream"
        if upstream is None:
            raise OperationError(f"which {what} is meant has to be said", f"there is {known}")
        raise OperationError(f"no {what} is called '{upstream}'", f"there is {known}")

    # ------------------------------------------------------------------------------ built-in CA

    async def ca_show(self, *, upstream: str | None = None) -> Any:
        """Return root and issuers of a built-in CA."""
        return await self._rooms.authorities.show(self._entry(upstream, "built-in").name)

    async def ca_init(
        self,
        *,
        actor: Actor,
        upstream: str | None = None,
        subject: str | None = None,
        permitted_names: Sequence[str] | None = None,
        permitted_networks: Sequence[str] | None = None,
        unconstrained: bool = False,
        issuing_csr: bool = False,
    ) -> Any:
        """Make the keys of a built-in CA: root and issuer, or an issuer for an offline root.

        Where nothing is said about names, the CA is held to those that the policies of its
        communities allow.
        """
        entry = self._entry(upstream, "built-in")
        name = entry.name
        if not (permitted_names or permitted_networks or unconstrained or issuing_csr):
            permitted_names, permitted_networks = self._allowed(entry)
        made: dict[str, object]
        if issuing_csr:
            pem = await self._rooms.authorities.request(name, subject=subject, actor=actor)
            made = {"upstream": name, "csr_pem": pem, "spki_sha256": _spki_sha256(pem)}
        else:
            made = dict(
                await self._rooms.authorities.initialise(
                    name,
                    subject=subject,
                    permitted_names=permitted_names or (),
                    permitted_networks=permitted_networks or (),
                    actor=actor,
                )
            )
        return made

    def _allowed(self, entry: UpstreamEntry) -> tuple[Sequence[str], Sequence[str]]:
        """Return the suffixes and networks that policy allows; none where it allows every name.

        Raises:
            OperationError: It allows e-mail alone, of every domain.  No constraint says that, and
                a CA without one could certify every DNS name as well.
        """
        found: dict[str, None] = {}
        networks: dict[str, None] = {}
        mail: dict[str, None] = {}
        has_mail = False
        for community in entry.communities:
            document = self._rooms.policies.current(community)
            found |= dict.fromkeys(document.allow.bases)
            networks |= dict.fromkeys(str(network) for network in document.allow.networks)
            mail |= dict.fromkeys(str(one) for one in document.allow.mail if one.domain.base)
            has_mail = has_mail or document.allow.has_mail
        if has_mail and not (found or networks or mail):
            raise OperationError(
                "policy allows every address of e-mail and nothing else, which no constraint says",
                "name the domains with --permit-name of penstock ca init, such as @corp.example, "
                "or say --unconstrained",
            )
        return ((), ()) if "" in found else ((*found, *mail), tuple(networks))

    async def ca_accept(
        self, *, actor: Actor, chain_pem: str, anchors_pem: str, upstream: str | None = None
    ) -> Any:
        """Take the issuing certificate that an offline root signed."""
        name = self._entry(upstream, "built-in").name
        return await self._rooms.authorities.accept(
            name, chain_pem=chain_pem, anchors_pem=anchors_pem, actor=actor
        )

    async def ca_rotate_prepare(
        self,
        *,
        actor: Actor,
        upstream: str | None = None,
        subject: str | None = None,
        issuing_csr: bool = False,
    ) -> Any:
        """Make the next issuing CA of a built-in CA; nothing is signed with it yet."""
        name = self._entry(upstream, "built-in").name
        made = await self._rooms.authorities.prepare(
            name, subject=subject, is_offline=issuing_csr, actor=actor
        )
        pem = made.get("csr_pem")
        return {**made, "spki_sha256": _spki_sha256(pem)} if isinstance(pem, str) else made

    async def ca_rotate_activate(self, *, actor: Actor, upstream: str | None = None) -> Any:
        """Have the next issuing CA sign from now on."""
        name = self._entry(upstream, "built-in").name
        return await self._rooms.authorities.activate(name, actor=actor)

    async def ca_rotate_retire(
        self, *, actor: Actor, upstream: str | None = None, issuer: str | None = None
    ) -> Any:
        """Destroy the key of a past issuing CA on which nothing depends any more."""
        name = self._entry(upstream, "built-in").name
        return await self._rooms.authorities.retire(name, issuer=issuer, actor=actor)

    def _event(self, kind: EventKind, actor: Actor, upstream: str, **data: object) -> Event:
        community = data.pop("community", None)
        return Event(
            kind=kind,
            at=self._rooms.clock.now(),
            actor=actor,
            community=str(community) if community is not None else None,
            upstream=upstream,
            data=data,
        )


def _spki_sha256(csr_pem: str) -> str:
    """Return what the two who carry the request to an offline root compare, one to the other."""
    key = x509.load_pem_x509_csr(csr_pem.encode()).public_key()
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
