"""The built-in CAs of a configuration: what they are in the store, their keys at the signer."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from broker.app.authority_register import CaRegistry
from broker.app.authority_views import ca_view
from broker.app.ca_keys import PlannedKey
from broker.app.identity import own_names
from broker.app.rotations import ISSUING_LIFETIME, KEY_KIND, Rotations
from broker.config import Config
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Actor, EventKind
from broker.issuance.records import CaRole
from broker.upstreams.authority import (
    AuthorityPlan,
    PermittedNames,
    create_issuing,
    create_root,
)
from broker.upstreams.authority_state import CaState, member_of, name_with, offline_root, without
from broker.upstreams.name_constraints import mail_subtree
from broker.upstreams.root_answer import accept_issuing

__all__ = ["Authorities", "own_hosts"]

ROOT_LIFETIME: Final = timedelta(days=3650)
"""Lifetime of a root made here: ten years, after which every verifier has to be touched anyway."""


class Authorities(Rotations):
    """Implements ``operations.AuthorityKeeper`` over the register."""

    def __init__(
        self,
        registry: CaRegistry,
        *,
        own_hosts: Mapping[str, Sequence[str]] | None = None,
        upstreams: Sequence[str] = (),
    ) -> None:
        """Keep the CAs of *registry*; *upstreams* are those that are configured.

        *own_hosts* has, by upstream, the broker's own names for the CA that certifies it.
        """
        super().__init__(registry)
        self._own_hosts = own_hosts or {}
        self._upstreams = tuple(upstreams)

    async def show(self, upstream: str) -> Mapping[str, object]:
        """Return root, issuers and a waiting request."""
        state = await self._registry.load(upstream)
        if state is None:
            raise Broken(f"built-in CA '{upstream}' has not been made; see penstock ca init")
        return await ca_view(self._registry, upstream, state)

    async def is_begun(self, upstream: str) -> bool:
        """Return whether anything of this CA is there, were it only a request for its root."""
        return await self._registry.load(upstream) is not None

    async def initialise(
        self,
        upstream: str,
        *,
        subject: str | None,
        permitted_names: Sequence[str],
        permitted_networks: Sequence[str],
        actor: Actor,
    ) -> Mapping[str, object]:
        """Make a root and an issuing CA under it."""
        name = _parse_subject(subject or f"CN=Penstock {upstream}")
        permitted = _permitted(
            permitted_names, permitted_networks, own_hosts=self._own_hosts.get(upstream, ())
        )
        async with self._registry.changing:
            if await self._registry.load(upstream) is not None:
                raise Broken(
                    f"built-in CA '{upstream}' has been made already; see penstock ca show"
                )
            state = await self._make(upstream, name, permitted=permitted, actor=actor)
        return await ca_view(self._registry, upstream, state)

    async def request(self, upstream: str, *, subject: str | None, actor: Actor) -> str:
        """Make an issuing key and return the request that an offline root signs."""
        async with self._registry.changing:
            state = await self._registry.load(upstream)
            if state is not None and state.issuers is not None:
                raise Broken(
                    f"built-in CA '{upstream}' has an issuing CA already; "
                    "see penstock ca rotate prepare"
                )
            name = subject or f"CN=Penstock {upstream} issuing 1"
            return await self.ask_offline_root(upstream, name, actor)

    async def accept(
        self, upstream: str, *, chain_pem: str, anchors_pem: str, actor: Actor
    ) -> Mapping[str, object]:
        """Take the issuing certificate that the offline root signed."""
        try:
            anchors = x509.load_pem_x509_certificates(anchors_pem.encode())
        except ValueError:
            raise Broken("anchors do not parse, expected PEM certificates") from None
        registry = self._registry
        async with registry.changing:
            state = await registry.load(upstream)
            pending = None if state is None else state.pending
            if state is None or pending is None or pending.key_id is None:
                raise Broken(f"no request of built-in CA '{upstream}' waits for an answer")
            await registry.keys.verify_fit(pending.key_id)
            issuing = await accept_issuing(
                chain_pem.encode(),
                key_id=pending.key_id,
                signer=registry.signer,
                clock=registry.clock,
                anchors=anchors,
            )
            now, root = registry.clock.now(), issuing.parent
            if state.root is not None and root != state.root:
                raise Broken(
                    f"issuing certificate leads to another root than that of '{upstream}'; "
                    "a new root is a new built-in CA"
                )
            is_first = state.issuers is None
            members = [*without(state.members, CaRole.PLANNED, CaRole.REQUESTED)]
            if is_first and root is not None:
                members.append(offline_root(upstream, root, now))
            role = CaRole.CURRENT if is_first else CaRole.NEXT
            members.append(member_of(upstream, role, issuing, now))
            kind = EventKind.CA_CREATED if is_first else EventKind.CA_ISSUER_PREPARED
            event = registry.event(kind, actor, upstream, key_id=issuing.key_id)
            made = await registry.change(upstream, members, event)
        return await ca_view(registry, upstream, made)

    async def finish_unfinished(self) -> None:
        """Mend what was cut off while whoever keeps the keys was away; see `CaRegistry.mend`.

        Raises:
            Unreachable: Not all could be mended now; the others were.
            Broken: The same, and a person has to see to it.
        """
        fault: Unreachable | Broken | None = None
        for upstream in self._upstreams:
            try:
                await self._registry.mend(upstream)
            except (Unreachable, Broken) as error:
                fault = error
        if fault is not None:
            raise fault

    async def _make(
        self, upstream: str, name: x509.Name, *, permitted: PermittedNames, actor: Actor
    ) -> CaState:
        registry = self._registry
        signer, clock = registry.signer, registry.clock

        def plan(key: PlannedKey, role: str, lifetime: timedelta) -> AuthorityPlan:
            return AuthorityPlan(
                key_id=key.key_id,
                is_made=key.is_made,
                # Root and issuer differ in name.
                subject=name_with(name, lambda text: f"{text} {role}").rfc4514_string(),
                lifetime=lifetime,
                kind=KEY_KIND,
                permitted=permitted,
            )

        async with registry.making(upstream, "root", "issuing") as (root_key, issuing_key):
            root = await create_root(signer, clock, plan(root_key, "root", ROOT_LIFETIME))
            issuing = await create_issuing(
                signer, clock, plan(issuing_key, "issuing 1", ISSUING_LIFETIME), root
            )
            now = clock.now()
            members = [
                member_of(upstream, CaRole.ROOT, root, now),
                member_of(upstream, CaRole.CURRENT, issuing, now),
            ]
            event = registry.event(
                EventKind.CA_CREATED,
                actor,
                upstream,
                root_key=root.key_id,
                key_id=issuing.key_id,
            )
            return await registry.change(upstream, members, event)


def _parse_subject(subject: str) -> x509.Name:
    try:
        name = x509.Name.from_rfc4514_string(subject)
    except ValueError:
        raise Broken(f"subject '{subject}' is not of the form CN=Example,O=Example") from None
    if not name.get_attributes_for_oid(NameOID.COMMON_NAME):
        raise Broken(f"subject '{subject}' has no common name, expected CN=… in it")
    return name


def _permitted(
    names: Sequence[str], networks: Sequence[str], *, own_hosts: Sequence[str]
) -> PermittedNames:
    """Return the constraints, in which the broker's own names are not forgotten."""
    try:
        parsed = [ipaddress.ip_network(text) for text in networks]
    except ValueError as error:
        raise Broken(f"permitted network is not of the form 10.0.0.0/8: {error}") from None
    suffixes = [name for name in names if "@" not in name]
    mail = [mail_subtree(name) for name in names if "@" in name]
    for host in own_hosts if names or parsed else ():
        try:
            parsed.append(ipaddress.ip_network(host))
        except ValueError:
            suffixes.append(host)
    return PermittedNames(dns_suffixes=tuple(suffixes), networks=tuple(parsed), mail=tuple(mail))


def own_hosts(config: Config) -> Mapping[str, Sequence[str]]:
    """Return the broker's own names for the built-in CA that issues its TLS certificate."""
    issuer = config.listen.acme.issued_by
    return {} if issuer is None else {issuer: tuple(one.value for one in own_names(config))}
