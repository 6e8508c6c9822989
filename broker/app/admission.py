"""``penstock admission`` put together: what it follows in the cluster, whom it asks, its ports."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Final

import structlog

from broker.admission.asking import BrokerReviews
from broker.admission.cluster_api import ClusterApi, Selection
from broker.admission.injecting import Injecting
from broker.admission.metrics import AdmissionMetrics
from broker.admission.mirrors import Key, Mirror
from broker.admission.policies import Policies, Trial
from broker.admission.reviews import Admitted, Asked
from broker.admission.roots import (
    CaBundles,
    Copies,
    Copy,
    Webhooks,
    reduce_copy,
    reduce_roots,
    reduce_webhooks,
)
from broker.admission.server import Answer, create_admission_app
from broker.admission.services import SERVICES, Selector, Services, reduce_service
from broker.admission.sidecar import SidecarSettings
from broker.app.admission_tls import AdmissionTls
from broker.app.hangup import listening_for_hangup
from broker.app.outside import VERSION
from broker.app.own_files import PairFiles
from broker.app.stopping import told_to_stop
from broker.clock import SystemClock
from broker.config.admission import AdmissionConfig, SidecarSection, TriedPolicies
from broker.config.policy_trial import PolicyTrials
from broker.web.guarded import Guard
from broker.web.health import create_health_app
from broker.web.listeners import start_tcp
from broker.web.problems import incident_door

__all__ = ["serve_admission"]

USER_AGENT: Final = f"penstock-admission/{VERSION}"

LEAVE_AFTER: Final = timedelta(seconds=5)
"""How long it serves on when it is told to stop: until every API server has heard that this replica
goes, pods that it would have answered are refused."""

HANDSHAKE_TIME: Final = timedelta(seconds=10)
"""How long a TLS handshake may take."""

CONNECTIONS: Final = 512
"""Most connections from one address; an API server keeps a few."""

CERTIFICATE_EVERY: Final = timedelta(seconds=5)
"""How often it is looked whether our own certificate was replaced: two calls of stat(2)."""

_REGISTRATION: Final = "/apis/admissionregistration.k8s.io/v1"
MUTATING: Final = f"{_REGISTRATION}/mutatingwebhookconfigurations"
VALIDATING: Final = f"{_REGISTRATION}/validatingwebhookconfigurations"

log = structlog.get_logger("penstock.admission")


async def serve_admission(config: AdmissionConfig, leave_after: timedelta = LEAVE_AFTER) -> None:
    """Answer the API server until SIGTERM or SIGINT, and for *leave_after* beyond it.

    Raises:
        Broken: It cannot start as configured.
    """
    with told_to_stop() as stopping:
        async with AsyncExitStack() as stack:
            parts = _Parts(config, stack)
            stack.enter_context(listening_for_hangup(parts.look_at_certificate, ()))
            await parts.look_at_certificate()
            await parts.listen(stack)
            log.info("serving", cluster=config.cluster, version=VERSION)
            await parts.keep_going(stopping, leave_after.total_seconds())
            log.info("stopped")


class _Parts:
    """Everything that admission is made of."""

    def __init__(self, config: AdmissionConfig, stack: AsyncExitStack) -> None:
        self._config = config
        self._metrics = AdmissionMetrics(VERSION)
        self._is_leaving = False
        clock = SystemClock()
        listen = config.listen
        files = PairFiles(listen.certificate, listen.key, b"")
        self._tls = AdmissionTls(files, clock, lambda: self._bundles.hurry())
        self._cluster = ClusterApi(
            config.kubernetes.server,
            token=config.kubernetes.token.resolve,
            ca_bundle=config.kubernetes.ca_bundle,
            user_agent=USER_AGENT,
        )
        stack.push_async_callback(self._cluster.close)
        self._broker = BrokerReviews(
            config.broker.url,
            cluster=config.cluster,
            token=config.broker.token.resolve,
            anchors=config.broker.anchors,
            user_agent=USER_AGENT,
        )
        stack.push_async_callback(self._broker.close)
        self._make_mirrors()
        self._make_upkeep()

    def _make_mirrors(self) -> None:
        config, cluster = self._config, self._cluster
        trust, prefix = config.trust, config.annotation_prefix
        self._services: Mirror[Selector] = Mirror(
            "services", cluster, SERVICES, reduce=reduce_service
        )
        self._roots: Mirror[str] = Mirror(
            "roots",
            cluster,
            Selection(
                f"/api/v1/namespaces/{config.namespace}/configmaps", fields=_named(trust.source)
            ),
            reduce=reduce_roots,
            on_change=self._hurry,
        )
        self._namespaces: Mirror[bool] = Mirror(
            "namespaces",
            cluster,
            Selection("/api/v1/namespaces", labels=f"{prefix}/inject=enabled"),
            reduce=_is_alive,
            on_change=self._hurry,
        )
        self._copied: Mirror[Copy] = Mirror(
            "copies",
            cluster,
            Selection("/api/v1/configmaps", fields=_named(trust.copy_name)),
            reduce=reduce_copy,
            on_change=self._hurry,
        )
        wanted = ((MUTATING, config.webhooks.mutating), (VALIDATING, config.webhooks.validating))
        self._webhooks: dict[str, Mirror[Webhooks]] = {
            path: Mirror(
                path.rpartition("/")[2],
                cluster,
                Selection(path, fields=_named(name)),
                reduce=reduce_webhooks(config.namespace),
                on_change=self._hurry,
            )
            for path, name in wanted
            if name is not None
        }

    def _make_upkeep(self) -> None:
        config = self._config
        self._copies = Copies(
            self._cluster,
            namespaces=self._namespaces,
            copies=self._copied,
            roots=self._current_roots,
            name=config.trust.copy_name,
            home=config.namespace,
            count=self._metrics.wrote,
        )
        self._bundles = CaBundles(
            self._cluster,
            mirrors=self._webhooks,
            roots=self._current_roots,
            is_ours=self._tls.is_by,
            count=self._metrics.wrote,
        )

    def _current_roots(self) -> str | None:
        return self._roots.get((self._config.namespace, self._config.trust.source))

    def _hurry(self, key: Key) -> None:
        self._copies.hurry(key)
        self._bundles.hurry(key)

    # ------------------------------------------------------------------------------ answers

    async def listen(self, stack: AsyncExitStack) -> None:
        """Open both ports; the stack closes them."""
        config = self._config
        injecting = Injecting(
            prefix=config.annotation_prefix,
            settings=_settings(config),
            reviewer=self._broker,
            services=Services(self._services),
            on_namespace=lambda _namespace: self._copies.hurry(),
        )
        app = create_admission_app(
            mutate=injecting.answer,
            validate=self._validate(),
            metrics=self._metrics,
            timeout=config.broker.timeout,
            doors=[incident_door],
        )
        webhook, metrics = config.listen.webhook, config.listen.metrics
        listener = await start_tcp(
            app,
            host=webhook.host,
            port=webhook.port,
            tls=self._tls.front,
            guard=Guard(
                handshake_time=HANDSHAKE_TIME,
                connections=CONNECTIONS,
                on_refused=lambda: None,
            ),
        )
        stack.push_async_callback(listener.stop)
        health = create_health_app(
            checks={
                "certificate": self._tls.why_not,
                "services": self._why_no_services,
                "serving": self._why_leaving,
            },
            warnings={one.what: _told(one) for one in self._mirrors()},
            metrics=self._render,
        )
        beside = await start_tcp(health, host=metrics.host, port=metrics.port)
        stack.push_async_callback(beside.stop)

    def _validate(self) -> Answer | None:
        config = self._config
        if config.policies is None:
            return None
        policies = Policies(
            self._cluster,
            _Trying(PolicyTrials(config.policies.config)),
            namespace=config.namespace,
            label=f"{config.annotation_prefix}/policies",
            config=_where(config.policies),
        )

        async def answer(asked: Asked, _seconds: float) -> Admitted:
            return await policies.answer(asked)

        return answer

    async def _why_no_services(self) -> str | None:
        return None if self._services.is_known else "they have not been read yet"

    async def _why_leaving(self) -> str | None:
        return "it is told to stop" if self._is_leaving else None

    async def _render(self) -> bytes:
        self._metrics.show(
            end=self._tls.not_after,
            following={one.what: one.is_known and one.fault is None for one in self._mirrors()},
            due=len(self._copies.lacking()),
        )
        return self._metrics.render()

    # --------------------------------------------------------------------------- to keep up

    def _mirrors(self) -> list[Mirror[Any]]:
        return [
            self._services,
            self._roots,
            self._namespaces,
            self._copied,
            *self._webhooks.values(),
        ]

    async def keep_going(self, stopping: asyncio.Event, seconds: float) -> None:
        """Follow the cluster and keep it right until *stopping* is set, and so many seconds more;
        a bug ends the process."""
        loops = [one.run() for one in self._mirrors()]
        loops += [self._copies.run(), self._bundles.run(), self._follow_certificate()]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in loops]
            await stopping.wait()
            self._is_leaving = True
            log.info("stopping", after_seconds=seconds)
            await asyncio.sleep(seconds)
            for task in tasks:
                task.cancel()

    async def _follow_certificate(self) -> None:
        while True:
            await asyncio.sleep(CERTIFICATE_EVERY.total_seconds())
            await self.look_at_certificate()

    async def look_at_certificate(self) -> None:
        """Take up a new certificate of our own, if there is one."""
        self._tls.refresh()


class _Trying:
    """Implements ``admission.policies.Trying`` by children."""

    def __init__(self, trials: PolicyTrials) -> None:
        self._trials = trials

    async def try_set(
        self, directories: Mapping[str, Mapping[str, bytes]], config: bytes | None
    ) -> Trial:
        """Return what comes of the set."""
        faults, cases = await self._trials.run(directories, config)
        return Trial(faults=faults, cases=cases)


def _where(section: TriedPolicies) -> tuple[str, str] | None:
    """Return ConfigMap and key of the broker's configuration."""
    return None if section.config_map is None else (section.config_map, section.config.name)


def _settings(config: AdmissionConfig) -> SidecarSettings:
    section: SidecarSection = config.sidecar
    return SidecarSettings(
        image=section.image,
        pull_policy=section.pull_policy,
        broker_url=section.broker_url,
        audience=section.audience,
        token_lifetime=section.token_lifetime,
        trust=config.trust.copy_name,
        cpu_request=section.cpu_request,
        memory_request=section.memory_request,
        memory_limit=section.memory_limit,
        start_within=section.start_within,
        metrics_port=section.metrics_port,
        version=VERSION,
    )


def _named(name: str) -> str:
    return f"metadata.name={name}"


def _is_alive(document: Mapping[str, Any]) -> bool:
    metadata = document.get("metadata")
    return isinstance(metadata, dict) and not metadata.get("deletionTimestamp")


def _told(mirror: Mirror[Any]) -> Any:
    async def why_not() -> str | None:
        return mirror.fault

    return why_not
