"""The chart with its examples, each rendered once."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.peers.helm import Document, Rendered, render

__all__ = ["EXAMPLES", "VALUE_SETS", "containers", "pod_specs", "rendered"]

EXAMPLES: Final = Path(__file__).resolve().parents[2] / "helm" / "examples"

VALUE_SETS: Final = ("default", *sorted(one.stem for one in (EXAMPLES / "values").glob("*.yaml")))
"""Names of the values that the chart is rendered with: none, and each of the examples."""


@functools.cache
def rendered(name: str) -> Rendered:
    """Return the chart with the values called *name*."""
    return render() if name == "default" else render(EXAMPLES / "values" / f"{name}.yaml")


def pod_specs(documents: list[Document]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the specification of every pod that *documents* lead to, hooks included."""
    for one in documents:
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield name, one["spec"]
        elif "template" in one.get("spec", {}):
            yield name, one["spec"]["template"]["spec"]


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all containers of a pod, those first that start first."""
    return [*spec.get("initContainers", ()), *spec["containers"]]
