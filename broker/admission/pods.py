"""A pod as the webhook looks at it, and where the sidecar fits into it.  Pure.

Answers for whom the key is: the one user that the application runs as.  What would let anybody else
read it, or leave the application without it, is refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from broker.admission.annotations import MAX_USER, Wanted
from broker.admission.denials import Denied, Malformed, shown
from broker.admission.reviews import members, text_of

__all__ = ["CONTAINER", "VOLUMES", "Place", "Pod", "find_place", "is_injected", "parse_pod"]

CONTAINER: Final = "penstock-agent"
"""What the sidecar is called."""

CONFIG: Final = "PENSTOCK_AGENT_CONFIG"
"""The variable that holds its configuration."""

VOLUMES: Final = ("penstock-tls", "penstock-state", "penstock-token", "penstock-trust")
"""What its volumes are called: the application's files, its own state, its token, the roots."""

MIRROR: Final = "kubernetes.io/config.mirror"
"""Annotation of a pod that a kubelet reports and nobody can change."""

LINUX_ONLY: Final = "kubernetes.io/os"
"""Label of nodes that tells their system."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """What is read of a pod."""

    namespace: str
    name: str
    """Its name, or what the server makes one up from, which ends with a dash."""
    service_account: str
    labels: Mapping[str, str]
    annotations: Mapping[str, Any]
    spec: Mapping[str, Any]
    containers: Sequence[Mapping[str, Any]]
    init_containers: Sequence[Mapping[str, Any]]
    volumes: Sequence[Mapping[str, Any]]

    @property
    def shown(self) -> str:
        """Return what people call it."""
        name = self.name or "without a name"
        return f"pod {shown(name + '…' if name.endswith('-') else name)}"

    @property
    def is_mirror(self) -> bool:
        """Whether a kubelet reports it: it runs already."""
        return MIRROR in self.annotations


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the sidecar goes, and whom its files are for."""

    user: int
    group: int
    containers: tuple[int, ...]
    """Which of the containers get the files, by their number."""
    init_containers: tuple[int, ...] = ()
    is_sharing_processes: bool = False
    """Whether the pod's containers have to see each other's processes."""
    warnings: tuple[str, ...] = field(default=())


def parse_pod(document: Mapping[str, Any], namespace: str) -> Pod:
    """Return the pod that *document* describes; raises Malformed."""
    metadata, spec = members(document, "metadata"), members(document, "spec")
    labels = members(metadata, "labels")
    if not all(isinstance(value, str) for value in labels.values()):
        raise Malformed("a label is no text")
    return Pod(
        namespace=namespace,
        name=text_of(metadata, "name") or text_of(metadata, "generateName"),
        service_account=text_of(spec, "serviceAccountName") or "default",
        labels=labels,
        annotations=members(metadata, "annotations"),
        spec=spec,
        containers=_objects(spec, "containers"),
        init_containers=_objects(spec, "initContainers"),
        volumes=_objects(spec, "volumes"),
    )


def is_injected(pod: Pod, prefix: str) -> bool:
    """Tell whether the sidecar is there; the annotation alone, which anybody can copy, is not."""
    if pod.annotations.get(f"{prefix}/status") != "injected":
        return False
    found = next((one for one in pod.init_containers if one.get("name") == CONTAINER), None)
    return found is not None and any(one.get("name") == CONFIG for one in _objects(found, "env"))


def find_place(pod: Pod, wanted: Wanted, prefix: str) -> Place:
    """Return where the sidecar goes.

    Raises:
        Denied: It does not fit into this pod.
    """
    _check_free(pod)
    _check_system(pod)
    containers, init_containers = _find_containers(pod, wanted, prefix)
    chosen = [pod.containers[one] for one in containers]
    chosen += [pod.init_containers[one] for one in init_containers]
    for one in chosen:
        _check_mounts(one, wanted.path, prefix)
    user = _find_user(pod, chosen, wanted, prefix)
    if wanted.reload is not None:
        _check_sharing(pod, chosen, user, prefix)
    return Place(
        user=user,
        group=_find_group(pod, chosen) or user,
        containers=containers,
        init_containers=init_containers,
        is_sharing_processes=wanted.reload is not None,
        warnings=tuple(_warn(pod)),
    )


def _check_free(pod: Pod) -> None:
    taken = [str(one.get("name")) for one in (*pod.containers, *pod.init_containers)]
    if CONTAINER in taken:
        raise Denied(
            f"container '{CONTAINER}' is there already",
            "take it away or give it another name, or leave out the annotations and keep it",
        )
    for one in pod.volumes:
        if one.get("name") in VOLUMES:
            raise Denied(
                f"volume {shown(one.get('name'))} is there already", "give it another name"
            )


