"""Rotation of the built-in CA: another issuing CA is prepared and put to work, the old one retired.

Each step is one transaction of the register together with its event (docs/adr/0010).  The old
issuer and the new one live beside each other for as long as a certificate of the old one is in
force.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from cryptography import x509

from broker.app.authority_register import CaRegistry
from broker.app.authority_views import ca_view
from broker.app.ca_keys import PlannedKey, left_in_vault
from broker.issuance.errors import Broken, Conflict
from broker.issuance.events import Actor, EventKind
from broker.issuance.records import CaCertificateRecord, CaMember, CaRole
from broker.upstreams.authority import Authority, AuthorityPlan, create_issuing, issuing_csr
from broker.upstreams.authority_state import (
    CaState,
    activated,
    issuing_title,
    member_of,
    without,
)
from broker.upstreams.name_constraints import permitted_names

__all__ = ["ISSUING_LIFETIME", "KEY_KIND", "Rotations"]

ISSUING_LIFETIME: Final = timedelta(days=1825)
"""Lifetime of an issuing CA: half of its root's, so that two follow each other under one root."""

KEY_KIND: Final = "ec-p256"
"""Kind of CA keys: what every TLS client of the last decade verifies, and quickly."""

NAMED_DEPENDENTS: Final = 5
"""How many certificates a refused retirement names: those that end last."""


class Rotations:
    """The rotation part of ``operations.AuthorityKeeper``."""

    def __init__(self, registry: CaRegistry) -> None:
        """Work on the CAs of *registry*."""
        self._registry = registry

    async def prepare(
        self, upstream: str, *, subject: str | None, is_offline: bool, actor: Actor
    ) -> Mapping[str, object]:
        """Make the next issuing CA under the same root, held to the names of the current one.

        With *is_offline* only its key is made, and the answer has the request under ``csr_pem``.
        """
        async with self._registry.changing:
            state, current = await self._rotatable(upstream)
            taken = [member.subject for member in state.members]
            title = subject or issuing_title(current.certificate.subject, taken)
            if title in taken:
                raise Broken(f"there is a CA called '{title}' already, choose another --subject")
            root = state.root_authority
            if root is None and not is_offline:
                raise Broken(
                    f"root of built-in CA '{upstream}' is offline; ask for a request with "
                    "--issuing-csr"
                )
            if root is not None and is_offline:
                raise Broken(
                    f"root of built-in CA '{upstream}' is here and signs by itself; leave "
                    "--issuing-csr out"
                )
            if root is None:
                pem = await self.ask_offline_root(upstream, title, actor)
                return {"upstream": upstream, "csr_pem": pem}
            made = await self._make_next(upstream, title, root=root, current=current, actor=actor)
        return await ca_view(self._registry, upstream, made)

    async def activate(self, upstream: str, *, actor: Actor) -> Mapping[str, object]:
        """Have the next issuing CA sign from now on; the one before keeps its revocation list."""
        registry = self._registry
        async with registry.changing:
            state = await registry.load(upstream)
            issuers = None if state is None else state.issuers
            if state is None or issuers is None or issuers.next is None:
                raise Broken(
                    f"no next issuing CA of '{upstream}' is prepared; "
                    "see penstock ca rotate prepare"
                )
            coming, now = issuers.next, registry.clock.now()
            if not coming.certificate.not_valid_before_utc <= now < coming.not_after:
                raise Broken(f"issuing CA '{coming.key_id}' does not run now")
            if await registry.signer.public_key(coming.key_id) != coming.key.spki_der:
                raise Broken(f"key '{coming.key_id}' is not the one of its certificate")
            await registry.keys.verify_fit(coming.key_id)
            event = registry.event(
                EventKind.CA_ISSUER_ACTIVATED,
                actor,
                upstream,
                key_id=coming.key_id,
                instead_of=issuers.current.key_id,
            )
            made = await registry.change(upstream, activated(state.members, now), event)
        return await ca_view(registry, upstream, made)

    async def retire(
        self, upstream: str, *, issuer: str | None, actor: Actor
    ) -> Mapping[str, object]:
        """Sign the last revocation list of a past issuing CA and have its key end.

        One whose retirement was begun and could not be finished is finished.  What is left in
        Vault for others to delete is in the answer, as commands.

        Raises:
            Broken: A certificate of it is in force; says how many, and which end last.
            Unreachable: Whoever keeps the key is away.
        """
        registry = self._registry
        async with registry.changing:
            member = _past_issuer(upstream, await registry.load(upstream), issuer)
            key_id = member.key_id or ""
            await registry.keys.verify_reachable(key_id)
            if member.role is CaRole.PAST:
                await self._begin_retiring(upstream, key_id, actor)
            made = await registry.finish_retiring(upstream, key_id)
        view = await ca_view(registry, upstream, made)
        return {**view, "left_in_vault": left_in_vault(made.members)}

    async def _begin_retiring(self, upstream: str, key_id: str, actor: Actor) -> None:
        registry = self._registry
        now = registry.clock.now()
        event = registry.event(EventKind.CA_ISSUER_RETIRED, actor, upstream, key_id=key_id)
        try:
            await registry.store.retire_ca_issuer(upstream, key_id, at=now, event=event)
        except Conflict as conflict:
            count, named = await registry.store.ca_dependents(
                upstream, key_id, now, NAMED_DEPENDENTS
            )
            if not count:
                raise Broken(conflict.reason) from conflict
            raise Broken(_still_needed(key_id, count, named)) from conflict

    async def ask_offline_root(self, upstream: str, subject: str, actor: Actor) -> str:
        """Make an issuing key, unless one waits already, and return the PEM request for it."""
        registry = self._registry
        state = await registry.load(upstream)
        if state is not None and state.pending is not None and state.pending.key_id is not None:
            # Asked for again, it is the same key: the request may have been lost on its way.
            key_id = state.pending.key_id
            pending = PlannedKey(key_id, is_made=await registry.signer.has_key(key_id))
            return await self._request(upstream, pending, subject, actor)
        async with registry.making(upstream, "issuing") as (key,):
            return await self._request(upstream, key, subject, actor)

    async def _request(self, upstream: str, key: PlannedKey, subject: str, actor: Actor) -> str:
        registry, key_id = self._registry, key.key_id
        plan = AuthorityPlan(
            key_id=key_id,
            subject=subject,
            lifetime=ISSUING_LIFETIME,
            kind=KEY_KIND,
            is_made=key.is_made,
        )
        pem = await issuing_csr(registry.signer, plan)
        members = await registry.store.ca_members(upstream)
        pending = CaMember(
            ca=upstream,
            role=CaRole.REQUESTED,
            key_id=key_id,
            subject=subject,
            certificate_der=None,
            since=registry.clock.now(),
        )
        event = registry.event(
            EventKind.CA_ISSUER_REQUESTED, actor, upstream, key_id=key_id, subject=subject
        )
        others = without(members, CaRole.PLANNED, CaRole.REQUESTED)
        await registry.change(upstream, [*others, pending], event)
        return pem.decode("ascii")

    async def _make_next(
        self, upstream: str, subject: str, *, root: Authority, current: Authority, actor: Actor
    ) -> CaState:
        registry = self._registry
        now = registry.clock.now()
        if now >= root.not_after:
            raise Broken(
                f"root of '{upstream}' ended {root.not_after:%Y-%m-%d}; make another built-in CA"
            )
        lifetime = min(ISSUING_LIFETIME, root.not_after - now)
        async with registry.making(upstream, "issuing") as (key,):
            key_id = key.key_id
            plan = AuthorityPlan(
                key_id=key_id,
                is_made=key.is_made,
                subject=subject,
                lifetime=lifetime,
                kind=KEY_KIND,
                permitted=permitted_names(current.certificate),
            )
            made = await create_issuing(registry.signer, registry.clock, plan, root)
            event = registry.event(
                EventKind.CA_ISSUER_PREPARED, actor, upstream, key_id=key_id, subject=subject
            )
            members = without(await registry.store.ca_members(upstream), CaRole.PLANNED)
            next_one = member_of(upstream, CaRole.NEXT, made, now)
            return await registry.change(upstream, [*members, next_one], event)

    async def _rotatable(self, upstream: str) -> tuple[CaState, Authority]:
        """Return the CA and its current issuer; raises Broken unless another can be prepared."""
        state = await self._registry.load(upstream)
        if state is None or state.issuers is None:
            raise Broken(f"built-in CA '{upstream}' has not been made; see penstock ca init")
        following = state.issuers.next
        if following is not None:
            raise Broken(
                f"next issuing CA '{following.key_id}' of '{upstream}' is prepared already; "
                "see penstock ca rotate activate"
            )
        return state, state.issuers.current


