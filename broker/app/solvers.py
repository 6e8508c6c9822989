"""Solvers as configuration names them, put together: zones, checks, tables of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from broker.app.remade import Values, zone_of_secrets
from broker.app.secrets import Secrets, parse_octets
from broker.config import Endpoint, SecretRef
from broker.config.solvers import (
    DnsSolver,
    ExecSolver,
    HttpSolver,
    ProviderSolver,
    Rfc2136Solver,
    TlsAlpnSolver,
    WebhookSolver,
)
from broker.config.solvers import NodeSolver as NodeSolverSection
from broker.config.solvers import Solver as SolverSection
from broker.issuance.errors import Broken
from broker.issuance.ports import Clock
from broker.policy.names import PatternSet
from broker.policy.node_names import node_patterns
from broker.protocol.challenges import ChallengeType
from broker.upstreams.hook import HookSettings, HookZone
from broker.upstreams.http01 import Http01Answers
from broker.upstreams.lookup import Lookup, NameServer
from broker.upstreams.node_solver import NodePublisher, NodeSolver
from broker.upstreams.placement import ZoneLocks
from broker.upstreams.provider import ProviderSettings, ProviderZone
from broker.upstreams.rfc2136 import DynamicZone, Rfc2136Settings
from broker.upstreams.selfcheck import SelfCheck
from broker.upstreams.solvers import (
    Dns01Solver,
    Http01Solver,
    Solver,
    TlsAlpn01Solver,
    TxtZone,
)
from broker.upstreams.tlsalpn01 import TlsAlpn01Answers
from broker.upstreams.webhook import WebhookSettings, WebhookZone

__all__ = ["SolverMaker", "name_servers"]


class SolverMaker:
    """Makes solvers that share the broker's tables of answers and the locks of zones."""

    def __init__(
        self,
        *,
        secrets: Secrets,
        clock: Clock,
        answers: Http01Answers,
        tls_answers: TlsAlpn01Answers,
        user_agent: str,
        node_answers: NodePublisher | None = None,
    ) -> None:
        self._node_answers = node_answers
        self._secrets = secrets
        self._clock = clock
        self._answers = answers
        self._tls_answers = tls_answers
        self._user_agent = user_agent
        self._locks = ZoneLocks()

    def make(self, config: SolverSection, communities: Sequence[str] = ()) -> Solver:
        """Return the solver that a section describes, for an upstream of these communities.

        Raises:
            Broken: A secret that it names cannot be read, or something else is unusable.
        """
        names = PatternSet.parse(config.names)
        if isinstance(config, HttpSolver):
            return Http01Solver(self._answers, names)
        if isinstance(config, NodeSolverSection):
            return self._node_solver(config, names, communities)
        if isinstance(config, TlsAlpnSolver):
            return TlsAlpn01Solver(self._tls_answers, names)
        zone, resolvers = self._zone(config)
        return Dns01Solver(zone, self._check(config, resolvers), names)

    def _node_solver(
        self, config: NodeSolverSection, names: PatternSet, communities: Sequence[str]
    ) -> Solver:
        if self._node_answers is None:
            raise Broken("a solver names nodes, and nothing here can reach any")
        return NodeSolver(
            self._node_answers,
            ChallengeType(config.challenge),
            nodes=node_patterns(config.nodes),
            names=names,
            communities=communities,
        )

    def _zone(self, config: DnsSolver) -> tuple[TxtZone, tuple[NameServer, ...]]:
        """Return where records are written, and who is asked about aliases."""
        if isinstance(config, Rfc2136Solver):
            return self._dynamic_zone(config)
        if isinstance(config, ProviderSolver):
            return self._provider_zone(config)
        if isinstance(config, WebhookSolver):
            return self._webhook_zone(config)
        return self._hook_zone(config)

    def _check(self, config: DnsSolver, resolvers: tuple[NameServer, ...]) -> SelfCheck | None:
        if not config.self_check.enabled:
            return None
        return SelfCheck(
            self._clock,
            view=Lookup(resolvers),
            servers=name_servers(config.self_check.servers),
            total=config.self_check.timeout,
        )

    def _provider_zone(self, config: ProviderSolver) -> tuple[TxtZone, tuple[NameServer, ...]]:
        made = config.provider
        resolvers = name_servers(made.resolvers)

        def make(values: Values) -> TxtZone:
            settings = ProviderSettings(
                provider=made.name,
                zone=made.zone,
                options=made.options,
                secrets=_texts(made.secrets, values),
                files=made.files,
                resolvers=resolvers,
                proxy=made.proxy,
                ca_bundle=made.ca_bundle,
                ttl=made.ttl,
                timeout=made.timeout,
            )
            return ProviderZone(settings, self._locks)

        return zone_of_secrets(self._secrets, made.secrets, make), resolvers

    def _webhook_zone(self, config: WebhookSolver) -> tuple[TxtZone, tuple[NameServer, ...]]:
        made = config.webhook
        resolvers = name_servers(made.resolvers)

        def make(values: Values) -> TxtZone:
            settings = WebhookSettings(
                url=made.url,
                ca_bundle=made.ca_bundle,
                bearer=None if made.bearer is None else _text(made.bearer, values["bearer"]),
                mac_key=values.get("hmac"),
                zone=made.zone,
                resolvers=resolvers,
                user_agent=self._user_agent,
                timeout=made.timeout,
                attempts=made.attempts,
            )
            return WebhookZone(settings, clock=self._clock)

        refs = {"bearer": made.bearer, "hmac": made.hmac}
        named = {name: ref for name, ref in refs.items() if ref is not None}
        return zone_of_secrets(self._secrets, named, make), resolvers

    def _dynamic_zone(self, config: Rfc2136Solver) -> tuple[TxtZone, tuple[NameServer, ...]]:
        update = config.rfc2136
        resolvers = name_servers(update.resolvers)

        def make(values: Values) -> TxtZone:
            settings = Rfc2136Settings(
                server=_name_server(update.server),
                tsig_name=update.tsig.name,
                tsig_secret=parse_octets(update.tsig.secret, values["tsig"], "base64"),
                tsig_algorithm=update.tsig.algorithm,
                zone=update.zone,
                resolvers=resolvers,
            )
            return DynamicZone(settings)

        return zone_of_secrets(self._secrets, {"tsig": update.tsig.secret}, make), resolvers

    def _hook_zone(self, config: ExecSolver) -> tuple[TxtZone, tuple[NameServer, ...]]:
        made = config.exec
        resolvers = name_servers(made.resolvers)

        def make(values: Values) -> TxtZone:
            settings = HookSettings(
                command=made.command,
                environment={**made.environment, **_texts(made.secrets, values)},
                zone=made.zone,
                resolvers=resolvers,
                timeout=made.timeout,
            )
            return HookZone(settings, self._locks)

        return zone_of_secrets(self._secrets, made.secrets, make), resolvers


def _texts(references: Mapping[str, SecretRef], values: Values) -> Mapping[str, str]:
    return {name: _text(reference, values[name]) for name, reference in references.items()}


def _text(reference: SecretRef, value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise Broken(f"secret {reference} is no text in UTF-8") from None
    if not text.isprintable():
        # Neither a header nor an environment variable can carry it.
        raise Broken(f"secret {reference} holds a control character, expected one line of text")
    return text


def _name_server(endpoint: Endpoint) -> NameServer:
    return NameServer(endpoint.host, endpoint.port)


def name_servers(endpoints: Sequence[Endpoint]) -> tuple[NameServer, ...]:
    """Return configured endpoints as name servers."""
    return tuple(_name_server(one) for one in endpoints)
