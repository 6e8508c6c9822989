"""The upstreams that configuration names, made once for each community that they serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.app.account_health import AccountsLookedAt, ConfiguredRegistrar, Truth
from broker.app.account_keys import AccountGates, ConfiguredAccounts
from broker.app.authority_register import CaRegistry
from broker.app.breakers import Breakers
from broker.app.observed import ObservedUpstream
from broker.app.secrets import Secrets
from broker.app.settings import builtin_settings
from broker.app.solvers import SolverMaker
from broker.config import Config
from broker.config.upstreams import AcmeUpstream as AcmeSection
from broker.config.upstreams import BuiltinUpstream as BuiltinSection
from broker.issuance.errors import Broken, Conflict
from broker.issuance.key_ports import KeyPlaces
from broker.issuance.ports import Clock, Store, Upstream
from broker.issuance.reconciling import OrderListing
from broker.issuance.records import UpstreamAccountRecord
from broker.operations.parties import UpstreamEntry
from broker.policy.decisions import UpstreamFacts
from broker.protocol.resources import Directory
from broker.telemetry import Telemetry
from broker.upstreams.account import EabCredential, Registration, check_account, register
from broker.upstreams.acme import AcmeUpstream, AcmeUpstreamSettings
from broker.upstreams.authority_state import CaState
from broker.upstreams.authorizing import AuthorizingSettings
from broker.upstreams.builtin import BuiltinCa
from broker.upstreams.client import AcmeClient
from broker.upstreams.http01 import Http01Answers
from broker.upstreams.listing import list_orders
from broker.upstreams.node_solver import NodePublisher
from broker.upstreams.tlsalpn01 import TlsAlpn01Answers
from broker.upstreams.transport import HttpTransport, TransportSettings

__all__ = ["ConfiguredUpstreams", "read_anchor_file"]


class ConfiguredUpstreams:
    """Implements ``ports.Upstreams``, ``release.Anchors`` and ``operations.UpstreamKeeper``."""

    def __init__(
        self,
        config: Config,
        *,
        facts: Mapping[str, UpstreamFacts],
        registry: CaRegistry,
        secrets: Secrets,
        signer: Truth,
        places: KeyPlaces,
        store: Store,
        clock: Clock,
        telemetry: Telemetry,
        answers: Http01Answers,
        user_agent: str,
        tls_answers: TlsAlpn01Answers | None = None,
        node_answers: NodePublisher | None = None,
    ) -> None:
        self._config = config
        self._signer = signer
        self._places = places
        self._store = store
        self._clock = clock
        self._telemetry = telemetry
        self._secrets = secrets
        self._solvers = SolverMaker(
            secrets=secrets,
            clock=clock,
            answers=answers,
            tls_answers=TlsAlpn01Answers(clock) if tls_answers is None else tls_answers,
            user_agent=user_agent,
            node_answers=node_answers,
        )
        self._user_agent = user_agent
        self._facts = facts
        self._clients: dict[str, AcmeClient] = {}
        self.breakers = Breakers(self._clients, store=store, clock=clock, telemetry=telemetry)
        """Which CAs are left alone because they do not answer."""
        self._gates = AccountGates()
        self.accounts_at_cas = ConfiguredAccounts(self._clients, self._gates, signer)
        """Our accounts, for changes of their keys."""
        self.accounts_looked_at = AccountsLookedAt(self._clients, self._gates, signer)
        """Our accounts, for whoever looks whether they are lost."""
        self.registrar = ConfiguredRegistrar(self, self._gates, ring=signer, places=places)
        """Makes new accounts for new keys."""
        self._transports: list[HttpTransport] = []
        self._anchors: dict[str, Sequence[bytes]] = {}
        self._community_anchors = _community_anchors(config)
        self._upstreams: dict[tuple[str, str], Upstream] = {}
        self._registered: set[tuple[str, str]] = set()
        self.authorities: dict[str, BuiltinCa] = {}
        """Built-in CAs that have been made, by upstream."""
        for name, upstream in config.upstreams.items():
            if isinstance(upstream, AcmeSection):
                self._add_acme(name, upstream)
        self._registry = registry
        registry.on_changed = self._open_authority

    # ------------------------------------------------------------------------------- as ports

    def get(self, upstream: str, community: str) -> Upstream:
        """Return the upstream; raises Broken when it cannot serve this community."""
        found = self._upstreams.get((upstream, community))
        if found is None:
            raise Broken(f"upstream '{upstream}' does not serve community '{community}'")
        return found

    def facts(self, community: str) -> Sequence[UpstreamFacts]:
        """Return the facts of each upstream that is ready, in the order of the configuration."""
        ready = []
        for name, upstream in self._config.upstreams.items():
            if community not in upstream.communities:
                continue
            if name in self.authorities:
                ready.append(self.authorities[name].facts())
            elif self._is_usable(name, community):
                ready.append(self._facts[name])
        return ready

    def waiting(self, upstream: str, community: str) -> UpstreamFacts | None:
        """Return the facts of an upstream whose account is lost, None for any other."""
        is_lost = self._gates.of(upstream, community).loss is not None
        return self._facts.get(upstream) if is_lost else None

    def _is_usable(self, upstream: str, community: str) -> bool:
        is_lost = self._gates.of(upstream, community).loss is not None
        return (upstream, community) in self._registered and not is_lost

    def of(self, upstream: str, community: str) -> Sequence[bytes] | None:
        """Return the anchors that chains have to end at, None for any.

        Where the community names anchors of its own and the upstream does as well, only those
        that both name are believed.
        """
        if upstream in self.authorities:
            theirs: Sequence[bytes] | None = self.authorities[upstream].anchors()
        else:
            theirs = self._anchors.get(upstream)
        ours = self._community_anchors.get(community)
        if ours is None or theirs is None:
            return theirs if ours is None else ours
        return [anchor for anchor in theirs if anchor in ours]

    def preferred_chain(self, upstream: str, community: str) -> str | None:
        """Return where the chain that is served should lead; the community's wish comes first."""
        wish = self._config.communities[community].preferred_chain
        section = self._config.upstreams[upstream]
        if wish is None and isinstance(section, AcmeSection):
            wish = section.preferred_chain
        return wish

    def known_directory(self, upstream: str) -> Directory | None:
        """Return the directory of an ACME upstream as it was last read, or None."""
        client = self._clients.get(upstream)
        return None if client is None else client.known_directory

    async def directory(self, upstream: str) -> Directory:
        """Return the directory of an ACME upstream; raises Unreachable or Broken."""
        return await self._clients[upstream].directory()

    async def load_accounts(self) -> None:
        """Read which accounts exist; an upstream without one serves nobody.

        An account at another directory than the configured one is none: the CA was replaced.
        """
        for account in await self._store.list_upstream_accounts():
            client = self._clients.get(account.upstream)
            if client is not None and client.directory_url == account.directory_url:
                self._registered.add((account.upstream, account.community))

    async def load_authorities(self) -> None:
        """Open the built-in CAs that were made, after mending what was cut off."""
        for name, upstream in self._config.upstreams.items():
            if isinstance(upstream, BuiltinSection):
                state = await self._registry.recover(name)
                if state is not None:
                    self._open_authority(name, state)

    async def close(self) -> None:
        """Close all connections."""
        for transport in self._transports:
            await transport.close()

    # ---------------------------------------------------------------------------- as a keeper

    def entries(self) -> Sequence[UpstreamEntry]:
        """Return all upstreams, in the order of the configuration."""
        return [
            UpstreamEntry(
                name=name,
                kind=upstream.kind,
                communities=tuple(upstream.communities),
                where=upstream.directory
                if isinstance(upstream, AcmeSection)
                else upstream.base_url,
            )
            for name, upstream in self._config.upstreams.items()
        ]

    async def register(
        self, upstream: str, community: str, *, agree_to_terms: bool
    ) -> UpstreamAccountRecord:
        """Find or make our account, with a key of its own for this community."""
        config = self._acme(upstream)
        known = await self._store.find_upstream_account(upstream, community)
        # A key of an earlier registration stays: with it the same account is found again.
        key_id = (
            await self._places.next_account_key_id(upstream, community, None)
            if known is None
            else known.key_id
        )
        if known is None:
            with suppress(Conflict):
                await self._signer.create_key(key_id, config.account_key.kind)
        async with self._gates.of(upstream, community).using(is_lost_too=True):
            now = await self._store.find_upstream_account(upstream, community)
            record = await self.register_with(
                upstream,
                community,
                # While the gate was waited for, the account may have got another key.
                key_id if now is None else now.key_id,
                agree_to_terms=agree_to_terms,
            )
        if now is not None and now.account_url == record.account_url:
            return replace(record, registered_at=now.registered_at)
        return record

    async def register_with(
        self, upstream: str, community: str, key_id: str, *, agree_to_terms: bool
    ) -> UpstreamAccountRecord:
        """Find the account of this key at the CA, or have one made; the key is there already."""
        config = self._acme(upstream)
        binding = config.external_account_binding
        registration = Registration(
            upstream=upstream,
            community=community,
            key_id=key_id,
            contacts=tuple(config.contacts),
            is_terms_agreed=agree_to_terms,
            eab=None
            if binding is None
            else EabCredential(
                key_id=binding.key_id,
                mac_key=await self._secrets.octets(binding.mac_key, "base64url")(),
                algorithm=binding.algorithm,
            ),
        )
        record = await register(registration, client=self._clients[upstream], clock=self._clock)
        self._registered.add((upstream, community))
        return record

    async def check(self, upstream: str, community: str) -> Sequence[str]:
        """Return a sentence for each thing that stands between us and the CA."""
        if isinstance(self._config.upstreams[upstream], BuiltinSection):
            if upstream in self.authorities:
                return ()
            return (f"built-in CA '{upstream}' has not been made; see penstock ca init",)
        if not self._gates.of(upstream, community).is_certain:
            return ("a change of the account's key has not ended, which one the CA knows is asked",)
        record = await self._store.find_upstream_account(upstream, community)
        return await check_account(record, client=self._clients[upstream])

    def account_key_kind(self, upstream: str) -> str:
        """Return which kind of key our account there is to have; raises Broken."""
        return self._acme(upstream).account_key.kind

    @property
    def clients(self) -> Mapping[str, AcmeClient]:
        """Return what speaks with each CA, by upstream."""
        return self._clients

    def welcome(self, upstream: str, community: str) -> None:
        """Let orders go to an account that has just become ours."""
        self._registered.add((upstream, community))
        self._gates.of(upstream, community).loss = None

    # --------------------------------------------------------------------- as a ledger of ours

    async def accounts(self) -> Sequence[tuple[str, str]]:
        """Return the (upstream, community) pairs that have an account, in the store's order."""
        return [(one.upstream, one.community) for one in await self._store.list_upstream_accounts()]

    async def list_orders(self, upstream: str, community: str) -> OrderListing | None:
        """Return what the CA lists as our account's orders, None where it offers no list or may
        not be asked for it.

        Raises:
            Refused: The CA refuses our account.
            Unreachable: It cannot answer now.
            Broken: No account is registered, or what it answers is no list.
        """
        record = await self._store.find_upstream_account(upstream, community)
        client = self._clients.get(upstream)
        if record is None or client is None:
            raise Broken(f"upstream '{upstream}' has no account for community '{community}'")
        if not self._facts[upstream].lists_orders:
            return None
        key = await client.account_key(record.key_id)
        return await list_orders(client, key.speaking_for(record.account_url))

    # ------------------------------------------------------------------------------- assembly

    def _acme(self, upstream: str) -> AcmeSection:
        config = self._config.upstreams[upstream]
        if not isinstance(config, AcmeSection):
            raise Broken(f"upstream '{upstream}' is built in and knows no accounts")
        return config

    def _open_authority(self, name: str, state: CaState) -> None:
        """Put a built-in CA to work, at the start or when a command has just changed it."""
        config = self._config.upstreams[name]
        if not isinstance(config, BuiltinSection) or state.issuers is None:
            return
        if name in self.authorities:
            self.authorities[name].adopt(state.issuers)
            return
        settings = builtin_settings(name, config, state.issuers)
        ca = BuiltinCa(settings, signer=self._signer, store=self._store, clock=self._clock)
        self.authorities[name] = ca
        for community in config.communities:
            self._put(name, community, ca)

    def _add_acme(self, name: str, config: AcmeSection) -> None:
        shown = config.client_certificate
        transport = HttpTransport(
            TransportSettings(
                user_agent=self._user_agent,
                ca_bundle=config.ca_bundle,
                proxy=config.proxy,
                client_certificate=None if shown is None else shown.certificate,
                client_key=None if shown is None else shown.key,
            )
        )
        self._transports.append(transport)
        client = AcmeClient(
            directory_url=config.directory,
            transport=transport,
            signer=self._signer,
            clock=self._clock,
            allowed_origins=config.allowed_origins,
            budget=self.breakers.budget(name),
            breaker=self.breakers.make(name),
        )
        self._clients[name] = client
        if config.anchors is not None:
            self._anchors[name] = read_anchor_file(config.anchors)
        solvers = [self._solvers.make(one, config.communities) for one in config.solvers]
        for community in config.communities:
            settings = AcmeUpstreamSettings(
                name=name,
                community=community,
                authorizing=AuthorizingSettings(poll_interval=config.poll_interval),
                lists_orders=self._facts[name].lists_orders,
            )
            acme = AcmeUpstream(
                settings,
                client=client,
                accounts=self._store,
                solvers=solvers,
                clock=self._clock,
                gate=self._gates.of(name, community),
            )
            self._put(name, community, acme)

    def _put(self, name: str, community: str, upstream: Upstream) -> None:
        self._upstreams[name, community] = ObservedUpstream(name, upstream, self._telemetry)


def _community_anchors(config: Config) -> Mapping[str, Sequence[bytes]]:
    return {
        name: read_anchor_file(community.anchors)
        for name, community in config.communities.items()
        if community.anchors is not None
    }


def read_anchor_file(path: Path) -> Sequence[bytes]:
    """Return the certificates of a PEM file in DER; raises Broken."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Broken(f"anchors {path} cannot be read: {reason}") from error
    except ValueError:
        raise Broken(f"anchors {path} are no PEM certificates") from None
    return [one.public_bytes(Encoding.DER) for one in found]
