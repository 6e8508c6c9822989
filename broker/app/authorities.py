"""The built-in CAs of a configuration: their certificates on disk, their keys at the signer."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.issuance.errors import Broken, Conflict
from broker.issuance.ports import Clock, Signer
from broker.upstreams.authority import (
    Authority,
    AuthorityPlan,
    IssuerSet,
    PermittedNames,
    accept_issuing,
    create_issuing,
    create_root,
    issuing_csr,
)
from broker.upstreams.authority_files import CaDirectory, CaState, PendingIssuer

__all__ = ["Authorities"]

ROOT_LIFETIME: Final = timedelta(days=3650)
"""Lifetime of a root made here: ten years, after which every verifier has to be touched anyway."""

ISSUING_LIFETIME: Final = timedelta(days=1825)
"""Lifetime of an issuing CA: half of its root's, so that two follow each other under one root."""

MAX_KEYS: Final = 100
"""Most names that are tried for a new key; one more is taken each time a making is cut short."""

KEY_KIND: Final = "ec-p256"
"""Kind of CA keys: what every TLS client of the last decade verifies, and quickly."""


class Authorities:
    """Implements ``operations.AuthorityKeeper`` over ``<state>/ca/<upstream>/``."""

    def __init__(
        self,
        state: Path,
        *,
        signer: Signer,
        clock: Clock,
        own_hosts: Mapping[str, str] | None = None,
    ) -> None:
        """Keep CAs below *state*.

        *own_hosts* names, by upstream, the broker's host for the CA that certifies it.
        """
        self._own_hosts = own_hosts or {}
        self._home = state / "ca"
        self._signer = signer
        self._clock = clock
        self._making = asyncio.Lock()
        self.on_made: Callable[[str, CaState], None] | None = None
        """Told of each CA that can issue from now on, so that a running broker need not restart."""

    def load(self, upstream: str) -> CaState | None:
        """Return what is kept of the CA; None when it was never made."""
        return self._directory(upstream).load()

    async def show(self, upstream: str) -> Mapping[str, object]:
        """Return root, issuers and a waiting request."""
        state = self.load(upstream)
        if state is None:
            raise Broken(f"built-in CA '{upstream}' has not been made; see penstock ca init")
        return _view(upstream, state)

    async def initialise(
        self,
        upstream: str,
        *,
        subject: str | None,
        permitted_names: Sequence[str],
        permitted_networks: Sequence[str],
    ) -> Mapping[str, object]:
        """Make a root and an issuing CA under it."""
        name = subject or f"CN=Penstock {upstream}"
        permitted = _permitted(
            permitted_names, permitted_networks, own_host=self._own_hosts.get(upstream)
        )

        def plan(key_id: str, role: str, lifetime: timedelta) -> AuthorityPlan:
            return AuthorityPlan(
                key_id=key_id,
                subject=_titled(name, role),
                lifetime=lifetime,
                kind=KEY_KIND,
                permitted=permitted,
            )

        async def make_root(key_id: str) -> Authority:
            return await create_root(self._signer, self._clock, plan(key_id, "root", ROOT_LIFETIME))

        async def make_issuing(key_id: str) -> Authority:
            made = plan(key_id, "issuing 1", ISSUING_LIFETIME)
            return await create_issuing(self._signer, self._clock, made, root)

        async with self._making:
            self._refuse_existing(upstream)
            root = await _with_new_key(f"ca-{upstream}-root", make_root)
            issuing = await _with_new_key(f"ca-{upstream}-issuing", make_issuing)
            state = CaState(
                root=root.certificate, root_key_id=root.key_id, issuers=IssuerSet(issuing)
            )
            await self._keep(upstream, state)
        return _view(upstream, state)

    async def request(self, upstream: str, *, subject: str | None) -> str:
        """Make an issuing key and return the request that an offline root signs."""
        name = subject or f"CN=Penstock {upstream} issuing 1"
        async with self._making:
            state = self.load(upstream)
            if state is not None and state.issuers is not None:
                raise Broken(f"built-in CA '{upstream}' has an issuing CA already")
            # Asked for again, it is the same key: the request may have been lost on its way.
            key_id = f"ca-{upstream}-issuing-1"
            if state is not None and state.pending is not None:
                key_id = state.pending.key_id
            plan = AuthorityPlan(
                key_id=key_id, subject=name, lifetime=ISSUING_LIFETIME, kind=KEY_KIND
            )
            pem = await issuing_csr(self._signer, plan)
            await self._keep(upstream, CaState(pending=PendingIssuer(key_id=key_id, subject=name)))
        return pem.decode("ascii")

    async def accept(
        self, upstream: str, *, chain_pem: str, anchors_pem: str
    ) -> Mapping[str, object]:
        """Take the issuing certificate that the offline root signed."""
        try:
            anchors = x509.load_pem_x509_certificates(anchors_pem.encode())
        except ValueError:
            raise Broken("anchors do not parse, expected PEM certificates") from None
        async with self._making:
            state = self.load(upstream)
            if state is None or state.pending is None:
                raise Broken(f"no request of built-in CA '{upstream}' waits for an answer")
            issuing = await accept_issuing(
                chain_pem.encode(),
                key_id=state.pending.key_id,
                signer=self._signer,
                clock=self._clock,
                anchors=anchors,
            )
            accepted = CaState(root=issuing.parent, issuers=IssuerSet(issuing))
            await self._keep(upstream, accepted)
        return _view(upstream, accepted)

    async def _keep(self, upstream: str, state: CaState) -> None:
        await asyncio.to_thread(self._save, upstream, state)
        if self.on_made is not None:
            self.on_made(upstream, state)

    def _save(self, upstream: str, state: CaState) -> None:
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Broken(f"{self._home} cannot be made: {reason}") from error
        self._directory(upstream).save(state)

    def _refuse_existing(self, upstream: str) -> None:
        if self.load(upstream) is not None:
            raise Broken(f"built-in CA '{upstream}' has been made already; see penstock ca show")

    def _directory(self, upstream: str) -> CaDirectory:
        return CaDirectory(self._home / upstream)


