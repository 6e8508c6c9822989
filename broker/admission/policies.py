"""The validating side: a ConfigMap with policies is tried with all others before it is stored.

What is tried is the set as it would be after the change: every ConfigMap of our own namespace that
has the label, with this one in the place of what it is now.  Whether it loads and whether its cases
pass is found by whoever knows policies; here it is only put together and told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from broker.admission.cluster_api import Cluster, NotThere, Selection
from broker.admission.denials import Malformed
from broker.admission.reviews import Admitted, Asked, Outcome, members, text_of
from broker.issuance.errors import Broken, Conflict, Unreachable

__all__ = ["Policies", "Trial", "Trying", "files_of"]

MAX_FAULTS: Final = 5
"""Most faults of one sentence; `penstock policy test` tells all."""

ENDINGS: Final = (".yaml", ".yml")
"""What the names of policy files end with; other keys are none of ours."""

Files = Mapping[str, bytes]
"""Content by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of a set."""

    faults: Sequence[str]
    """Each with its place; nothing: it can come into force."""
    cases: int
    """How many cases passed."""


class Trying(Protocol):
    """Knows what policies are."""

    async def try_set(self, directories: Mapping[str, Files], config: bytes | None) -> Trial:
        """Return what comes of the files of these directories as one set.

        *config* is the broker's configuration, None where nothing newer is known than its file.

        Raises:
            Unreachable: It could not be tried now.
            Broken: It can never be tried as things are configured here.
        """
        ...


class Policies:
    """Answers about ConfigMaps."""

    def __init__(
        self,
        cluster: Cluster,
        trying: Trying,
        *,
        namespace: str,
        label: str,
        config: tuple[str, str] | None = None,
    ) -> None:
        """Try what has *label* in *namespace*; *config* names ConfigMap and key of the broker's
        configuration there."""
        self._cluster = cluster
        self._trying = trying
        self._namespace = namespace
        self._label = label
        self._config = config

    async def answer(self, asked: Asked) -> Admitted:
        """Return whether the ConfigMap may be stored; raises Malformed."""
        is_ours = asked.kind == "ConfigMap" and asked.namespace == self._namespace
        if not is_ours or asked.sub_resource or asked.operation not in {"CREATE", "UPDATE"}:
            return Admitted(outcome=Outcome.UNTOUCHED)
        if not (self._has_label(asked.document) or self._has_label(asked.former)):
            return Admitted(outcome=Outcome.UNTOUCHED)
        try:
            trial = await self._trying.try_set(await self._after(asked), await self._configured())
        except (Unreachable, Broken, Conflict, NotThere) as fault:
            return Admitted(
                outcome=Outcome.UNANSWERED,
                message=f"penstock: policies could not be tried: {fault}: try again",
                code=503,
            )
        if trial.faults:
            return Admitted(outcome=Outcome.REFUSED, message=_told(trial.faults))
        return Admitted(outcome=Outcome.ACCEPTED, notes={"cases": str(trial.cases)})

    async def _after(self, asked: Asked) -> dict[str, Files]:
        """Return the files of each ConfigMap as they would be after the change."""
        path = f"/api/v1/namespaces/{self._namespace}/configmaps"
        listed = await self._cluster.list(
            Selection(path, labels=self._label),
            lambda one: (text_of(members(one, "metadata"), "name"), files_of(one)),
        )
        found: dict[str, Files] = dict(listed.items)
        found.pop(asked.name, None)
        if self._has_label(asked.document):
            found[asked.name] = files_of(asked.document)
        return found

    async def _configured(self) -> bytes | None:
        """Return the broker's configuration as it lies in the cluster now.

        What is mounted here lags behind by as long as a kubelet takes: a CA that came in the same
        upgrade as the policy that chooses it would not be known yet.
        """
        if self._config is None:
            return None
        name, key = self._config
        path = f"/api/v1/namespaces/{self._namespace}/configmaps"
        listed = await self._cluster.list(
            Selection(path, fields=f"metadata.name={name}"),
            lambda one: members(one, "data").get(key),
        )
        for text in listed.items:
            if isinstance(text, str):
                return text.encode("utf-8", "surrogatepass")
        return None

    def _has_label(self, document: Mapping[str, Any]) -> bool:
        return self._label in members(members(document, "metadata"), "labels")


def files_of(document: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the policy files of a ConfigMap by their keys; raises Malformed.

    What is under ``binaryData`` is no text, and is told as a file that is none.
    """
    found: dict[str, bytes] = {}
    for name, text in members(document, "data").items():
        if not isinstance(text, str):
            raise Malformed("data of a ConfigMap is no text")
        if name.endswith(ENDINGS):
            found[name] = text.encode("utf-8", "surrogatepass")
    for name in members(document, "binaryData"):
        if name.endswith(ENDINGS):
            found[name] = b"\xff"
    return found


def _told(faults: Sequence[str]) -> str:
    shown = "; ".join(faults[:MAX_FAULTS])
    more = len(faults) - MAX_FAULTS
    left = f"; and {more} more, see `penstock policy test`" if more > 0 else ""
    return f"penstock: these policies would not come into force: {shown}{left}"
