"""A broker whose configuration lies as Kubernetes mounts a ConfigMap, and is changed as it does."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.deployments.node_agents import TrustingPenstock
from tests.peers import process

__all__ = ["TAKEN_SECONDS", "FollowingPenstock"]

TAKEN_SECONDS: Final = 120.0
"""Longest until a change is taken, in seconds: the rest of a turn, two looks and a start are 8."""


class FollowingPenstock(TrustingPenstock):
    """A broker that follows its file, with what it served last kept in its state directory."""

    def __init__(self, tmp: Path, *, is_following: bool = True, **options: Any) -> None:
        super().__init__(tmp, **options)
        self.is_following = is_following
        self.last_good = self.state / "last-good.json"
        self._folder = tmp / "config"
        self._numbers = itertools.count()
        self.config = self._folder / "penstock.yaml"
        self._environment = {**self._environment, "PENSTOCK_LAST_GOOD": str(self.last_good)}

    def write(self) -> None:
        """Write configuration and policy anew."""
        plain, self.config = self.config, self.directory / "written.yaml"
        super().write()
        self.config = plain
        self.swap((self.directory / "written.yaml").read_text())

    def swap(self, text: str) -> None:
        """Put *text* there in one step: a new directory, and one link renamed."""
        release = self._folder / f"..release_{next(self._numbers)}"
        release.mkdir(parents=True)
        (release / "penstock.yaml").write_text(text)
        link = self._folder / "..next"
        link.symlink_to(release.name)
        link.rename(self._folder / "..data")
        if not self.config.is_symlink():
            self.config.symlink_to("..data/penstock.yaml")

    def change(self, **members: Any) -> str:
        """Swap in the configuration with other *members*, and return its digest."""
        text = json.dumps({**self.config_document(), **members}, indent=1)
        self.swap(text)
        return hashlib.sha256(text.encode()).hexdigest()

    def command(self) -> Sequence[str]:
        """Return the command line of a broker that follows."""
        return [*super().command(), *(["--follow"] if self.is_following else [])]

    # ---------------------------------------------------------------------------------- told

    def config_status(self) -> Mapping[str, Any]:
        """Return what an operator is told of the configuration."""
        found: Mapping[str, Any] = self.json("status")["configuration"]
        return found

    def turns(self) -> int:
        """Return how often a turn has begun to serve."""
        return len(re.findall(r'"event": "serving"', self.log_text()))

    def readyz(self) -> str:
        """Return what the probe says, ready or not."""
        return self._said("readyz")

    def metrics(self) -> str:
        """Return the metrics page, or why there is none between two turns."""
        return self._said("metrics")

    def _said(self, path: str) -> str:
        try:
            return process.get(f"http://127.0.0.1:{self.health_port}/{path}").decode()
        except process.PeerFailed as failed:
            _, is_unready, said = str(failed).partition(" answered 503: ")
            if not is_unready:
                raise
            return said

    def wait_taken(self, digest: str) -> float:
        """Return after how many seconds the text of this *digest* serves."""
        begun = time.monotonic()
        word = f'penstock_config_info{{sha256="{digest}"}} 1.0'
        process.wait_until(lambda: word in self.metrics(), TAKEN_SECONDS, f"{digest} serves")
        return time.monotonic() - begun

    def wait_agreed(self) -> None:
        """Return once the file is what serves."""
        process.wait_until(self._has_agreed, TAKEN_SECONDS, "the file serves")

    def _has_agreed(self) -> bool:
        said = self.readyz()
        return "[!] configuration" not in said and "not ready\n" not in said

    def wait_refused(self, words: str) -> str:
        """Return what the probe says once the file is refused in these *words*."""
        process.wait_until(lambda: words in self.readyz(), TAKEN_SECONDS, f"{words} is told")
        return self.readyz()
