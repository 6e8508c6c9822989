"""The hostile CA as a process of its own, which a killed broker doesn't take along."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.fakes.hostile_ca.ledger import Ledger
from tests.fakes.hostile_ca.script import Resource, Script
from tests.peers import process

REPOSITORY: Final = Path(__file__).resolve().parents[3]


class HostileCaProcess(process.Peer):
    """Starts ``python -m tests.fakes.hostile_ca`` and speaks to its control page."""

    name = "hostile-ca"

    def __init__(
        self,
        tmp: Path,
        script: Script | None = None,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(tmp)
        self._environment = environment or {}
        self._first_script = script
        self.port = process.free_port()
        self._control_port = process.free_port()
        self._state = tmp / "state.json"
        self.directory_url = f"https://127.0.0.1:{self.port}/{Resource.DIRECTORY}"
        self.control_url = f"http://127.0.0.1:{self._control_port}"

    def command(self) -> Sequence[str]:
        """Return the command line."""
        self._state.unlink(missing_ok=True)
        ports = ["--port", str(self.port), "--control-port", str(self._control_port)]
        state = ["--state", str(self._state)]
        return [sys.executable, "-m", "tests.fakes.hostile_ca", *state, *ports]

    def environment(self) -> dict[str, str]:
        """Return the environment, with the repository on Python's path."""
        return process.clean_environment(
            self.directory, {"PYTHONPATH": str(REPOSITORY), **self._environment}
        )

    def is_ready(self) -> bool:
        """See that the CA has written how to reach it."""
        return self._state.exists()

    def start(self) -> None:
        """Start the CA and give it its first script."""
        super().start()
        if self._first_script is not None:
            self.set_script(self._first_script)

    @property
    def ca_bundle(self) -> Path:
        """The bundle to trust for talking to it."""
        return Path(self._described()["ca_bundle"])

    def root_pem(self) -> bytes:
        """Return the root that honest certificates lead to."""
        return str(self._described()["root_pem"]).encode()

    def ledger(self) -> Ledger:
        """Return what the CA has done up to now."""
        return Ledger.from_json(json.loads(process.get(f"{self.control_url}/ledger")))

    def script(self) -> Script:
        """Return what is left of the script."""
        return Script.from_json(json.loads(process.get(f"{self.control_url}/script")))

    def set_script(self, script: Script) -> None:
        """Replace the script."""
        process.post_json(f"{self.control_url}/script", script.to_json())

    def release(self) -> None:
        """Let every request go on that hangs now."""
        process.post_json(f"{self.control_url}/release", {})

    def wait_seen(self, resource: Resource, count: int = 1, *, seconds: float = 30) -> None:
        """Return once *resource* has been asked for *count* times in all.

        Raises:
            PeerFailed: Not within *seconds*.
        """
        wanted = {"resource": resource, "count": count, "seconds": seconds}
        process.post_json(f"{self.control_url}/seen", wanted, seconds=seconds + 5)

    def _described(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self._state.read_text("utf-8"))
        return document
