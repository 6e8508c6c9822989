"""The mutating side: what a pod asks for is reviewed by the broker and put beside it, or refused.

Closed: whatever cannot be known is a refusal with a sentence.  A pod that does not ask is let
through as it is, and so is one that has its sidecar already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from broker.admission.annotations import is_asking, parse_wanted
from broker.admission.denials import Denied
from broker.admission.pods import Pod, find_place, is_injected, parse_pod
from broker.admission.reviews import Admitted, Asked, Outcome
from broker.admission.sidecar import SidecarSettings, make_patch
from broker.admission.verdicts import Reviewer, Verdict, Workload, why_not
from broker.issuance.errors import Broken, Unreachable

__all__ = ["Injecting", "Selecting"]


class Selecting(Protocol):
    """Knows the Services of the cluster."""

    @property
    def is_known(self) -> bool:
        """Whether they have been read at all."""
        ...

    def selecting(self, namespace: str, labels: Mapping[str, str]) -> Sequence[str]:
        """Return the names of the Services that select a pod with these labels."""
        ...


class Injecting:
    """Answers about pods."""

    def __init__(
        self,
        *,
        prefix: str,
        settings: SidecarSettings,
        reviewer: Reviewer,
        services: Selecting,
        on_namespace: Callable[[str], None] = lambda _namespace: None,
    ) -> None:
        """*on_namespace* is told where a pod was injected, for it needs the roots there."""
        self._prefix = prefix
        self._settings = settings
        self._reviewer = reviewer
        self._services = services
        self._on_namespace = on_namespace

    async def answer(self, asked: Asked, seconds: float) -> Admitted:
        """Return what becomes of the pod, within so many seconds; raises Malformed."""
        if asked.kind != "Pod" or asked.sub_resource or asked.operation != "CREATE":
            return Admitted(outcome=Outcome.UNTOUCHED)
        pod = parse_pod(asked.document, asked.namespace)
        if pod.is_mirror:
            return Admitted(outcome=Outcome.UNTOUCHED)
        try:
            return await self._answer(pod, asked, seconds)
        except Denied as denied:
            return self._refused(pod, Outcome.REFUSED, str(denied), 403)
        except (Unreachable, Broken) as fault:
            why = f"{fault.reason}: it is let in once the broker can be asked, try again"
            return self._refused(pod, Outcome.UNANSWERED, why, 503)

    async def _answer(self, pod: Pod, asked: Asked, seconds: float) -> Admitted:
        if not is_asking(pod.annotations, self._prefix) or is_injected(pod, self._prefix):
            return Admitted(outcome=Outcome.UNTOUCHED)
        wanted = parse_wanted(pod.annotations, self._prefix)
        place = find_place(pod, wanted, self._prefix)
        if not self._services.is_known:
            raise Unreachable("the Services of the cluster have not been read yet")
        verdict = await self._reviewer.review(
            Workload(
                namespace=pod.namespace,
                service_account=pod.service_account,
                pod=pod.name,
                services=tuple(self._services.selecting(pod.namespace, pod.labels)),
                names=wanted.names,
                profile=wanted.profile,
            ),
            seconds,
        )
        if not verdict.is_allowed:
            raise Denied(self._told(verdict, has_asked=bool(wanted.names)))
        if wanted.names and set(verdict.names) != set(wanted.names):
            raise Broken("the broker answered about other names than were asked for")
        if not asked.is_dry_run:
            self._on_namespace(pod.namespace)
        patch = make_patch(pod, wanted, place, verdict.names, self._settings, prefix=self._prefix)
        return Admitted(
            outcome=Outcome.INJECTED,
            patch=patch,
            warnings=place.warnings,
            notes={"names": ",".join(verdict.names), "upstreams": ",".join(verdict.upstreams)},
        )

    def _told(self, verdict: Verdict, *, has_asked: bool) -> str:
        asked = (
            f"annotation '{self._prefix}/names' asks for more than policy grants"
            if has_asked
            else "policy grants it no certificate"
        )
        return f"{asked}: {why_not(verdict)}"

    def _refused(self, pod: Pod, outcome: str, why: str, code: int) -> Admitted:
        message = f"penstock: {pod.shown} in namespace '{pod.namespace}': {why}"
        return Admitted(outcome=outcome, message=message, code=code)
