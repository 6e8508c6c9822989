"""Which Services select a pod: known from the cluster, so that admission can tell its names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker.admission.cluster_api import Selection
from broker.admission.mirrors import Mirror

__all__ = ["SERVICES", "Selector", "Services", "reduce_service"]

SERVICES: Final = Selection("/api/v1/services")
"""All Services of the cluster."""

MAX_LABELS: Final = 64
"""Most labels that a selector may have: none that means pods has ten, and one with 100,000, which
an API server takes, would be kept here for as long as it is there.  A longer one selects nobody."""

MAX_SELECTOR_CHARS: Final = 1024
"""Longest selector, in characters of its names and values: eight labels, each as long as it may be
without a prefix, where usual ones have fifty in all.  A longer one selects nobody, in admission and
for the broker (``channel.cluster_pods``)."""


@dataclass(frozen=True, slots=True)
class Selector:
    """The labels that a Service selects pods by."""

    labels: tuple[tuple[str, str], ...]

    def is_fit(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a pod with *labels* is selected."""
        return all(labels.get(name) == value for name, value in self.labels)


def reduce_service(document: Mapping[str, Any]) -> Selector | None:
    """Return what is kept of a Service; None for one that selects no pod by labels."""
    spec = document.get("spec")
    if not isinstance(spec, dict) or spec.get("type") == "ExternalName":
        return None
    found = spec.get("selector")
    if not isinstance(found, dict) or not 0 < len(found) <= MAX_LABELS:
        return None
    labels = tuple(sorted((str(name), str(value)) for name, value in found.items()))
    is_short = sum(len(name) + len(value) for name, value in labels) <= MAX_SELECTOR_CHARS
    return Selector(labels) if is_short else None


class Services:
    """Implements ``injecting.Selecting``."""

    def __init__(self, mirror: Mirror[Selector]) -> None:
        self._mirror = mirror

    @property
    def is_known(self) -> bool:
        """Whether they have been read at all."""
        return self._mirror.is_known

    def selecting(self, namespace: str, labels: Mapping[str, str]) -> Sequence[str]:
        """Return the names of the Services of *namespace* that select *labels*, in order."""
        return sorted(
            name
            for (where, name), selector in self._mirror.items()
            if where == namespace and selector.is_fit(labels)
        )