def _check_system(pod: Pod) -> None:
    selector = members(pod.spec, "nodeSelector")
    system = text_of(members(pod.spec, "os"), "name") or selector.get(LINUX_ONLY, "linux")
    if system != "linux":
        raise Denied(
            f"the pod is for {shown(system)}", "the agent's image is for Linux: leave out inject"
        )


def _find_containers(
    pod: Pod, wanted: Wanted, prefix: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return which containers, and which of those before them, get the files."""
    if not wanted.containers:
        return tuple(range(len(pod.containers))), ()
    names = [one.get("name") for one in pod.containers]
    before = [one.get("name") for one in pod.init_containers]
    for one in wanted.containers:
        if one not in names and one not in before:
            known = ", ".join(str(name) for name in (*names, *before))
            raise Denied(
                f"annotation '{prefix}/containers' names {shown(one)}, which the pod does not have",
                f"it has {known}",
            )
    return (
        tuple(number for number, name in enumerate(names) if name in wanted.containers),
        tuple(number for number, name in enumerate(before) if name in wanted.containers),
    )


def _check_mounts(container: Mapping[str, Any], path: str, prefix: str) -> None:
    for one in _objects(container, "volumeMounts"):
        if str(one.get("mountPath")).rstrip("/") == path:
            raise Denied(
                f"container {shown(container.get('name'))} mounts volume {shown(one.get('name'))} "
                f"at {shown(path)}, where the certificate would be",
                f"name another place in annotation '{prefix}/path'",
            )


def _find_user(pod: Pod, chosen: Sequence[Mapping[str, Any]], wanted: Wanted, prefix: str) -> int:
    """Return the one user that the key is for."""
    hint = f"set runAsUser, or name the user's number in annotation '{prefix}/user'"
    users = {str(one.get("name")): _number(pod, one, "runAsUser") for one in chosen}
    known = {user for user in users.values() if user is not None}
    if wanted.user is not None:
        # Whoever is root in its container reads the file whoever it is for.
        others = sorted(known - {0, wanted.user})
        if others:
            raise Denied(
                f"annotation '{prefix}/user' is {wanted.user}, and a container runs as {others[0]}",
                "the key is for one user: let them agree",
            )
        return wanted.user
    if len(known) > 1:
        told = " and ".join(f"{name!r} as {user}" for name, user in users.items() if user in known)
        raise Denied(
            f"containers run as several users, {told[:200]}, and the key is for one",
            f"name those that need it in annotation '{prefix}/containers'",
        )
    if not known or None in users.values():
        name = next((name for name, user in users.items() if user is None), "")
        raise Denied(f"it is not said as which user container {shown(name)} runs", hint)
    user = known.pop()
    if user == 0:
        raise Denied(
            "the application runs as root, and the agent does not",
            f"set another runAsUser, or name in annotation '{prefix}/user' whom the key is for "
            "where root there may read it",
        )
    return user


def _find_group(pod: Pod, chosen: Sequence[Mapping[str, Any]]) -> int | None:
    groups = {_number(pod, one, "runAsGroup") for one in chosen}
    found = groups.pop() if len(groups) == 1 else None
    return found or None


def _number(pod: Pod, container: Mapping[str, Any], name: str) -> int | None:
    """Return a number of the container's own security context, else of the pod's."""
    for holder in (container, pod.spec):
        found = members(holder, "securityContext").get(name)
        if found is None:
            continue
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= MAX_USER:
            raise Malformed(f"{name} is no number of a user")
        return found
    return None


def _check_sharing(pod: Pod, chosen: Sequence[Mapping[str, Any]], user: int, prefix: str) -> None:
    """Refuse a signal that could not be sent, or could reach another pod's process."""
    what = f"annotation '{prefix}/reload' needs the agent to see the application's process"
    if pod.spec.get("hostPID") is True:
        raise Denied(f"{what}, and with hostPID it would see all of the node's", "leave one out")
    if pod.spec.get("shareProcessNamespace") is False:
        raise Denied(f"{what}, and shareProcessNamespace is false", "leave one of them out")
    for one in chosen:
        if _number(pod, one, "runAsUser") not in (None, user):
            raise Denied(
                f"{what} and container {shown(one.get('name'))} runs as another user than the "
                "agent, which may not signal it",
                "leave out reload, or let both be the same user",
            )


def _warn(pod: Pod) -> Iterator[str]:
    if (
        pod.spec.get("hostNetwork") is True
        and pod.spec.get("dnsPolicy", "ClusterFirst") == "ClusterFirst"
    ):
        yield (
            "penstock: hostNetwork without dnsPolicy ClusterFirstWithHostNet: the agent may not "
            "find the broker's Service by name"
        )
    if pod.spec.get("hostPID") is True:
        yield "penstock: with hostPID, processes of the same user on the node can read the key"


def _objects(document: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    found = document.get(name)
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Malformed(f"'{name}' is no list of objects")
    return found