def _past_issuer(upstream: str, state: CaState | None, asked: str | None) -> CaMember:
    members = () if state is None else (*state.having(CaRole.PAST), *state.having(CaRole.RETIRING))
    past = {member.key_id: member for member in members if member.key_id is not None}
    if asked is None and len(past) == 1:
        return next(iter(past.values()))
    if asked is not None and asked in past:
        return past[asked]
    known = ", ".join(past) or "none"
    what = "which is meant has to be said" if asked is None else f"'{asked}' is none of them"
    raise Broken(f"past issuing CAs of '{upstream}' are: {known}; {what}")


def _still_needed(key_id: str, count: int, named: Sequence[CaCertificateRecord]) -> str:
    """Return why an issuer cannot be retired, with the certificates that end last."""
    shown = "; ".join(_dependent(record) for record in named)
    more = "" if count <= len(named) else f"; and {count - len(named)} that end before"
    one = "1 certificate" if count == 1 else f"{count} certificates"
    return f"{one} of '{key_id}' in force, renew or revoke first: {shown}{more}"


def _dependent(record: CaCertificateRecord) -> str:
    leaf = x509.load_der_x509_certificate(record.certificate_der)
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        first = str(next(iter(names)).value)
    except (x509.ExtensionNotFound, StopIteration):
        first = "no name"
    return f"{first} until {record.not_after:%Y-%m-%dT%H:%M:%SZ}, serial {record.serial}"
