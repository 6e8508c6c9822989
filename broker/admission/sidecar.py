"""The sidecar as it is put into a pod: container, volumes, mounts, as a JSON patch.  Pure.

A native sidecar: the first of the init containers, with ``restartPolicy: Always`` and a start-up
probe, so that whatever comes after it starts once the certificate is there, and a Job's pod ends
when its work does.  The chart's library template ``penstock.sidecar`` gives the same text;
tests/golden/admission holds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from broker.admission.agent_file import STATE, TLS, TOKEN, TRUST, AgentFile, write_agent_file
from broker.admission.annotations import Wanted
from broker.admission.pods import CONFIG, CONTAINER, VOLUMES, Place, Pod
from broker.admission.reviews import Operation

__all__ = ["SidecarSettings", "make_patch"]

PROGRAM: Final = "/usr/local/bin/penstock-agent"
"""Where the image has the agent."""

WAIT_SECONDS: Final = 20
"""How long one probe waits for the certificate, in seconds from when its process was begun: it
answers as soon as that is there, so that waiting longer starts nobody later; what is waited for is
told after as long.  Where a hundred pods start on one node, each process that is begun beside takes
from what they wait for.
"""

PROBE_SECONDS: Final = 27
"""How long the kubelet lets a probe take, in seconds: the wait, and seven for what the container
runtime and a last look take; the start of the process alone took more than two on a node where a
hundred pods started at once.  Past it the event tells of a time-out and not of what is waited for.
"""

PERIOD_SECONDS: Final = 1
"""How long lies between the end of a probe and the next, in seconds."""

TLS_SIZE: Final = "1Mi"
"""Most that the application's files may take: pair, roots and the pair before, under 100 kB."""

STATE_SIZE: Final = "8Mi"
"""Most that the agent's state may take: messages that wait for a broker that is away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarSettings:
    """What is the same for every pod."""

    image: str
    pull_policy: str
    broker_url: str
    audience: str
    token_lifetime: timedelta
    trust: str
    """Name of the ConfigMap that holds the roots in the pod's namespace."""
    cpu_request: str
    memory_request: str
    memory_limit: str
    start_within: timedelta
    metrics_port: int
    """0: none."""
    version: str


def make_patch(
    pod: Pod, wanted: Wanted, place: Place, names: Sequence[str], settings: SidecarSettings,
    *, prefix: str,
) -> list[Operation]:  # fmt: skip
    """Return what puts the sidecar into *pod*, for *names*."""
    is_on_host = pod.spec.get("hostNetwork") is True
    port = 0 if is_on_host else settings.metrics_port
    text = write_agent_file(
        AgentFile(
            broker_url=settings.broker_url,
            names=names,
            profile=wanted.profile,
            key=wanted.key,
            layout=wanted.layout,
            reload=wanted.reload,
            look=wanted.look,
            metrics=f"0.0.0.0:{port}" if port else "",
        )
    )
    told = {f"{prefix}/status": "injected", f"{prefix}/agent-version": settings.version}
    patch = [*_mounts(pod, place, wanted.path)]
    patch += _insert("/spec/volumes", len(pod.volumes), _volumes(settings))
    container = _container(text, place, settings, port)
    patch += [
        {"op": "add", "path": "/spec/initContainers/0", "value": container}
        if pod.init_containers
        else {"op": "add", "path": "/spec/initContainers", "value": [container]}
    ]
    if place.is_sharing_processes:
        patch.append({"op": "add", "path": "/spec/shareProcessNamespace", "value": True})
    patch += [
        {"op": "add", "path": f"/metadata/annotations/{_pointer(key)}", "value": value}
        for key, value in told.items()
    ]
    return patch


def _pointer(key: str) -> str:
    """Return *key* as a part of a JSON pointer (RFC 6901 §3)."""
    return key.replace("~", "~0").replace("/", "~1")


def _insert(path: str, count: int, values: Sequence[Mapping[str, Any]]) -> list[Operation]:
    """Return what puts *values* behind the *count* that stand at *path*."""
    if not count:
        return [{"op": "add", "path": path, "value": list(values)}]
    return [{"op": "add", "path": f"{path}/-", "value": one} for one in values]


def _mounts(pod: Pod, place: Place, path: str) -> list[Operation]:
    mount = {"name": VOLUMES[0], "mountPath": path, "readOnly": True}
    made: list[Operation] = []
    for kind, numbers, listed in (
        ("containers", place.containers, pod.containers),
        ("initContainers", place.init_containers, pod.init_containers),
    ):
        for number in numbers:
            count = len(listed[number].get("volumeMounts") or ())
            made += _insert(f"/spec/{kind}/{number}/volumeMounts", count, [mount])
    return made


def _volumes(settings: SidecarSettings) -> list[dict[str, Any]]:
    tls, state, token, trust = VOLUMES
    lifetime = int(settings.token_lifetime.total_seconds())
    projected = {
        "serviceAccountToken": {
            "audience": settings.audience,
            "expirationSeconds": lifetime,
            "path": TOKEN.rpartition("/")[2],
        }
    }
    return [
        {"name": tls, "emptyDir": {"medium": "Memory", "sizeLimit": TLS_SIZE}},
        {"name": state, "emptyDir": {"medium": "Memory", "sizeLimit": STATE_SIZE}},
        {"name": token, "projected": {"sources": [projected]}},
        {
            "name": trust,
            "configMap": {"name": settings.trust, "items": [{"key": "ca.crt", "path": "ca.crt"}]},
        },
    ]


def _container(text: str, place: Place, settings: SidecarSettings, port: int) -> dict[str, Any]:
    source = ["--config", f"env:{CONFIG}"]
    made: dict[str, Any] = {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "restartPolicy": "Always",
        "args": ["run", *source, "--log-format", "json"],
        "env": [{"name": CONFIG, "value": text}],
        "startupProbe": {
            "exec": {"command": [PROGRAM, "ready", *source, "--wait", str(WAIT_SECONDS)]},
            "periodSeconds": PERIOD_SECONDS,
            "timeoutSeconds": PROBE_SECONDS,
            "failureThreshold": _failures(settings.start_within),
        },
        "resources": {
            "requests": {"cpu": settings.cpu_request, "memory": settings.memory_request},
            "limits": {"memory": settings.memory_limit},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsGroup": place.group,
            "runAsNonRoot": True,
            "runAsUser": place.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _own_mounts(),
    }
    if port:
        made["ports"] = [{"name": "agent-metrics", "containerPort": port, "protocol": "TCP"}]
    return made


def _own_mounts() -> list[dict[str, Any]]:
    tls, state, token, trust = VOLUMES
    return [
        {"name": tls, "mountPath": TLS},
        {"name": state, "mountPath": STATE},
        {"name": token, "mountPath": TOKEN.rpartition("/")[0], "readOnly": True},
        {"name": trust, "mountPath": TRUST.rpartition("/")[0], "readOnly": True},
    ]


def _failures(within: timedelta) -> int:
    """Return how many probes may fail until the container is started anew."""
    return max(1, math.ceil(within.total_seconds() / (WAIT_SECONDS + PERIOD_SECONDS)))