def _permitted(
    names: Sequence[str], networks: Sequence[str], *, own_host: str | None
) -> PermittedNames:
    """Return the constraints, in which the broker's own host is not forgotten."""
    try:
        parsed = [ipaddress.ip_network(text) for text in networks]
    except ValueError as error:
        raise Broken(f"permitted network is not of the form 10.0.0.0/8: {error}") from None
    suffixes = list(names)
    if own_host is not None and (suffixes or parsed):
        try:
            parsed.append(ipaddress.ip_network(own_host))
        except ValueError:
            suffixes.append(own_host)
    return PermittedNames(dns_suffixes=tuple(suffixes), networks=tuple(parsed))


async def _with_new_key(prefix: str, make: Callable[[str], Awaitable[Authority]]) -> Authority:
    """Return what *make* makes with a key of a new name.

    A key whose CA was never kept, because the process ended between the two, is left alone: it
    certifies nothing.
    """
    for number in range(1, MAX_KEYS + 1):
        with suppress(Conflict):
            return await make(f"{prefix}-{number}")
    raise Broken(f"there are {MAX_KEYS} keys called {prefix}-1 and so on, expected none")


def _titled(subject: str, role: str) -> str:
    """Return *subject* with *role* added to its common name: root and issuer differ in name."""
    try:
        name = x509.Name.from_rfc4514_string(subject)
    except ValueError:
        raise Broken(f"subject '{subject}' is not of the form CN=Example,O=Example") from None
    if not name.get_attributes_for_oid(NameOID.COMMON_NAME):
        raise Broken(f"subject '{subject}' has no common name, expected CN=… in it")
    parts = (x509.RelativeDistinguishedName(_with_role(one, role) for one in p) for p in name.rdns)
    return x509.Name(parts).rfc4514_string()


def _with_role(
    attribute: x509.NameAttribute[str | bytes], role: str
) -> x509.NameAttribute[str | bytes]:
    if attribute.oid != NameOID.COMMON_NAME:
        return attribute
    return x509.NameAttribute(attribute.oid, f"{attribute.value!s} {role}")


def _view(upstream: str, state: CaState) -> Mapping[str, object]:
    root = state.root
    return {
        "upstream": upstream,
        "root": None if root is None else _certificate_view(root),
        "root_pem": None if root is None else root.public_bytes(Encoding.PEM).decode("ascii"),
        "root_key": "offline" if state.root_key_id is None else state.root_key_id,
        "issuers": [_issuer_view(one) for one in state.issuers or ()],
        "pending": None if state.pending is None else state.pending.subject,
    }


def _issuer_view(issuer: Authority) -> Mapping[str, object]:
    return {"key_id": issuer.key_id, **_certificate_view(issuer.certificate)}


def _certificate_view(certificate: x509.Certificate) -> Mapping[str, object]:
    return {
        "subject": certificate.subject.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
    }
