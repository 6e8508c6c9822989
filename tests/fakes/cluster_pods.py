"""Pods and Services of a cluster in memory, as its API server knows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from broker.issuance.errors import Unreachable
from broker.protocol.service_account_token import TokenRejected

__all__ = ["FakePods"]


class FakePods:
    """The port ClusterPods over what a test says."""

    def __init__(
        self, pods: Mapping[str, Mapping[str, str]], selectors: Mapping[str, Mapping[str, str]]
    ) -> None:
        """Know the labels of *pods* and what each Service selects, whatever the namespace."""
        self.pods = dict(pods)
        self.selectors = dict(selectors)
        self.is_away = False
        self.asked: list[str] = []

    async def labels_of(self, namespace: str, pod: str, pod_uid: str | None) -> Mapping[str, str]:
        """See the port."""
        self._ask(f"pod {namespace}/{pod} {pod_uid or ''}".strip())
        if pod not in self.pods:
            raise TokenRejected(f"pod {namespace}/{pod} is gone")
        return self.pods[pod]

    async def services_for(self, namespace: str, labels: Mapping[str, str]) -> Sequence[str]:
        """See the port."""
        self._ask(f"services {namespace}")
        return sorted(
            name
            for name, wanted in self.selectors.items()
            if all(labels.get(label) == value for label, value in wanted.items())
        )

    def _ask(self, what: str) -> None:
        if self.is_away:
            raise Unreachable("the API server is away")
        self.asked.append(what)
